import '../support/own-namespace.js';
import { ConntrackTable } from 'sluice-gateway/conntrack/table.js';
import { Generations } from 'sluice-gateway/generations.js';
import { parseAddress, printAddress } from 'sluice-gateway/net/address.js';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { decodeMark, GENERATION_MAX } from 'sluice-gateway/nft/mark.js';
import type { GatewayInterfaces } from 'sluice-gateway/policy/fixed-chains.js';
import type { PolicyInForce } from 'sluice-gateway/policy/in-force.js';
import { ruleObjects } from 'sluice-gateway/policy/rule-content.js';
import t from 'tap';
import { TCP, type TestPacket } from '../support/frames.js';
import { inForce, labInterfaces, prefixes, rule } from '../support/load.js';
import { here } from '../support/namespace.js';
import { FILE_MS_MAX } from '../support/patience.js';
import { back, type Flow, flow, reversed, Stand, there } from '../support/stand.js';

/** What goes wrong with a connection that outlives the policy under which it began. */

t.setTimeout(FILE_MS_MAX);

const stand = await Stand.create();
const connection = new NetlinkConnection(NETLINK_NETFILTER);
const table = new ConntrackTable(connection);
t.teardown(() => {
  connection.close();
  stand.close();
});

const FUNCTION = { 4: '10.0.128.5', 6: 'fd00:a::5' } as const;
const SERVER = { 4: '203.0.113.50', 6: '2606:2800::50' } as const;
const ROUTER = { 4: '198.51.100.1', 6: '2606:2900::1' } as const;
const FAMILIES = [4, 6] as const;
const ICMP = { 4: 1, 6: 58 } as const;

const groups = new Map([
  ['functions', prefixes('10.0.128.0/17', 'fd00:a::/64')],
  ['servers', prefixes('203.0.113.0/24', '2606:2800::/32')],
  ['anywhere', prefixes('0.0.0.0/0', '::/0')],
]);
/** What is permitted by port, and what by protocol alone. */
const web = rule('web', 'PERMIT', 'functions', 'servers', {
  protocol: 'TCP',
  portRanges: [{ lo: 443, hi: 443 }],
});
const datagrams = rule('datagrams', 'PERMIT', 'functions', 'servers', { protocol: 'UDP' });
const noIcmp = rule('no icmp', 'DENY', 'anywhere', 'anywhere', { protocol: 'ICMP' });
/** The way that answers go, permitted as the way of connections of their own. */
const inbound = rule('inbound', 'PERMIT', 'servers', 'anywhere', { protocol: 'TCP' });
const permitting = inForce(noIcmp, web, datagrams, inbound);
const denying = inForce(noIcmp, inbound);

/** Every load has a generation of its own: all connections are judged again. */
async function load(policy: PolicyInForce, interfaces: GatewayInterfaces = labInterfaces): Promise<void> {
  await stand.loader.load({ policy, groups, interfaces });
  await stand.loader.applier.collect();
}

const tcpFlow = (family: 4 | 6) => flow(6, FUNCTION[family], SERVER[family], 443);
const udpFlow = (family: 4 | 6) => flow(17, FUNCTION[family], SERVER[family], 53);
const entryOf = (flow: Flow) => table.find({ ...flow, icmp: undefined });
/** The error "too big" about a packet, on its way back to who sent it. */
function tooBig(quoted: TestPacket, router: string): TestPacket {
  const { family } = quoted.src;
  return { ...there(flow(ICMP[family], router, printAddress(quoted.src))), quoted };
}

async function decided(policy: PolicyInForce, name: string): Promise<number> {
  const counters = await stand.loader.kernel.counters();
  const rule = policy.rules.find((rule) => rule.name === name)!;
  return Number(counters.get(ruleObjects(rule).decided)!.packets);
}

t.test('a generation that an idle connection carries is not given out again', async (t) => {
  const under = async (generation: number, policy: PolicyInForce) => {
    stand.loader.generation = generation - 1;
    await load(policy);
  };
  await under(1, permitting);
  const flows = FAMILIES.flatMap((family) => [tcpFlow(family), udpFlow(family)]);
  for (const flow of flows) {
    if (flow.protocol === 6) await stand.handshake('a', 'internet', flow);
    else await stand.carries('a', 'internet', there(flow));
  }
  const generations = new Generations(GENERATION_MAX - 1, () => table.generationsInUse());
  const last = await generations.next();
  t.equal(last, GENERATION_MAX);
  await under(last, denying);
  const wrapped = await generations.next();
  t.equal(wrapped, 2, 'all but 1, which the connections carry');
  await under(wrapped, denying);
  t.ok(await stand.stops('a', 'internet', ...flows.map((flow) => there(flow))));
  t.ok(await stand.stops('internet', 'a', ...flows.map((flow) => back(flow))));
  await under(1, denying);
  t.ok(
    await stand.carries('a', 'internet', ...flows.map((flow) => there(flow))),
    'under 1 they would have passed',
  );
  stand.loader.generation = 10;
});

t.test('a deleted entry comes back neither as it was nor reversed', async (t) => {
  for (const family of FAMILIES) {
    for (const policy of [permitting, denying]) {
      await load(permitting);
      const live = tcpFlow(family);
      await stand.handshake('a', 'internet', live);
      await load(policy);
      const entry = await entryOf(live);
      t.ok(await table.delete(entry!), `IPv${family}, policy of ${policy.rules.length} rules`);
      const before = await stand.dropped();
      t.ok(await stand.stops('internet', 'a', back(live)), 'the server goes on');
      t.equal(await entryOf(reversed(live)), undefined);
      t.ok(await stand.stops('a', 'internet', there(live)), 'the function goes on');
      t.ok(await stand.stops('internet', 'a', back(live, TCP.syn | TCP.ack), back(live, TCP.rst)));
      t.equal(await entryOf(live), undefined);
      t.equal((await stand.dropped()).invalid, before.invalid + 4, 'counted as invalid');
      const own = flow(6, SERVER[family], FUNCTION[family], 8080);
      t.ok(
        await stand.carries('internet', 'a', there(own, TCP.syn)),
        'a new connection that way is permitted',
      );
    }
  }
});

