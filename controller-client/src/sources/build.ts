import {
  DEFAULT_RULE_NAME,
  type DefaultAction,
  type PolicyRule,
  SYSTEM_GROUPS,
} from 'sluice-gateway/policy/model.js';
import { SNAPSHOT_LIMITS } from 'sluice-gateway/snapshot/format.js';
import type { z } from 'zod';
import { systemReferences } from './controller.js';
import {
  type Diagnostic,
  nearest,
  PolicyError,
  type Position,
  printPosition,
  quote,
  sortDiagnostics,
} from './diagnostics.js';
import { ExpressionReader } from './expressions.js';
import { describeIssues } from './issues.js';
import { type Expression, feedsOf, type GroupSpec, type LoadedPolicy } from './model.js';
import {
  type Draft,
  type Entry,
  type GroupReference,
  itemsOf,
  locate,
  type Node,
  type ReferenceNode,
  type RuleDraft,
  type Ruleset,
  referencesIn,
  textOf,
  toPlain,
  valueAt,
} from './node.js';
import { Attachment, orderRules } from './order.js';
import { defaultActionSchema, type GroupInput, groupSchema, type RuleInput, ruleSchema } from './schema.js';

/** Every policy can have this many groups of its own: the system groups count too. */
export const GROUPS_MAX = SNAPSHOT_LIMITS.groupsMax - SYSTEM_GROUPS.length;

/** Names that are resolved and queries of feeds: each is read over and over. */
const FEEDS_MAX = 1_000;

interface PlacedRule {
  readonly rule: PolicyRule;
  readonly rank: number;
  readonly ruleset: Ruleset | undefined;
  readonly list: Position | undefined;
  readonly at: Position;
  readonly priorityAt: Position;
}

/** The groups that expressions name, taken away or not. */
function groupsIn(expressions: readonly Expression[]) {
  return expressions
    .flatMap((expression) => (expression.not ? [expression, expression.not] : [expression]))
    .filter((one) => one.type === 'group');
}

function positionOf(node: Node, ...path: PropertyKey[]): Position {
  return locate(node, path).node.at;
}

