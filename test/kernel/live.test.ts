import '../support/own-namespace.js';
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Connection } from 'sluice-gateway/conntrack/decode.js';
import type { GatewayInterfaces } from 'sluice-gateway/policy/fixed-chains.js';
import type { PolicyInForce } from 'sluice-gateway/policy/in-force.js';
import type { Action } from 'sluice-gateway/policy/model.js';
import t from 'tap';
import { Ender } from '../support/ender.js';
import { TCP } from '../support/frames.js';
import { inForce, labInterfaces, prefixes, rule } from '../support/load.js';
import { here, type Namespace, sysctl } from '../support/namespace.js';
import { patience } from '../support/patience.js';
import { back, type Flow, flow, Stand, there } from '../support/stand.js';
import { until } from '../support/wait.js';

/** What becomes of live connections that a change no longer permits, at both of their ends. */

t.setTimeout(300_000 * patience);

const stand = await Stand.create();
sysctl(here, 'net.netfilter.nf_conntrack_acct', 1);
const ender = await Ender.create(stand);
t.teardown(async () => {
  await ender.close();
  stand.close();
});

const FAMILIES = [4, 6] as const;
const ACTIONS = ['DENY', 'REJECT'] as const;
const ICMP = { 4: 1, 6: 58 } as const;
const masquerade: GatewayInterfaces = {
  ...labInterfaces,
  snat: { interfaces: ['wan0'], to: 'masquerade' },
};
const WAYS = [
  { how: 'not translated', interfaces: labInterfaces },
  { how: 'translated', interfaces: masquerade },
];

const groups = new Map([
  ['functions', prefixes('10.0.0.0/16', 'fd00:1::/64', 'fd00:a::/64')],
  ['servers', prefixes('203.0.113.0/24', '2606:2800::/32')],
]);
const only = (port: number) => ({ portRanges: [{ lo: port, hi: port }] });
const neighbour = rule('neighbour', 'PERMIT', 'functions', 'servers', only(8443));
/** Nothing is logged of the rule that permits, nor of the one that refuses. */
const all = rule('all', 'PERMIT', 'functions', 'servers', { logging: false });
const permitting = inForce(neighbour, all);
const refusing = (action: Action) =>
  inForce(neighbour, rule('refused', action, 'functions', 'servers', { logging: false }));

const load = (policy: PolicyInForce, interfaces: GatewayInterfaces) =>
  ender.load({ policy, groups, interfaces });

/** A process at one end of TCP connections. */
class Peer {
  static readonly running = new Set<Peer>();
  readonly #child: ChildProcess;
  #text = '';

