import { again } from '../netlink/again.js';
import type { NetlinkConnection } from '../netlink/connection.js';
import { isNotFound } from '../netlink/error.js';
import { MessageWriter } from '../netlink/writer.js';
import { decodeMark } from '../nft/mark.js';
import { type Connection, decodeEntry } from './decode.js';
import { encodeDelete, encodeDump, encodeGet } from './encode.js';
import type { Tuple } from './tuple.js';

/** What names an entry beyond doubt. */
type EntryName = Pick<Connection, 'original' | 'id' | 'zone'>;

/** Reads and deletes entries of the kernel's connection table. */
export class ConntrackTable {
  readonly #connection: NetlinkConnection;
  #sequence = 0;

  constructor(connection: NetlinkConnection) {
    this.#connection = connection;
  }

  /**
   * Calls back for every entry; rejects as `NetlinkConnection.request` does, having called for some. Cost: linear in the
   * table, about 2 s for a million.
   */
  async forEach(visit: (entry: Connection) => void): Promise<void> {
    const sequence = ++this.#sequence;
    const writer = new MessageWriter();
    encodeDump(writer, { sequence });
    await this.#connection.request({
      bytes: writer.bytes(),
      lastSequence: sequence,
      operation: () => 'list connections',
      onMessage: (message) => {
        const entry = decodeEntry(message);
        if (entry !== undefined) visit(entry);
      },
    });
  }

  /** The generations that connections carry. */
  async generationsInUse(): Promise<ReadonlySet<number>> {
    const generations = new Set<number>();
    await again(() =>
      this.forEach(({ mark }) => {
        generations.add(decodeMark(mark).generation);
      }),
    );
    return generations;
  }

  /** The entry that a packet with this tuple belongs to, in either direction; undefined where there is none. */
  async find(tuple: Tuple): Promise<Connection | undefined> {
    const sequence = ++this.#sequence;
    const writer = new MessageWriter();
    encodeGet(writer, { sequence, original: tuple });
    try {
      const messages = await this.#connection.request({
        bytes: writer.bytes(),
        lastSequence: sequence,
        operation: () => 'find connection',
      });
      return messages.map(decodeEntry).find((entry) => entry !== undefined);
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  /** Deletes one entry, by tuple and id: never its successor. Whether it was still there. */
  async delete(entry: EntryName): Promise<boolean> {
    return this.deleteAll([entry]);
  }

  /** The same of several in one request, a tenth of the cost each. Whether all were still there. */
  async deleteAll(entries: readonly EntryName[]): Promise<boolean> {
    const writer = new MessageWriter();
    for (const { original, id, zone } of entries) {
      encodeDelete(writer, { sequence: ++this.#sequence, original, id, zone });
    }
    try {
      await this.#connection.request({
        bytes: writer.bytes(),
        lastSequence: this.#sequence,
        operation: () => 'delete connection',
      });
      return true;
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }
}
