import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Log } from '../log.js';
import { openSnapshotFolder, scrubBodies, storeSnapshot, writeWhole } from './folder.js';
import { BODIES_FOLDER, bodyDigest, digestsOf, manifestSchema } from './format.js';
import { readSnapshot, type Snapshot, type SnapshotBefore } from './read.js';

/** Snapshots that are kept to go back to: with a policy of their own, and with other members of its groups alone. */
export const HISTORY_LIMITS = { policiesMax: 20, membershipsMax: 10 } as const;

const entrySchema = z.strictObject({
  revision: z.int().positive(),
  at: z.string().describe('Since when it was in force'),
  who: z.string(),
  isPolicy: z.boolean().describe('False: the members of groups alone were others'),
  changed: z.string().describe('What changed, in short'),
  manifest: z.string().describe('Digest'),
});

/** A snapshot that was in force, by its revision. */
export type HistoryEntry = Readonly<z.output<typeof entrySchema>>;
export const historySchema = z.array(entrySchema);

function keepNewest(entries: readonly HistoryEntry[]): HistoryEntry[] {
  const { policiesMax, membershipsMax } = HISTORY_LIMITS;
  const of = (isPolicy: boolean, max: number) =>
    entries.filter((entry) => entry.isPolicy === isPolicy).slice(-max);
  const kept = new Set([...of(true, policiesMax), ...of(false, membershipsMax)]);
  return entries.filter((entry) => kept.has(entry));
}

/**
 * The last good snapshot in a folder of the gateway's own, and those before it: their manifests lie among the bodies,
 * which they share. The list of them is a file beside the folder.
 */
export class History {
  readonly #folder: string;
  readonly #log: Log;
  #entries: readonly HistoryEntry[] = [];
  /** What each manifest names, by its digest. */
  readonly #bodies = new Map<string, readonly string[]>();

  constructor(folder: string, log: Log) {
    this.#folder = folder;
    this.#log = log;
  }

  /** Oldest first. */
  get entries(): readonly HistoryEntry[] {
    return this.#entries;
  }

  /** Reads the list, as far as it and what it names are sound, and removes bodies that are not what their names say. */
  async open(): Promise<void> {
    await scrubBodies(this.#folder);
    try {
      const entries = historySchema.parse(JSON.parse(await readFile(this.#file, 'utf8')));
      for (const entry of entries) await this.#look(entry);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        this.#log.error('the history of snapshots is unusable and begins anew', { error: error as Error });
    }
  }

  /** Stores a snapshot as the last good one, and as one to go back to. Rejects with what the disk says. */
  async store(snapshot: Snapshot, entry: Omit<HistoryEntry, 'manifest'> | undefined): Promise<void> {
    const store = await openSnapshotFolder(this.#folder);
    const { manifestBytes } = snapshot;
    const manifest = bodyDigest(manifestBytes);
    const bodies = new Map(snapshot.bodies);
    const others = this.#entries.filter(({ revision }) => revision !== entry?.revision);
    const entries = entry === undefined ? this.#entries : keepNewest([...others, { ...entry, manifest }]);
    if (entry !== undefined) {
      bodies.set(manifest, manifestBytes);
      this.#bodies.set(manifest, [...bodies.keys()]);
    }
    const kept = [...new Set([...this.#entries, ...entries])].flatMap(
      (one) => this.#bodies.get(one.manifest)!,
    );
    await storeSnapshot(store, bodies, manifestBytes, kept);
    if (entry === undefined) return;
    await writeWhole(this.#file, JSON.stringify(entries));
    this.#entries = entries;
    const named = new Set(entries.map((one) => one.manifest));
    for (const digest of this.#bodies.keys()) if (!named.has(digest)) this.#bodies.delete(digest);
  }

  /** The snapshot of an entry, verified. Rejects as `readSnapshot` does. */
  async read({ manifest }: HistoryEntry, before?: SnapshotBefore): Promise<Snapshot> {
    return readSnapshot(this.#folder, before, join(BODIES_FOLDER, manifest));
  }

  get #file(): string {
    return `${this.#folder}-history.json`;
  }

  async #look(entry: HistoryEntry): Promise<void> {
    try {
      const bytes = await readFile(join(this.#folder, BODIES_FOLDER, entry.manifest), 'utf8');
      const manifest = manifestSchema.parse(JSON.parse(bytes));
      this.#bodies.set(entry.manifest, [entry.manifest, ...digestsOf(manifest)]);
      this.#entries = [...this.#entries, entry];
    } catch (error) {
      const { revision } = entry;
      this.#log.error('a snapshot of the history is lost', { revision, error: error as Error });
    }
  }
}
