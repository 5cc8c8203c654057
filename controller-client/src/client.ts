import { existsSync, statSync, watch, writeFileSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Config } from 'sluice-gateway/config/config.js';
import type { Log } from 'sluice-gateway/log.js';
import { openSnapshotFolder, scrubBodies, writeWhole } from 'sluice-gateway/snapshot/folder.js';
import { MANIFEST_FILE } from 'sluice-gateway/snapshot/format.js';
import { AwsFollower } from './aws/follow.js';
import { FEEDS_FILE, FeedKeeper } from './feeds/keeper.js';
import { emptyInventory, type Inventory } from './inventory.js';
import { Ledger } from './snapshot/provenance.js';
import { writeSnapshot } from './snapshot/write.js';
import { loadPolicy } from './sources/load.js';
import { feedsOf, type LoadedPolicy } from './sources/model.js';
import { INVENTORY_FILE, type Known, readKnownInventory, resolveOptions, resolveWanted } from './wanted.js';

/** Editors write a file in several steps: policy is read when it has been quiet for so long. */
const QUIET_MS = 100;
/** How often policy is read where no notification tells of its change. */
const POLL_MS = 5_000;
/** How long after an event what is known of AWS is written to its file. */
const KEEP_MS = 30_000;
/** There while the snapshot may hold what the file of what is known of AWS does not. */
const BEHIND_FILE = 'inventory-behind';

/** Policy or feeds may be other; AWS was read in full, which gives everything another age; or an event told of a change. */
type Why = 'looked' | 'refreshed' | 'event';

/** Brings wanted state: reads AWS and policy files over and over, and writes a snapshot whenever they say something new. */
export class ControllerClient {
  readonly #config: Config;
  readonly #log: Log;
  readonly #stopping = new AbortController();
  #inventory: Inventory | undefined;
  /** Whether AWS was asked, now or before: until then groups would be published as unresolved for no reason. */
  #hasAsked = false;
  /** A snapshot is there, and what was known of AWS when it was made is not: groups would lose members by it. */
  #isLost = false;
  /** A client before ended without keeping what events told: AWS is asked before anything is published. */
  #isBehind = false;
  #feeds: FeedKeeper | undefined;
  #ledger = new Ledger();
  /** Bodies in the snapshot's folder. */
  readonly #seen = new Set<string>();
  /** What the newest snapshot was made from. */
  #known: Known | undefined;
  /** Digest of the policy in the newest snapshot. */
  #source: string | undefined;
  #keeping: NodeJS.Timeout | undefined;
  #told = '';
  #isFailing = false;
  #building: Promise<void> = Promise.resolve();

  constructor(config: Config, log: Log) {
    this.#config = config;
    this.#log = log;
  }

