import { type Prefix, parsePrefix } from 'sluice-gateway/net/prefix.js';
import type { Inventory, LambdaFunction, NetworkInterface, Scope } from '../inventory.js';

/** Moments and ages by which what is known of an interface or function counts. */
export interface AgeLimit {
  readonly now: Date;
  /** What AWS did not show for so long may belong to another function now. */
  readonly eniMaxAgeSeconds: number;
}

export const ENI_MAX_AGE_SECONDS = 900;

export function isFresh(seenAt: string | undefined, { now, eniMaxAgeSeconds }: AgeLimit): boolean {
  return seenAt !== undefined && Date.parse(seenAt) + eniMaxAgeSeconds * 1_000 >= now.getTime();
}

type Placed = Pick<Scope, 'accountId' | 'region'>;

export const scopeKey = ({ accountId, region }: Placed) => `${accountId}/${region}`;
const subnetKey = ({ accountId, region }: Placed, subnetId: string) => `${accountId}/${region}/${subnetId}`;
const pairKey = (place: Placed, subnetId: string, securityGroupIds: readonly string[]) =>
  `${subnetKey(place, subnetId)}/${securityGroupIds.toSorted().join(',')}`;

/** A key for each set of security groups that versions of a function have in one of its subnets. */
function pairKeysOf(fn: LambdaFunction, subnetId: string): ReadonlySet<string> {
  const there = (fn.versions ?? [fn]).filter(({ subnetIds }) => subnetIds.includes(subnetId));
  return new Set(there.map(({ securityGroupIds }) => pairKey(fn, subnetId, securityGroupIds)));
}

function append<Value>(map: Map<string, Value[]>, key: string, value: Value): void {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}

/**
 * Who uses what: Lambda makes one interface for each subnet and set of security groups, and all functions with
 * both use it.
 */
export class InterfaceUse {
  readonly #limit: AgeLimit;
  readonly #interfaces = new Map<string, NetworkInterface[]>();
  readonly #byPair = new Map<string, LambdaFunction[]>();
  readonly #bySubnet = new Map<string, LambdaFunction[]>();
  readonly #instances = new Map<string, string[]>();
  readonly #prefixes = new Map<string, readonly Prefix[]>();

  constructor(inventory: Inventory, limit: AgeLimit) {
    this.#limit = limit;
    for (const one of inventory.interfaces) {
      if (!isFresh(one.seenAt, limit)) continue;
      append(this.#interfaces, pairKey(one, one.subnetId, one.securityGroupIds), one);
    }
    for (const fn of inventory.functions) {
      for (const id of fn.subnetIds) {
        append(this.#bySubnet, id, fn);
        for (const key of pairKeysOf(fn, id)) append(this.#byPair, key, fn);
      }
    }
    for (const { id, subnetId } of inventory.instances) append(this.#instances, subnetId, id);
  }

  /** The fresh interfaces that versions of a function use in one of its subnets. */
  interfacesOf(fn: LambdaFunction, subnetId: string): readonly NetworkInterface[] {
    return [...pairKeysOf(fn, subnetId)].flatMap((key) => this.#interfaces.get(key) ?? []);
  }

  /** All functions that use an interface of this function in a subnet, itself among them. */
  sharersOfInterface(fn: LambdaFunction, subnetId: string): readonly LambdaFunction[] {
    return [...new Set([...pairKeysOf(fn, subnetId)].flatMap((key) => this.#byPair.get(key) ?? []))];
  }

  functionsIn(subnetId: string): readonly LambdaFunction[] {
    return this.#bySubnet.get(subnetId) ?? [];
  }

  instancesIn(subnetId: string): readonly string[] {
    return this.#instances.get(subnetId) ?? [];
  }

  isFresh(seenAt: string | undefined): boolean {
    return isFresh(seenAt, this.#limit);
  }

  /** Until when something is fresh that was seen then. */
  until(seenAt: string): Date {
    return new Date(Date.parse(seenAt) + this.#limit.eniMaxAgeSeconds * 1_000);
  }

  /** The addresses of an interface as /32 and /128. Throws when AWS's text is no address, naming it. */
  addressesOf({ id, addresses }: Pick<NetworkInterface, 'id' | 'addresses'>): readonly Prefix[] {
    const known = this.#prefixes.get(id) ?? parseBlocks(id, addresses);
    this.#prefixes.set(id, known);
    return known;
  }
}

/** Blocks or addresses of a resource; throws when AWS's text is no CIDR, naming the resource. */
export function parseBlocks(id: string, texts: readonly string[]): Prefix[] {
  try {
    return texts.map(parsePrefix);
  } catch (error) {
    throw new Error(`Cannot read the blocks of ${id}: ${(error as Error).message}`, { cause: error });
  }
}
