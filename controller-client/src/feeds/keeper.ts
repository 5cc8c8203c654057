import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { FeedSource, GroupsSection } from 'sluice-gateway/config/groups.js';
import type { Log } from 'sluice-gateway/log.js';
import { parsePrefix, printPrefix } from 'sluice-gateway/net/prefix.js';
import { writeWhole } from 'sluice-gateway/snapshot/folder.js';
import { z } from 'zod';
import { mapBounded } from '../aws/bounded.js';
import type { KnownFeed } from '../groups/resolve.js';
import type { FeedQuery, feedsOf } from '../sources/model.js';
import { type FeedContent, readContent } from './content.js';
import { createLookup, type Lookup } from './names.js';
import { fetchSource } from './source.js';

/** Of one name: of more, those that were seen longest ago go. */
export const NAME_ADDRESSES_MAX = 256;
/** How often a name is asked for, whatever its time to live. */
const NAME_SECONDS_MIN = 5;
const NAME_SECONDS_MAX = 300;
/** What fails is tried again so much later. */
const RETRY_SECONDS = 15;
const TICK_MS = 1_000;
/** Names and feeds that are asked for at a time. */
const RUNNING_MAX = 32;

type Wanted = ReturnType<typeof feedsOf>;
type Selector = Wanted extends ReadonlyMap<string, infer Value> ? Value : never;

const stateSchema = z.record(
  z.string(),
  z.object({
    refreshedAt: z.string(),
    error: z.string().exactOptional(),
    /** Address or CIDR, when it was last seen, and until when it stays where it is no longer given. */
    prefixes: z.array(z.tuple([z.string(), z.string(), z.string()])),
  }),
);
type Kept = z.output<typeof stateSchema>[string];

/** What is known of one name or feed, for `sluice inventory`. */
export interface FeedStatus {
  readonly name: string;
  readonly prefixes: number;
  /** Why it can't be read now; what is known stays. */
  readonly error?: string;
  /** Where it can't be read now: when it last was; absent: never. */
  readonly refreshedAt?: string;
}

export interface KeeperOptions {
  readonly section: GroupsSection;
  /** Where what is known is kept over restarts. */
  readonly file: string;
  readonly log: Log;
  /** Called when something else is known than before. */
  readonly learnt: () => void;
  readonly now?: () => Date;
  readonly lookup?: Lookup;
}

/** The file beside the snapshot that holds it. */
export const FEEDS_FILE = 'feeds.json';

/** What was last known of names and feeds; nothing where the file is not there or not ours. */
export async function readKnownFeeds(file: string): Promise<ReadonlyMap<string, Kept>> {
  const text = await readFile(file, 'utf8').catch(() => '{}');
  try {
    return new Map(Object.entries(stateSchema.parse(JSON.parse(text))));
  } catch {
    return new Map();
  }
}

export function knownFeeds(kept: ReadonlyMap<string, Kept>): ReadonlyMap<string, KnownFeed> {
  const parsed = [...kept].map(([key, { prefixes }]) => {
    const listed = prefixes.map(([text, seenAt]) => ({ prefix: parsePrefix(text), seenAt }));
    return [key, { prefixes: listed }] as const;
  });
  return new Map(parsed);
}

/** Reads names and feeds that groups speak of, over and over. What fails keeps what was known, with its age. */
export class FeedKeeper {
  readonly #options: KeeperOptions;
  readonly #now: () => Date;
  readonly #lookup: Lookup;
  readonly #kept: Map<string, Kept>;
  #known: ReadonlyMap<string, KnownFeed> | undefined;
  #wanted: Wanted = new Map();
  readonly #dueAt = new Map<string, number>();
  readonly #running = new Map<string, Promise<void>>();
  /** Errors of what was never learnt too. */
  readonly #errors = new Map<string, string>();
  readonly #loading = new Map<string, Promise<FeedContent>>();
  readonly #contents = new Map<string, { readonly tag: string; readonly content: FeedContent }>();

  private constructor(options: KeeperOptions, kept: ReadonlyMap<string, Kept>) {
    this.#options = options;
    this.#now = options.now ?? (() => new Date());
    this.#lookup = options.lookup ?? createLookup(options.section.dns.servers);
    this.#kept = new Map(kept);
  }

  static async open(options: KeeperOptions): Promise<FeedKeeper> {
    return new FeedKeeper(options, await readKnownFeeds(options.file));
  }

  /** What is known, and of what age, as `resolveWanted` takes it. */
  get learnt(): { readonly feeds: ReadonlyMap<string, KnownFeed>; readonly status: readonly FeedStatus[] } {
    const status = [...this.#wanted.keys()].map((name) => {
      const { refreshedAt, prefixes } = this.#kept.get(name) ?? { refreshedAt: undefined, prefixes: [] };
      const error = this.#errors.get(name);
      if (error === undefined) return { name, prefixes: prefixes.length };
      return { name, prefixes: prefixes.length, ...(refreshedAt !== undefined && { refreshedAt }), error };
    });
    this.#known ??= knownFeeds(this.#kept);
    return { feeds: this.#known, status };
  }

