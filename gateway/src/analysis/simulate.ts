import { Judge } from '../live/judge.js';
import type { Matcher } from '../matcher/matcher.js';
import { type Address, readAddress } from '../net/address.js';
import type { NumberedRule, PolicyInForce } from '../policy/in-force.js';
import { isSystemGroup, SYSTEM_GROUPS } from '../policy/model.js';
import type { Change, SimulateAnswer } from './output.js';
import { type RecordedFlow, SKIP_REASONS, type SkipReason } from './recorded.js';

/** Addresses that are kept parsed; over it all are forgotten. */
const ADDRESSES_MAX = 262_144;
/** Changes that are told apart; what is over is counted in the sums alone. */
export const CHANGES_MAX = 10_000;
/** Functions that are counted. */
const FUNCTIONS_MAX = 100_000;

type Writable<T> = { -readonly [Key in keyof T]: T[Key] };
type Sums = Writable<Pick<Change, 'records' | 'connections' | 'bytesOut' | 'bytesIn'>>;

const noSums = (): Sums => ({ records: 0, connections: 0, bytesOut: 0, bytesIn: 0 });

function add(sums: Sums, { connections, bytesOut, bytesIn }: RecordedFlow): void {
  sums.records++;
  sums.connections += connections;
  sums.bytesOut += bytesOut;
  sums.bytesIn += bytesIn;
}

type Attribution = Pick<Matcher, 'groupsOf' | 'functionsOf'>;

/** An address and the groups that hold it. */
export interface Known extends Address {
  readonly groups: readonly string[];
}

/** Addresses by their text: a log has the same ones again and again. */
export class Addresses {
  readonly #matcher: Pick<Matcher, 'groupsOf'>;
  readonly #known = new Map<string, Known>();

  constructor(matcher: Pick<Matcher, 'groupsOf'>) {
    this.#matcher = matcher;
  }

