import type { z } from 'zod';
import { type Diagnostic, nearest, oneOf, quote } from './diagnostics.js';
import { entryOf, type Located, locate, type Node, textOf, toPlain } from './node.js';
import { EXPRESSION_KEYS } from './schema.js';

type Issue = z.core.$ZodIssue;

const SUPPORTED_TYPES = 'expected type serverless, subnet or vpc, or a cidr';
const TYPE_MISSING = 'a match expression needs a "type" (serverless, subnet or vpc) or a "cidr"';

/** Ways to select that exist in DCF or in the design of policy, and that this version does not resolve. */
const UNSUPPORTED_KEYS = new Set([
  ...['not', 'group', 'fqdn', 'external', 'site', 's2c', 'securityGroup', 'prefixList', 'zone', 'ext_args'],
  ...['account_name', 'namespacetags', 'k8s_cluster_id', 'k8s_namespace', 'k8s_service', 'k8s_pod'],
  ...['snifilter', 'urlfilter'],
]);
const UNSUPPORTED_TYPES = new Set(['vm', 'k8s', 'k8s_node', 'fqdn', 'external']);

/** Whether a key or type of a match expression is known and refused, rather than misspelt. */
export function unsupportedSelector(kind: 'key' | 'type', word: string): string | undefined {
  const known = kind === 'key' ? UNSUPPORTED_KEYS : UNSUPPORTED_TYPES;
  if (!known.has(word)) return undefined;
  const what = kind === 'key' ? `selecting by ${quote(word)}` : `type ${quote(word)}`;
  return `${what} is not supported: ${SUPPORTED_TYPES}`;
}

const EXPECTED: Readonly<Record<string, string>> = {
  object: 'a map',
  array: 'a list',
  record: 'a map of strings',
  string: 'a string',
  boolean: 'true or false',
  int: 'a whole number',
  number: 'a whole number',
};

function show(node: Node): string {
  const value = toPlain(node);
  if (typeof value === 'string') return quote(value);
  if (Array.isArray(value)) return 'a list';
  return value !== null && typeof value === 'object' ? 'a map' : value === null ? 'empty' : String(value);
}

const KNOWN_KEYS_SHOWN_MAX = 15;

/** What is said of a key that a map does not take. */
export function unknownKey(word: string, known: readonly string[]): string {
  const meant = nearest(word, known);
  if (meant !== undefined) return `unknown key ${quote(word)}: did you mean ${quote(meant)}?`;
  const hint = known.length > KNOWN_KEYS_SHOWN_MAX ? '' : `: expected ${oneOf(known)}`;
  return `unknown key ${quote(word)}${hint}`;
}

function refusesSelector(node: Node): boolean {
  return (
    node.kind === 'map' &&
    node.entries.some(({ key, label }) => unsupportedSelector('key', label ?? key) !== undefined)
  );
}

/** Keys of the maps inside a group or rule, by the key that leads to them. */
const INNER_KEYS: Readonly<Record<string, readonly string[]>> = {
  selector: ['any'],
  any: ['all'],
  portRanges: ['lo', 'hi'],
};

function knownKeys(path: readonly PropertyKey[], node: Node, rootKeys: readonly string[]): readonly string[] {
  const step = path.findLast((part) => typeof part === 'string');
  if (step !== 'all') return step === undefined ? rootKeys : (INNER_KEYS[step] ?? []);
  const type = textOf(node, 'type') ?? 'cidr';
  return Object.hasOwn(EXPRESSION_KEYS, type) ? EXPRESSION_KEYS[type as keyof typeof EXPRESSION_KEYS] : [];
}

function sayUnknownKeys(
  root: Node,
  path: readonly PropertyKey[],
  keys: readonly string[],
  known: readonly string[],
) {
  const { node } = locate(root, path);
  const inExpression = path.at(-1) === 'all';
  const typeless = inExpression && !entryOf(node, 'type') && !entryOf(node, 'cidr');
  const supported = !refusesSelector(node);
  return keys.flatMap((key): Diagnostic | [] => {
    const entry = entryOf(node, key);
    const at = entry?.at ?? node.at;
    const word = entry?.label ?? key;
    const refused = inExpression ? unsupportedSelector('key', word) : undefined;
    if (refused !== undefined) return { ...at, message: refused };
    if (typeless) return supported ? { ...node.at, message: TYPE_MISSING } : [];
    return { ...at, message: unknownKey(word, knownKeys(path, node, known)) };
  });
}

