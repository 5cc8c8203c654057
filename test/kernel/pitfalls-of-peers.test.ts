import '../support/own-namespace.js';
import fc from 'fast-check';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { Applier } from 'sluice-gateway/nft/apply.js';
import { NftKernel } from 'sluice-gateway/nft/kernel.js';
import type { Program } from 'sluice-gateway/nft/program.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import t from 'tap';
import { caseArbitrary } from '../support/arbitrary.js';
import { compileAll, inForce, Loader, prefixes, rule } from '../support/load.js';
import { here } from '../support/namespace.js';
import { seed } from '../support/seed.js';

/**
 * Pitfalls of the kernel and of nft that other data planes fell into, by the numbers of our list of them. Those that
 * need packets or processes stand in tests of their own, named in ARCHITECTURE.md.
 */

const loader = new Loader();
t.teardown(() => loader.close());
const listed = (...flags: string[]) => here.run('nft', [...flags, 'list', 'table', 'inet', 'sluice']);
/** Without the sets that follow refused packets, hashes of single addresses, and what looks at them. */
const listedOfPolicy = () =>
  listed().replace(/^\tset log_sources[46] \{[^}]*\}\n|^.* update @log_sources[46] .*\n/gm, '');

const space = {
  sources: prefixes('10.0.128.0/28', 'fd00:a::/124', '255.255.255.240/28', 'ffff::/16'),
  destinations: prefixes('203.0.113.0/28', '0.0.0.0/4', '2001:db8::/124'),
};
const cases = fc.sample(caseArbitrary(space, 0), { seed, numRuns: 40 });
const programs: readonly Program[] = cases.map(({ policy, groups }) =>
  compileAll({ policy: policyInForce(policy, new Date()), groups }),
);

/** A policy over as many single addresses as asked. */
const large = (count: number) => ({
  policy: inForce(rule('many', 'PERMIT', 'functions', 'many')),
  groups: new Map([
    ['functions', prefixes('10.0.128.0/17')],
    [
      'many',
      Array.from({ length: count }, (_, index) => ({
        family: 4 as const,
        value: BigInt(0x14_00_00_00 + 2 * index),
        length: 32,
      })),
    ],
  ]),
});

/** What the requests of an applier say they do. */
class Recorder extends NetlinkConnection {
  readonly batches: string[][] = [];
  readonly bytes: number[] = [];

  override async request(request: Parameters<NetlinkConnection['request']>[0]) {
    const { operation, lastSequence } = request;
    this.batches.push(Array.from({ length: lastSequence }, (_, index) => operation(index + 1)));
    this.bytes.push(request.bytes.length);
    return super.request(request);
  }
}

t.test(
  'pitfalls 4 and 6: overlapping, nested and equal prefixes come out as disjoint intervals, in one field',
  async (t) => {
    for (const { maps } of programs) {
      for (const { name, elements } of maps) {
        let next = -1n;
        const ascending = [...elements].map(({ first, last }) => ({ first, last }));
        if (!name.includes('_classes_') && !/^(?:to|ports|protocols)_/.test(name)) continue;
        for (const { first, last } of ascending) {
          t.ok(first > next && last >= first, `${name} ${first}`);
          next = last;
        }
      }
    }
    const nested = ['10.0.0.0/8', '10.1.0.0/16', '10.1.0.0/16', '10.1.2.0/24', '10.1.2.3/32', '0.0.0.0/0'];
    const groups = new Map([['all', prefixes(...nested)]]);
    await loader.load({ policy: inForce(rule('nested', 'PERMIT', 'all', 'all')), groups });
    t.notMatch(listedOfPolicy(), /type \w+ \. /, 'no concatenation');
  },
);

t.test('pitfall 5: the top of the address space, and all of it, load and list as they are', async (t) => {
  for (const text of ['0.0.0.0/0', '255.255.255.255/32', '255.0.0.0/8', '::/0', 'ffff::/16']) {
    const groups = new Map([
      ['functions', prefixes('10.0.128.0/17', 'fd00:a::/64')],
      ['top', prefixes(text)],
    ]);
    const policy = inForce(rule('top', 'PERMIT', 'functions', 'top'));
    t.equal(await loader.change({ policy, groups, epoch: `top ${text}` }), 'applied');
    t.match(listed(), `${text.split('/')[0]}`);
    t.match(listed(), /[ ]255\.255\.255\.255 : /, 'the last address is an interval of its own');
    const without = new Map([...groups, ['top', prefixes('20.0.0.0/8')]]);
    t.equal(await loader.change({ policy, groups: without }), 'applied', 'not changed in place');
  }
});

t.test('pitfalls 13, 14, 15 and 18: what sets of policy never have', async (t) => {
  for (const { policy, groups } of cases.slice(0, 10)) {
    await loader.load({ policy: policyInForce(policy, new Date()), groups, epoch: JSON.stringify(policy) });
    const text = listedOfPolicy();
    t.notMatch(
      text,
      /auto-merge|timeout|flowtable|flow add|flags [^\n]*dynamic|elements = \{[^}]*counter packets/,
    );
    t.notMatch(text, /quota|last used|meter/);
    await loader.applier.collect();
  }
});

