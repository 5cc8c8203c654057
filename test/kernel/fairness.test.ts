import '../support/own-namespace.js';
import { listenConntrack } from 'sluice-gateway/conntrack/listen.js';
import { ConntrackTable } from 'sluice-gateway/conntrack/table.js';
import { Crowd } from 'sluice-gateway/live/crowd.js';
import { createLog } from 'sluice-gateway/log.js';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { crowdedSets } from 'sluice-gateway/policy/fairness.js';
import t from 'tap';
import { inForce, labInterfaces, prefixes, rule } from '../support/load.js';
import { type Flow, flow, Stand, there } from '../support/stand.js';
import { until } from '../support/wait.js';

/** One function must not be able to take the connection table from the others. */

const stand = await Stand.create();
t.teardown(() => stand.close());

const UDP = 17;
const groups = new Map([
  ['functions', prefixes('10.0.0.0/16', 'fd00:a::/64', 'fd00:b::/64')],
  ['servers', prefixes('203.0.113.0/24', '2606:2800::/32')],
]);
const policy = inForce(
  rule('to servers', 'PERMIT', 'functions', 'servers', { portRanges: [{ lo: 443, hi: 443 }] }),
);
const FAMILIES = [
  { family: 4, src: '10.0.128.7', other: '10.0.128.8', dst: '203.0.113.9' },
  { family: 6, src: 'fd00:a::7', other: 'fd00:a::8', dst: '2606:2800::9' },
] as const;
const RATE = 50;

const load = (newConnectionsPerSecondMax?: number) =>
  stand.loader.load({
    policy,
    groups,
    interfaces: {
      ...labInterfaces,
      ...(newConnectionsPerSecondMax !== undefined && { newConnectionsPerSecondMax }),
    },
  });
const flows = (count: number, src: string, dst: string, port = 443): Flow[] =>
  Array.from({ length: count }, () => flow(UDP, src, dst, port));
const first = (flows: readonly Flow[]) => flows.map((flow) => there(flow));

for (const { family, src, other, dst } of FAMILIES) {
  t.test(`new connections of one source are limited in rate, IPv${family}`, async (t) => {
    await load(RATE);
    t.ok(await stand.stops('a', 'internet', ...first(flows(4 * RATE, src, dst, 80))), 'denied');
    const [live, ...more] = flows(RATE, src, dst);
    t.ok(await stand.carries('a', 'internet', ...first([live!, ...more])), 'what was denied used up nothing');
    const { limited } = await stand.dropped();
    const startMs = performance.now();
    const passed = await stand.passed('a', 'internet', ...first(flows(10 * RATE, src, dst)));
    const refilled = Math.ceil(((performance.now() - startMs) / 1000 + 1) * RATE);
    t.ok(passed.length <= refilled, `${passed.length} of ${10 * RATE} passed, at most ${refilled} may`);
    t.equal((await stand.dropped()).limited, limited + 10 * RATE - passed.length, 'the rest is counted');
    t.ok(await stand.carries('a', 'internet', ...first(Array(200).fill(live!))), 'a live connection goes on');
    t.ok(await stand.carries('a', 'internet', ...first(flows(RATE, other, dst))), 'others notice nothing');
    t.equal((await stand.loader.kernel.counters()).get('unlimited')?.packets, 0n);
  });

  t.test(`another rate holds for sources that were active under the one before, IPv${family}`, async (t) => {
    await load(2);
    t.ok((await stand.passed('a', 'internet', ...first(flows(20, src, dst)))).length < 20, 'few of them');
    await load(1_000);
    t.ok(await stand.carries('a', 'internet', ...first(flows(20, src, dst))), 'all of them');
    await load(2);
    t.ok((await stand.passed('a', 'internet', ...first(flows(20, src, dst)))).length < 20, 'few again');
  });

  t.test(`a source that has too many connections opens no more, IPv${family}`, async (t) => {
    await load();
    const held = flow(UDP, src, dst).src;
    const [live] = flows(1, src, dst);
    t.ok(await stand.carries('a', 'internet', there(live!)));
    const sources = { 4: [] as bigint[], 6: [] as bigint[], [held.family]: [held.value] };
    await stand.loader.kernel.fillSets(crowdedSets(sources));
    t.ok(await stand.stops('a', 'internet', ...first(flows(3, src, dst))), 'no new one');
    t.ok(await stand.carries('a', 'internet', there(live!)), 'the old one goes on');
    t.ok(await stand.carries('a', 'internet', ...first(flows(3, other, dst))), 'others do');
    await load(RATE);
    t.ok(await stand.stops('a', 'internet', ...first(flows(3, src, dst))), 'also under another program');
    await stand.loader.kernel.fillSets(crowdedSets({ 4: [], 6: [] }));
    t.ok(await stand.carries('a', 'internet', ...first(flows(3, src, dst))), 'free again');
  });
}

t.test('connections are counted from events, and a source comes free when they end', async (t) => {
  const [{ src, other, dst }] = FAMILIES;
  await load();
  const connection = new NetlinkConnection(NETLINK_NETFILTER);
  const table = new ConntrackTable(connection);
  const crowd = new Crowd({
    connectionsMax: 20,
    holdBack: (sources) => stand.loader.kernel.fillSets(crowdedSets(sources)),
    log: createLog({ level: 'error', terminal: false, write: () => {}, now: () => new Date() }),
  });
  const listener = listenConntrack(
    (event) => crowd.event(event),
    () => t.fail('events were lost'),
  );
  t.teardown(() => {
    listener.close();
    crowd.stop();
    connection.close();
  });
  const crowding = flows(20, src, dst);
  t.ok(await stand.carries('a', 'internet', ...first(crowding)));
  await until('the source is held back', () => crowd.size === 1 || undefined);
  await until('the kernel knows', async () =>
    (await stand.stops('a', 'internet', ...first(flows(1, src, dst)))) ? true : undefined,
  );
  t.ok(await stand.carries('a', 'internet', ...first(flows(25, other, dst).slice(0, 19))), 'another is not');
  for (const one of crowding.slice(0, 10)) {
    const entry = await table.find({ ...one, icmp: undefined });
    await table.delete(entry!);
  }
  await until('the source is free', () => crowd.size === 0 || undefined);
  await until('the kernel knows', async () =>
    (await stand.passed('a', 'internet', ...first(flows(1, src, dst)))).length === 1 ? true : undefined,
  );
});
