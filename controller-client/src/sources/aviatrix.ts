import { type Diagnostic, quote } from './diagnostics.js';
import { unknownKey } from './issues.js';
import {
  checkTree,
  type Entry,
  itemsOf,
  type MapNode,
  type Node,
  type ScalarNode,
  toPlain,
  valueAt,
} from './node.js';

/** What the Terraform provider and the Controller's JSON call the same thing. */
export interface Dialect {
  readonly src: string;
  readonly dst: string;
  readonly webGroups: string;
}

export const TERRAFORM: Dialect = {
  src: 'src_smart_groups',
  dst: 'dst_smart_groups',
  webGroups: 'web_groups',
};
export const CONTROLLER: Dialect = { src: 'src_ads', dst: 'dst_ads', webGroups: 'web_filters' };

const TAG_PREFIX = 'tags.';

/**
 * Our key for a key of a match expression; a key that is not here keeps its name, and is refused under it.
 */
const EXPRESSION_KEY: Readonly<Record<string, string>> = { account_id: 'accountId', res_id: 'id' };

function isEmpty(node: Node): boolean {
  const value = toPlain(node);
  if (value === null || value === '') return true;
  return typeof value === 'object' && Object.keys(value).length === 0;
}

/** As the provider does before it sends a region: "Central US" is centralus. */
function normalizeRegion(node: Node): Node {
  if (node.kind !== 'scalar' || typeof node.value !== 'string') return node;
  return { ...node, value: node.value.toLowerCase().replaceAll(/\s/g, '') };
}

/** DCF takes names and tags literally: what we take for a pattern would select more. */
function checkLiteral({ label, key, value }: Entry): Diagnostic[] {
  const text = toPlain(value);
  if (typeof text !== 'string' || !/[*?]/.test(text)) return [];
  const what = `${quote(label ?? key)} is ${quote(text)}, which DCF takes literally`;
  return [{ ...value.at, message: `${what}: patterns are read in our own form only` }];
}

const LITERAL_KEYS = new Set(['name', 'tags']);

/**
 * A match expression of DCF in our form; `problems` grows by what would be understood in another way, and by
 * conditions that two keys give in two ways: one would be lost, and the group wider. Empty conditions are dropped, as
 * DCF ignores them.
 */
export function adaptExpression(node: Node, problems: Diagnostic[]): Node {
  if (node.kind !== 'map') return node;
  const entries: Entry[] = [];
  const tags: Entry[] = [];
  const add = (entry: Entry): void => {
    const { key, value } = entry;
    if (key.startsWith(TAG_PREFIX)) {
      tags.push({ ...entry, key: key.slice(TAG_PREFIX.length), label: key });
    } else if (key === 'tags' && value.kind === 'map') {
      tags.push(...value.entries);
    } else if (key === 'ext_args' && (value.kind === 'map' || value.kind === 'list')) {
      const maps = value.kind === 'map' ? [value] : value.items;
      for (const map of maps) if (map.kind === 'map') map.entries.forEach(add);
    } else if (!isEmpty(value)) {
      const adapted =
        key === 'region' ? normalizeRegion(value) : key === 'is_in_eu' ? asBoolean(value) : value;
      entries.push({ ...entry, key: EXPRESSION_KEY[key] ?? key, label: key, value: adapted });
    }
  };
  node.entries.forEach(add);
  const [first] = tags;
  if (first !== undefined) {
    entries.push({ key: 'tags', at: first.at, value: { kind: 'map', entries: tags, at: first.at } });
  }
  const external = entries.some(({ key }) => key === 'external');
  const literal = entries.filter(({ key }) => LITERAL_KEYS.has(key) && !external);
  problems.push(
    ...literal.flatMap((entry) =>
      entry.value.kind === 'map' ? entry.value.entries.flatMap(checkLiteral) : checkLiteral(entry),
    ),
  );
  const adapted = { ...node, entries };
  problems.push(...checkTree(adapted));
  return adapted;
}

/** Arguments of a feed travel as text. */
function asBoolean(node: Node): Node {
  const text = toPlain(node);
  return text === 'true' || text === 'false' ? { kind: 'scalar', value: text === 'true', at: node.at } : node;
}

type Verdict = 'copy' | 'ignore' | readonly string[];

/** Per field of a DCF rule: copied; without influence on what passes; or the values that change nothing. */
const RULE_FIELDS: Readonly<Record<string, Verdict>> = {
  name: 'copy',
  action: 'copy',
  priority: 'copy',
  logging: 'copy',
  enforcement: 'copy',
  uuid: 'ignore',
  log_profile: 'ignore',
  exclude_sg_orchestration: 'ignore',
  system_resource: 'ignore',
  metadata: 'ignore',
  flow_app_requirement: ['APP_UNSPECIFIED'],
  decrypt_policy: ['DECRYPT_UNSPECIFIED', 'DECRYPT_NOT_ALLOWED'],
  egress_path: ['EGRESS_PATH_DEFAULT'],
  tls_profile: [],
};

function scalar(value: ScalarNode['value'], { at }: { readonly at: Node['at'] }): ScalarNode {
  return { kind: 'scalar', value, at };
}

function adaptGroupList(node: Node): Node {
  if (node.kind !== 'list') return node;
  const items = node.items.map(
    (item): Node =>
      item.kind === 'scalar' && typeof item.value === 'string'
        ? { kind: 'reference', target: item.value, at: item.at }
        : item,
  );
  return { ...node, items };
}

