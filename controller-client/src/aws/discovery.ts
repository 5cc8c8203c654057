import { emptyInventory, type Inventory, type OptionalPart, type Scope } from '../inventory.js';
import { mapBounded } from './bounded.js';
import { type ClientPool, createClientPool, type Identity } from './clients.js';
import { byPlace, idOf, LIST_NAMES, type ListName, listsAt, scopeKey, withItem, withScope } from './merge.js';
import { readScope, type ScopeContent, type ScopeRequest } from './scope.js';
import { type Change, readChanged } from './target.js';

const scopesRunningMax = 32;
const changesRunningMax = 16;
const errorCharactersMax = 600;
/** A scope that loses no more than so many of one kind is not held back. */
const SHRINK_FLOOR = 5;

/** An AWS account whose functions are discovered in some regions. */
export interface AwsAccount extends Identity {
  /** Twelve digits. Credentials of another account are refused. */
  readonly id: string;
  readonly regions: readonly string[];
}

export interface DiscoveryOptions {
  readonly accounts: readonly AwsAccount[];
  /** What is read beside functions with tags, subnets and VPCs. */
  readonly also: readonly Exclude<OptionalPart, 'tags'>[];
  /** Whether subnets of functions' published versions count as theirs, too. */
  readonly publishedVersions: boolean;
  /** How much of what is known of one kind may be gone at once before a second look is asked for. */
  readonly shrinkShareMax: number;
  /** Accounts that are known from before and no longer wanted. */
  readonly forget: readonly string[];
  readonly now: () => Date;
  readonly signal?: AbortSignal;
  /** The process's own pool when absent. */
  readonly clients?: ClientPool;
}

interface Place {
  readonly account: AwsAccount;
  readonly region: string;
}

const processClients = createClientPool();

const isOptional = (list: ListName) =>
  list === 'interfaces' || list === 'instances' || list === 'prefixLists';

/** Those of `known` that were found again. */
function still<T extends Parameters<typeof idOf>[0]>(known: readonly T[], found: readonly T[]): T[] {
  const ids = new Set(found.map(idOf));
  return known.filter((item) => ids.has(idOf(item)));
}

const tagged = (functions: Inventory['functions']) =>
  functions.flatMap(({ arn, tags }) => (Object.keys(tags).length > 0 ? [`${arn} tags`] : []));
const entries = (lists: Inventory['prefixLists']) =>
  lists.flatMap(({ id, cidrs }) => cidrs.map((cidr) => `${id} ${cidr}`));

/** AWS's words hold names that others chose. */
function oneLine(message: string): string {
  const line = message.replace(/[\s\p{Cc}]+/gu, ' ').trim();
  return line.length > errorCharactersMax ? `${line.slice(0, errorCharactersMax - 1)}…` : line;
}

/**
 * What is known of AWS, kept up to date by full refreshes and by targeted ones. A scope's functions, subnets and
 * VPCs are refreshed as a whole or not at all: when a call fails, all that was known stays, `refreshedAt` too, and
 * `error` says why in one line; other scopes go on. A scope that is no longer configured stays as it was, too,
 * unless its account is to be forgotten. Where much is gone at once, it stays until the next refresh says the same.
 */
export class Discovery {
  readonly #options: DiscoveryOptions;
  readonly #clients: ClientPool;
  readonly #places: ReadonlyMap<string, Place>;
  /** What the newest refresh of a scope missed, when it was held back: gone if the next one misses it as well. */
  readonly #missed = new Map<string, ReadonlySet<string>>();
  /** When an item was last refreshed by itself: a full refresh that began before knows less of it. */
  readonly #targetedAt = new Map<string, { readonly change: Change; readonly turn: number }>();
  /** When the newest full refresh of a scope began that succeeded. */
  readonly #refreshedAt = new Map<string, number>();
  /** Scopes that are being refreshed in full. */
  readonly #refreshing = new Set<string>();
  /** Counts requests: the clock may be set back between two of them. */
  #turn = 0;
  #inventory: Inventory;

