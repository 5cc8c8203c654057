import '../support/own-namespace.js';
import assert from 'node:assert/strict';
import { parseAddress } from 'sluice-gateway/net/address.js';
import { type Prefix, prefixOf } from 'sluice-gateway/net/prefix.js';
import { Batch } from 'sluice-gateway/nft/batch.js';
import { printProgram } from 'sluice-gateway/nft/print.js';
import type { Program } from 'sluice-gateway/nft/program.js';
import { programOf } from 'sluice-gateway/policy/compile.js';
import { closedPolicy } from 'sluice-gateway/policy/compile-all.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import t from 'tap';
import { caseArbitrary, walkArbitrary } from '../support/arbitrary.js';
import {
  compileAll,
  inForce,
  Loader,
  type LoadInput,
  labInterfaces,
  prefixes,
  rule,
  TEST_EPOCH,
} from '../support/load.js';
import { here } from '../support/namespace.js';
import { patience } from '../support/patience.js';
import { rounds } from '../support/seed.js';
import { printCase, printWalk, tryProperty } from '../support/try-property.js';

/** The kernel as a judge: what nft lists of our program is what it lists of the same text loaded by nft itself. */

t.setTimeout((240_000 + 60_000 * rounds) * patience);

const space = {
  sources: prefixes('10.0.128.0/29', '10.0.128.0/17', 'fd00:a::/64'),
  destinations: prefixes('203.0.113.0/29', '20.0.0.0/7', '2001:db8::/48', '2600::/16'),
};
const NOW = new Date('2026-11-01T00:00:00Z');
const masquerading = {
  ...labInterfaces,
  inputIcmp: false,
  snat: { interfaces: ['wan0'], to: 'masquerade' as const },
};
const translating = {
  ...labInterfaces,
  snat: { interfaces: ['wan0', 'dc0'], to: parseAddress('198.18.0.1') },
  newConnectionsPerSecondMax: 5_000,
};
const translating6 = { ...labInterfaces, snat: { interfaces: ['wan0'], to: parseAddress('fd00:f::1') } };
const everyInterfaces = [labInterfaces, masquerading, translating, translating6];

const loader = new Loader();
t.teardown(() => loader.close());

/** What nft lists, in the order of names: chains, maps, and the elements of those that are no intervals. */
function listed(): string {
  const text = here.run('nft', ['list', 'table', 'inet', 'sluice']).replace(/\}\n$/, '');
  const blocks = text.split(/^(?=\t(?:map|set|chain|counter|limit) )/m);
  const inOrder = (block: string) => {
    const [, elements] = /elements = \{([^}]*)\}/.exec(block) ?? [];
    if (elements === undefined || block.includes('flags interval')) return block.trim();
    const sorted = elements.split(',').map((part) => part.trim());
    return block.replace(elements, ` ${sorted.sort().join(', ')} `).trim();
  };
  return blocks.map(inOrder).sort().join('\n');
}

async function startAfresh(): Promise<void> {
  if (await loader.kernel.hasTable()) await loader.kernel.commit(new Batch().deleteTable());
  await loader.applier.takeOver();
  loader.startAnew(TEST_EPOCH);
}

/** Lists what is loaded, and the same program loaded by nft alone. Leaves no table. */
function compareListing(program: Program): string {
  const ours = listed();
  here.run('nft', ['delete', 'table', 'inet', 'sluice']);
  const input = printProgram(program);
  here.run('nft', ['-c', '-f', '-'], { input });
  here.run('nft', ['-f', '-'], { input });
  assert.equal(ours, listed());
  return ours;
}

async function compareLoaded(input: LoadInput): Promise<string> {
  await startAfresh();
  await loader.load(input);
  return compareListing(compileAll(input, loader.generation));
}

t.test('nft lists a random program as it lists the same program loaded by nft', async () => {
  let index = 0;
  await tryProperty(caseArbitrary(space, 0), printCase, 12 * rounds, async ({ policy, groups }) => {
    await compareLoaded({
      policy: policyInForce(policy, NOW),
      groups,
      excluded: prefixes('10.0.1.1/32', 'fd00:1::1/128'),
      interfaces: everyInterfaces[index++ % everyInterfaces.length]!,
    });
  });
});

