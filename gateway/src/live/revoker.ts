import { setTimeout as delay } from 'node:timers/promises';
import { type Connection, TCP_STATES } from '../conntrack/decode.js';
import type { ConntrackTable } from '../conntrack/table.js';
import { IPPROTO_TCP, reversed, type Tuple } from '../conntrack/tuple.js';
import type { RuleBook } from '../flows/rule-book.js';
import type { Log } from '../log.js';
import type { NflogPacket } from '../nflog/decode.js';
import { decodeMark, encodeMark } from '../nft/mark.js';
import type { Judge } from './judge.js';
import { numbersOf, type Speaker } from './reset.js';

/** Revocations under way at once; of more, the next packet of the connection tells again. */
export const REVOCATIONS_MAX = 10_000;
/** Connections that one pass of the sweep ends, each about 1 kB meanwhile; another pass takes more. */
const PASS_CONNECTIONS_MAX = 100_000;
/** Resets that one connection is given: enough for packets that were under way and for an answer to each end. */
const RESETS_MAX = 8;
/** A rejected connection keeps its entry for so long: what its ends answer to the resets is judged by it. */
const RESET_MS = 1_000;
/** Between looks whether a change is complete. */
const CHANGE_MS = 100;
const SWEEP_RETRY_MS = 1_000;
/** Entries that the sweep deletes in one request. */
const DELETIONS_AT_ONCE = 64;
/** Probes sent at once, and the pause behind them: as many a second as rejected packets are answered. */
const PROBES_AT_ONCE = 100;
const PROBES_MS = 100;
/**
 * How often an idle connection is asked where it stands: a probe or its answer may be lost, and an end that has just
 * answered another says nothing for half a second (`tcp_invalid_ratelimit`).
 */
const PROBES_EACH = 3;
/** How long an answer, and what comes of it, may take. */
const ANSWER_MS = 2 * RESET_MS;

/** States in which both ends hold the connection open. */
const TCP_OPEN: ReadonlySet<string | undefined> = new Set([
  'SYN_RECV',
  'ESTABLISHED',
  'FIN_WAIT',
  'CLOSE_WAIT',
  'LAST_ACK',
]);
/** States that end by themselves within minutes, whatever comes. */
const TCP_ENDED: ReadonlySet<string | undefined> = new Set(['TIME_WAIT', 'CLOSE']);
const stateOf = ({ tcpState }: Connection) => (tcpState === undefined ? undefined : TCP_STATES[tcpState]);

/** A policy that the kernel has, whole. Another change makes another object, under the same generation too. */
export interface InForce {
  readonly generation: number;
  readonly judge: Pick<Judge, 'decide'>;
}

export interface RevokerOptions {
  readonly table: Pick<ConntrackTable, 'find' | 'deleteAll'>;
  /** On a netlink connection of its own: listing a million connections takes seconds. */
  readonly listing: Pick<ConntrackTable, 'forEach'>;
  /** Undefined while a change is under way, and before there is a policy. */
  readonly inForce: () => InForce | undefined;
  readonly rules: RuleBook;
  readonly speaker: Speaker;
  /** A packet of a connection that was permitted before, with what its entry was when it was refused. */
  readonly onRefused: (packet: NflogPacket) => void;
  /** The sweep found a connection that the rule in the mark refuses. */
  readonly onSwept: (entry: Connection, decision: number) => void;
  readonly log: Log;
}

/** A revocation under way. */
interface Revocation {
  /** Once it is found. */
  entry: Connection | undefined;
  resets: number;
}

const keyOf = ({ protocol, src, dst, srcPort, dstPort, icmp }: Tuple) =>
  [protocol, src.value, srcPort, dst.value, dstPort, icmp?.id].join();

/**
 * Ends connections that policy no longer permits: those whose packets the kernel refused, and in a sweep after each
 * change those that send nothing. Their entries go by tuple and id; the packets are dropped with or without them, but
 * in the table they hold a place. A TCP connection that a rule REJECTs has both its ends reset before.
 */
export class Revoker {
  readonly #options: RevokerOptions;
  readonly #underway = new Map<string, Revocation>();
  #sweeping: Promise<void> | undefined;
  #isSweepWanted = false;
  /** The generation under which the last sweep was complete. */
  #swept: number | undefined;
  /** How often the destination of a connection was asked where it stands, by id. */
  #probed: { readonly generation: number; readonly times: Map<number, number> } | undefined;
  #hasTold = false;
  readonly #stopping = new AbortController();

  constructor(options: RevokerOptions) {
    this.#options = options;
  }

