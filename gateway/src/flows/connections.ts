import { reversed, type Tuple } from '../conntrack/tuple.js';
import type { Address } from '../net/address.js';
import type { FlowDestination, FlowSource } from './attribute.js';
import type { TupleFields } from './fields.js';
import type { RuleFacts } from './rule-book.js';

/** What was known of a permitted connection when it was made, and how it went on. */
export interface Connection {
  /** Of the conntrack entry. */
  readonly id: number;
  readonly original: Tuple;
  /** RFC 3339; undefined when it was made before the gateway could see it. */
  readonly start: string | undefined;
  readonly src: FlowSource;
  readonly dst: FlowDestination;
  /** What records tell of the tuple, made with the first of them. */
  tupleFields: TupleFields | undefined;
  mark: number;
  /** The rule that permits it now; undefined when its generation is not known. */
  rule: RuleFacts | undefined;
  /** Whether its beginning was told: then its end is told too. */
  told: boolean;
  revoked: boolean;
  /** The listing of the kernel's table in which it was last seen, or during which it was learnt. */
  listing: number;
  /** Found by a listing: the event that it began was lost, or is still to be read. */
  isFound: boolean;
  /** When a record last told its counters, in milliseconds since 1970, and how many packets they were. */
  toldMs: number;
  toldPackets: bigint;
}

/** An address as a string of its 16-bit words: what is made and hashed fastest. */
function words({ family, value }: Address): string {
  if (family === 4) {
    const word = Number(value);
    return String.fromCharCode(word >>> 16, word & 0xffff);
  }
  let text = '';
  for (let shift = 112n; shift >= 0n; shift -= 16n)
    text += String.fromCharCode(Number((value >> shift) & 0xffffn));
  return text;
}

/** ICMP's type is left out: it differs between the directions of an exchange. The length tells the families apart. */
function tupleKey({ protocol, src, dst, srcPort, dstPort, icmp }: Tuple): string {
  return words(src) + words(dst) + String.fromCharCode(protocol, srcPort ?? icmp?.id ?? 0, dstPort ?? 0);
}

/** Connections that are remembered after their end: revoked ones, and those whose end a listing told. */
const ENDED_MAX = 4_096;

/** Sets a key as the newest of a map, and says whether the oldest had to go for it. */
function putNewest<T>(map: Map<string, T>, key: string, value: T, max: number): boolean {
  map.delete(key);
  const isFull = map.size >= max;
  if (isFull) map.delete(map.keys().next().value!);
  map.set(key, value);
  return isFull;
}

/**
 * Connections by original tuple, at most `connectionsMax`. A new one pushes out the oldest, so that entries
 * whose end was lost cannot fill the table for good. The conntrack id tells a connection from its successor;
 * alone it names none, being a 32-bit hash.
 */
export class ConnectionTable {
  readonly #connections = new Map<string, Connection>();
  readonly #ended = new Map<string, Connection>();
  readonly #connectionsMax: number;
  #forgotten = 0;
  /** The tuple that was asked for last, and its key: an event asks several times. */
  #last: { readonly tuple: Tuple; readonly key: string } | undefined;

  constructor(connectionsMax: number) {
    this.#connectionsMax = connectionsMax;
  }

  get size(): number {
    return this.#connections.size;
  }

  /** How many were pushed out: their end is attributed by what is known then. */
  get forgotten(): number {
    return this.#forgotten;
  }

  #keyOf(tuple: Tuple): string {
    if (this.#last?.tuple !== tuple) this.#last = { tuple, key: tupleKey(tuple) };
    return this.#last.key;
  }

  get(id: number, original: Tuple): Connection | undefined {
    const connection = this.#connections.get(this.#keyOf(original));
    return connection?.id === id ? connection : undefined;
  }

  /** The same; for a while after its end too one that was revoked, or that a listing did not show: word of it may be
   * read later. */
  recall(id: number, original: Tuple): Connection | undefined {
    const ended = this.#ended.get(this.#keyOf(original));
    return this.get(id, original) ?? (ended?.id === id ? ended : undefined);
  }

  /**
   * The connection of a packet of either direction, as the forward chain sees it: without source NAT. One that was
   * revoked is still found for a while after its end.
   */
  find(packet: Tuple): Connection | undefined {
    const keys = [tupleKey(packet), tupleKey(reversed(packet))];
    const live = keys.map((key) => this.#connections.get(key)).find((known) => known !== undefined);
    return live ?? keys.map((key) => this.#ended.get(key)).find((known) => known !== undefined);
  }

  set(connection: Connection): void {
    const key = this.#keyOf(connection.original);
    this.#ended.delete(key);
    if (putNewest(this.#connections, key, connection, this.#connectionsMax)) this.#forgotten++;
  }

  /** Removes and returns a connection. */
  take(id: number, original: Tuple): Connection | undefined {
    const connection = this.get(id, original);
    if (connection === undefined) return undefined;
    const key = this.#keyOf(original);
    this.#connections.delete(key);
    if (connection.revoked) putNewest(this.#ended, key, connection, ENDED_MAX);
    return connection;
  }

  /** Removes and returns those that listing `number` did not show. Cost: linear. */
  takeUnlisted(number: number): readonly Connection[] {
    const unlisted = [...this.#connections].filter(([, { listing }]) => listing < number);
    for (const [key, connection] of unlisted) {
      this.#connections.delete(key);
      putNewest(this.#ended, key, connection, ENDED_MAX);
    }
    return unlisted.map(([, connection]) => connection);
  }
}