function adaptPortRange(node: Node): Node {
  if (node.kind !== 'map') return node;
  const given = ({ key, value }: Entry) => key !== 'hi' || (value.kind === 'scalar' && value.value !== 0);
  return { ...node, entries: node.entries.filter((entry) => !isEmpty(entry.value) && given(entry)) };
}

function adaptProtocol(node: Node): Node {
  const any = node.kind === 'scalar' && /^PROTOCOL_(?:ANY_)?UNSPECIFIED$/.test(String(node.value));
  return any ? scalar('ANY', node) : node;
}

function describeValue(node: Node): string {
  const value = toPlain(node);
  return typeof value === 'string' ? ` ${quote(value)}` : '';
}

/** Adapts one rule after another; `problems` grows by what would narrow a rule and is not enforced. */
export class RuleAdapter {
  readonly problems: Diagnostic[] = [];
  readonly #dialect: Dialect;

  constructor(dialect: Dialect) {
    this.#dialect = dialect;
  }

  #say({ at }: { readonly at: Node['at'] }, message: string): void {
    this.problems.push({ ...at, message });
  }

  /** A rule of DCF in our form, without what `problems` refuses. */
  adapt(node: Node): Node {
    if (node.kind !== 'map') return node;
    const entries = node.entries.flatMap((entry) => this.#field(entry) ?? []);
    for (const [key, label] of [
      ['src', this.#dialect.src],
      ['dst', this.#dialect.dst],
    ] as const) {
      if (!valueAt(node, label)) {
        entries.push({ key, label, at: node.at, value: { kind: 'list', items: [], at: node.at } });
      }
    }
    if (!valueAt(node, 'priority')) entries.push({ key: 'priority', at: node.at, value: scalar(0, node) });
    const watched = this.#watch(node);
    const enforcement = valueAt(node, 'enforcement');
    if (watched !== undefined && (enforcement === undefined || isEmpty(enforcement))) entries.push(watched);
    return { ...node, entries };
  }

  #field(entry: Entry): Entry | undefined {
    const { key, value } = entry;
    const renamed = (name: string, node: Node): Entry => ({ ...entry, key: name, label: key, value: node });
    switch (key) {
      case this.#dialect.src:
        return renamed('src', adaptGroupList(value));
      case this.#dialect.dst:
        return renamed('dst', adaptGroupList(value));
      case 'port_ranges':
        if (value.kind !== 'list') return isEmpty(value) ? undefined : renamed('portRanges', value);
        return renamed('portRanges', { ...value, items: itemsOf(value).map(adaptPortRange) });
      case 'protocol':
        return { ...entry, value: adaptProtocol(value) };
      case 'watch':
        return undefined;
      default:
        return this.#plainField(entry);
    }
  }

  #plainField(entry: Entry): Entry | undefined {
    const { webGroups, src, dst } = this.#dialect;
    const { key, value } = entry;
    const verdict = key === webGroups ? [] : Object.hasOwn(RULE_FIELDS, key) ? RULE_FIELDS[key] : undefined;
    if (verdict === 'copy') return isEmpty(value) && key !== 'name' ? undefined : entry;
    if (verdict === 'ignore') return undefined;
    if (verdict === undefined) {
      const known = [...Object.keys(RULE_FIELDS), 'protocol', 'port_ranges', 'watch', src, dst];
      this.#say(entry, unknownKey(key, known));
    } else if (!isEmpty(value) && !verdict.includes(String(toPlain(value)))) {
      const neutral = verdict.length === 0 ? 'remove it' : `remove it or use ${verdict[0]}`;
      const what = `${key}${describeValue(value)}`;
      this.#say(value, `${what} would narrow the rule and is not enforced here: ${neutral}`);
    }
    return undefined;
  }

  /** The deprecated `watch`: true is MONITOR, false is ENFORCE. */
  #watch(node: MapNode): Entry | undefined {
    const entry = node.entries.find(({ key }) => key === 'watch');
    if (entry === undefined || isEmpty(entry.value)) return undefined;
    const on = toPlain(entry.value);
    if (typeof on !== 'boolean') {
      this.#say(entry.value, `"watch" is${describeValue(entry.value)}, expected true or false`);
      return undefined;
    }
    const meant = on ? 'MONITOR' : 'ENFORCE';
    const enforcement = valueAt(node, 'enforcement');
    if (enforcement && !isEmpty(enforcement) && toPlain(enforcement) !== meant) {
      this.#say(
        entry.value,
        `watch = ${on} means enforcement ${meant}, but enforcement says otherwise: give one of them`,
      );
    }
    return { ...entry, key: 'enforcement', label: 'watch', value: scalar(meant, entry.value) };
  }
}

const DEFAULT_ACTION_FIELDS = ['action', 'logging', 'log_profile', 'id', 'uuid', 'system_resource'];

/** The default action of DCF in our form: what does not decide about packets is left out. */
export function adaptDefaultAction(node: Node): Node {
  if (node.kind !== 'map') return node;
  const dropped = new Set(DEFAULT_ACTION_FIELDS.slice(2));
  return { ...node, entries: node.entries.filter(({ key, value }) => !dropped.has(key) && !isEmpty(value)) };
}
