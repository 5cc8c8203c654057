import { KIND } from '../nft/mark.js';
import type { VerdictMap } from '../nft/program.js';
import { Classes, type RulePositions, rulesOfAtom } from './classes.js';
import { type GrowingData, type GrowingKind, GrowingMap } from './growing-map.js';
import type { NumberedRule, PolicyInForce } from './in-force.js';
import { POLICY_LIMITS } from './limits.js';
import { LOG_LIMITS } from './log-limits.js';
import type { ProgramContent } from './program-content.js';
import { type NumberedClasses, numberPairs, type PairNumbers, type Row, RowBook } from './rows.js';
import {
  decisionMark,
  ListBook,
  type ListContent,
  logsPackets,
  type RuleObjects,
  ruleObjects,
} from './rule-content.js';
import { RuleIndex } from './rule-index.js';
import { ShardBook, type SideName } from './shard-content.js';
import { type Shard, Side } from './side.js';

/** Classes and lists that come in place before all is compiled anew, without those that nothing leads to any more. */
const ADDED_MAX = 8_192;

type OfSides<T> = Readonly<Record<SideName, T>>;

/**
 * All that a compiler knows: the policy, the address space as groups cut it, the classes of addresses, and the content
 * that came of them, with the names that it has in the kernel. `epoch` is part of every name.
 */
export class Books {
  readonly epoch: string;
  readonly rules = new RuleIndex();
  readonly sides: OfSides<Side> = { src: new Side(), dst: new Side() };
  readonly classes: OfSides<Classes> = { src: new Classes(), dst: new Classes() };
  readonly lists: ListBook;
  readonly rows: RowBook;
  readonly shards: OfSides<ShardBook>;
  readonly #grown: Readonly<Record<GrowingKind, GrowingMap>>;
  /** Undefined: nothing was compiled yet. */
  content: ProgramContent | undefined;
  /** The lists of the program. */
  readonly #held = new Set<ListContent>();
  /** Classes and lists that came in place since all was compiled. */
  #addedSince = 0;

  constructor(epoch: string) {
    this.epoch = epoch;
    this.lists = new ListBook(epoch);
    this.rows = new RowBook(epoch);
    this.shards = { src: new ShardBook('src', epoch), dst: new ShardBook('dst', epoch) };
    const growing = (kind: GrowingKind) => new GrowingMap(kind, epoch);
    this.#grown = {
      sources: growing('sources'),
      lists: growing('lists'),
      monitors: growing('monitors'),
      decided: growing('decided'),
      log_limits: growing('log_limits'),
      suppressed: growing('suppressed'),
    };
  }

  /** The rules that can match an atom of one side. */
  rulesOf(name: SideName, atom: number): RulePositions {
    const { rules } = this;
    const positions = rulesOfAtom(this.sides[name].atoms, atom, rules.ofGroup[name]);
    // Behind a rule that decides everything for every address of the other side, nothing tells classes apart.
    const end = positions.findIndex(
      (position) => rules.endsList[position] === true && rules.isBroad[name][position] === true,
    );
    return end < 0 ? positions : positions.subarray(0, end + 1);
  }

  /** The class of each stretch. What has rules that no class has yet gets a new one, which is put into `added`. */
  classesOf(name: SideName, { atoms }: Shard, added: [number, RulePositions][] = []): Uint32Array {
    const classes = this.classes[name];
    return atoms.map((atom) => {
      const known = classes.classOf(atom);
      if (known !== undefined) return known;
      const rules = this.rulesOf(name, atom);
      const adopted = classes.adopt(atom, rules);
      if (adopted !== undefined) return adopted;
      const number = classes.add(atom, rules);
      added.push([number, rules]);
      return number;
    });
  }

  numbered(name: SideName): NumberedClasses {
    return [...this.classes[name].live].sort(([a], [b]) => a - b);
  }

  pairsOf(sources: NumberedClasses, destinations: NumberedClasses, policy: PolicyInForce): PairNumbers {
    const byDefault = JSON.stringify(policy.byDefault);
    const { texts, endsList } = this.rules;
    return numberPairs(sources, destinations, endsList, (positions) =>
      this.lists.contentOf(
        [...positions.map((position) => texts[position]), byDefault].join('\n'),
        positions.map((position) => policy.rules[position]!),
        policy,
      ),
    );
  }

  /** Forgets all lists but these. */
  keepLists(lists: ReadonlySet<ListContent>): void {
    this.lists.keep(lists);
    this.#held.clear();
    for (const list of lists) this.#held.add(list);
    this.#addedSince = 0;
  }

  /** Takes in the lists that are not there yet; undefined where with them, or with so many new classes, it were too much. */
  addLists(lists: ReadonlySet<ListContent>, newClasses: number): ReadonlySet<ListContent> | undefined {
    const added = lists.difference(this.#held);
    const { src, dst } = this.classes;
    const isOver =
      Math.max(src.live.size, dst.live.size) > POLICY_LIMITS.classesMax ||
      src.live.size * dst.live.size > POLICY_LIMITS.pairsMax ||
      this.#held.size + added.size > POLICY_LIMITS.listsMax ||
      this.#addedSince + added.size + newClasses > ADDED_MAX;
    if (isOver) return undefined;
    for (const list of added) this.#held.add(list);
    this.#addedSince += added.size + newClasses;
    return added;
  }

  /** The maps to these rows, lists and what tells of MONITOR rules, and from the decisions of rules to their objects. */
  grown(rows: readonly Row[], lists: ReadonlySet<ListContent>, rules: readonly NumberedRule[]) {
    const map = (kind: GrowingKind, data: GrowingData, entries: readonly (readonly [number, string])[]) =>
      this.#grown[kind].mapOf(data, entries);
    const marked = (of: readonly NumberedRule[], object: keyof RuleObjects) =>
      of.map((rule) => [decisionMark(rule), ruleObjects(rule)[object]] as const);
    const enforced = rules.filter((rule) => rule.enforced);
    const logging = rules.filter(logsPackets);
    const monitors = [...new Set([...lists].flatMap((list) => list.monitors))];
    return {
      sources: map(
        'sources',
        'verdict',
        rows.map(({ source, chain }) => [source, chain.name]),
      ) as VerdictMap,
      lists: map(
        'lists',
        'verdict',
        [...lists].map(({ number, chain }) => [KIND.list | number, chain]),
      ),
      monitors:
        monitors.length === 0
          ? undefined
          : map(
              'monitors',
              'verdict',
              monitors.map(({ number, chain }) => [KIND.monitor | number, chain.name]),
            ),
      decided: map('decided', 'counter', marked(enforced, 'decided')),
      logLimits: map('log_limits', 'limit', marked(logging, 'logLimit')),
      suppressed: map('suppressed', 'counter', marked(logging, 'suppressed')),
    };
  }
}

/** Named objects that these rules refer to. */
export function objectsOf(rules: readonly NumberedRule[]) {
  const logging = rules.filter(logsPackets);
  return {
    counters: [
      ...rules.map((rule) => ruleObjects(rule).decided),
      ...logging.map((rule) => ruleObjects(rule).suppressed),
    ],
    limits: logging.map((rule) => ({ name: ruleObjects(rule).logLimit, ...LOG_LIMITS.rule })),
  };
}

/** Chains of lists, and of what they tell of. */
export const chainsOf = (lists: ReadonlySet<ListContent>) => [
  ...[...lists].flatMap(({ chains }) => chains),
  ...new Set([...lists].flatMap(({ monitors }) => monitors.map(({ chain }) => chain))),
];
