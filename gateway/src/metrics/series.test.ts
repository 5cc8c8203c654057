import { readFileSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import t from 'tap';
import { type ConntrackEvent, IPS_SRC_NAT } from '../conntrack/decode.js';
import { conntrackStats } from '../conntrack/stats.js';
import { parseAddress } from '../net/address.js';
import type { NetlinkConnection } from '../netlink/connection.js';
import { MessageWriter } from '../netlink/writer.js';
import { encodeMark } from '../nft/mark.js';
import { ByGroup } from './by-group.js';
import { ConnectionSums } from './connections.js';
import { createMetrics } from './metrics.js';
import { RuleSeries } from './rule-series.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

/** What happens to the counters of rules between two scrapes: what each counts, or that it goes. */
const step = fc.dictionary(
  fc.constantFrom(...'abcdefgh'),
  fc.oneof(fc.constant('gone' as const), fc.nat({ max: 100 })),
);

t.test('no series of a rule goes backwards, and all increases are shown once', async (t) => {
  t.comment(`TEST_SEED=${seed}`);
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), fc.integer({ min: 1, max: 9 }), (steps, rulesMax) => {
      const series = new RuleSeries(rulesMax);
      const counts = new Map<string, number>();
      let before = new Map<string, number>();
      /** What a series said last, of rules that are still there. */
      const last = new Map<string, number>();
      for (const [index, changes] of steps.entries()) {
        let counted = 0;
        for (const [rule, change] of Object.entries(changes)) {
          if (change === 'gone') {
            counts.delete(rule);
            last.delete(rule);
          } else {
            counts.set(rule, (counts.get(rule) ?? 0) + change);
            counted += change;
          }
        }
        const rows = [...counts].map(
          ([rule, count]) => ({ rule, action: 'DENY', enforced: true, count }) as const,
        );
        const updated = series.update(rows);
        const after = new Map(updated.series.map(({ rule, count }) => [rule, Number(count)]));
        if (after.size - (after.has('other') ? 1 : 0) > rulesMax) return false;
        for (const [rule, count] of after) {
          if (count < (last.get(rule) ?? 0)) return false;
          last.set(rule, count);
        }
        if (index > 0) {
          if (updated.increases.reduce((sum, one) => sum + one, 0) !== counted) return false;
          // One that had no series before has an increase that no rate can see: as with any new series.
          const shown = [...after]
            .filter(([rule]) => before.has(rule))
            .map(([rule, count]) => count - before.get(rule)!);
          if (shown.reduce((sum, one) => sum + one, 0) > counted) return false;
        }
        before = after;
      }
      return true;
    }),
    { seed, numRuns: 2_000 },
  );
});

t.test('the busiest rules have places, and give them up only to much busier ones', async (t) => {
  const series = new RuleSeries(2);
  const shown = (counts: Readonly<Record<string, number>>) =>
    series
      .update(
        Object.entries(counts).map(([rule, count]) => ({ rule, action: 'DENY', enforced: true, count })),
      )
      .series.map(({ rule, count }) => `${rule} ${count}`);
  t.same(
    shown({ a: 5, b: 9, c: 1, d: 8 }),
    ['b 9', 'd 8', 'other 0'],
    'what was there before is nobody else’s',
  );
  t.same(shown({ a: 16, b: 9, c: 1, d: 8 }), ['b 9', 'd 8', 'other 11'], 'twice as much is not enough');
  t.same(shown({ a: 17, b: 9, c: 1, d: 8 }), ['a 6', 'b 9', 'other 11'], 'more than twice is');
  t.same(shown({ a: 17, b: 9, c: 1, d: 90 }), ['a 6', 'd 90', 'other 11'], 'it goes on where it was');
  t.same(shown({ a: 17, b: 9, c: 1, d: 7 }), ['a 6', 'd 97', 'other 11'], 'a counter that was made anew');
});

t.test('groups beyond the limit share one, and places become free', async (t) => {
  const groups = new ByGroup(2, () => ({ count: 0 }));
  for (const group of ['a', 'b', 'c', 'd', 'a']) groups.of(group).count++;
  const counts = () => groups.entries().map(([group, { count }]) => `${group} ${count}`);
  t.same(counts(), ['a 2', 'b 1', 'other 2']);
  groups.retain(new Set(['b', 'd']));
  groups.of('d').count++;
  t.same(counts(), ['b 1', 'other 2', 'd 1'], 'what was counted as other stays');
});

const counters = (packets: number) => ({
  original: { packets: packets, bytes: packets * 100 },
  reply: { packets: packets * 2, bytes: packets * 1_000 },
});

/** An event of a connection from a source port, translated to 198.18.0.1. */
function event(
  srcPort: number,
  kind: ConntrackEvent['kind'],
  packets?: number,
  to = '203.0.113.1',
): ConntrackEvent {
  const [src, dst, nat] = ['10.0.0.1', to, '198.18.0.1'].map(parseAddress) as [never, never, never];
  const ends = { protocol: 6, icmp: undefined };
  return {
    ...{ kind, id: srcPort, status: IPS_SRC_NAT, zone: 0, family: 4, protocol: 6 },
    mark: encodeMark({ generation: 3, rule: 1 }),
    original: { ...ends, src, dst, srcPort, dstPort: 443 },
    reply: { ...ends, src: dst, dst: nat, srcPort: 443, dstPort: srcPort },
    counters: packets === undefined ? undefined : counters(packets),
    ...{ startMs: undefined, stopMs: undefined, eventMs: undefined, timeoutSeconds: 0, tcpState: undefined },
  };
}

