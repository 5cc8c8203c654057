import type { ChildProcess } from 'node:child_process';
import { frame, readFrame, type SeenPacket, TCP, type TestPacket } from './frames.js';
import { here, macOf, type Place } from './namespace.js';
import { patience } from './patience.js';
import { PYTHON, RAW } from './wire.js';

const WAIT_MS_MAX = 10_000 * patience;

/** A stream of packets under way. */
export interface Stream {
  /** Ends it, and gives how often the packet with each tag was sent. */
  halt(): Promise<ReadonlyMap<number, number>>;
}

/** An interface of a host, opened for raw frames: sends what a test makes up, and keeps what comes in. */
export class Station {
  /** Tagged packets that came in. */
  readonly seen: SeenPacket[] = [];
  /** TCP resets that came in: they have no room for a tag. */
  readonly resets: SeenPacket[] = [];
  readonly #child: ChildProcess;
  readonly #macs: { readonly src: string; readonly dst: string };
  readonly #answers: string[] = [];
  readonly #counts = new Map<number, number>();
  readonly #errors: Buffer[] = [];
  #rest = '';
  readonly #wakes = new Set<() => void>();

  private constructor(child: ChildProcess, macs: { readonly src: string; readonly dst: string }) {
    this.#child = child;
    this.#macs = macs;
    child.stderr!.on('data', (chunk: Buffer) => this.#errors.push(chunk));
    child.stdout!.on('data', (chunk: Buffer) => this.#read(chunk.toString('latin1')));
  }

  /** Opens `eth0` of a place that is joined to a port of this namespace. Ends with the place. */
  static async open(place: Place, port: string): Promise<Station> {
    const macs = { src: macOf(place, 'eth0'), dst: macOf(here, port) };
    const station = new Station(place.spawn(PYTHON, [RAW, 'station', 'eth0']), macs);
    await station.#answer('=ready');
    return station;
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop()!;
    for (const line of lines) {
      if (line.startsWith('=')) this.#answers.push(line);
      else this.#take(readFrame(Buffer.from(line, 'hex')));
    }
    for (const wake of this.#wakes) wake();
  }

  #take(packet: SeenPacket | undefined): void {
    if (packet === undefined) return;
    if (packet.tag === undefined) {
      if (packet.protocol === 6 && packet.segment.readUInt8(13) & TCP.rst) this.resets.push(packet);
      return;
    }
    this.seen.push(packet);
    this.#counts.set(packet.tag, this.count(packet.tag) + 1);
  }

  async #until<T>(what: () => string, probe: () => T | undefined | false): Promise<T> {
    const endMs = performance.now() + WAIT_MS_MAX;
    for (;;) {
      const value = probe();
      if (value !== undefined && value !== false) return value;
      const leftMs = endMs - performance.now();
      if (leftMs <= 0) throw new Error(`${what()} did not come\n${Buffer.concat(this.#errors)}`);
      await new Promise<void>((resolve) => {
        const wake = () => {
          clearTimeout(timer);
          this.#wakes.delete(wake);
          resolve();
        };
        const timer = setTimeout(wake, leftMs);
        this.#wakes.add(wake);
      });
    }
  }

  async #answer(start: string): Promise<string> {
    return this.#until(
      () => `the station's answer "${start}"`,
      () => (this.#answers[0]?.startsWith(start) ? this.#answers.shift() : undefined),
    );
  }

  #command(verb: string, packets: readonly TestPacket[]): void {
    const words = packets.map((packet) => frame(packet, this.#macs).toString('hex'));
    this.#child.stdin!.write(`${[verb, ...words].join(' ')}\n`);
  }

  /** Sends packets; they are on the wire when it resolves. */
  async send(...packets: readonly TestPacket[]): Promise<void> {
    this.#command('send', packets);
    await this.#answer('=sent');
  }

  /** Sends packets in turn, over and over. */
  async stream(packets: readonly TestPacket[], perSecond: number): Promise<Stream> {
    this.#command(`stream ${perSecond}`, packets);
    await this.#answer('=sent');
    return {
      halt: async () => {
        this.#command('halt', []);
        const sent = Number((await this.#answer('=halted')).split(' ')[1]);
        const times = (index: number) => Math.ceil(Math.max(0, sent - index) / packets.length);
        return new Map(packets.map(({ tag }, index) => [tag, times(index)]));
      },
    };
  }

  /** How many packets with a tag came in, ICMP errors that quote one included. */
  count(tag: number): number {
    return this.#counts.get(tag) ?? 0;
  }

  /** Waits until so many packets with a tag have come in; rejects where they don't. */
  async arrival(tag: number, count = 1): Promise<void> {
    await this.#until(
      () => `packet ${tag}, ${this.count(tag)} of ${count}`,
      () => this.count(tag) >= count,
    );
  }
}