  constructor(known: Inventory, options: DiscoveryOptions) {
    this.#options = options;
    this.#clients = options.clients ?? processClients;
    this.#places = new Map(
      options.accounts.flatMap((account) =>
        account.regions.map((region) => [scopeKey({ accountId: account.id, region }), { account, region }]),
      ),
    );
    this.#inventory = this.#withoutForgotten(known);
  }

  get inventory(): Inventory {
    return this.#inventory;
  }

  /** Whether an account and region are asked. */
  covers(place: Pick<Scope, 'accountId' | 'region'>): boolean {
    return this.#places.has(scopeKey(place));
  }

  /** Refreshes everything. Rejects only when the signal aborts. */
  async sync(): Promise<void> {
    this.#options.signal?.throwIfAborted();
    const began = ++this.#turn;
    await mapBounded([...this.#places.values()], scopesRunningMax, (place) => this.#refresh(place));
    for (const [key, { turn }] of this.#targetedAt) if (turn < began) this.#targetedAt.delete(key);
  }

  /**
   * Refreshes single items, and passes over those of which nothing is known until a full refresh; returns what went
   * wrong, of a first full refresh too that may have passed over them. Rejects only when the signal aborts.
   */
  async refresh(changes: readonly Change[]): Promise<Error[]> {
    const results = await mapBounded(changes, changesRunningMax, async (change) => {
      if (!this.#follows(change)) {
        return this.#mayMiss(change)
          ? [new Error(`${change.id} changed while all was read for the first time`)]
          : [];
      }
      try {
        await this.#refreshOne(change);
        return [];
      } catch (error) {
        this.#options.signal?.throwIfAborted();
        return [error as Error];
      }
    });
    return results.flat();
  }

  async #refreshOne(change: Change): Promise<void> {
    const scope = scopeKey(change);
    const { account, region } = this.#places.get(scope)!;
    let turn: number;
    let item: Awaited<ReturnType<typeof readChanged>>;
    do {
      turn = ++this.#turn;
      item = await readChanged(this.#request(account, region), change);
      // What a full refresh found that began later may be newer.
    } while (turn < (this.#refreshedAt.get(scope) ?? 0));
    // To another account's credentials everything is gone.
    if (item === undefined && !this.#refreshedAt.has(scope))
      throw new Error(`${change.id} was not found, by credentials that have not read all yet`);
    const key = `${scope} ${change.id}`;
    // Of two answers on their way the one asked for later counts.
    if (turn < (this.#targetedAt.get(key)?.turn ?? 0)) return;
    this.#targetedAt.set(key, { change, turn });
    this.#inventory = withItem(this.#inventory, change.list, change.id, change, item);
  }

  #scope(accountId: string, region: string): Scope {
    const key = scopeKey({ accountId, region });
    const known = this.#inventory.scopes.find((scope) => scopeKey(scope) === key);
    return known ?? { accountId, region, learntAt: {} };
  }

  #follows({ accountId, region, list }: Change): boolean {
    const { refreshedAt, learntAt } = this.#scope(accountId, region);
    return (
      this.covers({ accountId, region }) &&
      (isOptional(list) ? learntAt[list] !== undefined : refreshedAt !== undefined)
    );
  }

  /** Whether the first full refresh of a scope is under way, and reads such things. */
  #mayMiss({ accountId, region, list }: Change): boolean {
    const { refreshedAt, error } = this.#scope(accountId, region);
    const isFirst = refreshedAt === undefined && error === undefined;
    const isRead = !isOptional(list) || this.#options.also.includes(list);
    return isFirst && isRead && this.#refreshing.has(scopeKey({ accountId, region }));
  }

  #request(account: AwsAccount, region: string): ScopeRequest {
    const { id: accountId, regions: _, ...identity } = account;
    const { signal, also, publishedVersions, now } = this.#options;
    return {
      accountId,
      region,
      seenAt: now().toISOString(),
      clients: this.#clients.of({ accountId, region, ...identity }),
      options: signal === undefined ? {} : { abortSignal: signal },
      parts: also,
      publishedVersions,
      hasTags: this.#scope(accountId, region).learntAt.tags !== undefined,
      ...(identity.roleArn === undefined ? {} : { roleArn: identity.roleArn }),
    };
  }

  async #refresh({ account, region }: Place): Promise<void> {
    const request = this.#request(account, region);
    const { accountId, seenAt } = request;
    const key = scopeKey(request);
    const turn = ++this.#turn;
    this.#refreshing.add(key);
    try {
      const content = await readScope(request);
      this.#guard(request, content);
      const { error: _, ...scope } = this.#scope(accountId, region);
      const { learnt, problems, ...lists } = content;
      const learntAt = { ...scope.learntAt, ...Object.fromEntries(learnt.map((part) => [part, seenAt])) };
      const error = problems.length === 0 ? {} : { error: oneLine(problems.join('; ')) };
      const next = { ...scope, refreshedAt: seenAt, learntAt, ...error };
      this.#inventory = this.#keepTargeted(key, turn, withScope(this.#inventory, next, lists));
      this.#refreshedAt.set(key, turn);
    } catch (error) {
      this.#options.signal?.throwIfAborted();
      const scope = { ...this.#scope(accountId, region), error: oneLine((error as Error).message) };
      this.#inventory = withScope(this.#inventory, scope, {});
    } finally {
      this.#refreshing.delete(key);
    }
  }

  /** Throws when more is gone than may be at once, unless the refresh before missed it as well. */
  #guard({ accountId, region }: ScopeRequest, content: ScopeContent): void {
    const key = scopeKey({ accountId, region });
    const missedBefore = this.#missed.get(key);
    this.#missed.delete(key);
    const known = listsAt(this.#inventory, { accountId, region });
    const missed = new Set<string>();
    const shrunk: string[] = [];
    const compare = (what: string, before: readonly string[], now: readonly string[]) => {
      const ids = new Set(now);
      const gone = before.filter((id) => !ids.has(id));
      for (const id of gone) missed.add(id);
      const fresh = gone.filter((id) => missedBefore?.has(id) !== true).length;
      if (fresh > SHRINK_FLOOR && fresh > before.length * this.#options.shrinkShareMax)
        shrunk.push(`${gone.length} of ${before.length} ${what}`);
    };
    for (const name of LIST_NAMES) {
      const found = content[name];
      // Addresses of interfaces are to go at once: others may have them now.
      if (found === undefined || name === 'interfaces') continue;
      compare(name, known[name].map(idOf), found.map(idOf));
    }
    const { functions, prefixLists, learnt } = content;
    if (functions !== undefined && learnt.includes('tags'))
      compare('functions with tags', tagged(still(known.functions, functions)), tagged(functions));
    if (prefixLists !== undefined)
      compare('entries of prefixLists', entries(still(known.prefixLists, prefixLists)), entries(prefixLists));
    if (shrunk.length === 0) return;
    this.#missed.set(key, missed);
    const what = `AWS no longer lists ${shrunk.join(', ')}`;
    throw new Error(`${what}: held until the next full refresh says the same (shrinkShareMax)`);
  }

  /** What was refreshed by itself since a refresh of its scope began stays as it is. */
  #keepTargeted(scope: string, began: number, merged: Inventory): Inventory {
    let inventory = merged;
    for (const { change, turn } of this.#targetedAt.values()) {
      if (turn < began || scopeKey(change) !== scope) continue;
      const list: readonly Inventory[ListName][number][] = this.#inventory[change.list];
      const now = list.find((item) => idOf(item) === change.id && byPlace(item, change) === 0);
      inventory = withItem(inventory, change.list, change.id, change, now);
    }
    return inventory;
  }

  #withoutForgotten(known: Inventory): Inventory {
    const { forget } = this.#options;
    let inventory = emptyInventory();
    for (const scope of known.scopes) {
      const isWanted = this.covers(scope);
      if (!isWanted && (scope.refreshedAt === undefined || forget.includes(scope.accountId))) continue;
      const error =
        'is no longer configured: what was known stays until inventory.aws.forget names the account';
      inventory = withScope(inventory, isWanted ? scope : { ...scope, error }, listsAt(known, scope));
    }
    return inventory;
  }
}