/** Puts the drafts of all files together: names are looked up, and what contradicts itself is collected. */
class Builder {
  readonly problems: Diagnostic[] = [];
  readonly warnings: Diagnostic[] = [];
  readonly written = new Map<string, GroupInput>();
  /** False when files are missing that could define a name: then no name is called unknown. */
  readonly #complete: boolean;
  readonly #references = new Map<string, GroupReference>();
  readonly #groupNames = new Map<string, Position | undefined>(
    SYSTEM_GROUPS.map((name) => [name, undefined]),
  );
  readonly #ruleNames = new Map<string, Position>();

  constructor(complete: boolean) {
    this.#complete = complete;
  }

  #say(at: Position, message: string): void {
    this.problems.push({ ...at, message });
  }

  #parse<T>(schema: z.ZodType<T> & { readonly shape: object }, node: Node): T | undefined {
    const stray = referencesIn(node);
    for (const { at } of stray)
      this.#say(at, 'a reference to a smart group stands only where a rule lists groups');
    if (stray.length > 0) return undefined;
    const parsed = schema.safeParse(toPlain(node));
    if (parsed.success) return parsed.data;
    this.problems.push(...describeIssues(node, parsed.error.issues, Object.keys(schema.shape)));
    return undefined;
  }

  addReference(reference: GroupReference): void {
    const first = this.#references.get(reference.target);
    if (first !== undefined) {
      this.#say(
        reference.at,
        `${quote(reference.target)} is defined twice: first at ${printPosition(first.at)}`,
      );
      return;
    }
    this.#references.set(reference.target, reference);
  }

  /** Makes a name known, even that of a group that turns out to be wrong: its use is no second error. */
  declareGroup(node: Node): void {
    const name = textOf(node, 'name');
    if (name === undefined) return;
    const at = positionOf(node, 'name');
    const first = this.#groupNames.get(name);
    if (first !== undefined)
      this.#say(at, `group ${quote(name)} is defined twice: first at ${printPosition(first)}`);
    else if (this.#groupNames.has(name))
      this.#say(at, `${quote(name)} is a system group: choose another name`);
    else this.#groupNames.set(name, at);
  }

  group(node: Node): GroupSpec | undefined {
    const input = this.#parse<GroupInput>(groupSchema, node);
    const reader = new ExpressionReader();
    const written = itemsOf(locate(node, ['selector', 'any']).node);
    const expressions = written.flatMap((any) => {
      const all = valueAt(any, 'all');
      return (all && reader.read(all)) ?? [];
    });
    this.problems.push(...reader.problems);
    for (const { group, at } of groupsIn(expressions)) this.#checkGroup(group, at);
    if (input === undefined) return undefined;
    this.written.set(input.name, input);
    return { name: input.name, expressions, resolve: input.resolve ?? 'subnets', at: node.at };
  }

  /** Refuses groups that hold themselves, through whatever others; every place of the circle is named. */
  checkCircles(groups: readonly GroupSpec[]): void {
    const named = new Map(groups.map((group) => [group.name, groupsIn(group.expressions)]));
    const done = new Set<string>();
    const path: { name: string; at: Position }[] = [];
    const visit = (name: string, at: Position): void => {
      const start = path.findIndex((step) => step.name === name);
      path.push({ name, at });
      if (start >= 0) {
        const circle = path.slice(start + 1);
        const steps = circle
          .map((step) => `${quote(step.name)} (${printPosition(step.at)})`)
          .join(', which holds ');
        this.#say(circle[0]!.at, `groups go round in a circle: ${quote(name)} holds ${steps}`);
      } else if (!done.has(name)) {
        done.add(name);
        for (const { group, at } of named.get(name) ?? []) visit(group, at);
      }
      path.pop();
    };
    for (const { name, at } of groups) visit(name, at);
  }

  #resolve(node: Node): Node {
    if (node.kind !== 'map') return node;
    const entries = node.entries.map((entry): Entry => {
      if ((entry.key !== 'src' && entry.key !== 'dst') || entry.value.kind !== 'list') return entry;
      const items = entry.value.items.map((item) => this.#lookUp(item));
      return { ...entry, value: { ...entry.value, items } };
    });
    return { ...node, entries };
  }

  /** A group that a rule names, by its name. */
  #lookUp(item: Node): Node {
    if (item.kind === 'scalar' && typeof item.value === 'string') this.#checkGroup(item.value, item.at);
    return item.kind === 'reference' ? this.#follow(item) : item;
  }

  #checkGroup(name: string, at: Position): void {
    if (!this.#complete || this.#groupNames.has(name)) return;
    const meant = nearest(name, this.#groupNames.keys());
    const hint = meant === undefined ? 'no file defines it' : `did you mean ${quote(meant)}?`;
    this.#say(at, `unknown group ${quote(name)}: ${hint}`);
  }

  #follow({ target, at }: ReferenceNode): Node {
    const reference = this.#references.get(target);
    if (reference === undefined && this.#complete) {
      this.#say(at, `unknown group: no smart group in these files is ${quote(target)}`);
    } else if (reference?.supported === false) {
      const name = quote(reference.name);
      this.#say(at, `group ${name} is a system group of the Controller that is not supported here`);
    }
    return { kind: 'scalar', value: reference?.name ?? target, at };
  }

  rule({ node: written, list, ruleset }: RuleDraft, rank: number): PlacedRule | undefined {
    const node = this.#resolve(written);
    this.#declareRule(node);
    const input = this.#parse<RuleInput>(ruleSchema, node);
    if (input === undefined) return undefined;
    this.#checkPorts(input, node);
    const { portRanges = [], logging = false, enforcement = 'ENFORCE', expires, ...rest } = input;
    const rule: PolicyRule = {
      ...rest,
      src: [...new Set(input.src)],
      dst: [...new Set(input.dst)],
      portRanges: portRanges.map(({ lo, hi = lo }) => ({ lo, hi })),
      logging,
      enforcement,
      ...(expires === undefined ? {} : { expires: new Date(expires).toISOString() }),
    };
    return { rule, rank, ruleset, list, at: node.at, priorityAt: positionOf(node, 'priority') };
  }

  #declareRule(node: Node): void {
    const name = textOf(node, 'name');
    if (name === undefined) return;
    const at = positionOf(node, 'name');
    const first = this.#ruleNames.get(name);
    if (first !== undefined)
      this.#say(at, `rule ${quote(name)} is defined twice: first at ${printPosition(first)}`);
    else this.#ruleNames.set(name, at);
    if (name === DEFAULT_RULE_NAME) {
      this.#say(at, `a rule can't be named ${quote(name)}: records and metrics call the default action so`);
    }
  }

  #checkPorts({ protocol, portRanges = [] }: RuleInput, node: Node): void {
    if (protocol === 'ICMP' && portRanges.length > 0) {
      this.#say(positionOf(node, 'portRanges'), 'ICMP has no ports: remove them, or use TCP or UDP');
    }
    for (const [index, { lo, hi = lo }] of portRanges.entries()) {
      if (lo <= hi) continue;
      this.#say(positionOf(node, 'portRanges', index), `port range ${lo} to ${hi} is empty: lo is above hi`);
    }
  }

  /** Equal priorities: an error, but for rules of one list whose order decides. */
  checkPriorities(rules: readonly PlacedRule[]): void {
    const byPriority = Map.groupBy(rules, ({ rank, rule }) => `${rank} ${rule.priority}`);
    for (const same of byPriority.values()) {
      const [first, ...others] = same;
      if (first === undefined || others.length === 0) continue;
      const { priority } = first.rule;
      if (first.list !== undefined && others.every(({ list }) => list === first.list)) {
        const what = `${same.length} rules have priority ${priority}`;
        this.warnings.push({
          ...first.priorityAt,
          message: `${what}: they are tried in the order of the list`,
        });
        continue;
      }
      for (const { priorityAt } of others) {
        const firstIs = `first at ${printPosition(first.priorityAt)}, by rule ${quote(first.rule.name)}`;
        this.#say(priorityAt, `priority ${priority} is given twice: ${firstIs}`);
      }
    }
  }

  defaultAction(nodes: readonly Node[]): DefaultAction {
    const [node, ...others] = nodes;
    for (const { at } of others)
      this.#say(at, `the default action is given twice: first at ${printPosition(node!.at)}`);
    const input = node && this.#parse<z.infer<typeof defaultActionSchema>>(defaultActionSchema, node);
    return { action: input?.action ?? 'DENY', logging: input?.logging ?? false };
  }

  checkCount(count: number, limit: number, what: string, nodes: readonly { readonly at: Position }[]): void {
    const over = nodes[limit];
    if (over !== undefined) this.#say(over.at, `the policy holds ${count} ${what}, the limit is ${limit}`);
  }
}

