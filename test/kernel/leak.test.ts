import '../support/own-namespace.js';
import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import { printAddress } from 'sluice-gateway/net/address.js';
import type { ApplyError } from 'sluice-gateway/nft/apply.js';
import type { Program } from 'sluice-gateway/nft/program.js';
import { evaluate, type GroupPrefixes } from 'sluice-gateway/policy/evaluate.js';
import { type PolicyInForce, policyInForce } from 'sluice-gateway/policy/in-force.js';
import type { Action, DefaultAction, PolicyRule } from 'sluice-gateway/policy/model.js';
import t from 'tap';
import { TCP, type TestPacket } from '../support/frames.js';
import { compileAll, prefixes, rule } from '../support/load.js';
import { FILE_MS_MAX } from '../support/patience.js';
import { rounds, seed } from '../support/seed.js';
import { back, type Flow, flow, reversed, Stand, there } from '../support/stand.js';

/**
 * Invariants 1 and 2 under traffic: while policy changes around them hundreds of times, connections that every
 * policy permits lose no packet, and of those that every policy denies none gets through.
 */

const CHANGES = 200 * rounds;
/** Every so many changes the old content is collected, and as often a program fails to be applied. */
const COLLECT_EVERY = 40;
const FAIL_EVERY = 20;
const PER_SECOND = 3_000;
/** A second after the switch packets have left the old content, says `Applier.collect`; not before. */
const COLLECT_MS = 1_000;

type Tap = typeof t;

t.setTimeout(FILE_MS_MAX);

const stand = await Stand.create();
t.teardown(() => stand.close());

const SOURCE = { 4: '10.0.128.5', 6: 'fd00:a::5' } as const;
const DENIED_SOURCE = { 4: '10.0.128.66', 6: 'fd00:a::66' } as const;
const SERVER = { 4: '203.0.113.11', 6: '2606:2800::1:10' } as const;
const DENIED_SERVER = { 4: '203.0.113.66', 6: '2606:2800::1:66' } as const;
const REVOKED_SERVER = { 4: '203.0.113.77', 6: '2606:2800::1:77' } as const;
const FAMILIES = [4, 6] as const;

const permitted = FAMILIES.flatMap((family) => [
  flow(6, SOURCE[family], SERVER[family], 443),
  flow(17, SOURCE[family], SERVER[family], 443),
]);
/** Permitted before the first change. */
const revoked = FAMILIES.flatMap((family) => [
  flow(6, SOURCE[family], REVOKED_SERVER[family], 443),
  flow(17, SOURCE[family], REVOKED_SERVER[family], 443),
]);
const denied = FAMILIES.flatMap((family) => [
  flow(6, SOURCE[family], DENIED_SERVER[family], 443),
  flow(17, SOURCE[family], DENIED_SERVER[family], 443),
  flow(6, SOURCE[family], SERVER[family], 22),
  flow(17, SOURCE[family], SERVER[family], 53),
  flow(6, DENIED_SOURCE[family], SERVER[family], 443),
  flow(17, DENIED_SOURCE[family], SERVER[family], 443),
]);

/** What the flows are about, under the names that the rules below use. */
const fixedGroups: GroupPrefixes = new Map([
  ['source', prefixes('10.0.128.5/32', 'fd00:a::5/128')],
  ['sources', prefixes('10.0.128.0/17', 'fd00:a::/64')],
  ['denied sources', prefixes('10.0.128.64/26', 'fd00:a::66/128')],
  ['server', prefixes('203.0.113.11/32', '2606:2800::1:10/128')],
  ['servers', prefixes('203.0.113.0/24', '2606:2800::/32')],
  ['anywhere', prefixes('0.0.0.0/0', '::/0')],
  [
    'denied servers',
    prefixes('203.0.113.64/28', '203.0.113.66/32', '2606:2800::1:60/124', '2606:2800::1:77/128'),
  ],
]);
const web = { portRanges: [{ lo: 443, hi: 443 }] };
const notWeb = {
  portRanges: [
    { lo: 0, hi: 442 },
    { lo: 444, hi: 65_535 },
  ],
};
const outside = ['server', 'servers', 'anywhere'];

