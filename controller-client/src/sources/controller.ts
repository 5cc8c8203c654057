import { SYSTEM_GROUPS } from 'sluice-gateway/policy/model.js';
import { adaptDefaultAction, adaptExpression, CONTROLLER, RuleAdapter } from './aviatrix.js';
import type { Diagnostic, Position } from './diagnostics.js';
import { unknownKey, unsupportedSelector } from './issues.js';
import {
  type Draft,
  type Entry,
  entryOf,
  type GroupReference,
  itemsOf,
  type Node,
  textOf,
  toPlain,
  valueAt,
} from './node.js';

const ANYWHERE = 'def000ad-0000-0000-0000-000000000000';
const PUBLIC_INTERNET = 'def000ad-0000-0000-0000-000000000001';

/** The system groups under the UUIDs that every Controller gives them. */
export function systemReferences(at: Position): GroupReference[] {
  const [anywhere, publicInternet] = SYSTEM_GROUPS;
  return [
    { target: ANYWHERE, name: anywhere, supported: true, at },
    { target: PUBLIC_INTERNET, name: publicInternet, supported: true, at },
  ];
}

const DOCUMENT_KEYS = ['app_domains', 'policies', 'default_action_policy'];

/** Whether a JSON document is what a Controller answers, rather than of our own form. */
export function isControllerJson(root: Node): boolean {
  if (entryOf(root, 'version')) return false;
  if (entryOf(root, 'app_domains') || entryOf(root, 'default_action_policy')) return true;
  return itemsOf(valueAt(root, 'policies')).some(
    (rule) => entryOf(rule, 'src_ads') ?? entryOf(rule, 'dst_ads'),
  );
}

const GROUP_FIELDS_IGNORED = new Set(['uuid', 'system_resource', 'metadata']);

function expressionsOf(group: Node): Node[] {
  return itemsOf(valueAt(valueAt(group, 'selector'), 'any')).flatMap((any) => valueAt(any, 'all') ?? []);
}

/** Web, geo and threat groups that the Controller brings along: nothing is lost while no rule names them. */
function isForeignSystemGroup(group: Node): boolean {
  const system = valueAt(group, 'system_resource');
  if (system === undefined || toPlain(system) !== true) return false;
  return expressionsOf(group).some(
    (all) =>
      all.kind === 'map' &&
      all.entries.some(({ key }) => key === 'external' || unsupportedSelector('key', key) !== undefined),
  );
}

function mapEntries(node: Node, change: (entry: Entry) => Node): Node {
  if (node.kind !== 'map') return node;
  return { ...node, entries: node.entries.map((entry) => ({ ...entry, value: change(entry) })) };
}

function adaptGroup(group: Node, problems: Diagnostic[]): Node {
  if (group.kind !== 'map') return group;
  const kept = { ...group, entries: group.entries.filter(({ key }) => !GROUP_FIELDS_IGNORED.has(key)) };
  return mapEntries(kept, ({ key, value }) =>
    key !== 'selector'
      ? value
      : mapEntries(value, ({ value: any }) =>
          any.kind !== 'list'
            ? any
            : {
                ...any,
                items: any.items.map((item) =>
                  mapEntries(item, (all) => adaptExpression(all.value, problems)),
                ),
              },
        ),
  );
}

/** Reads the Controller's JSON: app domains, policies in the order of the list, the default action policy. */
export function readControllerForm(root: Node): Draft {
  const problems: Diagnostic[] = [];
  for (const { key, at } of root.kind === 'map' ? root.entries : []) {
    if (!DOCUMENT_KEYS.includes(key)) problems.push({ ...at, message: unknownKey(key, DOCUMENT_KEYS) });
  }
  for (const key of ['app_domains', 'policies']) {
    const value = valueAt(root, key);
    if (value && value.kind !== 'list') problems.push({ ...value.at, message: `"${key}" is not a list` });
  }
  const systemIds = new Set([ANYWHERE, PUBLIC_INTERNET]);
  const domains = itemsOf(valueAt(root, 'app_domains')).filter(
    (domain) => !systemIds.has(textOf(domain, 'uuid') ?? ''),
  );
  const references = domains.flatMap((domain): GroupReference[] => {
    const target = textOf(domain, 'uuid');
    const name = textOf(domain, 'name') ?? '';
    return target === undefined
      ? []
      : [{ target, name, supported: !isForeignSystemGroup(domain), at: domain.at }];
  });
  const groups = domains
    .filter((domain) => !isForeignSystemGroup(domain))
    .map((domain) => adaptGroup(domain, problems));
  const adapter = new RuleAdapter(CONTROLLER);
  const rules = itemsOf(valueAt(root, 'policies')).map((rule) => ({
    node: adapter.adapt(rule),
    list: root.at,
  }));
  const defaultAction = valueAt(root, 'default_action_policy');
  return {
    groups,
    rules,
    defaultActions: defaultAction === undefined ? [] : [adaptDefaultAction(defaultAction)],
    references,
    points: [],
    problems: [...problems, ...adapter.problems],
    warnings: [],
  };
}