  /** Says what groups speak of now. Resolves when everything that was never learnt was tried once. */
  async want(wanted: Wanted): Promise<void> {
    this.#wanted = wanted;
    for (const key of [...this.#kept.keys()]) {
      if (wanted.has(key)) continue;
      this.#kept.delete(key);
      this.#known = undefined;
    }
    for (const key of [...this.#dueAt.keys()]) if (!wanted.has(key)) this.#dueAt.delete(key);
    const first = [...wanted].filter(([key]) => !this.#kept.has(key) && !this.#dueAt.has(key));
    if (first.length === 0) return;
    await mapBounded(first, RUNNING_MAX, ([key, selector]) => this.#refresh(key, selector));
    await this.#save();
  }

  /** Refreshes what is due until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.refreshDue();
      await delay(TICK_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Refreshes everything whose time has come. */
  async refreshDue(): Promise<void> {
    const now = this.#now().getTime();
    const due = [...this.#wanted].filter(([key]) => (this.#dueAt.get(key) ?? 0) <= now);
    if (due.length === 0) return;
    const before = this.#texts();
    await mapBounded(due, RUNNING_MAX, ([key, selector]) => this.#refresh(key, selector));
    await this.#save();
    if (before !== this.#texts()) this.#options.learnt();
  }

  async #save(): Promise<void> {
    try {
      await writeWhole(this.#options.file, JSON.stringify(Object.fromEntries(this.#kept)));
    } catch (error) {
      this.#options.log.error('what is known of names and feeds could not be kept', {
        error: error as Error,
      });
    }
  }

  #texts(): string {
    return JSON.stringify(
      [...this.#kept].map(([key, { prefixes }]) => [key, prefixes.map(([text]) => text)]),
    );
  }

  #refresh(key: string, selector: Selector): Promise<void> {
    const running = this.#running.get(key) ?? this.#refreshOnce(key, selector);
    this.#running.set(key, running);
    return running.finally(() => this.#running.delete(key));
  }

  async #refreshOnce(key: string, selector: Selector): Promise<void> {
    const now = this.#now();
    let seconds = RETRY_SECONDS;
    try {
      seconds =
        selector.type === 'fqdn'
          ? await this.#askName(key, selector.fqdn)
          : await this.#readFeed(key, selector.query);
      if (this.#errors.delete(key)) this.#options.log.info('a name or feed can be read again', { feed: key });
    } catch (error) {
      const { message } = error as Error;
      const known = this.#kept.get(key);
      if (this.#errors.get(key) !== message) {
        const since = known === undefined ? 'never' : known.refreshedAt;
        this.#options.log.warn('a name or feed could not be read, what was known stays', {
          feed: key,
          since,
          reason: message,
        });
      }
      this.#errors.set(key, message);
    }
    this.#dueAt.set(key, now.getTime() + seconds * 1_000);
  }

  #keep(key: string, prefixes: Kept['prefixes']): void {
    if (!this.#wanted.has(key)) return;
    this.#kept.set(key, { refreshedAt: this.#now().toISOString(), prefixes });
    this.#known = undefined;
  }

  /** Addresses that a name gave lately are collected: it may rotate through more than one answer holds. */
  async #askName(key: string, name: string): Promise<number> {
    const { addresses, ttlSeconds } = await this.#lookup(name);
    const now = this.#now();
    const until = new Date(now.getTime() + (ttlSeconds + this.#options.section.dns.graceSeconds) * 1_000);
    const collected = new Map((this.#kept.get(key)?.prefixes ?? []).map((entry) => [entry[0], entry]));
    for (const [text, , last] of [...collected.values()])
      if (Date.parse(last) < now.getTime()) collected.delete(text);
    for (const address of addresses) {
      const text = printPrefix(parsePrefix(address));
      collected.set(text, [text, now.toISOString(), until.toISOString()]);
    }
    const newest = [...collected.values()].sort((a, b) => (a[1] < b[1] ? 1 : a[1] > b[1] ? -1 : 0));
    if (newest.length > NAME_ADDRESSES_MAX) {
      const fields = { name, addresses: newest.length, limit: NAME_ADDRESSES_MAX };
      this.#options.log.warn('a name has more addresses than are kept, those seen longest ago go', fields);
    }
    this.#keep(key, newest.slice(0, NAME_ADDRESSES_MAX));
    return Math.min(Math.max(ttlSeconds, NAME_SECONDS_MIN), NAME_SECONDS_MAX);
  }

  async #readFeed(key: string, query: FeedQuery): Promise<number> {
    const content = await this.#contentOf(query);
    const seenAt = this.#now().toISOString();
    this.#keep(
      key,
      content(query).map((prefix) => [printPrefix(prefix), seenAt, '']),
    );
    return this.#options.section.feeds.refreshSeconds;
  }

  /** What a source holds, read once for all that ask at a time, and again only where it changed. */
  #contentOf(query: FeedQuery): Promise<FeedContent> {
    const source = this.#sourceOf(query);
    const id = source.url ?? source.path!;
    const loading = this.#loading.get(id) ?? this.#load(id, source, query);
    this.#loading.set(id, loading);
    return loading.finally(() => this.#loading.delete(id));
  }

  async #load(id: string, source: FeedSource, { external }: FeedQuery): Promise<FeedContent> {
    const known = this.#contents.get(id);
    const fetched = await fetchSource(source, known?.tag ?? '');
    if (fetched === undefined) {
      if (known === undefined)
        throw new Error(`Cannot read feed: ${id} says that nothing changed since never`);
      return known.content;
    }
    const content = await readContent(external, fetched.bytes);
    this.#contents.set(id, { tag: fetched.tag, content });
    return content;
  }

  #sourceOf(query: FeedQuery): FeedSource {
    const { aws, lists, geo } = this.#options.section.feeds;
    const named = query.external === 'list' ? new Map(Object.entries(lists)).get(query.name) : undefined;
    const source = { aws, geo, list: named }[query.external];
    if (source !== undefined) return source;
    const key = query.external === 'list' ? `lists.${query.name}` : query.external;
    throw new Error(`Cannot read feed: the configuration has no groups.feeds.${key}`);
  }
}