interface Core {
  readonly rules: readonly PolicyRule[];
  readonly byDefault: Action;
}

/** The same decisions three ways: permits alone, denials before a wide permit, denials and a default permit. */
const coreArbitrary: fc.Arbitrary<Core> = fc
  .record({
    no: fc.constantFrom<Action>('DENY', 'DENY', 'REJECT'),
    wide: fc.constantFrom(...outside),
    src: fc.constantFrom('sources', 'anywhere'),
    shape: fc.constantFrom('exact', 'denials first', 'all but'),
  })
  .map(({ no, wide, src, shape }): Core => {
    const denials = [
      rule('no source', no, 'denied sources', 'anywhere'),
      rule('no server', no, src, 'denied servers'),
    ];
    switch (shape) {
      case 'exact':
        return { rules: [rule('web', 'PERMIT', 'source', 'server', web)], byDefault: no };
      case 'denials first':
        return { rules: [...denials, rule('web', 'PERMIT', src, wide, web)], byDefault: no };
      default:
        return {
          rules: [
            ...denials,
            rule('nothing in', no, 'anywhere', 'sources'),
            rule('not web', no, src, wide, notWeb),
          ],
          byDefault: 'PERMIT',
        };
    }
  });

/** Prefixes in and around what the flows are about, which cut it into other classes at each change. */
const prefixArbitrary = fc.oneof(
  fc
    .tuple(fc.nat(255), fc.integer({ min: 24, max: 32 }))
    .map(([last, bits]) => `203.0.113.${last & (256 - 2 ** (32 - bits))}/${bits}`),
  fc.tuple(fc.nat(255), fc.nat(255)).map(([third, last]) => `20.1.${third}.${last}/32`),
  fc
    .integer({ min: 96, max: 128 })
    .map((bits) => (bits < 121 ? `2606:2800::/${bits}` : '2606:2800::1:66/128')),
  fc.nat(255).map((last) => `2606:4700::${last.toString(16)}/128`),
);

/** Rules that decide nothing about the flows: for other sources, or in MONITOR. */
const asideArbitrary = fc.record({
  name: fc.nat(1_000).map((number) => `aside ${number}`),
  isMonitor: fc.boolean(),
  action: fc.constantFrom<Action>('PERMIT', 'DENY', 'REJECT'),
  at: fc.nat(4),
  members: fc.uniqueArray(prefixArbitrary, { maxLength: 40 }),
});

interface Change {
  readonly policy: PolicyInForce;
  readonly groups: GroupPrefixes;
}

const changeArbitrary: fc.Arbitrary<Change> = fc
  .record({
    core: coreArbitrary,
    asides: fc.uniqueArray(asideArbitrary, { maxLength: 8, selector: ({ name }) => name }),
    filler: fc.nat(2_000),
  })
  .map(({ core, asides, filler }) => {
    const rules = [...core.rules];
    const groups = new Map([...fixedGroups, ['elsewhere', prefixes('10.0.64.0/18', '192.0.2.0/24')]]);
    for (const { name, isMonitor, action, at, members } of asides) {
      groups.set(name, prefixes(...members));
      const line = rule(name, action, isMonitor ? 'sources' : 'elsewhere', name);
      rules.splice(at, 0, { ...line, enforcement: isMonitor ? 'MONITOR' : 'ENFORCE' });
    }
    groups.set(
      'filler',
      prefixes(...Array.from({ length: filler }, (_, n) => `30.${n >> 7}.${(n & 127) * 2}.0/24`)),
    );
    rules.push(rule('filler', 'PERMIT', 'elsewhere', 'filler'));
    const defaultAction: DefaultAction = { action: core.byDefault, logging: true };
    return { policy: policyInForce({ rules, defaultAction }, new Date()), groups };
  });

/** The generated policies are right: the slow model says so of each flow. */
function checkChange({ policy, groups }: Change): void {
  const decision = (flow: Flow) => evaluate(policy, groups, [], flow).decided.action;
  // Without an entry, the answer to a denied packet is the first packet of a connection.
  const inbound = [...denied, ...revoked].map((flow) => reversed(flow));
  const wrong = [
    ...permitted.filter((flow) => decision(flow) !== 'PERMIT'),
    ...[...denied, ...revoked, ...inbound].filter((flow) => decision(flow) === 'PERMIT'),
  ];
  if (wrong.length > 0) throw new Error(`Cannot use policy: it decides ${wrong.length} flows otherwise`);
}

