import type { Inventory } from '../inventory.js';
import { quote } from '../sources/diagnostics.js';
import type { GroupSpec } from '../sources/model.js';
import type { InterfaceUse } from './interfaces.js';
import type { Member } from './members.js';

/** A function that a group selects, and what its author may not expect of it. */
export interface FunctionProblem {
  readonly group: string;
  readonly functionArn: string;
  readonly message: string;
}

/** Of functions outside the group that share one thing, so many are named. */
const NAMED_MAX = 3;

/**
 * Whether it is worth telling what a group shares where it is not refused: with `resolve: subnets` that is the known
 * meaning of a group, and news only where a `not` takes functions away that stay by their subnet.
 */
export function tellsSharing({ resolve, expressions }: GroupSpec): boolean {
  return resolve === 'eni' || expressions.some(({ type, not }) => type === 'serverless' && not !== undefined);
}

/**
 * Functions outside a group that have addresses of it, by a subnet or network interface in common with one of the
 * group's.
 */
export function sharingProblems(
  { name: group }: GroupSpec,
  members: readonly Member[],
  inventory: Inventory,
  use: InterfaceUse,
): FunctionProblem[] {
  const inside = new Set(members.map(({ via }) => via));
  const functions = new Map(inventory.functions.map((fn) => [fn.arn, fn]));
  const interfaces = new Map(inventory.interfaces.map((one) => [one.id, one]));
  const bySource = new Map(members.flatMap(({ via, by }) => (by === undefined ? [] : [[by, via] as const])));
  return [...bySource].flatMap(([by, arn]): FunctionProblem | [] => {
    const fn = functions.get(arn);
    if (fn === undefined) return [];
    const subnetId = interfaces.get(by)?.subnetId;
    const sharers = subnetId === undefined ? use.functionsIn(by) : use.sharersOfInterface(fn, subnetId);
    const outside = sharers.filter((other) => !inside.has(other.arn));
    if (outside.length === 0) return [];
    const names = outside.slice(0, NAMED_MAX).map((other) => quote(other.name));
    const more = outside.length - names.length;
    const whom = `${names.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
    const message = `function ${quote(fn.name)} shares ${by} with ${whom} outside of the group`;
    const advice = subnetId === undefined ? 'a subnet' : 'a subnet or security group';
    return {
      group,
      functionArn: arn,
      message: `${message}: ${advice} of its own would tell them apart`,
    };
  });
}
