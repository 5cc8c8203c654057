import type { ConntrackEvent, Connection as Entry } from '../conntrack/decode.js';
import type { Tuple } from '../conntrack/tuple.js';
import type { NflogPacket } from '../nflog/decode.js';
import { decodeMark, isJudged } from '../nft/mark.js';
import { LOG_REASONS, type LogReason } from '../policy/fixed-chains.js';
import {
  type Attributor,
  claimedSource,
  destinationField,
  destinationOwners,
  sourceField,
  sourceOwners,
} from './attribute.js';
import { type Connection, ConnectionTable, type Known } from './connections.js';
import {
  connectionFields,
  endReason,
  isoTime,
  natFields,
  permittedRecord,
  ruleFields,
  ruleName,
  trafficFields,
  tupleFields,
} from './fields.js';
import { FLOW_SCHEMA, type FlowRecord, type LossSource } from './record.js';
import type { RuleBook } from './rule-book.js';
import { SuppressedCounts } from './suppressed.js';

export interface AssemblerOptions {
  /** Name of the gateway, in every record. */
  readonly gateway: string;
  readonly rules: RuleBook;
  /** The matcher of the snapshot in force, asked at every event. */
  readonly matcher: () => Attributor;
  readonly now: () => Date;
  /** Connections whose attribution is kept from beginning to end, 130 bytes each. */
  readonly connectionsMax: number;
}

/** As many connections as the kernel tracks by default on a machine with more than 4 GB. */
export const CONNECTIONS_MAX = 262_144;

type Verdict = NonNullable<FlowRecord['verdict']>;

const isLogReason = (text: string): text is LogReason => (LOG_REASONS as readonly string[]).includes(text);

/**
 * Makes flow records of what the kernel tells: of connections (conntrack), of refused packets (NFLOG), and of
 * loss. Reads no clock and does no I/O. Of connections only those are told whose rule has `logging`, and the
 * end of every one whose beginning was told; for refused packets the kernel program has decided that already.
 * A listing of the connections that exist makes known what was there before the gateway started, what of long
 * ones has passed so far, and what lost events had told.
 */
export class FlowAssembler {
  readonly #options: AssemblerOptions;
  readonly #connections: ConnectionTable;
  readonly #suppressed = new SuppressedCounts();
  #listing = 0;

  constructor(options: AssemblerOptions) {
    this.#options = options;
    this.#connections = new ConnectionTable(options.connectionsMax);
  }

