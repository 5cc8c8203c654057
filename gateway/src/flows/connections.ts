import { type Icmp, reversed, type Tuple } from '../conntrack/tuple.js';
import { storeWords6 } from '../matcher/sorted.js';
import type { Address } from '../net/address.js';
import type { Family } from '../net/family.js';
import { valueOfWords, WORDS } from '../net/words.js';
import type { Owners } from './attribute.js';
import type { RuleFacts } from './rule-book.js';

/** What was known of a permitted connection when it was made, and how it went on. */
export interface Connection {
  /** Of the conntrack entry. */
  readonly id: number;
  readonly original: Tuple;
  /** Since 1970; undefined when it was made before the gateway could see it. */
  readonly startMs: number | undefined;
  readonly source: Owners;
  readonly destination: Owners;
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
  toldPackets: number;
}

/** A connection of the table, as it was when it was asked for: `update` keeps what was changed since. */
export interface Known extends Connection {
  /** 0: of the table no more. */
  readonly slot: number;
}

/** Words of a slot. First its tuple: addresses, ports (or ICMP's id), family and protocol. */
const DST = WORDS[6];
const PORTS = 2 * WORDS[6];
const KIND = PORTS + 1;
const TUPLE_WORDS = KIND + 1;
/** Type and code. */
const ICMP = TUPLE_WORDS;
const ID = ICMP + 1;
const MARK = ID + 1;
const FLAGS = MARK + 1;
const LISTING = FLAGS + 1;
/** Links to other slots, 0 where there is none; the first is that of the free ones, too. */
const NEXT = LISTING + 1;
const OLDER = NEXT + 1;
const YOUNGER = OLDER + 1;
const SLOT_WORDS = YOUNGER + 1;

const FLAG = { told: 1, revoked: 2, found: 4, hasPorts: 8, isIcmp: 16 } as const;

/** Doubles of a slot. */
const START_MS = 0;
const TOLD_MS = 1;
const TOLD_PACKETS = 2;
const SLOT_DOUBLES = 3;

const SLOTS_FIRST = 1 << 10;

/** As four words, of which IPv4 leaves three 0. */
function storeAddress({ family, value }: Address, words: Uint32Array, at: number): void {
  if (family === 6) storeWords6(value, words, at, WORDS[6]);
  else {
    words[at] = Number(value);
    words[at + 1] = words[at + 2] = words[at + 3] = 0;
  }
}

/** ICMP's type is left out: it differs between the directions of an exchange. */
function storeTuple({ src, dst, protocol, srcPort, dstPort, icmp }: Tuple, words: Uint32Array): void {
  storeAddress(src, words, 0);
  storeAddress(dst, words, DST);
  words[PORTS] = ((srcPort ?? icmp?.id ?? 0) << 16) | (dstPort ?? 0);
  words[KIND] = (src.family << 8) | protocol;
}

/** Connections that are remembered after their end: revoked ones, and those whose end a listing told. */
const ENDED_MAX = 4_096;

/**
 * Connections by original tuple, at most `connectionsMax`. A new one pushes out the oldest, so that entries
 * whose end was lost cannot fill the table for good. The conntrack id tells a connection from its successor;
 * alone it names none, being a 32-bit hash.
 *
 * A hash table in typed arrays, 130 bytes a connection, grown by doubling: as objects a million connections are what the
 * garbage collector spends most of a core on, copying them while they are young and marking them when they are old.
 */
export class ConnectionTable {
  readonly #connectionsMax: number;
  /** Nobody can choose tuples that share a bucket. */
  readonly #seed = Math.floor(Math.random() * 2 ** 32) | 0;
  /** The tuple that was asked for last, its words and its hash: an event asks several times. */
  readonly #key = new Uint32Array(TUPLE_WORDS);
  #keyTuple: Tuple | undefined;
  #keyHash = 0;
  readonly #ended = new Map<string, Known>();
  /** Slots of one hash are a list; slot 0 stays empty. As many buckets as slots, a power of two. */
  #buckets = new Uint32Array(SLOTS_FIRST);
  #words = new Uint32Array(SLOTS_FIRST * SLOT_WORDS);
  #doubles = new Float64Array(SLOTS_FIRST * SLOT_DOUBLES);
  readonly #sources: (Owners | undefined)[] = [];
  readonly #destinations: (Owners | undefined)[] = [];
  readonly #rules: (RuleFacts | undefined)[] = [];
  #size = 0;
  #slotsUsed = 1;
  #firstFree = 0;
  #oldest = 0;
  #youngest = 0;
  #forgotten = 0;

  constructor(connectionsMax: number) {
    this.#connectionsMax = connectionsMax;
  }

  get size(): number {
    return this.#size;
  }

  /** How many were pushed out: their end is attributed by what is known then. */
  get forgotten(): number {
    return this.#forgotten;
  }

  get(id: number, original: Tuple): Known | undefined {
    const slot = this.#slotOf(original);
    return slot !== 0 && this.#words[slot * SLOT_WORDS + ID] === id ? this.#read(slot, original) : undefined;
  }

