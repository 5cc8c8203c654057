import { type Prefix, printPrefix } from '../net/prefix.js';
import { DEFAULT_RULE_NAME, type Policy } from '../policy/model.js';
import { canonicalJson } from '../snapshot/format.js';
import { prefixCountOf, type Snapshot, type SnapshotGroup } from '../snapshot/read.js';

/** Names that one list of the audit log holds; of more, it is said how many. */
const NAMES_MAX = 100;

/** What one snapshot has and another has not. */
export interface SnapshotDiff {
  readonly rules: Readonly<Record<'added' | 'removed' | 'changed', readonly string[]>>;
  readonly groups: readonly { readonly name: string; readonly added: number; readonly removed: number }[];
}

function diffRules(before: Policy | undefined, after: Policy): SnapshotDiff['rules'] {
  if (before === after) return { added: [], removed: [], changed: [] };
  const textOf = (policy: Policy | undefined) =>
    new Map([
      ...(policy?.rules ?? []).map((rule) => [rule.name, canonicalJson(rule)] as const),
      ...(policy === undefined ? [] : [[DEFAULT_RULE_NAME, canonicalJson(policy.defaultAction)] as const]),
    ]);
  const [was, is] = [textOf(before), textOf(after)];
  return {
    added: [...is.keys()].filter((name) => !was.has(name)),
    removed: [...was.keys()].filter((name) => !is.has(name)),
    changed: [...is].filter(([name, text]) => was.has(name) && was.get(name) !== text).map(([name]) => name),
  };
}

/** Parts that are the same array on both sides are not looked at. */
function diffParts(before: SnapshotGroup['parts'], after: SnapshotGroup['parts']) {
  const textsOf = (parts: SnapshotGroup['parts'], others: SnapshotGroup['parts']) => {
    const known = new Set<readonly Prefix[]>(others);
    return new Set(parts.filter((part) => !known.has(part)).flatMap((part) => part.map(printPrefix)));
  };
  const [was, is] = [textsOf(before, after), textsOf(after, before)];
  return { added: is.difference(was).size, removed: was.difference(is).size };
}

/** What changes from one snapshot to the next. Cost: the parts of groups, and the rules, that are not the same object. */
export function diffSnapshots(before: Snapshot | undefined, after: Snapshot): SnapshotDiff {
  const was = new Map(before?.groups.map((group) => [group.name, group]));
  const is = new Set(after.groups.map(({ name }) => name));
  const groups = after.groups.map((group) => {
    const parts = was.get(group.name)?.parts ?? [];
    return { name: group.name, ...diffParts(parts, group.parts) };
  });
  const gone = [...was.values()].filter(({ name }) => !is.has(name));
  const removed = gone.map((group) => ({ name: group.name, added: 0, removed: prefixCountOf(group) }));
  return {
    rules: diffRules(before?.policy, after.policy),
    groups: [...groups, ...removed].filter((group) => group.added + group.removed > 0),
  };
}

/** Whether nothing that is enforced differs. */
export const isNothing = ({ rules, groups }: SnapshotDiff) =>
  groups.length === 0 && Object.values(rules).every((names) => names.length === 0);

/** Counts in a few words: `rules +1 ~2, prefixes +3 -1`. */
export function summaryOf({ rules, groups }: SnapshotDiff): string {
  const say = (what: string, signed: readonly (readonly [sign: string, count: number])[]) => {
    const counts = signed.filter(([, count]) => count > 0).map(([sign, count]) => `${sign}${count}`);
    return counts.length === 0 ? [] : [`${what} ${counts.join(' ')}`];
  };
  const { added, removed, changed } = rules;
  const sum = (key: 'added' | 'removed') => groups.reduce((total, group) => total + group[key], 0);
  const said = [
    ...say('rules', [
      ['+', added.length],
      ['-', removed.length],
      ['~', changed.length],
    ]),
    ...say('prefixes', [
      ['+', sum('added')],
      ['-', sum('removed')],
    ]),
  ];
  return said.length === 0 ? 'nothing that is enforced' : said.join(', ');
}

/** The same with lists cut to what a line of a log may hold. */
export function bounded({ rules, groups }: SnapshotDiff) {
  const lists = Object.values(rules);
  const omitted = [...lists, groups].reduce((sum, list) => sum + Math.max(0, list.length - NAMES_MAX), 0);
  const cut = (names: readonly string[]) => names.slice(0, NAMES_MAX);
  return {
    rules: { added: cut(rules.added), removed: cut(rules.removed), changed: cut(rules.changed) },
    groups: groups.slice(0, NAMES_MAX),
    ...(omitted > 0 && { omitted }),
  };
}
