import {
  emptyInventory,
  type Inventory,
  type LambdaFunction,
  type Scope,
  type Subnet,
  type Vpc,
} from '../inventory.js';
import { mapBounded } from './bounded.js';
import { type ClientPool, createClientPool } from './clients.js';
import { readScope, type ScopeContent } from './scope.js';

const scopesRunningMax = 8;
const errorCharactersMax = 300;

/** An AWS account whose functions are discovered in some regions. */
export interface AwsAccount {
  /** Twelve digits. Credentials of another account are refused. */
  readonly id: string;
  readonly regions: readonly string[];
  /** A profile of the SDK's shared configuration; absent, the SDK's usual chain. */
  readonly profile?: string;
}

export interface DiscoverOptions {
  readonly now: () => Date;
  /** Makes `discover` reject with the signal's reason. */
  readonly signal?: AbortSignal;
  /** The process's own pool when absent. */
  readonly clients?: ClientPool;
}

interface Refreshed extends ScopeContent {
  readonly scope: Scope;
}

const processClients = createClientPool();

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

/** AWS's words hold names that others chose. */
function oneLine(message: string): string {
  const line = message.replace(/[\s\p{Cc}]+/gu, ' ').trim();
  return line.length > errorCharactersMax ? `${line.slice(0, errorCharactersMax - 1)}…` : line;
}

function previousOf(previous: Inventory | undefined, accountId: string, region: string): Refreshed {
  const here = (item: { readonly accountId: string; readonly region: string }) =>
    item.accountId === accountId && item.region === region;
  return {
    scope: previous?.scopes.find(here) ?? { accountId, region, learntAt: {} },
    functions: previous?.functions.filter(here) ?? [],
    subnets: previous?.subnets.filter(here) ?? [],
    vpcs: previous?.vpcs.filter(here) ?? [],
  };
}

async function refresh(
  account: AwsAccount,
  region: string,
  previous: Inventory | undefined,
  { now, signal, clients = processClients }: DiscoverOptions,
): Promise<Refreshed> {
  const accountId = account.id;
  // The beginning: what is read is at least as new.
  const refreshedAt = now().toISOString();
  const { profile } = account;
  const key = { accountId, region, ...(profile === undefined ? {} : { profile }) };
  try {
    const content = await readScope({
      accountId,
      region,
      seenAt: refreshedAt,
      clients: clients.of(key),
      signal,
    });
    return { ...content, scope: { accountId, region, refreshedAt, learntAt: { tags: refreshedAt } } };
  } catch (error) {
    signal?.throwIfAborted();
    const known = previousOf(previous, accountId, region);
    const { refreshedAt: last } = known.scope;
    const scope = {
      accountId,
      region,
      learntAt: known.scope.learntAt,
      ...(last === undefined ? {} : { refreshedAt: last }),
    };
    return { ...known, scope: { ...scope, error: oneLine((error as Error).message) } };
  }
}

const byPlace = (a: { accountId: string; region: string }, b: { accountId: string; region: string }) =>
  compare(a.accountId, b.accountId) || compare(a.region, b.region);

/**
 * Reads functions with their tags, subnets and VPCs of every account and region. A scope is refreshed as a
 * whole or not at all: when any call of it fails, everything of `previous` in that scope stays, `refreshedAt`
 * too, and `error` says why in one line; other scopes go on. Scopes that are no longer configured are left
 * out. Rejects only when the signal aborts.
 */
export async function discover(
  accounts: readonly AwsAccount[],
  previous: Inventory | undefined,
  options: DiscoverOptions,
): Promise<Inventory> {
  options.signal?.throwIfAborted();
  const wanted = accounts.flatMap((account) => account.regions.map((region) => ({ account, region })));
  const refreshed = await mapBounded(wanted, scopesRunningMax, ({ account, region }) =>
    refresh(account, region, previous, options),
  );
  const functions: LambdaFunction[] = refreshed.flatMap((scope) => scope.functions);
  const subnets: Subnet[] = refreshed.flatMap((scope) => scope.subnets);
  const vpcs: Vpc[] = refreshed.flatMap((scope) => scope.vpcs);
  return {
    ...emptyInventory(),
    scopes: refreshed.map(({ scope }) => scope).sort(byPlace),
    functions: functions.sort((a, b) => compare(a.arn, b.arn)),
    subnets: subnets.sort((a, b) => compare(a.id, b.id) || byPlace(a, b)),
    vpcs: vpcs.sort((a, b) => compare(a.id, b.id) || byPlace(a, b)),
  };
}
