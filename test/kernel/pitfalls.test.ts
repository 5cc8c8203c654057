import '../support/own-namespace.js';
import { randomBytes } from 'node:crypto';
import { ACTION_BITS, KIND } from 'sluice-gateway/nft/mark.js';
import t from 'tap';
import { TCP, type TestPacket } from '../support/frames.js';
import { compileAll, inForce, type LoadInput, labInterfaces, prefixes, rule } from '../support/load.js';
import { here } from '../support/namespace.js';
import { FILE_MS_MAX } from '../support/patience.js';
import { back, flow, Stand, there } from '../support/stand.js';
import { until } from '../support/wait.js';

/** What goes wrong with one packet: marks of others, lookups that miss, forged sources, stray TCP flags. */

t.setTimeout(FILE_MS_MAX);

const stand = await Stand.create();
t.teardown(() => stand.close());

type Tap = Pick<typeof t, 'ok' | 'same' | 'equal' | 'teardown'>;
type Addresses = Readonly<Record<4 | 6, string>>;

const FUNCTION: Addresses = { 4: '10.0.128.5', 6: 'fd00:a::5' };
const INSIDE: Addresses = { 4: '10.20.0.9', 6: 'fd00:20::9' };
const SERVER: Addresses = { 4: '203.0.113.50', 6: '2606:2800::50' };
const DENIED_SERVER: Addresses = { 4: '198.51.100.9', 6: '2606:2900::9' };
const FAMILIES = [4, 6] as const;
const ICMP = { 4: 1, 6: 58 } as const;

const groups = new Map([
  ['sources', prefixes('10.0.128.0/17', 'fd00:a::/64', '10.20.0.0/16', 'fd00:20::/64')],
  ['servers', prefixes('203.0.113.0/24', '2606:2800::/32')],
]);
/** Too many ranges for rules: a map. */
const ports = (one: number) => [one, 1001, 1003, 1005, 1007].map((port) => ({ lo: port, hi: port }));
const policy = inForce(
  rule('web', 'PERMIT', 'sources', 'servers', { protocol: 'TCP', portRanges: ports(443) }),
  rule('names', 'PERMIT', 'sources', 'servers', { protocol: 'UDP', portRanges: ports(53) }),
  rule('ping', 'PERMIT', 'sources', 'servers', { protocol: 'ICMP' }),
);

/** Loads policy under names that no earlier load had, and nothing else stays. */
async function load(more: Partial<LoadInput> = {}): Promise<void> {
  const { loader } = stand;
  const epoch = randomBytes(8).toString('hex');
  await loader.applier.apply(compileAll({ policy, groups, ...more, epoch }, ++loader.generation));
  await loader.applier.collect();
}

async function mapsNamed(start: RegExp): Promise<readonly string[]> {
  return [...(await stand.loader.kernel.list()).maps].filter((name) => start.test(name));
}

const first = (protocol: number, src: Addresses, dst: Addresses, port: number, family: 4 | 6) =>
  there(flow(protocol, src[family], dst[family], port), TCP.syn);

/** First packets of connections that the policy permits, several of each kind. */
function permitted(src: Addresses): TestPacket[] {
  return FAMILIES.flatMap((family) =>
    Array.from({ length: 6 }, () => [
      first(6, src, SERVER, 443, family),
      first(17, src, SERVER, 53, family),
      first(ICMP[family], src, SERVER, 0, family),
    ]).flat(),
  );
}

/** Another table with one rule, in a chain of its own. */
function foreignTable(t: Tap, hook: string, rule: string): void {
  here.run('nft', [
    `add table inet other; add chain inet other c { type filter hook ${hook}; }; add rule inet other c ${rule}`,
  ]);
  t.teardown(() => here.run('nft', ['delete table inet other']));
}

/** Each number that a class or a list of this policy can have, and a decision to permit by its first rule. */
const NUMBERS = [
  ...[1, 2].flatMap((number) => [KIND.destination | number, KIND.list | number]),
  KIND.decision | ACTION_BITS.PERMIT | 1,
];
const SOURCE_CLASS = '0:2';
const elements = NUMBERS.map((number, index) => `${index} : ${number}`).join(', ');
const inTurn = `numgen inc mod ${NUMBERS.length} map { ${elements} }`;