t.test('the same after edits in place, and what they came to is what is loaded afresh', async (t) => {
  await startAfresh();
  const known = (...functions: string[]): LoadInput => ({
    policy: inForce(rule('known', 'PERMIT', 'functions', 'servers')),
    groups: new Map([
      ['functions', prefixes(...functions, '250.0.0.0/8')],
      ['servers', prefixes('203.0.113.0/24')],
    ]),
  });
  await loader.change(known('10.0.1.0/24'));
  t.equal(await loader.change(known('10.0.1.0/24', '10.0.9.0/24')), 'edited');
  compareListing(loader.program!);
  await tryProperty(walkArbitrary(space, 8, 0), printWalk, 8 * rounds, async (steps) => {
    await startAfresh();
    for (const { policy, groups } of steps) {
      await loader.change({ policy: policyInForce(policy, NOW), groups });
    }
    await loader.applier.collect();
    compareListing(loader.program!);
  });
});

const groups = new Map([
  ['functions', prefixes('10.0.128.0/17', 'fd00:a::/64')],
  ['servers', prefixes('203.0.113.0/24', '2606:2800::/32', '255.255.255.255/32')],
  ['anywhere', prefixes('0.0.0.0/0', '::/0')],
]);

t.test('each kind of rule and of translation', async (t) => {
  const policy = inForce(
    rule('watched', 'PERMIT', 'functions', 'servers', { enforcement: 'MONITOR', protocol: 'TCP' }),
    rule('refused', 'REJECT', 'functions', 'servers', { portRanges: [{ lo: 22, hi: 23 }] }),
    rule('denied', 'DENY', 'functions', 'servers', { protocol: 'ICMP' }),
    rule('web', 'PERMIT', 'functions', 'anywhere', { protocol: 'TCP', portRanges: [{ lo: 443, hi: 443 }] }),
  );
  const texts = [];
  for (const interfaces of everyInterfaces) texts.push(await compareLoaded({ policy, groups, interfaces }));
  for (const [index, words] of [
    /monitor_[0-9a-f]{16}/,
    /masquerade/,
    /snat ip to/,
    /snat ip6 to/,
  ].entries()) {
    t.match(texts[index], words);
  }
  t.match(texts[0], /reject with tcp reset[^}]*reject with icmpx admin-prohibited/);
  t.match(texts[0], /type ipv6_addr/);
  t.match(texts[0], /255\.255\.255\.255/, 'the top of the address space');
});

t.test('no policy at all, and a policy without rules', async () => {
  await startAfresh();
  const closed = programOf(closedPolicy, labInterfaces, 1);
  await loader.applier.apply(closed);
  compareListing(closed);
  await compareLoaded({ policy: inForce(), groups: new Map() });
});

t.test('several shards a side, and edits in some of them', async (t) => {
  const many = (top: bigint): Prefix[] =>
    Array.from({ length: 2_500 }, (_, index) =>
      prefixOf({ family: 4, value: (top << 24n) + BigInt(index * 2) }, 32),
    );
  const many6 = Array.from({ length: 2_500 }, (_, index) =>
    prefixOf({ family: 6, value: (0x2600n << 112n) + (BigInt(index) << 64n) }, 64),
  ).filter((_, index) => index % 2 === 0);
  const of = (extra: readonly Prefix[]) => ({
    policy: inForce(rule('many', 'PERMIT', 'left', 'right')),
    groups: new Map([
      ['left', [...many(10n), ...prefixes('fd00:a::/64')]],
      ['right', [...many(20n), ...many6, ...prefixes('200.0.0.0/8'), ...extra]],
    ]),
  });
  await startAfresh();
  await loader.load(of([]));
  t.equal(await loader.change(of(prefixes('20.0.0.1/32', '20.0.19.1/32'))), 'edited');
  await loader.applier.collect();
  const shards = (side: string) =>
    loader.program!.maps.filter(({ name }) => name.startsWith(`${side}4_classes`)).length;
  t.ok(
    shards('source') > 1 && shards('destination') > 1,
    `${shards('source')} and ${shards('destination')} shards`,
  );
  compareListing(loader.program!);
});
