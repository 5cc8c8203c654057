import { isDeepStrictEqual } from 'node:util';
import { type Prefix, sortPrefixes } from 'sluice-gateway/net/prefix.js';
import type { Identity } from 'sluice-gateway/snapshot/format.js';
import type { Inventory, LambdaFunction, Subnet } from '../inventory.js';
import { changedFunctions, hasMoved } from './delta.js';
import { type AgeLimit, InterfaceUse, isFresh, parseBlocks } from './interfaces.js';

/** A function with the addresses it can have, and how sure one of them means this function. */
export interface IdentifiedFunction {
  readonly arn: string;
  readonly name: string;
  readonly accountId: string;
  readonly region: string;
  readonly identity: Identity;
  /** ARNs of functions, ids of instances that may have the same addresses; SHARED_WITH_MAX of them at most. */
  readonly sharedWith: readonly string[];
  /** The subnets and network interfaces that it shares with them. */
  readonly sharedBy: readonly string[];
  /** Why its identity is unknown. */
  readonly detail?: string;
  /** Every block of every known subnet of the function, sorted. */
  readonly prefixes: readonly Prefix[];
  /** Of the network interfaces that it uses and that were seen lately, sorted. */
  readonly addresses: readonly Prefix[];
}

/** A function that shares its subnets with more names some of them: all would be quadratic. */
const SHARED_WITH_MAX = 16;

/** What was identified of an inventory before; ages are not looked at again. */
export interface IdentifiedBefore {
  readonly inventory: Inventory;
  readonly functions: readonly IdentifiedFunction[];
}

interface Shared {
  readonly by: readonly string[];
  readonly withWhom: readonly string[];
}

/** In one subnet: what the function shares there; undefined where an address means it alone. */
function sharedIn(fn: LambdaFunction, subnetId: string, use: InterfaceUse): 'subnet' | 'eni' | Shared {
  const functions = use.functionsIn(subnetId);
  const instances = use.instancesIn(subnetId);
  if (functions.length <= 1 && instances.length === 0) return 'subnet';
  const interfaces = use.interfacesOf(fn, subnetId);
  const some = <Item>(items: readonly Item[]) => items.slice(0, SHARED_WITH_MAX + 1);
  const arns = (fns: readonly LambdaFunction[]) =>
    some(fns)
      .map(({ arn }) => arn)
      .filter((arn) => arn !== fn.arn);
  if (interfaces.length === 0) {
    return { by: [subnetId], withWhom: [...arns(functions), ...some(instances)] };
  }
  const sharers = use.sharersOfInterface(fn, subnetId);
  if (sharers.length <= 1) return 'eni';
  return { by: interfaces.map(({ id }) => id), withWhom: arns(sharers) };
}

function identify(
  fn: LambdaFunction,
  subnets: ReadonlyMap<string, Subnet>,
  use: InterfaceUse,
  { eniMaxAgeSeconds }: AgeLimit,
): IdentifiedFunction {
  const { arn, name, accountId, region, seenAt } = fn;
  const known = fn.subnetIds.flatMap((id) => subnets.get(id) ?? []);
  const found = fn.subnetIds.map((id) => sharedIn(fn, id, use));
  const shared = found.filter((one) => typeof one === 'object');
  const unique = (texts: readonly string[]) => [...new Set(texts)].sort().slice(0, SHARED_WITH_MAX);
  const addresses = fn.subnetIds.flatMap((id) =>
    use.interfacesOf(fn, id).flatMap((one) => use.addressesOf(one)),
  );
  const base = {
    ...{ arn, name, accountId, region },
    sharedWith: unique(shared.flatMap(({ withWhom }) => withWhom)),
    sharedBy: unique(shared.flatMap(({ by }) => by)),
    prefixes: sortPrefixes(known.flatMap(({ id, cidrs }) => parseBlocks(id, cidrs))),
    addresses: sortPrefixes(addresses),
  };
  if (fn.vpcId === undefined) return { ...base, identity: 'not-in-vpc' };
  if (known.length === 0) return { ...base, identity: 'unknown', detail: 'AWS lists none of its subnets' };
  if (!use.isFresh(seenAt)) {
    const detail = `AWS last showed it at ${seenAt}, the limit eniMaxAgeSeconds is ${eniMaxAgeSeconds}`;
    return { ...base, identity: 'unknown', detail };
  }
  if (shared.length > 0) return { ...base, identity: 'shared' };
  return { ...base, identity: found.includes('eni') ? 'dedicated-eni' : 'dedicated-subnet' };
}

/**
 * Says for each function which addresses it can have and how sure they mean it: `dedicated-subnet` when nothing
 * else that is known has any of its subnets; `dedicated-eni` when others do, and in each such subnet it has a
 * network interface, seen lately, for its set of security groups alone; `shared` with whom and by what
 * otherwise; `not-in-vpc`; or `unknown` when none of its subnets is known or it was not seen lately.
 */
export function identifyFunctions(
  inventory: Inventory,
  limit: AgeLimit,
  before?: IdentifiedBefore,
): readonly IdentifiedFunction[] {
  const subnets = () => new Map(inventory.subnets.map((subnet) => [subnet.id, subnet]));
  const changes = before && changedFunctions(before.inventory, inventory);
  if (before === undefined || changes === undefined) {
    const use = new InterfaceUse(inventory, limit);
    const known = subnets();
    return inventory.functions.map((fn) => identify(fn, known, use, limit));
  }
  // Tags say nothing of addresses; what was not seen lately may be known again.
  const changed = changes
    .map((change) => ({
      ...change,
      versions: [change.before, change.after].filter((fn) => fn !== undefined),
    }))
    .filter((change) => hasMoved(change) || change.versions.some(({ seenAt }) => !isFresh(seenAt, limit)))
    .flatMap(({ versions }) => versions);
  if (changed.length === 0) return before.functions;
  // Only in a subnet of a function that changed another one may be told apart in another way.
  const touched = new Set(changed.flatMap(({ subnetIds }) => subnetIds));
  const again = new Set(changed);
  for (const fn of inventory.functions) if (fn.subnetIds.some((id) => touched.has(id))) again.add(fn);
  const near = new Set([...again].flatMap(({ subnetIds }) => subnetIds));
  const isNear = ({ subnetId }: { readonly subnetId: string }) => near.has(subnetId);
  const use = new InterfaceUse(
    {
      ...inventory,
      functions: inventory.functions.filter(({ subnetIds }) => subnetIds.some((id) => near.has(id))),
      interfaces: inventory.interfaces.filter(isNear),
      instances: inventory.instances.filter(isNear),
    },
    limit,
  );
  const known = subnets();
  let at = 0;
  let isOther = inventory.functions.length !== before.functions.length;
  // Both lists are in the order of ARNs.
  const functions = inventory.functions.map((fn, index) => {
    while (at < before.functions.length && before.functions[at]!.arn < fn.arn) at++;
    const old = before.functions[at]?.arn === fn.arn ? before.functions[at] : undefined;
    if (old !== undefined && !again.has(fn)) return old;
    const made = identify(fn, known, use, limit);
    if (old !== undefined && isDeepStrictEqual(made, old)) return old;
    isOther ||= made !== before.functions[index];
    return made;
  });
  return isOther ? functions : before.functions;
}
