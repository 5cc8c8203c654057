import type { z } from 'zod';
import { type Diagnostic, nearest, oneOf, quote } from './diagnostics.js';
import { RESOURCE_TYPES } from './model.js';
import { entryOf, type Located, locate, type Node, toPlain } from './node.js';
import { ADDRESS_KINDS } from './schema.js';

type Issue = z.core.$ZodIssue;

const KINDS = `type ${oneOf(RESOURCE_TYPES)}, or one of ${oneOf(ADDRESS_KINDS)}`;
export const SUPPORTED_TYPES = `expected ${KINDS}`;
export const TYPE_MISSING = `a match expression needs a ${KINDS}`;

/** Ways to select that exist in DCF and mean nothing here: no account name, site or cluster is known. */
const UNSUPPORTED_KEYS = new Set([
  ...['site', 's2c', 'account_name', 'namespacetags', 'k8s_cluster_id', 'k8s_namespace', 'k8s_service'],
  ...['k8s_pod', 'snifilter', 'urlfilter'],
]);
const UNSUPPORTED_TYPES = new Set(['k8s', 'k8s_node']);

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

/** A value of the user's for a message. */
export function show(node: Node): string {
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

/** Keys of the maps inside a group or rule, by the key that leads to them. */
const INNER_KEYS: Readonly<Record<string, readonly string[]>> = {
  selector: ['any'],
  any: ['all'],
  portRanges: ['lo', 'hi'],
};

function sayUnknownKeys(
  root: Node,
  path: readonly PropertyKey[],
  keys: readonly string[],
  rootKeys: readonly string[],
): Diagnostic[] {
  const { node } = locate(root, path);
  const step = path.findLast((part) => typeof part === 'string');
  const known = step === undefined ? rootKeys : (INNER_KEYS[step] ?? []);
  return keys.map((key) => {
    const entry = entryOf(node, key);
    const word = entry?.label ?? key;
    const message = unsupportedSelector('key', word) ?? unknownKey(word, known);
    return { ...(entry?.at ?? node.at), message };
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

function sayOne(issue: Issue, { node, entry, complete }: Located): string {
  const key = issue.path.at(-1);
  const word = quote(entry?.label ?? entry?.key ?? 'value');
  const label = typeof key === 'number' ? `an item of ${word}` : word;
  if (!complete) return `${quote(String(key))} is missing`;
  switch (issue.code) {
    case 'invalid_type':
      return entry === undefined
        ? `expected ${EXPECTED[issue.expected]}, found ${isNothing(node) ? 'nothing' : show(node)}`
        : sayType(label, node, issue.expected);
    case 'invalid_value':
      return sayValue(label, node, key, issue.values);
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
    return [{ ...located.node.at, message: sayOne(issue, located) }];
  });
}
