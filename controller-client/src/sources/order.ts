import type { PolicyRule } from 'sluice-gateway/policy/model.js';
import { type Diagnostic, oneOf, type Position, printPosition, quote } from './diagnostics.js';
import type { AttachmentPoint, Ruleset } from './node.js';

/** The system attachment points in the order of evaluation; what stands in no ruleset comes in between. */
const POINTS = [
  'TERRAFORM_BEFORE_UI_MANAGED',
  '',
  'TERRAFORM_AFTER_UI_MANAGED',
  'TERRAFORM_AFTER_K8S_MANAGED',
];
/** The rank of rules that stand in no ruleset: the policy list, the Controller's JSON, our own form. */
const RANK_OF_LISTS = POINTS.indexOf('');

/** The UUIDs that every Controller gives them; the third's is not known. */
const POINT_IDS = new Map([
  ['defa11a1-3000-4001-0000-000000000000', POINTS[0]!],
  ['defa11a1-3000-4002-0000-000000000000', POINTS[2]!],
]);

/** Says in which order rulesets are tried; what is attached to nothing known would not be enforced at all. */
export class Attachment {
  readonly problems: Diagnostic[] = [];
  readonly #names: Map<string, string>;
  readonly #ranks = new Map<Ruleset, number>();
  readonly #taken = new Map<number, Ruleset>();

  constructor(points: readonly AttachmentPoint[]) {
    this.#names = new Map([...POINT_IDS, ...points.map(({ target, name }) => [target, name] as const)]);
  }

  rankOf(ruleset: Ruleset | undefined): number {
    if (ruleset === undefined) return RANK_OF_LISTS;
    const known = this.#ranks.get(ruleset) ?? this.#find(ruleset);
    this.#ranks.set(ruleset, known);
    return known;
  }

  /** A rank of its own, so that what is wrong makes no second error. */
  #say(at: Position, message: string): number {
    return -this.problems.push({ ...at, message });
  }

  #find(ruleset: Ruleset): number {
    const { attachTo, at } = ruleset;
    const target =
      attachTo?.kind === 'reference' ? attachTo.target : attachTo?.kind === 'scalar' && attachTo.value;
    const expected = `expected ${oneOf(POINTS.filter((name) => name !== ''))}`;
    if (attachTo === undefined || typeof target !== 'string' || target === '') {
      const what = `ruleset ${quote(ruleset.name)} is attached to nothing, so that it would not be enforced`;
      return this.#say(attachTo?.at ?? at, `${what}: give "attach_to"`);
    }
    const name = this.#names.get(target);
    if (name === undefined) {
      return this.#say(attachTo.at, `unknown attachment point ${quote(target)}: ${expected}`);
    }
    const rank = POINTS.indexOf(name);
    if (rank < 0 || rank === RANK_OF_LISTS) {
      return this.#say(attachTo.at, `attachment point ${quote(name)} is not supported: ${expected}`);
    }
    const first = this.#taken.get(rank);
    this.#taken.set(rank, first ?? ruleset);
    if (first === undefined) return rank;
    const place = `${printPosition(first.at)}, by ruleset ${quote(first.name)}`;
    return this.#say(attachTo.at, `${name} is taken: first at ${place}`);
  }
}

interface Ranked {
  readonly rule: PolicyRule;
  readonly rank: number;
  readonly ruleset: Ruleset | undefined;
  readonly priorityAt: Position;
}

/**
 * Rules in the order of evaluation, with priorities that never fall: a rule behind one of a higher number is
 * raised to that number, where its ruleset comes later, and `warnings` says so once a ruleset.
 */
export function orderRules(rules: readonly Ranked[]): { rules: PolicyRule[]; warnings: Diagnostic[] } {
  const sorted = rules.toSorted((a, b) => a.rank - b.rank || a.rule.priority - b.rule.priority);
  const warnings = new Map<number, Diagnostic>();
  let highest = 0;
  const ordered = sorted.map(({ rule, rank, ruleset, priorityAt }) => {
    if (rule.priority < highest && !warnings.has(rank)) {
      const what = ruleset ? `ruleset ${quote(ruleset.name)}` : 'the policy list';
      const message = `${what} comes behind rules up to priority ${highest}: records show its own raised to that`;
      warnings.set(rank, { ...priorityAt, message });
    }
    highest = Math.max(highest, rule.priority);
    return rule.priority === highest ? rule : { ...rule, priority: highest };
  });
  return { rules: ordered, warnings: [...warnings.values()] };
}
