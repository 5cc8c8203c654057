import '../support/own-namespace.js';
import { randomBytes } from 'node:crypto';
import { NETLINK_ROUTE, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { Guard } from 'sluice-gateway/route/guard.js';
import t from 'tap';
import { TCP, type TestPacket } from '../support/frames.js';
import { inForce, prefixes, rule } from '../support/load.js';
import { here } from '../support/namespace.js';
import { FILE_MS_MAX, patience } from '../support/patience.js';
import { back, type Flow, flow, Stand, there } from '../support/stand.js';
import { until } from '../support/wait.js';

/** Without our table nothing passes: the routing rules of the guard see to it, whoever removed the table. */

t.setTimeout(FILE_MS_MAX);

const stand = await Stand.create();
t.teardown(() => stand.close());

const FLUSHES = 20;
const PER_SECOND = 2_000;

const FUNCTION = { 4: '10.0.128.5', 6: 'fd00:a::5' } as const;
const SERVER = { 4: '203.0.113.50', 6: '2606:2800::50' } as const;
const DENIED_SERVER = { 4: '203.0.113.66', 6: '2606:2800::66' } as const;
const FAMILIES = [4, 6] as const;

const groups = new Map([
  ['functions', prefixes('10.0.128.0/17', 'fd00:a::/64')],
  ['servers', prefixes('203.0.113.50/32', '2606:2800::50/128')],
]);
const policy = inForce(rule('out', 'PERMIT', 'functions', 'servers'));
const load = async () => {
  await stand.loader.applier.takeOver();
  await stand.loader.load({ policy, groups, epoch: randomBytes(8).toString('hex') });
  await stand.loader.applier.collect();
};

const FAMILY_FLAGS = ['-4', '-6'] as const;
/** All routing rules, the order of equal priorities aside. */
const routingRules = () =>
  FAMILY_FLAGS.flatMap((family) =>
    here.ip(family, 'rule', 'show').replaceAll(' [detached]', '').trim().split('\n').sort(),
  );
const isGuard = (line: string) => /^1:\tfrom all fwmark 0\/0x80000000 iif \S+ blackhole$/.test(line);
const GUARDED = ['lam0', 'lam1', 'wan0', 'dc0'];
const guardOf = (iif: string) => ['pref', '1', 'iif', iif, 'fwmark', '0/0x80000000', 'blackhole'];
function removeByHand(): void {
  for (const family of FAMILY_FLAGS)
    for (const iif of GUARDED) here.ip(family, 'rule', 'del', ...guardOf(iif));
}

/** One packet of a connection of its own between any two hosts. */
function betweenHosts() {
  const addresses = {
    a: FUNCTION,
    b: { 4: '10.0.64.5', 6: 'fd00:b::5' },
    internet: SERVER,
    dataCentre: { 4: '10.20.0.9', 6: 'fd00:20::9' },
  } as const;
  const legs = Object.keys(addresses) as (keyof typeof addresses)[];
  return legs.flatMap((from) =>
    legs
      .filter((to) => to !== from)
      .map((to) => {
        const packets = FAMILIES.flatMap((family) => {
          const [src, dst] = [addresses[from][family], addresses[to][family]];
          return [there(flow(6, src, dst, 443), TCP.syn), there(flow(17, src, dst, 53))];
        });
        return { from, to, packets };
      }),
  );
}

t.test('a router without our table forwards all, and with the guard nothing', async (t) => {
  t.equal(await stand.guard.ensure(), 0, 'the guard is in place');
  for (const { from, to, packets } of betweenHosts()) {
    t.ok(await stand.stops(from, to, ...packets), `${from} to ${to}: stopped`);
  }
  removeByHand();
  for (const { from, to, packets } of betweenHosts()) {
    t.ok(await stand.carries(from, to, ...packets), `${from} to ${to}: carried`);
  }
  t.equal(await stand.guard.ensure(), 2 * GUARDED.length, 'all were missing');
  for (const { from, to, packets } of betweenHosts()) {
    t.ok(await stand.stops(from, to, ...packets), `${from} to ${to}: stopped again`);
  }
});

t.test('the guard adds and removes its own rules and no others', async (t) => {
  const guard = routingRules();
  t.equal(guard.filter(isGuard).length, 2 * GUARDED.length);
  const foreign = [
    ['pref', '100', 'iif', 'lam0', 'blackhole'],
    ['pref', '1', 'iif', 'lam0', 'fwmark', '5', 'lookup', '200'],
    ['pref', '1', 'iif', 'lam9', 'fwmark', '0/0x40000000', 'blackhole'],
    ['pref', '1', 'iif', 'lam9', 'fwmark', '0/0x80000000', 'ipproto', 'tcp', 'blackhole'],
    ['pref', '1', 'not', 'iif', 'lam9', 'fwmark', '0/0x80000000', 'to', '198.51.100.7', 'blackhole'],
    ['pref', '2', 'iif', 'lam9', 'fwmark', '0/0x80000000', 'blackhole'],
    ['pref', '1', 'iif', 'lam9', 'fwmark', '0/0x80000000', 'prohibit'],
    ['pref', '1', 'fwmark', '0/0x80000000', 'oif', 'lam9', 'blackhole'],
  ];
  for (const rule of foreign) {
    here.ip('-4', 'rule', 'add', ...rule);
    if (!rule.includes('to')) here.ip('-6', 'rule', 'add', ...rule);
  }
  const all = routingRules();
  const others = all.filter((line) => !isGuard(line));
  t.equal(await stand.guard.ensure(), 0, 'nothing is missing');
  t.same(routingRules(), all);
  for (const family of FAMILY_FLAGS) here.ip(family, 'rule', 'del', ...guardOf('lam1'));
  t.equal(await stand.guard.ensure(), 2, 'two were missing');
  t.same(routingRules(), all, 'they are back, once');

  const connection = new NetlinkConnection(NETLINK_ROUTE);
  const renamed = new Guard(connection, ['lam0', 'lam7']);
  t.equal(await renamed.ensure(), 2, 'an interface of another name');
  const kept = ['lam0', 'lam7'].map((iif) => `1:\tfrom all fwmark 0/0x80000000 iif ${iif} blackhole`);
  t.same(routingRules().filter(isGuard), [...kept, ...kept], 'only what is configured stays');
  t.same(
    routingRules().filter((line) => !isGuard(line)),
    others,
    'what is not the guard stays',
  );
  t.equal(await stand.guard.ensure(), 2 * GUARDED.length - 2);
  t.same(routingRules(), all);
  connection.close();
  for (const rule of foreign) {
    here.ip('-4', 'rule', 'del', ...rule);
    if (!rule.includes('to')) here.ip('-6', 'rule', 'del', ...rule);
  }
  t.same(routingRules(), guard);
});

t.test('rules changed by others are noticed, and its own are not', async (t) => {
  const before = routingRules();
  removeByHand();
  let calls = 0;
  const watch = stand.guard.watch(() => {
    calls++;
  });
  t.equal(await stand.guard.ensure(), 2 * GUARDED.length);
  t.same(routingRules(), before);
  here.ip('rule', 'add', 'pref', '100', 'blackhole');
  await until('the event of another rule', () => calls > 0);
  t.equal(calls, 1, "the guard's own changes are none");
  here.ip('rule', 'del', 'pref', '100');
  await until('the event of its removal', () => calls > 1);
  here.ip('-6', 'rule', 'del', ...guardOf('wan0'));
  await until('the event of a rule of the guard', () => calls > 2);
  t.equal(await stand.guard.ensure(), 1);
  t.same(routingRules(), before);
  watch.close();
});

/**
 * A packet that stands between the guard and the forward chain at the moment of the flush passes: an emulated
 * processor may stand still there for long, with one packet each time.
 */
const IN_FLIGHT_MAX = patience > 1 ? 2 * FLUSHES : 0;

/** Connections that live through all flushes, and packets that are denied throughout. */
async function openConnections(): Promise<{ live: readonly Flow[]; denied: readonly TestPacket[] }> {
  const live = FAMILIES.flatMap((family) => [
    flow(6, FUNCTION[family], SERVER[family], 443),
    flow(17, FUNCTION[family], SERVER[family], 53),
  ]);
  for (const flow of live) {
    if (flow.protocol === 6) await stand.handshake('a', 'internet', flow);
    else await stand.carries('a', 'internet', there(flow));
  }
  const denied = FAMILIES.flatMap((family) => [
    there(flow(6, FUNCTION[family], DENIED_SERVER[family], 443), TCP.syn),
    there(flow(17, FUNCTION[family], DENIED_SERVER[family], 53)),
  ]);
  return { live, denied };
}

t.test('a flushed table lets nothing pass, and its return lets connections go on', async (t) => {
  await load();
  const { live, denied } = await openConnections();
  const unsolicited = FAMILIES.map((family) => there(flow(17, SERVER[family], FUNCTION[family], 9)));
  const streams = [
    await stand.stations.a.stream(denied, PER_SECOND),
    await stand.stations.internet.stream(unsolicited, PER_SECOND),
  ];
  for (let round = 0; round < FLUSHES; round++) {
    await stand.carries('a', 'internet', ...live.map((flow) => there(flow)));
    await stand.carries('internet', 'a', ...live.map((flow) => back(flow)));
    here.run('nft', round % 2 === 0 ? ['flush', 'ruleset'] : ['delete', 'table', 'inet', 'sluice']);
    const fresh = FAMILIES.map((family) => there(flow(6, FUNCTION[family], SERVER[family], 443), TCP.syn));
    const out = await stand.passed('a', 'internet', ...live.map((flow) => there(flow)), ...fresh);
    const home = await stand.passed('internet', 'a', ...live.map((flow) => back(flow)));
    if (out.length + home.length > 0)
      t.fail(`round ${round}: ${out.length} passed there, ${home.length} back`);
    await load();
  }
  t.ok(await stand.carries('a', 'internet', ...live.map((flow) => there(flow))), 'there');
  t.ok(await stand.carries('internet', 'a', ...live.map((flow) => back(flow))), 'and back');
  const sent = [...(await streams[0]!.halt()), ...(await streams[1]!.halt())];
  await stand.settle();
  let through = 0;
  for (const [tag, count] of sent) {
    const came = stand.stations.internet.count(tag) + stand.stations.a.count(tag);
    t.ok(count > 0, `${count} denied packets were sent`);
    through += came;
  }
  t.ok(through <= IN_FLIGHT_MAX, `${through} of them passed, at most ${IN_FLIGHT_MAX} may`);
});
