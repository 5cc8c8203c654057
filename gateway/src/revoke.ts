import { setTimeout as delay } from 'node:timers/promises';
import type { ConntrackTable } from './conntrack/table.js';
import type { Tuple } from './conntrack/tuple.js';
import type { Log } from './log.js';
import { isBareSyn, type NflogPacket } from './nflog/decode.js';
import { decodeMark } from './nft/mark.js';

/** Revocations under way at once; of more, the next packet of the connection tells again. */
export const REVOCATIONS_MAX = 10_000;
/** Longer than the kernel holds log records back: what tells of the revocation is read before what tells of the end. */
const SETTLE_MS = 150;

const keyOf = ({ protocol, src, dst, srcPort, dstPort, icmp }: Tuple) =>
  [protocol, src.value, srcPort, dst.value, dstPort, icmp?.id].join();

/**
 * Deletes the entries of connections that policy no longer permits. Their packets are dropped with or without it;
 * gone, they hold no place in the table, and a packet of theirs is no bare SYN and gets nowhere.
 */
export class Revoker {
  readonly #table: ConntrackTable;
  readonly #generation: () => number | undefined;
  readonly #log: Log;
  readonly #underway = new Set<string>();

  constructor(table: ConntrackTable, generation: () => number | undefined, log: Log) {
    this.#table = table;
    this.#generation = generation;
    this.#log = log;
  }

  /** Takes a logged packet. Where it was refused and may belong to a connection that was permitted before, that goes. */
  refused({ prefix, mark, tcpFlags, conntrack, tuple }: NflogPacket): void {
    if (prefix !== 'deny' && prefix !== 'reject') return;
    if (isBareSyn(tcpFlags)) return;
    const named = conntrack?.original ?? tuple;
    if (named === undefined || this.#underway.size >= REVOCATIONS_MAX) return;
    const key = keyOf(named);
    if (this.#underway.has(key)) return;
    this.#underway.add(key);
    this.#delete(named, decodeMark(mark).generation)
      .catch((error: Error) =>
        this.#log.warn('the entry of a revoked connection could not be deleted', { error }),
      )
      .finally(() => this.#underway.delete(key));
  }

  async #delete(tuple: Tuple, refusedBy: number): Promise<void> {
    await delay(SETTLE_MS);
    // A newer policy may permit it again.
    if (refusedBy !== this.#generation()) return;
    const entry = await this.#table.find(tuple);
    if (entry === undefined) return;
    const { generation } = decodeMark(entry.mark);
    // Never judged by us, or not what was refused.
    if (generation === 0 || generation === refusedBy) return;
    await this.#table.delete(entry);
  }
}
