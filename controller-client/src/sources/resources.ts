import { adaptDefaultAction, adaptExpression, RuleAdapter, TERRAFORM } from './aviatrix.js';
import { type Diagnostic, oneOf, type Position, quote } from './diagnostics.js';
import {
  type AttachmentPoint,
  type Draft,
  type Entry,
  type GroupReference,
  itemsOf,
  type MapNode,
  type Node,
  type RuleDraft,
  type Ruleset,
  textOf,
  valueAt,
} from './node.js';

export const SMART_GROUP = 'aviatrix_smart_group';
const POLICY_LIST = 'aviatrix_distributed_firewalling_policy_list';
const RULESET = 'aviatrix_dcf_ruleset';
export const DEFAULT_ACTION = 'aviatrix_distributed_firewalling_default_action_rule';
export const ATTACHMENT_POINT = 'aviatrix_dcf_attachment_point';
const RESOURCES = [SMART_GROUP, POLICY_LIST, RULESET, DEFAULT_ACTION];

/** Whether a resource can say what passes; gateways, accounts and the like are no part of policy. */
export const isPolicyResource = (type: string) =>
  /^aviatrix_(?:dcf_|distributed_firewalling_|smart_group|web_group)/.test(type);

/** The resources whose rules stand in blocks, and the name of those blocks. */
export const RULE_BLOCKS: Readonly<Record<string, string>> = {
  [POLICY_LIST]: 'policies',
  [RULESET]: 'rules',
};

export const unsupportedResource = (type: string) =>
  `resource ${quote(type)} is not supported: expected ${oneOf(RESOURCES)}`;

/** Attributes that the Controller computes and that say nothing about packets. */
const COMPUTED = new Set(['id', 'uuid', 'system_resource']);

/** Collects what resources of Aviatrix's provider say, however they were written down. */
export class ResourceReader {
  readonly #groups: Node[] = [];
  readonly #rules: RuleDraft[] = [];
  readonly #defaultActions: Node[] = [];
  readonly #references: GroupReference[] = [];
  readonly #points: AttachmentPoint[] = [];
  readonly problems: Diagnostic[] = [];
  readonly warnings: Diagnostic[] = [];
  readonly #adapter = new RuleAdapter(TERRAFORM);

  say(at: Position, message: string): void {
    this.problems.push({ ...at, message });
  }

  draft(): Draft {
    return {
      groups: this.#groups,
      rules: this.#rules,
      defaultActions: this.#defaultActions,
      references: this.#references,
      points: this.#points,
      problems: [...this.problems, ...this.#adapter.problems],
      warnings: this.warnings,
    };
  }

  reference(target: string, name: string, at: Position): void {
    this.#references.push({ target, name, supported: true, at });
  }

  attachmentPoint(target: string, name: string, at: Position): void {
    this.#points.push({ target, name, at });
  }

  smartGroup(node: MapNode): void {
    const selectors = itemsOf(valueAt(node, 'selector'));
    if (selectors.length > 1) this.say(selectors[1]!.at, 'a smart group has one "selector" block');
    const entries = node.entries
      .filter(({ key }) => !COMPUTED.has(key))
      .map((entry) =>
        entry.key === 'selector' && selectors[0] ? { ...entry, value: this.#selector(selectors[0]) } : entry,
      );
    this.#groups.push({ ...node, entries });
  }

  #selector(node: Node): Node {
    if (node.kind !== 'map') return node;
    const entries = node.entries.map((entry): Entry => {
      if (entry.key !== 'match_expressions' || entry.value.kind !== 'list') return entry;
      const items = entry.value.items.map((item): Node => {
        const value = adaptExpression(item, this.problems);
        const all: Entry = { key: 'all', label: entry.key, at: item.at, value };
        return { kind: 'map', entries: [all], at: item.at };
      });
      return { ...entry, key: 'any', label: entry.key, value: { ...entry.value, items } };
    });
    return { ...node, entries };
  }

  /** The attributes beside the rules of a list or ruleset; of a ruleset the rules belong to what is returned. */
  ruleContainer(type: string, node: MapNode): Ruleset | undefined {
    const isRuleset = type === RULESET;
    const block = RULE_BLOCKS[type]!;
    for (const { key, at } of node.entries) {
      const known = isRuleset && (key === 'name' || key === 'attach_to');
      if (known || COMPUTED.has(key)) continue;
      this.say(at, `unknown key ${quote(key)}: expected "${block}" blocks`);
    }
    if (!isRuleset) return undefined;
    return { name: textOf(node, 'name') ?? '', attachTo: valueAt(node, 'attach_to'), at: node.at };
  }

  rule(node: MapNode, container: Ruleset | undefined, list: Position): void {
    const adapted = this.#adapter.adapt(node);
    this.#rules.push(container ? { node: adapted, ruleset: container } : { node: adapted, list });
  }

  defaultAction(node: MapNode): void {
    this.#defaultActions.push(adaptDefaultAction(node));
  }
}
