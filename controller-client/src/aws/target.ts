import type { Inventory } from '../inventory.js';
import { readInstances, readInterfaces, readPrefixLists, readSubnets, readVpcs } from './ec2.js';
import { readFunction } from './functions.js';
import type { ListName } from './merge.js';
import { checkCredentials, type ScopeRequest } from './scope.js';

/** Something in AWS that may have come, gone or become other. */
export interface Change {
  readonly accountId: string;
  readonly region: string;
  readonly list: ListName;
  /** ARN of a function, id of anything else. */
  readonly id: string;
}

type Item = Inventory[ListName][number];

/** EC2's errors for an id that is unknown: InvalidSubnetID.NotFound and its like, InvalidVpcID.NotFound, … */
const NOT_FOUND = /^Invalid[A-Za-z]+(?:\.NotFound|\.Malformed)$/;

const READERS: Readonly<
  Record<Exclude<ListName, 'functions'>, (request: ScopeRequest, ids: readonly string[]) => Promise<Item[]>>
> = {
  subnets: readSubnets,
  vpcs: readVpcs,
  interfaces: readInterfaces,
  instances: readInstances,
  prefixLists: readPrefixLists,
};

/** Reads one item as it is now; nothing when it is gone. */
export async function readChanged(request: ScopeRequest, { list, id }: Change): Promise<Item | undefined> {
  await checkCredentials(request);
  if (list === 'functions') return readFunction(request, id);
  try {
    const [item] = await READERS[list](request, [id]);
    return item;
  } catch (error) {
    const { cause } = error as Error;
    if (cause instanceof Error && NOT_FOUND.test(cause.name)) return undefined;
    throw error;
  }
}
