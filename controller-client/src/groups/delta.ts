import type { Inventory, LambdaFunction } from '../inventory.js';

/**
 * Functions that came, went or became other, as they were and as they are; undefined when anything else changed,
 * too. Compares what is the same object, which an inventory keeps of what it is not told about. O(functions).
 */
export function changedFunctions(before: Inventory, now: Inventory): ReadonlySet<LambdaFunction> | undefined {
  const { functions: _, ...others } = now;
  const names = Object.keys(others) as (keyof typeof others)[];
  if (names.some((name) => before[name] !== now[name])) return undefined;
  const [old, fresh] = [before.functions, now.functions];
  const shorter = Math.min(old.length, fresh.length);
  let start = 0;
  while (start < shorter && old[start] === fresh[start]) start++;
  let end = 0;
  while (end < shorter - start && old.at(-1 - end) === fresh.at(-1 - end)) end++;
  const changed = new Set(old.slice(start, old.length - end));
  for (const fn of fresh.slice(start, fresh.length - end)) if (!changed.delete(fn)) changed.add(fn);
  return changed;
}
