import type { Inventory, OptionalPart } from '../inventory.js';
import type { Clients } from './clients.js';
import { readInstances, readInterfaces, readPrefixLists, readSubnets, readVpcs } from './ec2.js';
import { readFunctions } from './functions.js';
import { call } from './pages.js';

/** What to read of one account and region, and with what. */
export interface ScopeRequest {
  readonly accountId: string;
  readonly region: string;
  /** What is read is at least as new. */
  readonly seenAt: string;
  readonly clients: Clients;
  /** Handed to each call of the SDK. */
  readonly options: { readonly abortSignal?: AbortSignal };
  /** Optional parts that are asked for, beside tags. */
  readonly parts: readonly Exclude<OptionalPart, 'tags'>[];
  readonly publishedVersions: boolean;
  /** Whether functions' tags were learnt before. */
  readonly hasTags: boolean;
  /** The role that is assumed, if one is. */
  readonly roleArn?: string;
}

/** What one account holds in one region; a list that is absent was not read. */
export interface ScopeContent extends Partial<Omit<Inventory, 'scopes'>> {
  readonly learnt: readonly OptionalPart[];
  /** Why optional parts were not read. */
  readonly problems: readonly string[];
}

type Lists = Partial<Omit<Inventory, 'scopes'>>;

const READERS: Readonly<Record<Exclude<OptionalPart, 'tags'>, (request: ScopeRequest) => Promise<Lists>>> = {
  interfaces: async (request) => ({ interfaces: await readInterfaces(request) }),
  instances: async (request) => ({ instances: await readInstances(request) }),
  prefixLists: async (request) => ({ prefixLists: await readPrefixLists(request) }),
};

/** Credentials often say whose they are; then no call with another account's is needed to notice. */
export async function checkCredentials({ accountId, clients, roleArn }: ScopeRequest): Promise<void> {
  const operation = roleArn === undefined ? 'credentials' : 'sts:AssumeRole';
  const credentials = await call(operation, () => clients.lambda.config.credentials());
  if (credentials.accountId !== undefined && credentials.accountId !== accountId) {
    throw new Error(`credentials are those of account ${credentials.accountId}, not of ${accountId}`);
  }
}

/**
 * Reads everything of one account and region: functions, subnets and VPCs together or not at all, each optional
 * part for itself. Throws an Error whose message has the operation and AWS's error name.
 */
export async function readScope(request: ScopeRequest): Promise<ScopeContent> {
  await checkCredentials(request);
  const optional = Promise.allSettled(request.parts.map((part) => READERS[part](request)));
  // Functions first: then a subnet that one of them names can only be missing because it is gone.
  const { functions, untagged } = await readFunctions(request);
  const subnets = await readSubnets(request);
  const vpcs = await readVpcs(request);
  const learnt: OptionalPart[] = untagged === undefined ? ['tags'] : [];
  const problems = untagged === undefined ? [] : [untagged.message];
  let lists: Lists = { functions, subnets, vpcs };
  for (const [index, result] of (await optional).entries()) {
    if (result.status === 'rejected') {
      problems.push((result.reason as Error).message);
      continue;
    }
    learnt.push(request.parts[index]!);
    lists = { ...lists, ...result.value };
  }
  return { ...lists, learnt, problems };
}
