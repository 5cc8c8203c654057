import { isDeepStrictEqual } from 'node:util';
import { type Prefix, sortPrefixes } from 'sluice-gateway/net/prefix.js';
import type { Identity } from 'sluice-gateway/snapshot/format.js';
import { type Inventory, type LambdaFunction, type Subnet, subnetsById } from '../inventory.js';
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

/** What was identified of an inventory before. */
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

/** Functions that may be told apart in another way than before, and who uses what near them. */
interface Touched {
  readonly has: (fn: LambdaFunction) => boolean;
  readonly use: InterfaceUse;
}

/** Undefined: none are. */
function touched(inventory: Inventory, limit: AgeLimit, before: Inventory | undefined): Touched | undefined {
  const changes = before && changedFunctions(before, inventory);
  if (changes === undefined) return { has: () => true, use: new InterfaceUse(inventory, limit) };
  // Tags say nothing of addresses; what was not seen lately may be known again.
  const changed = changes
    .map((change) => ({
      ...change,
      versions: [change.before, change.after].filter((fn) => fn !== undefined),
    }))
    .filter((change) => hasMoved(change) || change.versions.some(({ seenAt }) => !isFresh(seenAt, limit)))
    .flatMap(({ versions }) => versions);
  if (changed.length === 0) return undefined;
  // Only in a subnet of a function that changed another one may be told apart in another way.
  const ids = new Set(changed.flatMap(({ subnetIds }) => subnetIds));
  const again = new Set(changed);
  for (const fn of inventory.functions) if (fn.subnetIds.some((id) => ids.has(id))) again.add(fn);
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
  return { has: (fn) => again.has(fn), use };
}

/**
 * Says for each function which addresses it can have and how sure they mean it: `dedicated-subnet` when nothing
 * else that is known has any of its subnets; `dedicated-eni` when others do, and in each such subnet it has a
 * network interface, seen lately, for its set of security groups alone; `shared` with whom and by what
 * otherwise; `not-in-vpc`; or `unknown` when none of its subnets is known or it was not seen lately. Ages of what did
 * not change since `before` are looked at again only where `isAged`. What comes out as before is the same object.
 */
export function identifyFunctions(
  inventory: Inventory,
  limit: AgeLimit,
  before?: IdentifiedBefore,
  isAged = false,
): readonly IdentifiedFunction[] {
  const again = touched(inventory, limit, isAged ? undefined : before?.inventory);
  const old = before?.functions ?? [];
  if (again === undefined) return old;
  const subnets = subnetsById(inventory);
  let at = 0;
  let isOther = inventory.functions.length !== old.length;
  // Both lists are in the order of ARNs.
  const functions = inventory.functions.map((fn, index) => {
    while (at < old.length && old[at]!.arn < fn.arn) at++;
    const known = old[at]?.arn === fn.arn ? old[at] : undefined;
    if (known !== undefined && !again.has(fn)) return known;
    const made = identify(fn, subnets, again.use, limit);
    if (known !== undefined && isDeepStrictEqual(made, known)) return known;
    isOther ||= made !== old[index];
    return made;
  });
  return isOther ? functions : old;
}