  of(text: string): Known | undefined {
    const known = this.#known.get(text);
    if (known !== undefined) return known;
    const address = readAddress(text);
    if (address === undefined) return undefined;
    const found = { ...address, groups: this.#matcher.groupsOf(address) };
    if (this.#known.size >= ADDRESSES_MAX) this.#known.clear();
    this.#known.set(text, found);
    return found;
  }
}

/** The groups by which an address is told: those that policy defines, or where it is in none, the narrowest other. */
export function tellingGroups(groups: readonly string[]): readonly string[] {
  const own = groups.filter((name) => !isSystemGroup(name));
  return own.length > 0 ? own : groups.filter((name) => name === SYSTEM_GROUPS[1] || groups.length === 1);
}

/**
 * Judges recorded flows by another policy and sums up what would change. Cost: about a microsecond a flow, memory for
 * the changes alone.
 */
export class Simulation {
  readonly #judge: Judge;
  readonly #matcher: Attribution;
  readonly #addresses: Addresses;
  readonly #skipped = Object.fromEntries(SKIP_REASONS.map((reason) => [reason, 0])) as Record<
    SkipReason,
    number
  >;
  readonly #changes = new Map<string, Writable<Change>>();
  /** By the list itself: the matcher gives the same one for all addresses under a prefix. */
  readonly #destinations = new WeakMap<readonly string[], string>();
  readonly #breaking = new Set<string>();
  readonly #breaks = noSums();
  readonly #opens = noSums();
  readonly #changed = noSums();
  #records = 0;
  #judged = 0;
  #monitored = 0;
  #omitted = 0;

  constructor(policy: PolicyInForce, matcher: Attribution) {
    this.#addresses = new Addresses(matcher);
    // It is asked of nothing but known addresses.
    this.#judge = new Judge(policy, { groupsOf: (address) => (address as Known).groups });
    this.#matcher = matcher;
  }

  /** What the policy decides of a flow; undefined where its addresses are none. */
  decide({ src, dst, protocol, dstPort }: RecordedFlow): NumberedRule | undefined {
    const [from, to] = [this.#addresses.of(src), this.#addresses.of(dst)];
    if (from === undefined || to?.family !== from.family) return undefined;
    return this.#judge.decide({ src: from, dst: to, protocol, dstPort, srcPort: undefined, icmp: undefined });
  }

  take(read: RecordedFlow | SkipReason): void {
    this.#records++;
    if (typeof read === 'string') {
      this.#skipped[read]++;
      return;
    }
    if (!read.enforced) {
      this.#monitored++;
      return;
    }
    const decided = this.decide(read);
    if (decided === undefined) {
      this.#skipped.unreadable++;
      return;
    }
    this.#judged++;
    if (decided.action !== read.verdict) this.#change(read, decided);
  }

  #change(flow: RecordedFlow, decided: NumberedRule): void {
    add(this.#changed, flow);
    const source = this.#sourceOf(flow);
    if (flow.verdict === 'PERMIT') {
      add(this.#breaks, flow);
      if (this.#breaking.size < FUNCTIONS_MAX) this.#breaking.add(source);
    } else if (decided.action === 'PERMIT') add(this.#opens, flow);
    const destination = this.#destinationOf(flow);
    // Names hold no NUL.
    const key = `${source}\0${flow.verdict}\0${flow.rule}\0${decided.name}\0${destination}`;
    let change = this.#changes.get(key);
    if (change === undefined) {
      if (this.#changes.size >= CHANGES_MAX) {
        this.#omitted++;
        return;
      }
      const { time, src, dst, protocol, dstPort, verdict, rule } = flow;
      change = {
        ...{ source, destination },
        before: rule === undefined ? { verdict } : { verdict, rule },
        after: { verdict: decided.action, rule: decided.name },
        ...noSums(),
        example: { time, src, dst, protocol, port: dstPort },
      };
      this.#changes.set(key, change);
    }
    add(change, flow);
  }

  #destinationOf({ dst }: RecordedFlow): string {
    const { groups } = this.#addresses.of(dst)!;
    let text = this.#destinations.get(groups);
    if (text === undefined) {
      text = tellingGroups(groups).join(', ');
      this.#destinations.set(groups, text);
    }
    return text;
  }

  /** The functions by ARN that the record names, else those that hold the address now, else its groups, else itself. */
  #sourceOf({ src, functions }: RecordedFlow): string {
    if (functions.length > 0) return functions.join(', ');
    const address = this.#addresses.of(src)!;
    const owners = this.#matcher.functionsOf(address).map(({ arn }) => arn);
    if (owners.length > 0) return owners.join(', ');
    const groups = address.groups.filter((name) => !isSystemGroup(name));
    return groups.length > 0 ? groups.join(', ') : src;
  }

  /** What was found so far: permitted flows that would break first, the most records first among them. */
  result(): SimulateAnswer {
    const isBreak = ({ before }: Change) => Number(before.verdict === 'PERMIT');
    return {
      records: this.#records,
      judged: this.#judged,
      monitored: this.#monitored,
      skipped: this.#skipped,
      changed: this.#changed,
      breaks: { ...this.#breaks, sources: this.#breaking.size },
      opens: this.#opens,
      changes: [...this.#changes.values()].sort((a, b) => isBreak(b) - isBreak(a) || b.records - a.records),
      recordsOmitted: this.#omitted,
    };
  }
}

/** Whether an address may connect as far as policy knows: a function has it, or a group that rules name as a source. */
export function sourceTest(policy: PolicyInForce, matcher: Attribution): (ip: string) => boolean {
  const sources = new Set(
    policy.rules.flatMap(({ rule }) => rule.src).filter((name) => !isSystemGroup(name)),
  );
  const addresses = new Addresses(matcher);
  return (ip) => {
    const address = addresses.of(ip);
    if (address === undefined) return false;
    return matcher.functionsOf(address).length > 0 || address.groups.some((name) => sources.has(name));
  };
}