  /** Takes a refused packet of a connection that was permitted before. */
  refused(packet: NflogPacket): void {
    const { conntrack, tuple } = packet;
    const named = conntrack?.original ?? tuple;
    if (named === undefined) {
      this.#options.onRefused(packet);
      return;
    }
    const key = keyOf(named);
    const known = this.#underway.get(key);
    if (known !== undefined) {
      this.#reset(known, packet);
      return;
    }
    if (this.#underway.size >= REVOCATIONS_MAX) return;
    const revocation: Revocation = { entry: undefined, resets: 0 };
    this.#underway.set(key, revocation);
    this.#revoke(packet, named, revocation)
      .catch((error: Error) => this.#options.log.warn('a revoked connection could not be ended', { error }))
      .finally(() => this.#underway.delete(key));
  }

  /** Looks for connections that no packet would ever have judged again. Called after each change. */
  sweep(): void {
    this.#isSweepWanted = true;
    this.#sweeping ??= this.#sweepAll();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#sweeping;
  }

  async #revoke(packet: NflogPacket, named: Tuple, revocation: Revocation): Promise<void> {
    const { table, onRefused, inForce } = this.#options;
    const { conntrack } = packet;
    // What was translated has no entry by the reply as the packet shows it.
    const found = (await table.find(named)) ?? (await table.find(reversed(named)));
    const entry = conntrack === undefined || found?.id === conntrack.id ? found : conntrack;
    onRefused(entry === undefined ? packet : { ...packet, conntrack: entry });
    if (entry === undefined) return;
    revocation.entry = entry;
    if (this.#reset(revocation, packet)) await this.#pause(RESET_MS);
    while (inForce() === undefined && !this.#isStopping) await this.#pause(CHANGE_MS);
    // Since the packet was refused, another change may have permitted the connection again.
    const isRefused = inForce()?.judge.decide(entry.original).action !== 'PERMIT';
    if (isRefused && !this.#isStopping) await table.deleteAll([entry]);
  }

  /** Whether the connection is one to be reset; by each of its packets, since the numbers of the first may not fit. */
  #reset(revocation: Revocation, { mark, tuple, tcp }: NflogPacket): boolean {
    const { entry } = revocation;
    if (entry?.protocol !== IPPROTO_TCP) return false;
    if (this.#options.rules.ruleOf(decodeMark(mark))?.action !== 'REJECT') return false;
    if (revocation.resets++ >= RESETS_MAX) return true;
    const { original } = entry;
    const isReply = tuple?.src.value !== original.src.value || tuple.srcPort !== original.srcPort;
    const numbers = numbersOf(tcp, isReply);
    this.#speak(({ probe, reset }) => (numbers === undefined ? probe(original) : reset(original, numbers)));
    return true;
  }

  get #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  async #pause(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#stopping.signal }).catch(() => undefined);
  }

  async #sweepAll(): Promise<void> {
    while (this.#isSweepWanted && !this.#isStopping) {
      this.#isSweepWanted = false;
      try {
        if (!(await this.#pass())) this.#isSweepWanted = true;
      } catch (error) {
        this.#options.log.warn('the sweep of live connections failed and is tried again', {
          error: error as Error,
        });
        this.#isSweepWanted = true;
        await this.#pause(SWEEP_RETRY_MS);
      }
    }
    this.#sweeping = undefined;
  }

  /** Whether it found all there is; a change that comes meanwhile has a sweep of its own. */
  async #pass(): Promise<boolean> {
    const inForce = this.#options.inForce();
    if (inForce === undefined || inForce.generation === this.#swept) return true;
    const { generation } = inForce;
    if (this.#probed?.generation !== generation) this.#probed = { generation, times: new Map() };
    const probed = this.#probed.times;
    const { quiet, open, isWhole } = await this.#list(inForce, probed);
    for (let next = 0; next < quiet.length; next += DELETIONS_AT_ONCE) {
      if (this.#options.inForce() !== inForce || this.#isStopping) return true;
      const some = quiet.slice(next, next + DELETIONS_AT_ONCE);
      for (const [entry, decision] of some) this.#options.onSwept(entry, decision);
      await this.#options.table.deleteAll(some.map(([entry]) => entry));
    }
    for (const [index, [entry, decision]] of open.entries()) {
      if (index % PROBES_AT_ONCE === PROBES_AT_ONCE - 1) await this.#pause(PROBES_MS);
      if (this.#options.inForce() !== inForce || this.#isStopping) return true;
      const times = probed.get(entry.id) ?? 0;
      if (times === 0) this.#options.onSwept(entry, decision);
      probed.set(entry.id, times + 1);
      this.#speak(({ probe }) => probe(entry.original));
    }
    if (open.length > 0) {
      const endMs = performance.now() + ANSWER_MS;
      while (performance.now() < endMs && this.#options.inForce() === inForce && !this.#isStopping)
        await this.#pause(CHANGE_MS);
      return false;
    }
    if (isWhole) this.#swept = generation;
    return isWhole;
  }

  /** Connections of other generations that policy refuses: to be ended at once, and to be reset first. */
  async #list({ generation, judge }: InForce, probed: ReadonlyMap<number, number>) {
    const quiet: [Connection, decision: number][] = [];
    const open: [Connection, decision: number][] = [];
    let isWhole = true;
    await this.#options.listing.forEach((entry) => {
      const judged = decodeMark(entry.mark).generation;
      // Without one it never went through our chains: the gateway's own, or one that nothing has decided of.
      if (judged === 0 || judged === generation) return;
      const state = stateOf(entry);
      if (TCP_ENDED.has(state) || (probed.get(entry.id) ?? 0) >= PROBES_EACH) return;
      const { action, number } = judge.decide(entry.original);
      if (action === 'PERMIT') return;
      const list = action === 'REJECT' && TCP_OPEN.has(state) ? open : quiet;
      isWhole &&= quiet.length + open.length < PASS_CONNECTIONS_MAX;
      if (isWhole) list.push([entry, encodeMark({ generation, rule: number })]);
    });
    return { quiet, open, isWhole };
  }

  /** Where it can't be said, the kernel's own resets are left: each end has one when it sends. */
  #speak(say: (speaker: Speaker) => void): void {
    try {
      say(this.#options.speaker);
    } catch (error) {
      if (this.#hasTold) return;
      this.#hasTold = true;
      this.#options.log.warn('ends of a rejected connection are reset only when they send', {
        error: error as Error,
      });
    }
  }
}
