import { type Diagnostic, type Position, quote } from './diagnostics.js';

/** One key of a map. `label` is the key as the user wrote it, where a reader translated it. */
export interface Entry {
  readonly key: string;
  readonly label?: string;
  readonly at: Position;
  readonly value: Node;
}

export interface ScalarNode {
  readonly kind: 'scalar';
  readonly value: string | number | boolean | null;
  readonly at: Position;
}

export interface ListNode {
  readonly kind: 'list';
  readonly items: readonly Node[];
  readonly at: Position;
}

export interface MapNode {
  readonly kind: 'map';
  readonly entries: readonly Entry[];
  readonly at: Position;
}

/** A group named by something else than its name: a UUID, or the address of a Terraform resource. */
export interface ReferenceNode {
  readonly kind: 'reference';
  readonly target: string;
  readonly at: Position;
}

/** A value of an input file that remembers where it stood: what every reader makes of its format. */
export type Node = ScalarNode | ListNode | MapNode | ReferenceNode;

/** A group as other formats than ours refer to it. Unsupported: it exists, but nothing may use it. */
export interface GroupReference {
  readonly target: string;
  readonly name: string;
  readonly supported: boolean;
  readonly at: Position;
}

/** A place in the Controller's order where a ruleset can be attached. */
export interface AttachmentPoint {
  readonly target: string;
  readonly name: string;
  readonly at: Position;
}

/** A list of rules with a place in that order. */
export interface Ruleset {
  readonly name: string;
  readonly attachTo: Node | undefined;
  readonly at: Position;
}

/** What one file says, in the terms of our own form, before names are looked up over all files. */
export interface Draft {
  readonly groups: readonly Node[];
  readonly rules: readonly RuleDraft[];
  readonly defaultActions: readonly Node[];
  readonly references: readonly GroupReference[];
  readonly points: readonly AttachmentPoint[];
  /** Errors that did not keep the rest of the file from being read. */
  readonly problems: readonly Diagnostic[];
  readonly warnings: readonly Diagnostic[];
}

export interface RuleDraft {
  readonly node: Node;
  /** Where its list stands, if the order in that list decides between equal priorities, as in Terraform. */
  readonly list?: Position;
  readonly ruleset?: Ruleset;
}

export const NODES_MAX = 2_000_000;
export const DEPTH_MAX = 64;

/** The plain value of a node, for a schema; a reference is given by its target. */
export function toPlain(node: Node): unknown {
  switch (node.kind) {
    case 'scalar':
      return node.value;
    case 'reference':
      return node.target;
    case 'list':
      return node.items.map(toPlain);
    case 'map':
      return Object.fromEntries(node.entries.map(({ key, value }) => [key, toPlain(value)]));
  }
}

export function entryOf(node: Node | undefined, key: string): Entry | undefined {
  return node?.kind === 'map' ? node.entries.find((entry) => entry.key === key) : undefined;
}

export function valueAt(node: Node | undefined, key: string): Node | undefined {
  return entryOf(node, key)?.value;
}

/** The items of a list; none where there is no list. */
export function itemsOf(node: Node | undefined): readonly Node[] {
  return node?.kind === 'list' ? node.items : [];
}

/** The string that a key holds, if it holds one. */
export function textOf(node: Node | undefined, key: string): string | undefined {
  const value = valueAt(node, key);
  return value?.kind === 'scalar' && typeof value.value === 'string' ? value.value : undefined;
}

/** Where a path leads: `complete` is false when it ends early, `entry` is the last key that was followed. */
export interface Located {
  readonly node: Node;
  readonly entry: Entry | undefined;
  readonly complete: boolean;
}

export function locate(root: Node, path: readonly PropertyKey[]): Located {
  let node = root;
  let last: Entry | undefined;
  for (const step of path) {
    const entry = typeof step === 'string' ? entryOf(node, step) : undefined;
    const next = entry?.value ?? (typeof step === 'number' ? itemsOf(node)[step] : undefined);
    if (next === undefined) return { node, entry: last, complete: false };
    last = entry ?? last;
    node = next;
  }
  return { node, entry: last, complete: true };
}

/**
 * What no input may hold, whatever its format: a key twice, a NUL, the key that JavaScript gives a meaning
 * to.
 */
export function checkTree(node: Node): Diagnostic[] {
  const found: Diagnostic[] = [];
  const say = (at: Position, message: string) => found.push({ ...at, message });
  const visit = (part: Node): void => {
    if (part.kind === 'scalar' && typeof part.value === 'string' && part.value.includes('\0')) {
      say(part.at, `${quote(part.value)} holds a NUL character, which no text may hold`);
    }
    if (part.kind === 'list') part.items.forEach(visit);
    if (part.kind !== 'map') return;
    const seen = new Map<string, Position>();
    for (const { key, at, value } of part.entries) {
      const first = seen.get(key);
      if (first !== undefined) say(at, `key ${quote(key)} is given twice: first on line ${first.line}`);
      if (key.includes('\0') || key === '__proto__') say(at, `${quote(key)} can't be a key`);
      seen.set(key, first ?? at);
      visit(value);
    }
  };
  visit(node);
  return found;
}

/** The references inside a node: where no group is named, a reference can't stand. */
export function referencesIn(node: Node): ReferenceNode[] {
  switch (node.kind) {
    case 'reference':
      return [node];
    case 'list':
      return node.items.flatMap(referencesIn);
    case 'map':
      return node.entries.flatMap(({ value }) => referencesIn(value));
    case 'scalar':
      return [];
  }
}