/** A program that the kernel refuses, while its content is loaded or at the switch. */
function broken(program: Program, stage: 'load' | 'switch'): Program {
  const toNowhere = { kind: 'verdictMap', field: 'mark', map: 'nowhere' } as const;
  if (stage === 'load')
    return { ...program, chains: [...program.chains, { name: 'broken', rules: [[toNowhere]] }] };
  const fixed = program.fixed.map((chain) =>
    chain.name === 'forward' ? { ...chain, rules: [...chain.rules, [toNowhere]] } : chain,
  );
  return { ...program, fixed };
}

async function failToApply(t: Pick<Tap, 'rejects'>, change: Change, index: number): Promise<void> {
  const stage = Math.floor(index / FAIL_EVERY) % 2 === 0 ? 'load' : 'switch';
  const generation = ++stand.loader.generation;
  const program = compileAll({ ...change, epoch: `broken ${index}` }, generation);
  const failed = stand.loader.applier.apply(broken(program, stage));
  await t.rejects(failed, { name: 'ApplyError', stage } satisfies Partial<ApplyError>);
  stand.loader.startAnew();
}

const describe = ({ src, dst, protocol, dstPort }: TestPacket) =>
  `${protocol === 6 ? 'TCP' : 'UDP'} ${printAddress(src)} to ${printAddress(dst)} port ${dstPort}`;

/** Opens the connections under a policy that permits those too that the changes revoke. */
async function openConnections(): Promise<void> {
  const first = rule('first', 'PERMIT', 'source', 'servers', web);
  const policy = policyInForce(
    { rules: [first], defaultAction: { action: 'DENY', logging: false } },
    new Date(),
  );
  await stand.loader.load({ policy, groups: fixedGroups });
  for (const flow of [...permitted, ...revoked]) {
    if (flow.protocol === 6) await stand.handshake('a', 'internet', flow);
    await stand.carries('a', 'internet', there(flow));
    await stand.carries('internet', 'a', back(flow));
  }
}

t.test('no packet leaks and none is lost while policy changes', async (t) => {
  const changes = fc.sample(changeArbitrary, { seed, numRuns: CHANGES });
  for (const change of changes) checkChange(change);
  await openConnections();
  await stand.loader.load(changes[0]!);

  const attempts = [...denied.map((flow) => there(flow, TCP.syn)), ...revoked.map((flow) => there(flow))];
  const answers = [...denied, ...revoked].map((flow) => back(flow));
  const good = { there: permitted.map((flow) => there(flow)), back: permitted.map((flow) => back(flow)) };
  const streams = {
    there: await stand.stations.a.stream([...good.there, ...attempts], PER_SECOND),
    back: await stand.stations.internet.stream([...good.back, ...answers], PER_SECOND),
  };
  for (const [index, change] of changes.entries()) {
    await stand.loader.change(change);
    if (index % FAIL_EVERY === FAIL_EVERY / 2) await failToApply(t, change, index);
    if (index % COLLECT_EVERY !== COLLECT_EVERY - 1) continue;
    await delay(COLLECT_MS);
    t.equal(await stand.loader.applier.collect(), false, `collected after ${index + 1} changes`);
  }
  const sent = new Map([...(await streams.there.halt()), ...(await streams.back.halt())]);
  await stand.settle();

  const came = ({ tag, protocol }: TestPacket) =>
    [stand.stations.internet, stand.stations.a].flatMap(({ seen }) =>
      seen.filter((packet) => packet.tag === tag && packet.protocol === protocol),
    ).length;
  for (const packet of [...good.there, ...good.back]) {
    t.equal(came(packet), sent.get(packet.tag), `${describe(packet)}: all came through`);
  }
  for (const packet of [...attempts, ...answers]) {
    const count = sent.get(packet.tag)!;
    t.ok(count > 0 && came(packet) === 0, `${describe(packet)}: ${came(packet)} of ${count} came through`);
  }
});