t.test('an ICMP error that comes first after a bump is judged as its connection is', async (t) => {
  for (const family of FAMILIES) {
    await load(permitting);
    const flows = [tcpFlow(family), udpFlow(family)];
    await stand.handshake('a', 'internet', flows[0]!);
    await stand.carries('a', 'internet', there(flows[1]!));
    await stand.carries('internet', 'a', back(flows[1]!));
    for (const live of flows) {
      const what = `IPv${family}, protocol ${live.protocol}`;
      const errors = [
        { from: 'internet', to: 'a', make: () => tooBig(there(live), ROUTER[family]) },
        { from: 'a', to: 'internet', make: () => tooBig(back(live), FUNCTION[family]) },
      ] as const;
      for (const { from, to, make } of errors) {
        await load(permitting);
        const before = await stand.dropped();
        t.ok(await stand.carries(from, to, make()), `${what}: permitted, from ${from}`);
        t.same(await stand.dropped(), before, 'nothing dropped');
        const { generation } = decodeMark((await entryOf(live))!.mark);
        t.equal(generation, stand.loader.generation, 'judged by it');
        t.ok(await stand.carries('a', 'internet', there(live)), 'the connection goes on');
      }
      for (const { from, to, make } of errors) {
        await load(denying);
        const before = await stand.dropped();
        t.ok(await stand.stops(from, to, make()), `${what}: denied, from ${from}`);
        t.equal((await stand.dropped()).deny, before.deny + 1);
        t.ok(await stand.stops('a', 'internet', there(live)), 'the connection stopped');
      }
    }
    const unknown = tooBig(there(tcpFlow(family)), ROUTER[family]);
    t.ok(await stand.stops('internet', 'a', unknown), 'an error about no connection');
  }
});

t.test('decisions count connections: each packet of none, and none again after a bump', async (t) => {
  const watched = rule('watched', 'DENY', 'functions', 'servers', { enforcement: 'MONITOR' });
  const policy = inForce(watched, web, datagrams);
  await load(policy);
  const before = {
    web: await decided(policy, 'web'),
    datagrams: await decided(policy, 'datagrams'),
    watched: await decided(policy, 'watched'),
  };
  for (const family of FAMILIES) {
    const [tcp, answered, unanswered] = [tcpFlow(family), udpFlow(family), udpFlow(family)];
    await stand.handshake('a', 'internet', tcp);
    for (let bump = 0; bump < 3; bump++) {
      for (let packet = 0; packet < 5; packet++) {
        await stand.carries('a', 'internet', there(tcp), there(answered), there(unanswered));
        await stand.carries('internet', 'a', back(tcp), back(answered));
      }
      await load(policy);
    }
  }
  t.equal((await decided(policy, 'web')) - before.web, 2, 'TCP');
  t.equal((await decided(policy, 'datagrams')) - before.datagrams, 4, 'UDP, answered or not');
  t.equal((await decided(policy, 'watched')) - before.watched, 6, 'for the rule in MONITOR too');
});

t.test('a reply is judged as its connection is, whatever its addresses became', async (t) => {
  here.ip('addr', 'add', '198.18.0.3/24', 'dev', 'wan0');
  const masquerade = { ...labInterfaces, snat: { interfaces: ['wan0'], to: 'masquerade' } } as const;
  const address = { ...labInterfaces, snat: { interfaces: ['wan0'], to: parseAddress('198.18.0.3') } };
  const cases = [
    { what: 'masqueraded', interfaces: masquerade, seenAs: { 4: '198.18.0.1', 6: 'fd00:f::1' } },
    { what: 'given an address', interfaces: address, seenAs: { 4: '198.18.0.3', 6: FUNCTION[6] } },
  ];
  const { internet } = stand.stations;
  for (const { what, interfaces, seenAs } of cases) {
    for (const family of FAMILIES) {
      await load(permitting, interfaces);
      const live = tcpFlow(family);
      const opening = there(live, TCP.syn);
      await stand.carries('a', 'internet', opening);
      const seen = internet.seen.find(({ tag }) => tag === opening.tag)!;
      t.equal(printAddress(seen.src), seenAs[family], `IPv${family}, ${what}`);
      const outside: Flow = { ...live, src: seen.src, srcPort: seen.segment.readUInt16BE(0) };
      t.ok(await stand.carries('internet', 'a', back(outside, TCP.syn | TCP.ack)), 'the first answer');
      await stand.carries('a', 'internet', there(live));
      for (const first of [back(outside), tooBig(there(outside), ROUTER[family])]) {
        await load(permitting, interfaces);
        t.ok(await stand.carries('internet', 'a', first), 'first after a bump');
      }
      for (const first of [back(outside), tooBig(there(outside), ROUTER[family])]) {
        await load(denying, interfaces);
        const before = await stand.dropped();
        t.ok(await stand.stops('internet', 'a', first), 'first after it is denied');
        t.equal((await stand.dropped()).deny, before.deny + 1);
      }
      t.ok(await stand.stops('a', 'internet', there(live)));
    }
  }
});
