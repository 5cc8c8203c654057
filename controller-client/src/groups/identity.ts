import { type Prefix, parsePrefix, sortPrefixes } from 'sluice-gateway/net/prefix.js';
import type { Identity } from 'sluice-gateway/snapshot/format.js';
import type { Inventory, LambdaFunction, Subnet } from '../inventory.js';

/** A function with the addresses it can have, and how sure one of them means this function. */
export interface IdentifiedFunction {
  readonly arn: string;
  readonly name: string;
  readonly accountId: string;
  readonly region: string;
  readonly identity: Identity;
  /** ARNs of functions with a subnet in common, sorted; SHARED_WITH_MAX of them at most. */
  readonly sharedWith: readonly string[];
  /** Every block of every known subnet of the function, sorted. */
  readonly prefixes: readonly Prefix[];
}

/** A function that shares its subnets with more names some of them: all would be quadratic. */
export const SHARED_WITH_MAX = 16;

/** The blocks of a subnet or VPC; throws when AWS's text is no CIDR, naming the resource. */
export function blocksOf({
  id,
  cidrs,
}: {
  readonly id: string;
  readonly cidrs: readonly string[];
}): Prefix[] {
  try {
    return cidrs.map(parsePrefix);
  } catch (error) {
    throw new Error(`Cannot read the blocks of ${id}: ${(error as Error).message}`, { cause: error });
  }
}

function identify(
  fn: LambdaFunction,
  subnets: ReadonlyMap<string, Subnet>,
  users: ReadonlyMap<string, readonly LambdaFunction[]>,
): IdentifiedFunction {
  const { arn, name, accountId, region } = fn;
  const known = fn.subnetIds.flatMap((id) => subnets.get(id) ?? []);
  const others = fn.subnetIds.flatMap((id) => users.get(id)?.slice(0, SHARED_WITH_MAX + 1) ?? []);
  const arns = new Set(others.map((other) => other.arn));
  arns.delete(arn);
  const sharedWith = [...arns].sort().slice(0, SHARED_WITH_MAX);
  const base = { arn, name, accountId, region, sharedWith, prefixes: sortPrefixes(known.flatMap(blocksOf)) };
  if (fn.vpcId === undefined) return { ...base, identity: 'not-in-vpc' };
  if (sharedWith.length > 0) return { ...base, identity: 'shared' };
  return { ...base, identity: known.length === 0 ? 'unknown' : 'dedicated-subnet' };
}

/**
 * Says for each function which addresses it can have and how sure they mean it: `dedicated-subnet` when no
 * other known function has any of its subnets, `shared` with whom otherwise, `not-in-vpc`, or `unknown` when
 * none of its subnets is known.
 */
export function identifyFunctions(inventory: Inventory): IdentifiedFunction[] {
  const subnets = new Map(inventory.subnets.map((subnet) => [subnet.id, subnet]));
  const users = new Map<string, LambdaFunction[]>();
  for (const fn of inventory.functions) {
    for (const id of fn.subnetIds) {
      const list = users.get(id);
      if (list) list.push(fn);
      else users.set(id, [fn]);
    }
  }
  return inventory.functions.map((fn) => identify(fn, subnets, users));
}