  /** The same; for a while after its end too one that was revoked, or that a listing did not show: word of it may be
   * read later. */
  recall(id: number, original: Tuple): Known | undefined {
    const live = this.get(id, original);
    if (live !== undefined) return live;
    const ended = this.#endedOf(original);
    return ended?.id === id ? ended : undefined;
  }

  /**
   * The connection of a packet of either direction, as the forward chain sees it: without source NAT. One that was
   * revoked is still found for a while after its end.
   */
  find(packet: Tuple): Known | undefined {
    const tuples = [packet, reversed(packet)];
    const slot = tuples.map((tuple) => this.#slotOf(tuple)).find((slot) => slot !== 0);
    if (slot !== undefined) return this.#read(slot, this.#tupleOf(slot));
    return tuples.map((tuple) => this.#endedOf(tuple)).find((ended) => ended !== undefined);
  }

  /** Takes in a connection, in the place of another of its tuple. */
  set(connection: Connection): Known {
    const { id, original, startMs, source, destination } = connection;
    const before = this.#slotOf(original);
    if (before !== 0) this.#remove(before);
    if (this.#ended.size > 0) this.#ended.delete(this.#keyText(original));
    if (this.#size >= this.#connectionsMax) {
      this.#remove(this.#oldest);
      this.#forgotten++;
    }
    const slot = this.#add(original);
    this.#words[slot * SLOT_WORDS + ID] = id;
    this.#doubles[slot * SLOT_DOUBLES + START_MS] = startMs ?? Number.NaN;
    this.#sources[slot] = source;
    this.#destinations[slot] = destination;
    const known = { ...connection, slot };
    this.update(known);
    return known;
  }

  /** Keeps what may change of a connection. */
  update(known: Known): void {
    const { slot, original, mark, rule, told, revoked, listing, isFound, toldMs, toldPackets } = known;
    if (slot === 0) return;
    const [at, doublesAt] = [slot * SLOT_WORDS, slot * SLOT_DOUBLES];
    this.#words[at + MARK] = mark;
    this.#words[at + LISTING] = listing;
    this.#words[at + FLAGS] =
      (told ? FLAG.told : 0) |
      (revoked ? FLAG.revoked : 0) |
      (isFound ? FLAG.found : 0) |
      (original.srcPort === undefined ? 0 : FLAG.hasPorts) |
      (original.icmp === undefined ? 0 : FLAG.isIcmp);
    this.#doubles[doublesAt + TOLD_MS] = toldMs;
    this.#doubles[doublesAt + TOLD_PACKETS] = toldPackets;
    this.#rules[slot] = rule;
  }

  /** Removes and returns a connection. */
  take(id: number, original: Tuple): Connection | undefined {
    const known = this.get(id, original);
    if (known === undefined) return undefined;
    this.#remove(known.slot);
    if (known.revoked) this.#remember(known);
    return known;
  }

  /** Removes and returns those that listing `number` did not show. Cost: linear. */
  takeUnlisted(number: number): readonly Connection[] {
    const unlisted: Known[] = [];
    for (let slot = this.#oldest; slot !== 0; slot = this.#words[slot * SLOT_WORDS + YOUNGER]!)
      if (this.#words[slot * SLOT_WORDS + LISTING]! < number)
        unlisted.push(this.#read(slot, this.#tupleOf(slot)));
    for (const known of unlisted) {
      this.#remove(known.slot);
      this.#remember(known);
    }
    return unlisted;
  }

  /** The oldest of those that are remembered goes when there are more than the limit. */
  #remember(known: Known): void {
    const key = this.#keyText(known.original);
    this.#ended.delete(key);
    if (this.#ended.size >= ENDED_MAX) this.#ended.delete(this.#ended.keys().next().value!);
    this.#ended.set(key, { ...known, slot: 0 });
  }

  #endedOf(tuple: Tuple): Known | undefined {
    return this.#ended.size === 0 ? undefined : this.#ended.get(this.#keyText(tuple));
  }

  #keyText(tuple: Tuple): string {
    this.#ask(tuple);
    return this.#key.join();
  }

  #ask(tuple: Tuple): void {
    if (this.#keyTuple === tuple) return;
    storeTuple(tuple, this.#key);
    this.#keyTuple = tuple;
    this.#keyHash = this.#hashOf(this.#key, 0);
  }

  /** Of a tuple whose words lie at `at`. */
  #hashOf(words: Uint32Array, at: number): number {
    let hash = this.#seed;
    for (let word = at; word < at + TUPLE_WORDS; word++) {
      hash = Math.imul(hash ^ words[word]!, 0x9e37_79b1);
      hash ^= hash >>> 15;
    }
    return hash;
  }

  #bucketOf(hash: number): number {
    return hash & (this.#buckets.length - 1);
  }

  /** 0: there is none. */
  #slotOf(tuple: Tuple): number {
    const [words, key] = [this.#words, this.#key];
    this.#ask(tuple);
    let slot = this.#buckets[this.#bucketOf(this.#keyHash)]!;
    while (slot !== 0) {
      const at = slot * SLOT_WORDS;
      let word = 0;
      while (word < TUPLE_WORDS && words[at + word] === key[word]) word++;
      if (word === TUPLE_WORDS) return slot;
      slot = words[at + NEXT]!;
    }
    return 0;
  }

  /** A slot of its own, as the youngest. */
  #add(original: Tuple): number {
    const slot = this.#freeSlot();
    const at = slot * SLOT_WORDS;
    const { icmp } = original;
    this.#ask(original);
    for (let word = 0; word < TUPLE_WORDS; word++) this.#words[at + word] = this.#key[word]!;
    this.#words[at + ICMP] = icmp === undefined ? 0 : (icmp.type << 8) | icmp.code;
    this.#link(slot, this.#keyHash);
    this.#words[at + OLDER] = this.#youngest;
    this.#words[at + YOUNGER] = 0;
    if (this.#youngest === 0) this.#oldest = slot;
    else this.#words[this.#youngest * SLOT_WORDS + YOUNGER] = slot;
    this.#youngest = slot;
    this.#size++;
    return slot;
  }

  #link(slot: number, hash: number): void {
    const bucket = this.#bucketOf(hash);
    this.#words[slot * SLOT_WORDS + NEXT] = this.#buckets[bucket]!;
    this.#buckets[bucket] = slot;
  }

  #freeSlot(): number {
    const free = this.#firstFree;
    if (free !== 0) {
      this.#firstFree = this.#words[free * SLOT_WORDS + NEXT]!;
      return free;
    }
    if (this.#slotsUsed === this.#buckets.length) this.#grow();
    return this.#slotsUsed++;
  }

  /** Twice as many slots. Every one there is is in use then. */
  #grow(): void {
    const [words, doubles] = [this.#words, this.#doubles];
    this.#buckets = new Uint32Array(2 * this.#buckets.length);
    this.#words = new Uint32Array(2 * words.length);
    this.#words.set(words);
    this.#doubles = new Float64Array(2 * doubles.length);
    this.#doubles.set(doubles);
    for (let slot = 1; slot < this.#slotsUsed; slot++)
      this.#link(slot, this.#hashOf(this.#words, slot * SLOT_WORDS));
  }

  #remove(slot: number): void {
    const words = this.#words;
    const at = slot * SLOT_WORDS;
    const bucket = this.#bucketOf(this.#hashOf(words, at));
    const next = words[at + NEXT]!;
    if (this.#buckets[bucket] === slot) this.#buckets[bucket] = next;
    else {
      let before = this.#buckets[bucket]!;
      while (words[before * SLOT_WORDS + NEXT] !== slot) before = words[before * SLOT_WORDS + NEXT]!;
      words[before * SLOT_WORDS + NEXT] = next;
    }
    const [older, younger] = [words[at + OLDER]!, words[at + YOUNGER]!];
    if (older === 0) this.#oldest = younger;
    else words[older * SLOT_WORDS + YOUNGER] = younger;
    if (younger === 0) this.#youngest = older;
    else words[younger * SLOT_WORDS + OLDER] = older;
    words[at + NEXT] = this.#firstFree;
    this.#firstFree = slot;
    this.#sources[slot] = this.#destinations[slot] = this.#rules[slot] = undefined;
    this.#size--;
  }

  #read(slot: number, original: Tuple): Known {
    const [words, doubles] = [this.#words, this.#doubles];
    const [at, doublesAt] = [slot * SLOT_WORDS, slot * SLOT_DOUBLES];
    const flags = words[at + FLAGS]!;
    const startMs = doubles[doublesAt + START_MS]!;
    return {
      slot,
      id: words[at + ID]!,
      original,
      startMs: Number.isNaN(startMs) ? undefined : startMs,
      source: this.#sources[slot]!,
      destination: this.#destinations[slot]!,
      mark: words[at + MARK]!,
      rule: this.#rules[slot],
      told: (flags & FLAG.told) !== 0,
      revoked: (flags & FLAG.revoked) !== 0,
      listing: words[at + LISTING]!,
      isFound: (flags & FLAG.found) !== 0,
      toldMs: doubles[doublesAt + TOLD_MS]!,
      toldPackets: doubles[doublesAt + TOLD_PACKETS]!,
    };
  }

  #tupleOf(slot: number): Tuple {
    const words = this.#words;
    const at = slot * SLOT_WORDS;
    const [ports, kind, flags] = [words[at + PORTS]!, words[at + KIND]!, words[at + FLAGS]!];
    const family = (kind >>> 8) as Family;
    const address = (from: number): Address => ({
      family,
      value: valueOfWords(words.subarray(from, from + WORDS[family])),
    });
    const hasPorts = (flags & FLAG.hasPorts) !== 0;
    const icmpWord = words[at + ICMP]!;
    const icmp: Icmp = { type: icmpWord >>> 8, code: icmpWord & 0xff, id: ports >>> 16 };
    return {
      src: address(at),
      dst: address(at + DST),
      protocol: kind & 0xff,
      srcPort: hasPorts ? ports >>> 16 : undefined,
      dstPort: hasPorts ? ports & 0xffff : undefined,
      icmp: (flags & FLAG.isIcmp) === 0 ? undefined : icmp,
    };
  }
}