t.test('bytes and packets by source group: each once, whether told on the way or at the end', async (t) => {
  const sums = new ConnectionSums(8, () => ['Anywhere', 'workers']);
  const take = (one: ConntrackEvent) => sums.event(one);
  sums.list(true).listed(event(3, 'update', 1_000));
  const traffic = () => Object.fromEntries(sums.traffic(new Set(['workers'])));
  take(event(1, 'new'));
  take(event(1, 'destroy', 10));
  t.same(traffic(), {
    workers: { out: { packets: 10, bytes: 1_000 }, in: { packets: 20, bytes: 10_000 } },
  });
  sums.list(false).listed(event(2, 'update', 5));
  sums.list(false).listed(event(2, 'update', 7));
  take(event(2, 'destroy', 8));
  t.equal(traffic().workers!.out.packets, 18);
  take(event(3, 'destroy', 1_001));
  t.equal(traffic().workers!.out.packets, 19, 'what passed before the gateway started is not counted');
  take({ ...event(4, 'destroy', 9), mark: 0 });
  t.equal(traffic().workers!.out.packets, 19, 'what was never permitted by us is not ours');
});

t.test('NAT ports: the most of one translated address to one destination', async (t) => {
  const sums = new ConnectionSums(8, () => []);
  const take = (one: ConntrackEvent) => sums.event(one);
  sums.list(true).listed(event(6, 'update'));
  for (const port of [1, 2, 3]) take(event(port, 'new'));
  take(event(4, 'new', undefined, '203.0.113.2'));
  take({ ...event(5, 'new'), status: 0 });
  t.same([...sums.natPorts()], [['TCP', 4]]);
  take(event(2, 'destroy', 1));
  t.same([...sums.natPorts()], [['TCP', 3]]);
  sums.list(false);
  take(event(3, 'destroy', 1));
  t.same([...sums.natPorts()], [], 'never below zero');
});

/** `enum ctattr_stats_cpu` of linux/netfilter/nfnetlink_conntrack.h, in its order. */
const STATS_CPU =
  'unspec searched found new invalid ignore delete delete_list insert insert_failed drop early_drop error ' +
  'search_restart clash_resolve chain_too_long';

t.test('failures of connection tracking, by the numbers of the kernel, of two processors', async (t) => {
  const names = STATS_CPU.split(' ');
  const processor = (factor: number) => {
    const writer = new MessageWriter().raw(new Uint8Array(4));
    for (let type = 1; type < names.length; type++) writer.attributeU32be(type, type * factor);
    return { type: 0, flags: 0, sequence: 1, portId: 0, payload: writer.bytes() };
  };
  const answer = { request: async () => [processor(1), processor(100)] } as unknown as NetlinkConnection;
  for (const [kind, count] of await conntrackStats(answer)) t.equal(count, names.indexOf(kind) * 101, kind);
});

t.test('allowances of EC2, of interfaces whose driver tells them', async (t) => {
  const metrics = createMetrics({ procNetfilter: t.testdir() });
  const ena = { bw_in_allowance_exceeded: 3n, conntrack_allowance_available: 1_000n, tx_timeout: 1n };
  metrics.allowances(() => [
    { interface: 'ens5', stats: new Map(Object.entries(ena)) },
    { interface: 'lam0', stats: new Map([['peer_ifindex', 7n]]) },
  ]);
  const lines = (await metrics.scrape()).split('\n').filter((line) => line.startsWith('sluice_ena_'));
  t.same(lines, [
    'sluice_ena_allowance_exceeded_total{interface="ens5",allowance="bw_in"} 3',
    'sluice_ena_conntrack_available{interface="ens5"} 1000',
  ]);
});

t.test('the list of all metrics is true', async (t) => {
  const file = new URL('../../../deploy/docs/metrics.md', import.meta.url);
  const begin = '| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n';
  const rows = createMetrics()
    .describe()
    .map(({ name, type, labels, help }) => `| \`${name}\` | ${type} | ${labels.join(', ')} | ${help} |\n`);
  const text = readFileSync(file, 'utf8');
  const [before] = text.split(begin);
  const expected = `${before}${begin}${rows.join('')}`;
  if (process.env.UPDATE_GOLDEN === '1') writeFileSync(file, expected);
  else t.equal(text, expected, 'UPDATE_GOLDEN=1 rewrites it');
  for (const { name, type } of createMetrics().describe()) {
    t.match(name, /^sluice_[a-z0-9_]+$/);
    if (!name.startsWith('sluice_nodejs') && !name.startsWith('sluice_process'))
      t.equal(type === 'counter', name.endsWith('_total'), name);
  }
});