  /**
   * Connections known now, and how many were forgotten before their end because there were more than the
   * limit.
   */
  get connections(): { readonly known: number; readonly forgotten: number } {
    return { known: this.#connections.size, forgotten: this.#connections.forgotten };
  }

  /** The record that an event of a connection makes, if any. */
  conntrack(event: ConntrackEvent): FlowRecord | undefined {
    switch (event.kind) {
      case 'new':
        return isJudged(event.mark) ? this.#opened(event) : undefined;
      case 'update':
        return isJudged(event.mark) ? this.#updated(event) : undefined;
      case 'destroy':
        return this.#closed(event);
      default:
        return event.kind satisfies never;
    }
  }

  /**
   * The record that a logged packet makes; none when its prefix or mark shows that another program logged it.
   */
  packet(packet: NflogPacket): FlowRecord | undefined {
    const { prefix, mark } = packet;
    if (!isLogReason(prefix)) return undefined;
    switch (prefix) {
      case 'deny':
        return isJudged(mark) ? this.#refused(packet, 'DENY') : undefined;
      case 'reject':
        return isJudged(mark) ? this.#refused(packet, 'REJECT') : undefined;
      case 'revoke':
        return isJudged(mark) ? this.#revokedPacket(packet) : undefined;
      case 'monitor':
        return isJudged(mark) ? this.#monitored(packet) : undefined;
      case 'unclassified':
      case 'invalid':
      case 'spoofed':
      case 'limited':
        return this.#dropped(packet, prefix);
      default:
        return prefix satisfies never;
    }
  }

  /**
   * The record that an entry, found without a packet of its, is permitted no more; `decision` is the mark of the rule
   * that refuses it.
   */
  revoked(entry: Entry, decision: number): FlowRecord | undefined {
    return this.#revoked(this.#known(entry), this.#now(), decision, entry);
  }

  /**
   * The record that events were lost between the kernel and here, not before `since`; `events` where it is known how
   * many.
   */
  lost(source: LossSource, since: Date, events?: number): FlowRecord {
    const loss = { source, since: since.toISOString(), ...(events !== undefined && { events }) };
    return this.#record('loss', this.#now(), { loss });
  }

  /** A listing of all entries begins: each is to be given to `listed`. Gives its number. */
  beginListing(): number {
    return ++this.#listing;
  }

  /**
   * The record that an entry of a listing makes: that it opened, where `tellsMissed` and its beginning was never read;
   * its counters, when they were last told longer ago than `updateMs` and have changed.
   */
  listed(entry: Entry, options: { readonly tellsMissed: boolean; readonly updateMs: number }) {
    if (!isJudged(entry.mark)) return undefined;
    const known = this.#connections.get(entry.id, entry.original);
    if (known === undefined) return this.#found(entry, options.tellsMissed);
    known.listing = this.#listing;
    this.#connections.update(known);
    if (known.mark !== entry.mark) return this.#updated({ ...entry, kind: 'update' });
    if (known.rule?.logging !== true || entry.counters === undefined) return undefined;
    const packets = entry.counters.original.packets + entry.counters.reply.packets;
    const nowMs = this.#options.now().getTime();
    if (nowMs - known.toldMs < options.updateMs || packets === known.toldPackets) return undefined;
    this.#connections.update({ ...known, told: true, toldMs: nowMs, toldPackets: packets });
    return this.#permitted('update', this.#now(), known, entry, trafficFields(entry));
  }

  /**
   * Ends of connections that the listing did not show and whose end was never read, with all that is known of them. To
   * be called when what was on its way while it was made has been read; another may have begun by then.
   */
  endListing(number: number): readonly FlowRecord[] {
    const end = this.#now();
    return this.#connections
      .takeUnlisted(number)
      .filter(({ told }) => told)
      .map((connection) => this.#permitted('close', end, connection, undefined, { end }));
  }

  /**
   * Takes the kernel's counts of decisions that the rate limit kept from the log, each since its counter was
   * made, by rule name. The next record of a rule tells the difference; of rules that are gone, the records
   * returned do.
   */
  suppressedCounts(counts: ReadonlyMap<string, bigint>): readonly FlowRecord[] {
    return this.#suppressed.update(counts).map((untold) => this.#untold(untold));
  }

  /** At the end: what suppressed counts have not been told yet. */
  finish(): readonly FlowRecord[] {
    return this.#suppressed.takeAll().map((untold) => this.#untold(untold));
  }

  #found(entry: Entry, tellsMissed: boolean): FlowRecord | undefined {
    const connection = { ...this.#describe(entry, entry.startMs), isFound: true };
    connection.told = tellsMissed && connection.rule?.logging === true;
    this.#connections.set(connection);
    if (!connection.told) return undefined;
    const time = entry.startMs === undefined ? this.#now() : isoTime(entry.startMs);
    return this.#permitted('open', time, connection, entry);
  }

  #opened(event: ConntrackEvent): FlowRecord | undefined {
    const found = this.#connections.get(event.id, event.original);
    if (found?.isFound === true && found.told) return undefined;
    const startMs = event.startMs ?? this.#options.now().getTime();
    const connection = this.#describe(event, startMs);
    connection.told = connection.rule?.logging === true;
    this.#connections.set(connection);
    return connection.told ? this.#permitted('open', isoTime(startMs), connection, event) : undefined;
  }

  #updated(event: ConntrackEvent): FlowRecord | undefined {
    const connection = this.#connections.get(event.id, event.original);
    if (connection === undefined) {
      this.#learn(event);
      return undefined;
    }
    if (connection.mark === event.mark) return undefined;
    const before = connection.rule;
    this.#judgedAgain(connection, event.mark);
    const isTold = connection.rule?.logging === true && connection.rule.name !== before?.name;
    connection.told ||= isTold;
    this.#connections.update(connection);
    return isTold ? this.#permitted('update', this.#now(), connection, event) : undefined;
  }