t.test(
  'pitfalls 3, 9 and 11: a large program in bounded transactions of many elements, nothing flushed',
  async (t) => {
    const connection = new Recorder(NETLINK_NETFILTER);
    t.teardown(() => connection.close());
    const applier = new Applier(new NftKernel(connection));
    await applier.takeOver();
    connection.batches.length = 0;
    connection.bytes.length = 0;
    await applier.apply(compileAll({ ...large(40_000), epoch: 'large' }, 77));
    const messages = connection.batches.flat().filter((operation) => operation.startsWith('add elements'));
    t.ok(connection.batches.length > 3, `${connection.batches.length} transactions`);
    t.ok(Math.max(...connection.bytes) < 2 << 20, `${Math.max(...connection.bytes)} bytes at most`);
    t.ok(messages.length < 400, `80,000 intervals in ${messages.length} messages`);
    const flushed = connection.batches.flat().filter((operation) => /flush (?!chain)/.test(operation));
    t.same(flushed, [], 'no map is emptied');
    const last = connection.bytes.at(-1)!;
    t.ok(last < 32 << 10, `the switch has ${last} bytes`);
  },
);

t.test('pitfall 8: a transaction is acknowledged once, however many messages it has', async (t) => {
  const connection = new NetlinkConnection(NETLINK_NETFILTER);
  t.teardown(() => connection.close());
  const applier = new Applier(new NftKernel(connection));
  await applier.takeOver();
  const rules = Array.from({ length: 600 }, (_, index) =>
    rule(`rule ${index}`, 'PERMIT', 'functions', `group ${index}`, {
      portRanges: [{ lo: index, hi: index }],
    }),
  );
  const groups = new Map([['functions', prefixes('10.0.128.0/17')]]);
  for (const [index, { dst }] of rules.entries())
    groups.set(dst[0]!, prefixes(`20.0.${index >> 7}.${(index & 127) * 2}/32`));
  await applier.apply(compileAll({ policy: inForce(...rules), groups, epoch: 'acks' }, 78));
  t.equal((await new NftKernel(connection).list()).chains.has('generation_78'), true);
});

t.test('pitfall 10: applying, editing and collecting list no elements', async (t) => {
  const connection = new Recorder(NETLINK_NETFILTER);
  const recorded = new Loader('listing', connection);
  t.teardown(() => recorded.close());
  await recorded.applier.takeOver();
  const input = large(3_000);
  await recorded.load(input);
  const more = [...input.groups.get('many')!, ...prefixes('20.0.0.1/32')];
  t.equal(await recorded.change({ ...input, groups: new Map([...input.groups, ['many', more]]) }), 'edited');
  await recorded.applier.collect();
  const asked = new Set(
    connection.batches.flat().filter((operation) => /^(?:list|get|read)/.test(operation)),
  );
  t.same(
    [...asked].filter((operation) => operation.includes('element')),
    [],
  );
});

t.test(
  'pitfall 12: what a program leaves behind is deleted only when it has been out of force for long',
  async (t) => {
    const { applier, kernel } = loader;
    await applier.takeOver();
    await loader.load({ ...large(10), epoch: 'first' });
    await applier.collect();
    const before = await kernel.list();
    await loader.load({ ...large(10), epoch: 'second' });
    t.equal(await applier.collect(60_000), true, 'something is left for later');
    t.same((await kernel.list()).maps.intersection(before.maps), before.maps, 'nothing has gone');
    t.equal(await applier.collect(0), false);
    const left = (await kernel.list()).maps.intersection(before.maps);
    t.same(
      [...left].filter((name) => !/^(judged|crowded|log_sources)/.test(name)),
      [],
    );
  },
);

t.test('pitfall 22: the same program again is no other, and needs no reading back', async (t) => {
  const { applier } = loader;
  await loader.load({ ...large(10), epoch: 'again' });
  await applier.collect();
  const before = listed();
  await applier.apply(loader.program!);
  await applier.collect();
  t.equal(listed(), before);
});

t.test('pitfall 23: sets are few, however many groups and prefixes there are', async (t) => {
  const groups = new Map([['functions', prefixes('10.0.128.0/17')]]);
  const rules = Array.from({ length: 200 }, (_, index) => {
    groups.set(`group ${index}`, prefixes(`20.0.${index}.0/24`));
    return rule(`rule ${index}`, 'PERMIT', 'functions', `group ${index}`);
  });
  const { maps } = compileAll({ policy: inForce(...rules), groups });
  t.ok(maps.length < 30, `${maps.length} maps for 200 groups`);
  const { maps: many } = compileAll(large(100_000));
  t.ok(many.length < 500, `${many.length} maps for 100,000 prefixes`);
});