function sayLimit(label: string, issue: Issue & { code: 'too_small' | 'too_big' }, node: Node): string {
  const max = issue.code === 'too_big';
  const limit = Number(max ? issue.maximum : issue.minimum);
  if (issue.origin === 'array') {
    const count = node.kind === 'list' ? node.items.length : 0;
    return max
      ? `${label} holds ${count} items, the limit is ${limit}`
      : `${label} is empty: give at least one`;
  }
  if (issue.origin === 'string') {
    return max ? `${label} is longer than the limit of ${limit} characters` : `${label} is empty`;
  }
  return `${label} is ${show(node)}: ${max ? 'the highest' : 'the lowest'} allowed is ${limit}`;
}

const DCF_ACTION = /^(?:CONTINUE|INTRUSION_(?:DETECTION|PREVENTION)_(?:PERMIT|CONTINUE))$/;

function sayValue(
  label: string,
  node: Node,
  key: PropertyKey | undefined,
  values: readonly unknown[],
): string {
  const expected = oneOf(values.map(String));
  if (key === 'action' && node.kind === 'scalar' && DCF_ACTION.test(String(node.value))) {
    const why = 'is not enforced here, and ignoring it would change the rule';
    return `action ${show(node)} ${why}: expected ${expected}`;
  }
  if (key === 'resolve') return `resolve ${show(node)} is not supported: expected ${expected}`;
  if (values.length === 1) return `${label} is ${show(node)}, expected ${expected}`;
  return `unknown ${String(key)} ${show(node)}: expected ${expected}`;
}

function isNothing(node: Node): boolean {
  return node.kind === 'scalar' && node.value === null;
}

function sayType(label: string, node: Node, expected: string): string {
  const number = node.kind === 'scalar' && node.value !== null && typeof node.value !== 'string';
  const hint = expected === 'string' && number ? ': put it in quotes' : '';
  return `${label} is ${show(node)}, expected ${EXPECTED[expected] ?? expected}${hint}`;
}

function sayMissing(key: PropertyKey | undefined, parent: Node): string | undefined {
  if (key !== 'cidr') return `${quote(String(key))} is missing`;
  return refusesSelector(parent) ? undefined : TYPE_MISSING;
}

function sayOne(issue: Issue, { node, entry, complete }: Located): string | undefined {
  const key = issue.path.at(-1);
  const word = quote(entry?.label ?? entry?.key ?? 'value');
  const label = typeof key === 'number' ? `an item of ${word}` : word;
  if (!complete) return sayMissing(key, node);
  switch (issue.code) {
    case 'invalid_type':
      return entry === undefined
        ? `expected ${EXPECTED[issue.expected]}, found ${isNothing(node) ? 'nothing' : show(node)}`
        : sayType(label, node, issue.expected);
    case 'invalid_value':
      return sayValue(label, node, key, issue.values);
    case 'invalid_union': {
      const type = node.kind === 'scalar' ? String(node.value) : '';
      return unsupportedSelector('type', type) ?? `unknown type ${show(node)}: ${SUPPORTED_TYPES}`;
    }
    case 'too_small':
    case 'too_big':
      return sayLimit(label, issue, node);
    case 'invalid_format':
      return `${label} is ${show(node)}, expected a time of RFC 3339 such as 2027-01-31T00:00:00Z`;
    case 'invalid_key':
      return `the key ${word} is empty or too long`;
    case 'custom':
      return issue.message;
    default:
      return `${label}: ${issue.message}`;
  }
}

/**
 * What a schema found wrong with a node, in words for the user; `rootKeys` are the keys that the node takes.
 */
export function describeIssues(
  root: Node,
  issues: readonly Issue[],
  rootKeys: readonly string[],
): Diagnostic[] {
  return issues.flatMap((issue) => {
    if (issue.code === 'unrecognized_keys') return sayUnknownKeys(root, issue.path, issue.keys, rootKeys);
    const located = locate(root, issue.path);
    const message = sayOne(issue, located);
    return message === undefined ? [] : [{ ...located.node.at, message }];
  });
}