  #closed(event: ConntrackEvent): FlowRecord | undefined {
    const known = this.#connections.take(event.id, event.original);
    if (known === undefined && !isJudged(event.mark)) return undefined;
    if (known === undefined && this.#connections.recall(event.id, event.original) !== undefined)
      return undefined;
    const connection = known ?? this.#describe(event, event.startMs);
    // The update that said so was lost.
    if (isJudged(event.mark) && connection.mark !== event.mark) this.#judgedAgain(connection, event.mark);
    // A rule that is no longer known may have been a logging one.
    if (!connection.told && connection.rule?.logging === false) return undefined;
    const end = event.stopMs === undefined ? this.#now() : isoTime(event.stopMs);
    return this.#permitted('close', end, connection, event, {
      ...(event.startMs !== undefined && { start: isoTime(event.startMs) }),
      end,
      ...trafficFields(event),
      endReason: endReason(event, connection.revoked),
    });
  }

  #judgedAgain(connection: Connection, mark: number): void {
    connection.mark = mark;
    connection.rule = this.#ruleOf(mark);
    connection.revoked = false;
  }

  #permitted(
    event: 'open' | 'update' | 'close',
    time: string,
    connection: Connection,
    kernel: Entry | undefined,
    fields: Partial<FlowRecord> = {},
  ): FlowRecord {
    return permittedRecord({ gateway: this.#options.gateway, event, time, connection, kernel, fields });
  }

  #refused(packet: NflogPacket, verdict: Verdict): FlowRecord {
    return this.#record('deny', this.#packetTime(packet), {
      verdict,
      enforced: true,
      ...this.#decision(packet.mark),
      ...this.#packetFields(packet.conntrack?.original ?? packet.tuple),
      ...this.#suppressedFields(packet.mark),
    });
  }

  #revokedPacket(packet: NflogPacket): FlowRecord | undefined {
    const { conntrack, tuple, mark } = packet;
    // A kernel without CONFIG_NETFILTER_NETLINK_GLUE_CT sends no connection along, and its entry may be gone.
    const found = tuple === undefined ? undefined : this.#connections.find(tuple);
    const isKnown = conntrack !== undefined && isJudged(conntrack.mark);
    const connection = isKnown ? this.#known(conntrack) : found;
    const time = this.#packetTime(packet);
    if (connection !== undefined) return this.#revoked(connection, time, mark, conntrack);
    return this.#record('revoke', time, { ...this.#revocation(mark), ...this.#packetFields(tuple) });
  }

  /** A connection is revoked once: its further packets, refused until its entry is gone, make no records. */
  #revoked(
    connection: Known,
    time: string,
    decision: number,
    entry: Entry | undefined,
  ): FlowRecord | undefined {
    if (connection.revoked) return undefined;
    connection.revoked = true;
    this.#connections.update(connection);
    const before = this.#ruleOf(entry?.mark ?? connection.mark);
    return this.#record('revoke', time, {
      ...this.#revocation(decision),
      ...(before !== undefined && { permittedBy: ruleName(before) }),
      ...connectionFields(connection),
      ...(entry !== undefined && { ...natFields(entry), ...trafficFields(entry) }),
    });
  }

  #revocation(decision: number): Partial<FlowRecord> {
    const verdict = this.#ruleOf(decision)?.action;
    return {
      ...(verdict !== undefined && { verdict }),
      enforced: true,
      ...this.#decision(decision),
      ...this.#suppressedFields(decision),
    };
  }

  #monitored(packet: NflogPacket): FlowRecord {
    const verdict = this.#ruleOf(packet.mark)?.action;
    return this.#record(verdict === 'PERMIT' ? 'open' : 'deny', this.#packetTime(packet), {
      verdict,
      enforced: false,
      ...this.#decision(packet.mark),
      ...this.#packetFields(packet.conntrack?.original ?? packet.tuple),
      ...this.#suppressedFields(packet.mark),
    });
  }

  #dropped(packet: NflogPacket, reason: 'unclassified' | 'invalid' | 'spoofed' | 'limited'): FlowRecord {
    const { tuple, conntrack } = packet;
    return this.#record('deny', this.#packetTime(packet), {
      verdict: 'DENY',
      enforced: true,
      reason,
      ...(reason === 'spoofed'
        ? this.#packetFields(tuple, claimedSource)
        : this.#packetFields(conntrack?.original ?? tuple)),
    });
  }

  #untold([name, suppressed]: readonly [string, number]): FlowRecord {
    return this.#record('loss', this.#now(), { rule: { name }, suppressed });
  }

  #record(event: FlowRecord['event'], time: string, fields: Partial<FlowRecord>): FlowRecord {
    return { schema: FLOW_SCHEMA, time, event, gateway: this.#options.gateway, ...fields };
  }

  #now(): string {
    return isoTime(this.#options.now().getTime());
  }

  #packetTime(packet: NflogPacket): string {
    return packet.timestampMs === undefined ? this.#now() : isoTime(packet.timestampMs);
  }

  #ruleOf(mark: number) {
    return this.#options.rules.ruleOf(decodeMark(mark));
  }

  #decision(mark: number) {
    return ruleFields(mark, this.#ruleOf(mark));
  }

  #suppressedFields(mark: number): Pick<FlowRecord, 'suppressed'> {
    const rule = this.#ruleOf(mark);
    const suppressed = rule === undefined ? 0 : this.#suppressed.take(rule.name);
    return suppressed === 0 ? {} : { suppressed };
  }

  #packetFields(tuple: Tuple | undefined, source?: typeof claimedSource): Partial<FlowRecord> {
    if (tuple === undefined) return {};
    const matcher = this.#options.matcher();
    return {
      src:
        source?.(tuple.src, tuple.srcPort) ??
        sourceField(tuple.src, tuple.srcPort, sourceOwners(matcher, tuple.src)),
      dst: destinationField(tuple.dst, tuple.dstPort, destinationOwners(matcher, tuple.dst)),
      ...tupleFields(tuple),
    };
  }

  /** What was known of an entry before it was refused. */
  #known(entry: Entry): Known {
    return this.#connections.recall(entry.id, entry.original) ?? this.#learn(entry);
  }

  #describe({ id, mark, original }: Entry, startMs: number | undefined): Connection {
    const matcher = this.#options.matcher();
    return {
      id,
      original,
      startMs,
      source: sourceOwners(matcher, original.src),
      destination: destinationOwners(matcher, original.dst),
      mark,
      rule: this.#ruleOf(mark),
      told: false,
      revoked: false,
      listing: this.#listing,
      isFound: false,
      toldMs: this.#options.now().getTime(),
      toldPackets: 0,
    };
  }

  #learn(entry: Entry): Known {
    return this.#connections.set(this.#describe(entry, entry.startMs));
  }
}
