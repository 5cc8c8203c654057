import { z } from 'zod';
import type { ConntrackEvent } from '../conntrack/decode.js';
import { PROTOCOL_NAMES } from '../flows/fields.js';
import type { FlowRecord } from '../flows/record.js';
import type { ConnectionObserver } from '../flows/watch.js';
import type { FunctionOwner } from '../matcher/matcher.js';
import { type Address, printAddress } from '../net/address.js';
import { isJudged } from '../nft/mark.js';
import { QuestionError } from './question.js';

/** What is looked back on: so many stretches, of which the oldest goes when a new one begins. */
const SLOTS = 6;
const SLOT_MS = 10_000;
/** Kept apart in one stretch; what comes further is counted together, without a name. About 0.3 kB each. */
const KEYS_MAX = 1_024;

const COUNT_MAX = 100;
const topQuerySchema = z.strictObject({ count: z.coerce.number().int().min(1).max(COUNT_MAX).default(10) });

/** What was counted of one of the busiest. */
export interface Busy<Label> {
  /** Absent for all that were too many to be kept apart. */
  readonly label?: Label;
  readonly connections: number;
  readonly bytes: { readonly out: number; readonly in: number };
}

/** An ARN, or the address where no function is known; and how many functions share the address. */
export interface SourceLabel {
  readonly source: string;
  readonly sharedBy: number;
}

export interface DestinationLabel {
  readonly ip: string;
  readonly port?: number;
  readonly protocol: string;
}

export interface DenyLabel extends SourceLabel {
  readonly destination: DestinationLabel;
  readonly rule: string;
}

/** What `sluice top` shows. */
export interface TopAnswer {
  readonly seconds: number;
  /** Permitted connections by source, those with most bytes first; bytes count at the end of a connection. */
  readonly functions: readonly Busy<SourceLabel>[];
  readonly destinations: readonly Busy<DestinationLabel>[];
  /** Refused connections, as far as they are logged. */
  readonly denies: readonly Busy<DenyLabel>[];
}

interface Counts<Label> {
  readonly label?: Label;
  connections: number;
  out: number;
  in: number;
}

type Slot<Label> = Map<string | undefined, Counts<Label>>;

/** Counts by key over the last `SLOTS` stretches. */
class Window<Label> {
  readonly #slots: Slot<Label>[] = [new Map()];

  /** A new stretch begins. */
  turn(): void {
    this.#slots.push(new Map());
    if (this.#slots.length > SLOTS) this.#slots.shift();
  }

  add(key: string, label: () => Label, connections: number, out = 0, back = 0): void {
    const slot = this.#slots.at(-1)!;
    let counts = slot.get(key);
    if (counts === undefined) {
      const isFull = slot.size >= KEYS_MAX;
      counts = isFull ? slot.get(undefined) : undefined;
      if (counts === undefined) {
        counts = { ...(!isFull && { label: label() }), connections: 0, out: 0, in: 0 };
        slot.set(isFull ? undefined : key, counts);
      }
    }
    counts.connections += connections;
    counts.out += out;
    counts.in += back;
  }

  top(count: number): Busy<Label>[] {
    const sums: Slot<Label> = new Map();
    for (const slot of this.#slots) {
      for (const [key, counts] of slot) {
        const sum = sums.get(key);
        if (sum === undefined) sums.set(key, { ...counts });
        else {
          sum.connections += counts.connections;
          sum.out += counts.out;
          sum.in += counts.in;
        }
      }
    }
    return [...sums.values()]
      .sort((a, b) => b.out + b.in - a.out - a.in || b.connections - a.connections)
      .slice(0, count)
      .map(({ label, connections, out, in: back }) => ({
        ...(label !== undefined && { label }),
        ...{ connections, bytes: { out, in: back } },
      }));
  }
}

/** Who was busiest in the last minute, in bounded memory. */
export class Busiest implements ConnectionObserver {
  readonly #functionsOf: (source: Address) => readonly FunctionOwner[];
  readonly #now: () => number;
  readonly #functions = new Window<SourceLabel>();
  readonly #destinations = new Window<DestinationLabel>();
  readonly #denies = new Window<DenyLabel>();
  #slot: number;

  /** `now` in milliseconds; `functionsOf` gives those that a source may be. */
  constructor(now: () => number, functionsOf: (source: Address) => readonly FunctionOwner[]) {
    this.#now = now;
    this.#functionsOf = functionsOf;
    this.#slot = Math.floor(now() / SLOT_MS);
  }

  event({ kind, mark, original, protocol, counters }: ConntrackEvent): void {
    if (!isJudged(mark) || kind === 'update' || (kind === 'destroy' && counters === undefined)) return;
    this.#turn();
    const out = kind === 'destroy' ? counters!.original.bytes : 0;
    const back = kind === 'destroy' ? counters!.reply.bytes : 0;
    const began = kind === 'new' ? 1 : 0;
    const owners = this.#functionsOf(original.src);
    const source = owners[0]?.arn ?? printAddress(original.src);
    this.#functions.add(source, () => ({ source, sharedBy: owners.length }), began, out, back);
    const ip = printAddress(original.dst);
    const port = original.dstPort;
    const destination = () => ({
      ...{ ip, protocol: PROTOCOL_NAMES.get(protocol) ?? String(protocol) },
      ...(port !== undefined && { port }),
    });
    this.#destinations.add(`${protocol} ${ip} ${port}`, destination, began, out, back);
  }

  /** Takes a flow record: refused connections are counted. */
  record({ event, enforced, src, dst, protocol, rule, reason, suppressed = 0 }: FlowRecord): void {
    const isDeny = (event === 'deny' || event === 'revoke') && enforced === true;
    if (!isDeny || src === undefined || dst === undefined) return;
    this.#turn();
    const source = src.functions[0] ?? src.ip;
    const destination = {
      ...{ ip: dst.ip, protocol: String(protocol) },
      ...(dst.port !== undefined && { port: dst.port }),
    };
    const name = rule?.name ?? reason ?? '';
    const label = () => ({ source, sharedBy: src.functions.length, destination, rule: name });
    const key = JSON.stringify([source, dst.ip, dst.port, protocol, name]);
    this.#denies.add(key, label, 1 + suppressed);
  }

  /** Answers a question as it came. Throws QuestionError. */
  answer(question: Readonly<Record<string, string>>): TopAnswer {
    const parsed = topQuerySchema.safeParse(question);
    if (!parsed.success)
      throw new QuestionError(
        `Cannot show top: count ${JSON.stringify(question.count)} is not a number from 1 to ${COUNT_MAX}`,
      );
    this.#turn();
    const { count } = parsed.data;
    return {
      seconds: (SLOTS * SLOT_MS) / 1_000,
      functions: this.#functions.top(count),
      destinations: this.#destinations.top(count),
      denies: this.#denies.top(count),
    };
  }

  #turn(): void {
    const slot = Math.floor(this.#now() / SLOT_MS);
    const turns = Math.min(slot - this.#slot, SLOTS);
    this.#slot = slot;
    for (let turn = 0; turn < turns; turn++) {
      for (const window of [this.#functions, this.#destinations, this.#denies]) window.turn();
    }
  }
}
