import { adaptDefaultAction, adaptExpression, RuleAdapter, TERRAFORM } from './aviatrix.js';
import { type Diagnostic, escapeControls, oneOf, type Position, quote } from './diagnostics.js';
import { type Attribute, type Block, type Body, type Expression, parseHcl } from './hcl-parse.js';
import {
  checkTree,
  type Draft,
  type Entry,
  type GroupReference,
  itemsOf,
  type MapNode,
  type Node,
  type RuleDraft,
  valueAt,
} from './node.js';
import type { SourceText } from './text.js';

const SMART_GROUP = 'aviatrix_smart_group';
const POLICY_LIST = 'aviatrix_distributed_firewalling_policy_list';
const DEFAULT_ACTION = 'aviatrix_distributed_firewalling_default_action_rule';
const RESOURCES = [SMART_GROUP, POLICY_LIST, DEFAULT_ACTION];

/** Arguments that Terraform itself takes in every resource and that say nothing about policy. */
const META_IGNORED = new Set(['depends_on', 'lifecycle', 'provider', 'provisioner', 'connection']);
const META_REFUSED = new Set(['count', 'for_each', 'dynamic']);
/** Blocks that can't change policy by themselves: what they define is refused where a resource uses it. */
const BLOCKS_SILENT = new Set(['variable', 'locals']);
const BLOCKS_SKIPPED = new Set(['terraform', 'provider', 'output', 'moved', 'import', 'removed', 'check']);

const SHOWN_LENGTH_MAX = 80;
const NOT_EVALUATED = 'only literal values and references such as aviatrix_smart_group.NAME.uuid are read';

/** Reads the resources of one file, one after another; what is wrong or skipped is collected. */
class TerraformReader {
  readonly groups: Node[] = [];
  readonly rules: RuleDraft[] = [];
  readonly defaultActions: Node[] = [];
  readonly references: GroupReference[] = [];
  readonly problems: Diagnostic[] = [];
  readonly warnings: Diagnostic[] = [];
  readonly #adapter = new RuleAdapter(TERRAFORM);

