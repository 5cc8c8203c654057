import { setTimeout as delay } from 'node:timers/promises';
import type { Config } from 'sluice-gateway/config/config.js';
import type { Log } from 'sluice-gateway/log.js';
import type { Inventory } from '../inventory.js';
import { createClientPool } from './clients.js';
import { Discovery } from './discovery.js';
import { scopeKey } from './merge.js';
import { EventQueue } from './queue.js';
import type { Change } from './target.js';

/** After events that could not be handled, so long until everything is read again. */
const repairMs = 1_000;

type AwsConfig = NonNullable<Config['inventory']>['aws'];

export interface FollowOptions {
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Called after each full refresh, and when events have changed something. */
  readonly learnt: (how: 'full' | 'event') => Promise<void>;
}

/** Knows AWS as the configuration asks: by full refreshes over and over, and by events in between. */
export class AwsFollower {
  readonly #config: AwsConfig;
  readonly #options: FollowOptions;
  readonly #clients = createClientPool();
  readonly #discovery: Discovery;
  readonly #told = new Map<string, string>();
  #wake = new AbortController();

  constructor(known: Inventory, config: AwsConfig, options: FollowOptions) {
    this.#config = config;
    this.#options = options;
    this.#discovery = new Discovery(known, {
      ...config,
      now: () => new Date(),
      signal: options.signal,
      clients: this.#clients,
    });
  }

  get inventory(): Inventory {
    return this.#discovery.inventory;
  }

  /** Runs until the signal aborts. */
  async run(): Promise<void> {
    const { events } = this.#config;
    const { log, signal } = this.#options;
    const running = [this.#refreshOverAndOver()];
    if (events !== undefined) {
      const { queueUrl: url, ...identity } = events;
      const client = this.#clients.queue(identity);
      const covers = (change: Change) => this.#discovery.covers(change);
      const handle = (changes: readonly Change[]) => this.#handle(changes);
      running.push(new EventQueue({ client, url, log, signal, covers, handle }).run());
    }
    await Promise.all(running);
    this.#clients.close();
  }

  async #refreshOverAndOver(): Promise<void> {
    const { signal, log, learnt } = this.#options;
    while (!signal.aborted) {
      this.#wake = new AbortController();
      try {
        await this.#discovery.sync();
        this.#tellScopes();
        await learnt('full');
      } catch (error) {
        if (!signal.aborted) log.error('AWS could not be read', { error: error as Error });
      }
      const waiting = AbortSignal.any([signal, this.#wake.signal]);
      await delay(this.#config.refreshSeconds * 1000, undefined, { signal: waiting }).catch(() => undefined);
    }
  }

  async #handle(changes: readonly Change[]): Promise<void> {
    if (changes.length === 0) return;
    const before = this.inventory;
    const failed = await this.#discovery.refresh(changes);
    if (failed[0] !== undefined) {
      const reason = failed[0].message;
      this.#options.log.warn('events could not be followed up, all is read again', { reason });
      const wake = this.#wake;
      setTimeout(() => wake.abort(), repairMs).unref();
    }
    if (this.inventory !== before) await this.#options.learnt('event');
  }

  /** Says what is wrong with a scope when it is new, not at every refresh. */
  #tellScopes(): void {
    for (const scope of this.inventory.scopes) {
      const { accountId, region, error = '' } = scope;
      const told = this.#told.get(scopeKey(scope)) ?? '';
      if (error === told) continue;
      this.#told.set(scopeKey(scope), error);
      if (error === '') this.#options.log.info('AWS is read in full again', { accountId, region });
      else
        this.#options.log.warn('AWS could not be read in full, what was known stays', {
          accountId,
          region,
          reason: error,
        });
    }
  }
}