const LEVELS = [
  { level: 'source shard', maps: /^source[46]_[0-9a-f]{16}$/ },
  { level: 'source class', maps: /^source[46]_classes_/ },
  { level: 'source chain', maps: /^sources_/ },
  { level: 'destination shard', maps: /^destination[46]_[0-9a-f]{16}$/ },
  { level: 'destination class', maps: /^destination[46]_classes_/ },
  { level: 'pair', maps: /^to_/ },
  { level: 'list', maps: /^lists_/ },
  { level: 'protocol', maps: /^protocols_/ },
  { level: 'port', maps: /^ports_(6|17)_/, only: ({ protocol }: TestPacket) => [6, 17].includes(protocol) },
];

async function missAtEachLevel(t: Tap, from: 'a' | 'dataCentre', src: Addresses): Promise<void> {
  await load();
  t.ok(await stand.carries(from, 'internet', ...permitted(src)), 'permitted with all lookups right');
  for (const { level, maps, only = () => true } of LEVELS) {
    await load();
    const names = await mapsNamed(maps);
    t.ok(names.length > 0, `${level}: there are such maps`);
    for (const name of names) here.run('nft', ['flush', 'map', 'inet', 'sluice', name]);
    const packets = permitted(src).filter(only);
    const before = await stand.dropped();
    t.same(
      await stand.passed(from, 'internet', ...packets),
      [],
      `${level}: none of ${packets.length} passes`,
    );
    const after = await stand.dropped();
    t.equal(after.unclassified - before.unclassified, packets.length, `${level}: counted as unclassified`);
    t.equal(after.deny, before.deny, `${level}: not counted as denied`);
  }
}

t.test('whichever lookup misses, the packet is dropped and counted', async (t) => {
  await missAtEachLevel(t, 'a', FUNCTION);
});

// From an egress interface: on the others a mark that is set instead of added to has lost the guard's bit.
t.test('a packet mark that another table left passes nothing where a lookup misses', async (t) => {
  foreignTable(t, 'forward priority filter - 1', `meta priority set ${SOURCE_CLASS} meta mark set ${inTurn}`);
  await missAtEachLevel(t, 'dataCentre', INSIDE);
});

t.test('a connection mark that another table left passes nothing', async (t) => {
  foreignTable(t, 'prerouting priority mangle', `ct mark set ${inTurn}`);
  await load();
  const packets = FAMILIES.flatMap((family) =>
    NUMBERS.map(() => first(17, FUNCTION, DENIED_SERVER, 53, family)),
  );
  t.ok(await stand.stops('a', 'internet', ...packets));
});

t.test('one element missing makes a drop, and the others go on', async (t) => {
  const alonePolicy = inForce(
    rule('alone', 'PERMIT', 'sources', 'alone', { protocol: 'TCP' }),
    ...policy.rules.map((line) => line.rule),
  );
  await load({ policy: alonePolicy, groups: new Map([...groups, ['alone', prefixes('203.0.113.200/32')]]) });
  const alone = () => there(flow(6, FUNCTION[4], '203.0.113.200', 443), TCP.syn);
  t.ok(await stand.carries('a', 'internet', alone(), first(6, FUNCTION, SERVER, 443, 4)));
  const [name] = await mapsNamed(/^destination4_classes_/);
  here.run('nft', [`delete element inet sluice ${name} { 203.0.113.200 }`]);
  const before = await stand.dropped();
  t.ok(await stand.stops('a', 'internet', alone()));
  t.equal((await stand.dropped()).unclassified, before.unclassified + 1);
  t.ok(await stand.carries('a', 'internet', first(6, FUNCTION, SERVER, 443, 4)));
});