/**
 * Makes one policy of what all files say. Throws PolicyError with everything that is wrong in any of them,
 * `broken` included: what is wrong with files that could not be read at all.
 */
export function buildPolicy(
  drafts: readonly Draft[],
  broken: readonly Diagnostic[],
  at: Position,
): Omit<LoadedPolicy, 'digest'> {
  const builder = new Builder(broken.length === 0);
  const groupNodes = drafts.flatMap(({ groups }) => groups);
  const ruleDrafts = drafts.flatMap(({ rules }) => rules);
  builder.checkCount(groupNodes.length, GROUPS_MAX, 'groups', groupNodes);
  const ruleNodes = ruleDrafts.map(({ node }) => node);
  builder.checkCount(ruleNodes.length, SNAPSHOT_LIMITS.rulesMax, 'rules', ruleNodes);
  for (const reference of [...systemReferences(at), ...drafts.flatMap(({ references }) => references)]) {
    builder.addReference(reference);
  }
  for (const node of groupNodes) builder.declareGroup(node);
  const groups = groupNodes.flatMap((node) => builder.group(node) ?? []);
  builder.checkCircles(groups);
  const feeds = [...feedsOf(groups).values()];
  builder.checkCount(feeds.length, FEEDS_MAX, 'names and feeds', feeds);
  const attachment = new Attachment(drafts.flatMap(({ points }) => points));
  const rules = ruleDrafts.flatMap((draft) => builder.rule(draft, attachment.rankOf(draft.ruleset)) ?? []);
  builder.checkPriorities(rules);
  const defaultAction = builder.defaultAction(drafts.flatMap(({ defaultActions }) => defaultActions));
  const own = [...builder.problems, ...(broken.length === 0 ? attachment.problems : [])];
  const problems = [...broken, ...drafts.flatMap((draft) => draft.problems), ...own];
  if (problems.length > 0) throw new PolicyError(problems);
  const ordered = orderRules(rules);
  const warnings = [...drafts.flatMap((draft) => draft.warnings), ...builder.warnings, ...ordered.warnings];
  return {
    policy: { rules: ordered.rules, defaultAction },
    groups,
    written: builder.written,
    places: new Map(rules.map(({ rule, at: place }) => [rule.name, place])),
    warnings: sortDiagnostics(warnings),
  };
}
