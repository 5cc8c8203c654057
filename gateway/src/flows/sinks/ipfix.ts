import { message, set, templateSet } from '../formats/ipfix.js';
import type { Appended, Output } from '../queue.js';
import { Datagrams } from './datagrams.js';

/** Below what any path carries whole: a lost fragment would lose the message. */
const MESSAGE_BYTES_MAX = 1_400;
const HEADER_BYTES = 16;
const SET_HEADER_BYTES = 4;

export interface IpfixOptions {
  readonly host: string;
  readonly port: number;
  readonly observationDomain: number;
  /** Collectors may start later than we do, and UDP loses: templates come again that often. */
  readonly templateSeconds: number;
}

/** IPFIX (RFC 7011) over UDP: as many records a message as fit, its number counting those before it. */
export class IpfixOutput implements Output {
  readonly #options: IpfixOptions;
  readonly #datagrams: Datagrams;
  #sequence = 0;
  #templatesAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: IpfixOptions) {
    this.#options = options;
    this.#datagrams = new Datagrams(options.host, options.port);
  }

  async append(items: readonly string[]): Promise<Appended> {
    let written = 0;
    while (written < items.length) {
      const sent = await this.#sendTemplates();
      const group = this.#group(items, written);
      const { error } = sent.error === undefined ? await this.#send([this.#dataSet(group)]) : sent;
      if (error !== undefined) return { written, error };
      this.#sequence = (this.#sequence + group.length) >>> 0;
      written += group.length;
    }
    return { written };
  }

  async close(): Promise<void> {
    this.#datagrams.close();
  }

  async #sendTemplates(): Promise<Appended> {
    const nowMs = performance.now();
    const isDue = nowMs - this.#templatesAtMs >= this.#options.templateSeconds * 1_000;
    if (!isDue && !this.#datagrams.isNew) return { written: 0 };
    const sent = await this.#send([templateSet()]);
    if (sent.error === undefined) this.#templatesAtMs = nowMs;
    return sent;
  }

  #send(sets: readonly Uint8Array[]): Promise<Appended> {
    const seconds = Math.floor(Date.now() / 1_000);
    const domain = this.#options.observationDomain;
    return this.#datagrams.send([message(sets, { seconds, sequence: this.#sequence, domain })]);
  }

  /** From there on, those of one template that fit into a message. */
  #group(items: readonly string[], from: number): readonly string[] {
    const template = items[from]!.slice(0, 2);
    let bytes = HEADER_BYTES + SET_HEADER_BYTES;
    let to = from;
    for (; to < items.length && items[to]!.startsWith(template); to++) {
      bytes += items[to]!.length - 2;
      if (bytes > MESSAGE_BYTES_MAX && to > from) break;
    }
    return items.slice(from, to);
  }

  #dataSet(group: readonly string[]): Buffer {
    const id = Buffer.from(group[0]!.slice(0, 2), 'latin1').readUInt16BE();
    return set(
      id,
      group.map((item) => Buffer.from(item.slice(2), 'latin1')),
    );
  }
}