t.test("a function's address that comes in elsewhere is dropped and counted", async (t) => {
  await load();
  for (const family of FAMILIES) {
    const live = {
      tcp: flow(6, FUNCTION[family], SERVER[family], 443),
      udp: flow(17, FUNCTION[family], SERVER[family], 53),
    };
    await stand.handshake('a', 'internet', live.tcp);
    await stand.carries('a', 'internet', there(live.udp));
    const forged = [
      {
        what: 'new, from a Lambda interface',
        from: 'b',
        to: 'internet',
        packet: first(6, FUNCTION, SERVER, 443, family),
      },
      { what: 'live TCP, from a Lambda interface', from: 'b', to: 'internet', packet: there(live.tcp) },
      {
        what: 'live TCP reset, from a Lambda interface',
        from: 'b',
        to: 'internet',
        packet: there(live.tcp, TCP.rst | TCP.ack),
      },
      { what: 'live UDP, from a Lambda interface', from: 'b', to: 'internet', packet: there(live.udp) },
      { what: 'answer to live TCP, from a Lambda interface', from: 'b', to: 'a', packet: back(live.tcp) },
      { what: 'answer to live UDP, from its own function', from: 'a', to: 'a', packet: back(live.udp) },
      {
        what: 'new, from an egress interface',
        from: 'dataCentre',
        to: 'internet',
        packet: first(6, FUNCTION, SERVER, 443, family),
      },
      {
        what: 'live TCP, from an egress interface',
        from: 'dataCentre',
        to: 'internet',
        packet: there(live.tcp),
      },
      {
        what: 'live UDP, back from where it went',
        from: 'internet',
        to: 'internet',
        packet: there(live.udp),
      },
    ] as const;
    for (const { what, from, to, packet } of forged) {
      const before = await stand.dropped();
      t.ok(await stand.stops(from, to, packet), `IPv${family} ${what}`);
      t.equal((await stand.dropped()).spoofed, before.spoofed + 1, 'counted');
    }
    t.ok(await stand.carries('a', 'internet', there(live.tcp), there(live.udp)), 'the live ones go on');
    t.ok(await stand.carries('internet', 'a', back(live.tcp), back(live.udp)), 'both ways');
  }
});

t.test('TCP without a connection and without a bare SYN is invalid', async (t) => {
  await load();
  const flags = [
    TCP.ack,
    TCP.rst,
    TCP.rst | TCP.ack,
    TCP.fin,
    TCP.fin | TCP.ack,
    TCP.syn | TCP.ack,
    TCP.syn | TCP.fin,
    TCP.syn | TCP.rst,
    0,
  ];
  for (const family of FAMILIES) {
    const packets = flags.map((flag) => there(flow(6, FUNCTION[family], SERVER[family], 443), flag));
    const before = await stand.dropped();
    t.same(await stand.passed('a', 'internet', ...packets), [], `IPv${family}`);
    t.equal((await stand.dropped()).invalid, before.invalid + flags.length, 'counted');
  }
});

t.test('functions reach nothing on the gateway but neighbour discovery and what is configured', async (t) => {
  const own = {
    4: ['10.0.128.5', '10.0.1.1', '198.18.0.1', '10.0.2.1'],
    6: ['fd00:a::5', 'fd00:1::1', 'fd00:f::1'],
  };
  for (const inputIcmp of [true, false]) {
    await load({ interfaces: { ...labInterfaces, inputIcmp } });
    for (const family of FAMILIES) {
      const [src, ...gateway] = own[family];
      for (const dst of gateway) {
        const closed = [
          there(flow(6, src!, dst, 22), TCP.syn),
          there(flow(17, src!, dst, 53)),
          there(flow(132, src!, dst)),
        ];
        const echo = there(flow(ICMP[family], src!, dst));
        const before = await stand.dropped();
        await stand.stations.a.send(...closed, echo);
        if (inputIcmp) await stand.stations.a.arrival(echo.tag);
        await stand.settle();
        const { input } = await stand.dropped();
        t.equal(input, before.input + closed.length + (inputIcmp ? 0 : 1), `${dst}, ICMP ${inputIcmp}`);
        t.same(
          closed.filter(({ tag }) => stand.stations.a.count(tag) > 0),
          [],
          'no answer',
        );
      }
    }
    const { namespace } = stand.lab.a;
    namespace.ip('-6', 'neigh', 'flush', 'dev', 'eth0');
    namespace.run('bash', ['-c', 'echo x > /dev/udp/fd00:1::1/9']);
    await until('neighbour discovery', () =>
      namespace.ip('-6', 'neigh', 'show', 'fd00:1::1').includes('lladdr'),
    );
  }
});
