import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { printPrefix, sortPrefixes } from 'sluice-gateway/net/prefix.js';
import { openSnapshotFolder, type SnapshotStore, storeSnapshot } from 'sluice-gateway/snapshot/folder.js';
import { bodyDigest, canonicalJson, type Manifest, SNAPSHOT_FORMAT } from 'sluice-gateway/snapshot/format.js';
import { createLab, type Lab } from 'sluice-test/support/lab.js';
import { macOf, Namespace } from 'sluice-test/support/namespace.js';
import { askStatus } from 'sluice-test/support/stage.js';
import { GATEWAY } from '../gateway-process.js';
import { FrameCounter, FrameSender, writeFrames } from '../wire/wire.js';
import { LEGS, type Leg, type Traffic } from './packets.js';
import type { StreamEnd } from './streams.js';
import { SERVICE_PORT, type World } from './worlds.js';

const script = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const SERVE = fileURLToPath(import.meta.resolve('sluice-test/support/serve.js'));
const CONFIG = `gateway:
  name: gw-a
  lambdaInterfaces: [lam0, lam1]
  egressInterfaces: [wan0, dc0]
policy: { path: policy/ }
snapshot: { path: snapshot/ }
flows: { sinks: [{ type: file, path: flows.jsonl }] }
admin: { socket: admin.sock }
state: { path: state/ }
`;
const POLL_MS = 5;
/** A gateway that has not come so far by then is broken. */
const WAIT_MS_MAX = 60_000;
const STREAMS_PER_ROUTE = 10;
const ROUTES: Readonly<Record<'a' | 'b', readonly string[]>> = {
  a: ['10.0.1.10|203.0.113.10', 'fd00:1::10|2606:2800::10'],
  b: ['10.0.2.10|10.20.0.5', 'fd00:2::10|fd00:20::5'],
};
const SERVERS: Readonly<Record<'internet' | 'dataCentre', readonly string[]>> = {
  internet: ['tcp|203.0.113.10', 'tcp|2606:2800::10'],
  dataCentre: ['tcp|10.20.0.5', 'tcp|fd00:20::5'],
};
const PORTS: Readonly<Record<Leg, string>> = { a: 'lam0', b: 'lam1', internet: 'wan0', dataCentre: 'dc0' };

/** Packets by the change that was under way when they were sent, a map a sender or counter. */
export type ByChange = readonly ReadonlyMap<number, number>[];

/** What became of the traffic. */
export interface Ended {
  readonly deniedSent: number;
  /** Of the permitted datagrams. */
  readonly sent: ByChange;
  readonly received: ByChange;
  readonly streams: readonly StreamEnd[];
}

/** The lab with the product's gateway in its middle and traffic through it. */
export class Site {
  readonly #folder: string;
  readonly #program: string;
  readonly #namespace = new Namespace('gw');
  readonly #lab: Lab;
  readonly #store: SnapshotStore;
  readonly #senders: FrameSender[] = [];
  readonly #floods: FrameSender[] = [];
  readonly #counters: FrameCounter[] = [];
  readonly #streams: ChildProcess[] = [];
  #gateway: ChildProcess | undefined;
  #log = '';
  #bodies: readonly string[] = [];
  #revision = 0;

  private constructor(folder: string, program: string, store: SnapshotStore) {
    this.#folder = folder;
    this.#program = program;
    this.#store = store;
    this.#lab = createLab(this.#namespace);
    // As behind the hosts of functions there are others: nobody answers for them.
    for (const [net, via] of [
      ['10.0.128.0/17', '10.0.1.10'],
      ['10.0.64.0/18', '10.0.2.10'],
      ['fd00:a::/64', 'fd00:1::10'],
      ['fd00:b::/64', 'fd00:2::10'],
    ] as const)
      this.#namespace.ip('route', 'add', net, 'via', via);
    // One that is there already gets no owner, and can be flushed.
    this.#namespace.run('nft', ['add table inet sluice']);
  }

  /** `program` is the compiled wire. */
  static async create(folder: string, program: string): Promise<Site> {
    mkdirSync(join(folder, 'policy'));
    writeFileSync(join(folder, 'sluice.yaml'), CONFIG);
    return new Site(folder, program, await openSnapshotFolder(join(folder, 'snapshot')));
  }

  /** The last lines that the gateway logged. */
  get log(): string {
    return this.#log;
  }

