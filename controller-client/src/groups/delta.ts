import type { Inventory, LambdaFunction } from '../inventory.js';

/**
 * Functions that came, went or became other, as they were and as they are; undefined when anything else changed,
 * too. Compares what is the same object, which an inventory keeps of what it is not told about. O(functions).
 */
export function changedFunctions(before: Inventory, now: Inventory): ReadonlySet<LambdaFunction> | undefined {
  const { functions: _, ...others } = now;
  const names = Object.keys(others) as (keyof typeof others)[];
  if (names.some((name) => before[name] !== now[name])) return undefined;
  if (before.functions === now.functions) return new Set();
  const changed = new Set(before.functions);
  for (const fn of now.functions) if (!changed.delete(fn)) changed.add(fn);
  return changed;
}