  #say(at: Position, message: string): void {
    this.problems.push({ ...at, message });
  }

  read(file: Body): Draft {
    for (const { key, at } of file.attributes) {
      this.#say(at, `argument ${quote(key)} stands outside of any block`);
    }
    for (const block of file.blocks) this.#block(block);
    const problems = [...this.problems, ...this.#adapter.problems];
    return {
      groups: this.groups,
      rules: this.rules,
      defaultActions: this.defaultActions,
      references: this.references,
      problems,
      warnings: this.warnings,
    };
  }

  #block(block: Block): void {
    const { type, labels, at } = block;
    const address = [type, ...labels].map((part, index) => (index === 0 ? part : quote(part))).join(' ');
    const foreign = !labels[0]?.startsWith('aviatrix_');
    if (BLOCKS_SILENT.has(type)) return;
    if (BLOCKS_SKIPPED.has(type) || ((type === 'resource' || type === 'data') && foreign)) {
      this.warnings.push({ ...at, message: `${address} is skipped: it is no part of policy` });
    } else if (type === 'module') {
      this.warnings.push({
        ...at,
        message: `${address} is skipped: groups and rules inside it are not read`,
      });
    } else if (type === 'resource') {
      this.#resource(block);
    } else {
      const known = type === 'data' ? `expected a resource: ${oneOf(RESOURCES)}` : 'expected a resource';
      this.#say(at, `${address} is not supported: ${known}`);
    }
  }

  #resource({ labels, body, at }: Block): void {
    const [type, name] = labels;
    if (name === undefined || labels.length > 2) {
      this.#say(at, 'a resource has two labels: its type and its name');
    } else if (type === SMART_GROUP) {
      this.#smartGroup(`${SMART_GROUP}.${name}`, body, at);
    } else if (type === POLICY_LIST) {
      this.#policyList(body, at);
    } else if (type === DEFAULT_ACTION) {
      const node = this.#sound(body, at);
      if (node) this.defaultActions.push(adaptDefaultAction(node));
    } else {
      this.#say(at, `resource ${quote(type!)} is not supported: expected ${oneOf(RESOURCES)}`);
    }
  }

  #smartGroup(target: string, body: Body, at: Position): void {
    const name = body.attributes.find(({ key }) => key === 'name')?.value;
    const known = name?.kind === 'literal' && typeof name.value === 'string' ? name.value : target;
    this.references.push({ target, name: known, supported: true, at });
    const node = this.#sound(body, at);
    if (node === undefined) return;
    const selectors = itemsOf(valueAt(node, 'selector'));
    if (selectors.length > 1) this.#say(selectors[1]!.at, 'a smart group has one "selector" block');
    const entries = node.entries.map((entry) =>
      entry.key === 'selector' && selectors[0] ? { ...entry, value: this.#selector(selectors[0]) } : entry,
    );
    this.groups.push({ ...node, entries });
  }

  #selector(node: Node): Node {
    if (node.kind !== 'map') return node;
    const entries = node.entries.map((entry): Entry => {
      if (entry.key !== 'match_expressions' || entry.value.kind !== 'list') return entry;
      const items = entry.value.items.map((item): Node => {
        const all: Entry = { key: 'all', label: entry.key, at: item.at, value: adaptExpression(item) };
        return { kind: 'map', entries: [all], at: item.at };
      });
      return { ...entry, key: 'any', label: entry.key, value: { ...entry.value, items } };
    });
    return { ...node, entries };
  }

  #policyList({ attributes, blocks }: Body, list: Position): void {
    for (const { key, at } of attributes) {
      if (META_REFUSED.has(key)) this.#say(at, `cannot evaluate ${key}: ${NOT_EVALUATED}`);
      else if (!META_IGNORED.has(key)) this.#say(at, `unknown key ${quote(key)}: expected "policies" blocks`);
    }
    for (const { type, body, at } of blocks) {
      if (META_IGNORED.has(type)) continue;
      if (META_REFUSED.has(type)) this.#say(at, `cannot evaluate ${type}: ${NOT_EVALUATED}`);
      else if (type !== 'policies') this.#say(at, `unknown block ${quote(type)}: expected "policies"`);
      else {
        const rule = this.#sound(body, at);
        if (rule) this.rules.push({ node: this.#adapter.adapt(rule), list });
      }
    }
  }

  /** The body as a map, if nothing in it was refused. */
  #sound(body: Body, at: Position): MapNode | undefined {
    const before = this.problems.length;
    const node = this.#map(body, at);
    this.problems.push(...checkTree(node));
    return this.problems.length === before ? node : undefined;
  }

  #map({ attributes, blocks }: Body, at: Position): MapNode {
    const entries = attributes.flatMap((attribute) => this.#attribute(attribute) ?? []);
    const lists = Map.groupBy(blocks, ({ type }) => type);
    for (const [type, same] of lists) {
      if (META_IGNORED.has(type)) continue;
      if (META_REFUSED.has(type)) this.#say(same[0]!.at, `cannot evaluate ${type}: ${NOT_EVALUATED}`);
      const items = same.map((block) => this.#map(block.body, block.at));
      entries.push({ key: type, at: same[0]!.at, value: { kind: 'list', items, at: same[0]!.at } });
    }
    return { kind: 'map', entries, at };
  }

  #attribute({ key, at, value }: Attribute): Entry | undefined {
    if (META_IGNORED.has(key) || (value.kind === 'literal' && value.value === null)) return undefined;
    if (META_REFUSED.has(key)) {
      this.#say(at, `cannot evaluate ${key}: ${NOT_EVALUATED}`);
      return undefined;
    }
    return { key, at, value: this.#value(value) };
  }

  #value(expression: Expression): Node {
    const { at } = expression;
    switch (expression.kind) {
      case 'literal':
        return { kind: 'scalar', value: expression.value, at };
      case 'list':
        return { kind: 'list', items: expression.items.map((item) => this.#value(item)), at };
      case 'object': {
        const entries = expression.members.map((member) => ({ ...member, value: this.#value(member.value) }));
        return { kind: 'map', entries, at };
      }
      case 'reference': {
        const [type, name, attribute] = expression.path;
        if (type === SMART_GROUP && attribute === 'uuid' && expression.path.length === 3) {
          return { kind: 'reference', target: `${SMART_GROUP}.${name}`, at };
        }
        return this.#unevaluated(expression.path.join('.'), at);
      }
      case 'unsupported':
        return this.#unevaluated(expression.text, at);
    }
  }

  #unevaluated(text: string, at: Position): Node {
    const cut = text.length > SHOWN_LENGTH_MAX ? `${text.slice(0, SHOWN_LENGTH_MAX)}…` : text;
    this.#say(at, `cannot evaluate ${escapeControls(cut)}: ${NOT_EVALUATED}`);
    return { kind: 'scalar', value: null, at };
  }
}

/**
 * Reads one Terraform file. Throws PolicyError when it is not HCL; anything else that is wrong is in the
 * draft.
 */
export function readTerraform(source: SourceText): Draft {
  return new TerraformReader().read(parseHcl(source));
}