  /** Kills the gateway, where there is one, and starts it. */
  async restart(): Promise<void> {
    if (this.#gateway !== undefined) {
      const ended = once(this.#gateway, 'exit');
      // `ip netns exec` has become the gateway itself.
      this.#gateway.kill('SIGKILL');
      await ended;
    }
    const child = this.#namespace.spawn(process.execPath, [GATEWAY, join(this.#folder, 'sluice.yaml')]);
    child.stdout!.resume();
    child.stderr!.on('data', (chunk: Buffer) => {
      this.#log = `${this.#log}${chunk}`.slice(-4_000);
    });
    this.#gateway = child;
  }

  /** Publishes a snapshot; gives its revision. */
  async publish({ policy, groups }: World): Promise<number> {
    const bodies = new Map<string, string>();
    const body = (value: unknown) => {
      const bytes = canonicalJson(value);
      const digest = bodyDigest(bytes);
      bodies.set(digest, bytes);
      return digest;
    };
    const manifest: Manifest = {
      format: SNAPSHOT_FORMAT,
      revision: ++this.#revision,
      createdAt: new Date().toISOString(),
      policy: { digest: body(policy) },
      groups: [...groups].map(([name, members]) => {
        const prefixes = sortPrefixes(members);
        const bodies = prefixes.length === 0 ? [] : [body({ prefixes: prefixes.map(printPrefix) })];
        return { name, resolved: true, prefixCount: prefixes.length, bodies };
      }),
      inventory: { digest: body({ scopes: [] }), functions: [] },
    };
    // One may be read while the next is written.
    await storeSnapshot(this.#store, bodies, canonicalJson(manifest), this.#bodies);
    this.#bodies = [...bodies.keys()];
    return this.#revision;
  }

  /** Waits until a revision is in the kernel. */
  async inForce(revision: number): Promise<void> {
    const endMs = performance.now() + WAIT_MS_MAX;
    for (;;) {
      const status = await askStatus(join(this.#folder, 'admin.sock'));
      if (status?.ready === true && status.revision.applied === revision) return;
      if (performance.now() > endMs || this.#gateway?.exitCode !== null)
        throw new Error(`Cannot go on: revision ${revision} is not in force\n${this.#log}`);
      await delay(POLL_MS);
    }
  }

  flushTable(): void {
    this.#namespace.run('nft', ['flush ruleset; add table inet sluice']);
  }

  /** Opens connections, counts at every host, and begins to send. `onDenied` is told of each
   * packet of the flood that arrives, by its index. */
  async startTraffic(
    { denied, permitted }: Traffic,
    rates: { readonly deniedPerSecond: number; readonly permittedPerSecond: number },
    onDenied: (index: number) => void,
  ): Promise<void> {
    for (const leg of ['internet', 'dataCentre'] as const) {
      const args = SERVERS[leg].map((server) => `${server}|${SERVICE_PORT}`);
      await once(this.#lab[leg].namespace.spawn(process.execPath, [SERVE, ...args]).stdout!, 'data');
    }
    for (const leg of ['a', 'b'] as const) {
      const routes = ROUTES[leg].map((route) => `${route}|${SERVICE_PORT}`);
      const args = [script('streams.js'), String(STREAMS_PER_ROUTE), ...routes];
      const child = this.#lab[leg].namespace.spawn(process.execPath, args);
      this.#streams.push(child);
      await once(child.stdout!, 'data');
    }
    for (const leg of LEGS) {
      const place = this.#lab[leg].namespace;
      this.#counters.push(await FrameCounter.open(place, this.#program, 'eth0', onDenied));
    }
    for (const leg of LEGS) {
      if (denied[leg].length > 0) {
        const flood = await this.#sender(leg, denied[leg]);
        await flood.start(rates.deniedPerSecond);
        this.#floods.push(flood);
      }
      if (permitted[leg].length === 0) continue;
      // One that goes on with its connections, and one whose every packet begins one.
      for (const isNew of [false, true]) {
        const sender = await this.#sender(leg, permitted[leg]);
        await sender.start(rates.permittedPerSecond, isNew);
        this.#senders.push(sender);
      }
    }
  }

  async #sender(leg: Leg, packets: Traffic['denied'][Leg]): Promise<FrameSender> {
    const place = this.#lab[leg].namespace;
    const frames = join(this.#folder, `frames-${this.#senders.length}-${this.#floods.length}`);
    const macs = { src: macOf(place, 'eth0'), dst: macOf(this.#namespace, PORTS[leg]) };
    writeFrames(frames, packets, macs);
    return FrameSender.open(place, this.#program, { interfaceName: 'eth0', frames });
  }

  /** What is sent from now on counts for this change. */
  epoch(number: number): void {
    for (const sender of this.#senders) sender.epoch(number);
  }

  /** Ends all traffic and gives what became of it. */
  async stopTraffic(): Promise<Ended> {
    const sent = await Promise.all(this.#senders.map((sender) => sender.stop()));
    const floods = await Promise.all(this.#floods.map((flood) => flood.stop()));
    await delay(200);
    const reports = await Promise.all(this.#counters.map((counter) => counter.report()));
    const lost = reports.reduce((sum, report) => sum + report.lost, 0);
    if (lost > 0) throw new Error(`Cannot tell what arrived: ${lost} frames were not looked at`);
    const streams: StreamEnd[] = [];
    for (const child of this.#streams) {
      child.stdin!.end();
      streams.push(...(JSON.parse(await text(child.stdout!)) as StreamEnd[]));
    }
    const deniedSent = floods
      .flatMap((counts) => [...counts.values()])
      .reduce((sum, count) => sum + count, 0);
    return { deniedSent, sent, received: reports.map(({ counts }) => counts), streams };
  }

  remove(): void {
    this.#lab.remove();
    this.#namespace.remove();
  }
}