  constructor(place: Namespace, ...words: string[]) {
    Peer.running.add(this);
    this.#child = place.spawn(process.execPath, [
      fileURLToPath(new URL('../support/peer.js', import.meta.url)),
      ...words,
    ]);
    this.#child.stdout!.on('data', (chunk: Buffer) => {
      this.#text += chunk.toString();
    });
  }

  #lines(start: string): string[] {
    return this.#text.split('\n').filter((line) => line.startsWith(start));
  }

  async ready(): Promise<number> {
    return Number((await until('a peer is ready', () => this.#lines('ready')[0])).split(' ')[1]);
  }

  command(word: 'talk' | 'hush'): void {
    this.#child.stdin!.write(`${word}\n`);
  }

  get pieces(): number {
    return this.#lines('got').length;
  }

  /** How the last connection ended, so far. */
  get end(): string | undefined {
    return this.#lines('ended').at(-1)?.split(' ')[1];
  }

  /** Waits until data comes in that was not there before. */
  async hears(): Promise<boolean> {
    const before = this.pieces;
    return until('a peer hears', () => this.pieces > before);
  }

  async hushed(): Promise<void> {
    await until('a peer hushes', () => this.#lines('hushed').at(-1));
  }

  static killAll(): void {
    for (const peer of Peer.running) peer.#child.kill('SIGKILL');
    Peer.running.clear();
  }
}

const TO = { 4: stand.lab.internet.address4, 6: stand.lab.internet.address6 };
const FROM = { 4: stand.lab.a.address4, 6: stand.lab.a.address6 };

/** A connection between two processes. */
async function connect(family: 4 | 6, port: number) {
  const server = new Peer(stand.lab.internet.namespace, 'listen', TO[family], String(port));
  await server.ready();
  const client = new Peer(stand.lab.a.namespace, 'connect', FROM[family], TO[family], String(port));
  const srcPort = await client.ready();
  const live: Flow = { ...flow(6, FROM[family], TO[family], port), srcPort };
  const entry = await entryOf(live);
  return { server, client, live, entry: entry! };
}

const entryOf = (flow: Flow) => ender.table.find({ ...flow, icmp: undefined });

function revocations(live: { readonly srcPort: number }) {
  return ender.records.filter(({ event, src }) => event === 'revoke' && src?.port === live.srcPort);
}

/** The entry goes, and one record says why. */
async function checkEnded(
  test: Pick<typeof t, 'equal' | 'match'>,
  what: string,
  entry: Connection,
  action: Action,
): Promise<void> {
  await until(
    `the entry goes, ${what}`,
    async () => (await ender.table.find(entry.original))?.id !== entry.id,
  );
  const told = revocations({ srcPort: entry.original.srcPort! });
  test.equal(told.length, 1, `${what}: told once`);
  test.match(told[0], {
    verdict: action,
    rule: { name: 'refused' },
    permittedBy: { name: 'all' },
    packets: { out: Number },
  });
}

for (const { how, interfaces } of WAYS) {
  for (const action of ACTIONS) {
    for (const talker of ['server', 'client', 'nobody'] as const) {
      t.test(`TCP, ${how}, to ${action}, while ${talker} talks`, async (t) => {
        t.teardown(() => Peer.killAll());
        for (const family of FAMILIES) {
          const what = `IPv${family}`;
          // A connection may have the ports that one before it had.
          ender.records.length = 0;
          await load(permitting, interfaces);
          const near = await connect(family, 8443);
          const ended = await connect(family, 443);
          near.server.command('talk');
          near.client.command('talk');
          ended.server.command('talk');
          ended.client.command('talk');
          await ended.server.hears();
          await ended.client.hears();
          for (const who of ['server', 'client'] as const) if (who !== talker) ended[who].command('hush');
          for (const who of ['server', 'client'] as const) if (who !== talker) await ended[who].hushed();
          await stand.settle();
          const heard = () => ended.server.pieces + ended.client.pieces;
          await load(refusing(action), interfaces);
          await stand.settle();
          const before = heard();
          if (talker === 'nobody') ender.revoker.sweep();
          if (action === 'REJECT') {
            t.equal(await until('the client is reset', () => ended.client.end), 'ECONNRESET', what);
            t.equal(await until('the server is reset', () => ended.server.end), 'ECONNRESET', what);
          }
          await checkEnded(t, what, ended.entry, action);
          t.equal(heard(), before, `${what}: nothing came through`);
          if (action === 'DENY') {
            t.equal(ended.client.end, undefined, what);
            // What comes to the gateway's own address, of no connection, its own kernel answers.
            if (interfaces === labInterfaces) t.equal(ended.server.end, undefined, what);
          }
          t.ok((await near.server.hears()) && (await near.client.hears()), `${what}: the neighbour goes on`);
          t.same([near.client.end, near.server.end], [undefined, undefined]);
          t.same(revocations(near.live), []);
        }
      });
    }
  }

  t.test(`UDP and ICMP, ${how}`, async (t) => {
    for (const family of FAMILIES) {
      for (const action of ACTIONS) {
        for (const first of ['function', 'server', 'nobody'] as const) {
          const what = `UDP, IPv${family}, ${action}, first packet of ${first}`;
          await load(permitting, interfaces);
          const live = flow(17, FROM[family], TO[family], 53);
          const opening = there(live);
          await stand.carries('a', 'internet', opening);
          const seen = stand.stations.internet.seen.find(({ tag }) => tag === opening.tag)!;
          const outside: Flow = { ...live, src: seen.src, srcPort: seen.segment.readUInt16BE(0) };
          await stand.carries('internet', 'a', back(outside));
          const entry = (await entryOf(live))!;
          await load(refusing(action), interfaces);
          if (first === 'nobody') ender.revoker.sweep();
          else {
            const [from, to, packet] =
              first === 'function'
                ? (['a', 'internet', there(live)] as const)
                : (['internet', 'a', back(outside)] as const);
            t.ok(await stand.stops(from, to, packet), what);
            if (action === 'REJECT') await stand.stations[from].arrival(packet.tag);
          }
          await checkEnded(t, what, entry, action);
        }
      }
      const what = `ICMP, IPv${family}`;
      await load(permitting, interfaces);
      const ping = flow(ICMP[family], FROM[family], TO[family]);
      const [request, refused] = [there(ping), there(ping)];
      await stand.carries('a', 'internet', request);
      await stand.stations.a.arrival(request.tag);
      const icmp = { type: family === 4 ? 8 : 128, code: 0, id: ping.srcPort };
      const tuple = { ...ping, srcPort: undefined, dstPort: undefined, icmp };
      const entry = (await ender.table.find(tuple))!;
      await load(refusing('REJECT'), interfaces);
      t.ok(await stand.stops('a', 'internet', refused), what);
      await stand.stations.a.arrival(refused.tag);
      await until('the entry goes', async () => (await ender.table.find(tuple))?.id !== entry.id);
      const told = ender.records.findLast(({ event }) => event === 'revoke');
      t.match(told, { verdict: 'REJECT', protocol: 'ICMP', permittedBy: { name: 'all' } }, what);
    }
  });
}

t.test('a successor with the same tuple stays', async (t) => {
  for (const family of FAMILIES) {
    await load(permitting, labInterfaces);
    const live = flow(
      6,
      family === 4 ? '10.0.128.5' : 'fd00:a::5',
      family === 4 ? '203.0.113.50' : '2606:2800::50',
      443,
    );
    await stand.handshake('a', 'internet', live);
    const entry = (await entryOf(live))!;
    await load(refusing('REJECT'), labInterfaces);
    const stale = ender.inForce;
    ender.isHeld = true;
    t.ok(await stand.stops('internet', 'a', back(live)));
    await until('it is told', () => revocations(live)[0]);
    t.ok(await ender.table.delete(entry), 'by another hand');
    await load(permitting, labInterfaces);
    // The id is made of the tuple and the place in memory: others take the one that has become free.
    for (let n = 0; n < 50; n++)
      await stand.carries('a', 'internet', there({ ...live, srcPort: 1_024 + n }, TCP.syn));
    await stand.carries('a', 'internet', there(live, TCP.syn));
    await stand.carries('internet', 'a', back(live, TCP.syn | TCP.ack));
    const successor = (await entryOf(live))!;
    t.not(successor.id, entry.id, `IPv${family}: a connection of its own`);
    // As if the change were not known yet: only the id is left to tell the two apart.
    ender.inForce = stale;
    ender.isHeld = false;
    await until('the revocation is over', () => ender.deleted.includes(entry.id));
    t.equal((await entryOf(live))?.id, successor.id);
  }
});

t.test('answers to rejected packets are limited, and what goes without is counted', async (t) => {
  await load(refusing('REJECT'), labInterfaces);
  const many = (protocol: number) =>
    Array.from({ length: 4_000 }, () => there(flow(protocol, '10.0.128.5', '203.0.113.50', 80), TCP.syn));
  for (const protocol of [6, 17]) {
    const before = await stand.dropped();
    const packets = many(protocol);
    t.ok(await stand.stops('a', 'internet', ...packets));
    const after = await stand.dropped();
    const [answered, unanswered] = [after.reject - before.reject, after.unanswered - before.unanswered];
    t.equal(answered + unanswered, packets.length, `protocol ${protocol}: ${unanswered} had none`);
    t.ok(answered >= 1_000 && unanswered > 0);
  }
});
