import { join } from 'node:path';
import { printPrefix } from 'sluice-gateway/net/prefix.js';
import type { TestPacket } from 'sluice-test/support/frames.js';
import { connect, macOf, Namespace, sysctl } from 'sluice-test/support/namespace.js';
import { FrameSender, type Ran, writeFrames } from '../wire/wire.js';
import { SOURCES } from './policies.js';

/** Nobody has this address: the far end drops a frame for it as soon as it has counted it. */
const NOBODY = '02:00:00:00:00:01';
/** An unanswered connection outlives the rounds in between. */
const UDP_TIMEOUT_S = 600;
/** How long the kernel takes to free flushed connections, at most. */
const SETTLE_MS = 50;

/** What came out at the far end beside what was sent, in one run. */
export interface Delivered extends Ran {
  readonly received: number;
}

/** A gateway between a sender and a far end that counts and drops, each in a namespace of its own. */
export class RaceGateway {
  readonly namespace = new Namespace('gw');
  readonly #source = new Namespace('src');
  readonly #sink = new Namespace('dst');
  readonly #senders = new Map<string, FrameSender>();
  readonly #macs: { readonly src: string; readonly dst: string };

  constructor() {
    const { namespace } = this;
    for (const place of [namespace, this.#source, this.#sink]) {
      for (const scope of ['all', 'default']) sysctl(place, `net.ipv6.conf.${scope}.disable_ipv6`, 1);
    }
    connect(namespace, { name: 'lam0', addresses: ['198.18.1.1/30'] }, this.#source, {
      name: 'eth0',
      addresses: ['198.18.1.2/30'],
    });
    connect(namespace, { name: 'wan0', addresses: ['198.18.2.1/30'] }, this.#sink, {
      name: 'eth0',
      addresses: ['198.18.2.2/30'],
    });
    for (const prefix of SOURCES) namespace.ip('route', 'add', printPrefix(prefix), 'via', '198.18.1.2');
    namespace.ip('route', 'add', 'default', 'via', '198.18.2.2');
    namespace.ip('neigh', 'add', '198.18.2.2', 'lladdr', NOBODY, 'dev', 'wan0', 'nud', 'permanent');
    for (const key of ['all', 'default', 'lam0', 'wan0'])
      sysctl(namespace, `net.ipv4.conf.${key}.rp_filter`, 0);
    sysctl(namespace, 'net.netfilter.nf_conntrack_udp_timeout', UDP_TIMEOUT_S);
    sysctl(namespace, 'net.ipv4.ip_forward', 1);
    this.#macs = { src: macOf(this.#source, 'eth0'), dst: macOf(namespace, 'lam0') };
  }

  /** Makes a sender of these packets, under a name. */
  async addSender(
    name: string,
    packets: readonly TestPacket[],
    options: { readonly program: string; readonly folder: string; readonly cpu: number },
  ): Promise<void> {
    const frames = join(options.folder, `${this.namespace.name}-${name}`);
    writeFrames(frames, packets, this.#macs);
    const sender = await FrameSender.open(this.#source, options.program, {
      interfaceName: 'eth0',
      frames,
      cpu: options.cpu,
    });
    this.#senders.set(name, sender);
  }

  #received(): number {
    const [link] = JSON.parse(this.#sink.ip('-s', '-j', 'link', 'show', 'dev', 'eth0')) as {
      stats64: { rx: { packets: number } };
    }[];
    return link!.stats64.rx.packets;
  }

  /** Sends as fast as is forwarded, until one of the limits is reached. */
  async run(name: string, limits: Parameters<FrameSender['run']>[0]): Promise<Delivered> {
    const before = this.#received();
    const ran = await this.#senders.get(name)!.run(limits);
    return { ...ran, received: this.#received() - before };
  }

  /** Forgets all connections. */
  async flush(): Promise<void> {
    this.namespace.run('conntrack', ['-F']);
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  }

  remove(): void {
    for (const place of [this.namespace, this.#source, this.#sink]) place.remove();
  }
}
