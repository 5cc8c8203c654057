import { isDeepStrictEqual } from 'node:util';
import type { Inventory, LambdaFunction } from '../inventory.js';

/** A function as it was and as it is; of one that came or went, one of the two. */
export interface FunctionChange {
  readonly arn: string;
  readonly before?: LambdaFunction;
  readonly after?: LambdaFunction;
}

/**
 * Functions that came, went or became other; undefined when anything else changed, too. Compares what is the same
 * object, which an inventory keeps of what it is not told about. O(functions).
 */
export function changedFunctions(before: Inventory, now: Inventory): readonly FunctionChange[] | undefined {
  const { functions: _, ...others } = now;
  const names = Object.keys(others) as (keyof typeof others)[];
  if (names.some((name) => before[name] !== now[name])) return undefined;
  const [old, fresh] = [before.functions, now.functions];
  const shorter = Math.min(old.length, fresh.length);
  let start = 0;
  while (start < shorter && old[start] === fresh[start]) start++;
  let end = 0;
  while (end < shorter - start && old.at(-1 - end) === fresh.at(-1 - end)) end++;
  const changes = new Map<string, FunctionChange>();
  for (const fn of old.slice(start, old.length - end)) changes.set(fn.arn, { arn: fn.arn, before: fn });
  for (const fn of fresh.slice(start, fresh.length - end)) {
    const known = changes.get(fn.arn);
    if (known?.before === fn) changes.delete(fn.arn);
    else changes.set(fn.arn, { ...known, arn: fn.arn, after: fn });
  }
  return [...changes.values()];
}

/** Whether more than a function's tags, and when it was last seen, may be other than before. */
export function hasMoved({ before, after }: FunctionChange): boolean {
  if (before === undefined || after === undefined) return true;
  const { tags: _, seenAt: __, ...was } = before;
  const { tags: ___, seenAt: ____, ...is } = after;
  return !isDeepStrictEqual(was, is);
}