  /** Runs until `stop`. Rejects only where it can't even begin. */
  async run(): Promise<void> {
    await mkdir(this.#config.snapshot.path, { recursive: true });
    await scrubBodies(this.#config.snapshot.path);
    const store = await openSnapshotFolder(this.#config.snapshot.path);
    const manifest = await store.readManifest();
    if (manifest !== 'unknown') this.#source = manifest?.policy.source;
    this.#inventory = await readKnownInventory(this.#config.snapshot.path).catch((error: Error) => {
      this.#log.error('what was known of AWS is lost, it is read anew', { error });
      return emptyInventory();
    });
    this.#hasAsked =
      this.#config.inventory === undefined ||
      this.#inventory.scopes.some(({ refreshedAt }) => refreshedAt !== undefined);
    const hasSnapshot = existsSync(join(this.#config.snapshot.path, MANIFEST_FILE));
    this.#isBehind = this.#config.inventory !== undefined && existsSync(this.#behindFile);
    this.#isLost = !this.#hasAsked && hasSnapshot && this.#inventory.scopes.length === 0;
    this.#ledger = await Ledger.open(this.#config.snapshot.path);
    this.#feeds = await FeedKeeper.open({
      section: this.#config.groups,
      file: join(this.#config.snapshot.path, FEEDS_FILE),
      log: this.#log,
      learnt: () => void this.#build(),
    });
    await this.#build();
    await Promise.all([
      this.#pollPolicy(),
      this.#followAws(this.#inventory),
      this.#feeds.run(this.#stopping.signal),
    ]);
  }

  stop(): void {
    this.#stopping.abort();
  }

  async #sleep(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#stopping.signal }).catch(() => undefined);
  }

  #watchPolicy(): { close(): void } | undefined {
    const { path } = this.#config.policy;
    let timer: NodeJS.Timeout | undefined;
    const changed = () => {
      clearTimeout(timer);
      timer = setTimeout(() => void this.#build(), QUIET_MS);
    };
    try {
      return watch(path, changed);
    } catch (error) {
      this.#log.debug('policy is looked at by time alone', { error: error as Error });
      return undefined;
    }
  }

  /** What has another file or folder in its place is watched anew. */
  async #pollPolicy(): Promise<void> {
    const look = () => {
      try {
        return statSync(this.#config.policy.path).ino;
      } catch {
        // Reading it tells why.
        return undefined;
      }
    };
    let inode = look();
    let watcher = this.#watchPolicy();
    while (!this.#stopping.signal.aborted) {
      await this.#sleep(POLL_MS);
      const now = look();
      if (now !== inode) {
        watcher?.close();
        watcher = this.#watchPolicy();
        inode = now;
      }
      await this.#build();
    }
    watcher?.close();
  }

  async #followAws(known: Inventory): Promise<void> {
    const aws = this.#config.inventory?.aws;
    if (aws === undefined) return;
    const follower = new AwsFollower(known, aws, {
      log: this.#log,
      signal: this.#stopping.signal,
      learnt: async (how) => {
        this.#inventory = follower.inventory;
        if (how === 'full') {
          this.#isBehind = false;
          await this.#keepInventory();
        } else this.#keepInventorySoon();
        await this.#build(how === 'full' ? 'refreshed' : 'event');
      },
    });
    this.#inventory = follower.inventory;
    await follower.run();
    if (this.#keeping !== undefined) await this.#keepInventory();
  }

  async #keepInventory(): Promise<void> {
    clearTimeout(this.#keeping);
    this.#keeping = undefined;
    const { scopes = [] } = this.#inventory ?? {};
    this.#isLost &&= scopes.some(({ refreshedAt }) => refreshedAt === undefined);
    if (this.#isLost) {
      this.#log.error('nothing is known of AWS and it can not be read in full, what is in force stays');
      return;
    }
    this.#hasAsked = true;
    await writeWhole(join(this.#config.snapshot.path, INVENTORY_FILE), JSON.stringify(this.#inventory));
    await rm(this.#behindFile, { force: true });
  }

  get #behindFile(): string {
    return join(this.#config.snapshot.path, BEHIND_FILE);
  }

  /** The file holds everything: it is written when events pause, and not on the way of one to the gateway. */
  #keepInventorySoon(): void {
    if (this.#keeping !== undefined) return;
    writeFileSync(this.#behindFile, '');
    this.#keeping = setTimeout(() => {
      this.#keepInventory().catch((error: Error) => {
        this.#log.error('what is known of AWS could not be kept', { error });
      });
    }, KEEP_MS);
  }

  #build(why: Why = 'looked'): Promise<void> {
    this.#building = this.#building.then(() => this.#buildOnce(why));
    return this.#building;
  }

  /** An event of AWS is no reason to read the policy; policy that is read and the same stays the same object. */
  #loadPolicy(why: Why): LoadedPolicy {
    const known = this.#known?.loaded;
    if (known !== undefined && why === 'event' && !this.#isFailing) return known;
    return loadPolicy(this.#config.policy.path, known);
  }

  async #buildOnce(why: Why): Promise<void> {
    if (this.#inventory === undefined || !this.#hasAsked || this.#isBehind) return;
    if (this.#stopping.signal.aborted) return;
    let doing = 'the policy can not be used';
    try {
      const loaded = this.#loadPolicy(why);
      await this.#feeds?.want(feedsOf(loaded.groups));
      const now = new Date();
      const options = { ...resolveOptions(this.#config), now, ...this.#feeds?.learnt };
      const since = { before: this.#known, sourceInForce: this.#source };
      const sparing = { ...options, ...since, isAged: why === 'refreshed' };
      const { content, warnings, known } = resolveWanted(loaded, this.#inventory, sparing);
      this.#known = known;
      doing = 'the snapshot can not be written';
      const provenance = this.#ledger.stamp(content.groups, now);
      const whole = { ...content, provenance };
      const { path } = this.#config.snapshot;
      const { revision, changed } = await writeSnapshot(path, whole, { now, seen: this.#seen });
      this.#source = content.source;
      if (changed) this.#log.info('snapshot written', { revision });
      if (this.#isFailing) this.#log.info('the policy is good again and in the snapshot', { revision });
      this.#isFailing = false;
      this.#tell('warn', warnings);
    } catch (error) {
      this.#isFailing = true;
      this.#tell('error', [`${doing}, what is in force stays`, ...(error as Error).message.split('\n')]);
    }
  }

  /** Says lines once, until there is something else to say. */
  #tell(level: 'warn' | 'error', lines: readonly string[]): void {
    const text = lines.join('\n');
    if (text === this.#told) return;
    this.#told = text;
    for (const line of lines) this.#log[level](line);
  }
}
