import { link, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { BODIES_FOLDER, bodyDigest, MANIFEST_FILE, type Manifest, manifestSchema } from './format.js';

/** Where a snapshot is kept: bodies by digest, and one manifest that is replaced as a whole. */
export interface SnapshotStore {
  /** The manifest in force, if there is one; `unknown` where there is one that can't be understood. */
  readManifest(): Promise<Manifest | 'unknown' | undefined>;
  /** The revision of the manifest before that, where it is known. */
  revisionBefore(): Promise<number | undefined>;
  /** Whether a body of this digest and size is there. */
  hasBody(digest: string, bytes: number): Promise<boolean>;
  /** Resolves when the body is safe on disk. */
  putBody(digest: string, body: string | Uint8Array): Promise<void>;
  /** Has a manifest safe on disk, and gives what makes it the one in force. */
  prepareManifest(manifest: string | Uint8Array): Promise<() => Promise<void>>;
  /** Removes every body but these, and what an interrupted writer left. */
  keepBodies(digests: ReadonlySet<string>): Promise<void>;
}

const TEMPORARY = '.new';
const MANIFEST_BEFORE_FILE = 'manifest-before.json';
/** Bodies that are put at once. */
const PUT_BODIES_MAX = 16;

async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes a file, and has it on disk when `place` has been called. */
async function writeSynced(
  path: string,
  content: string | Uint8Array,
  place: () => Promise<void> = async () => {},
): Promise<void> {
  const handle = await open(path, 'w', 0o644);
  try {
    await handle.writeFile(content);
    await place();
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes a file beside its place and has it on disk. Gives what moves it there. */
async function writeBeside(path: string, content: string | Uint8Array): Promise<() => Promise<void>> {
  const temporary = `${path}${TEMPORARY}`;
  await writeSynced(temporary, content);
  return () => rename(temporary, path);
}

/**
 * Writes a file beside its place, has it on disk, then moves it there: a reader sees all of it or nothing.
 */
export async function writeWhole(path: string, content: string | Uint8Array): Promise<void> {
  const move = await writeBeside(path, content);
  await move();
}

/** Waits for all, and rejects with the first failure only then: none goes on behind the caller's back. */
async function all<Results extends readonly unknown[]>(
  running: {
    readonly [Index in keyof Results]: Promise<Results[Index]>;
  },
): Promise<Results> {
  await Promise.allSettled(running);
  return Promise.all(running) as Promise<Results>;
}

function unlessMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}

async function readManifest(path: string): Promise<Manifest | 'unknown' | undefined> {
  const text = await readFile(path, 'utf8').catch(unlessMissing);
  if (text === undefined) return undefined;
  try {
    return manifestSchema.parse(JSON.parse(text));
  } catch {
    return 'unknown';
  }
}

/** Removes bodies that are not what their names say: one is known by its name and size, and a spoiled one would stay. */
export async function scrubBodies(folder: string): Promise<void> {
  const bodies = join(folder, BODIES_FOLDER);
  for (const name of await readdir(bodies).catch(() => [])) {
    const path = join(bodies, name);
    if (bodyDigest(await readFile(path)) !== name) await rm(path);
  }
}

/** A snapshot in a folder, made if need be. One writer at a time; readers at any time. */
export async function openSnapshotFolder(folder: string): Promise<SnapshotStore> {
  const bodies = join(folder, BODIES_FOLDER);
  const manifestFile = join(folder, MANIFEST_FILE);
  const fileBefore = join(folder, MANIFEST_BEFORE_FILE);
  await mkdir(bodies, { recursive: true });
  return {
    readManifest: () => readManifest(manifestFile),
    async revisionBefore() {
      const before = await readManifest(fileBefore);
      return before === 'unknown' ? undefined : before?.revision;
    },
    async hasBody(digest, bytes) {
      return (await stat(join(bodies, digest)).catch(unlessMissing))?.size === bytes;
    },
    async putBody(digest, body) {
      const path = join(bodies, digest);
      const temporary = `${path}${TEMPORARY}`;
      // Nobody asks for it before a manifest names it. Its name, given before, is on disk with what it holds.
      await writeSynced(temporary, body, () => rename(temporary, path));
    },
    async prepareManifest(manifest) {
      const move = await writeBeside(manifestFile, manifest);
      return async () => {
        await rm(fileBefore, { force: true });
        // Not where there is none, and not of another's file or where there are no links: then the clock has to do.
        await link(manifestFile, fileBefore).catch(() => undefined);
        await move();
        await all([syncFolder(bodies), syncFolder(folder)]);
      };
    },
    async keepBodies(digests) {
      for (const name of await readdir(bodies)) {
        if (!digests.has(name)) await rm(join(bodies, name));
      }
    },
  };
}

/** Puts the bodies into a store that are not there yet, several at a time: the disk takes them together. */
export async function storeBodies(
  store: SnapshotStore,
  bodies: ReadonlyMap<string, string | Uint8Array>,
): Promise<void> {
  const there = await Promise.all(
    [...bodies].map(([digest, body]) => store.hasBody(digest, Buffer.byteLength(body))),
  );
  const missing = [...bodies].filter((_, index) => !there[index]);
  while (missing.length > 0)
    await all(missing.splice(0, PUT_BODIES_MAX).map(([digest, body]) => store.putBody(digest, body)));
}

/**
 * Puts a snapshot into a store: bodies that are not there yet, then the manifest, which the disk takes with them, then
 * the bodies go that neither it nor `keep` names. Killed at any point, it leaves a whole snapshot.
 */
export async function storeSnapshot(
  store: SnapshotStore,
  bodies: ReadonlyMap<string, string | Uint8Array>,
  manifest: string | Uint8Array,
  keep: Iterable<string> = [],
): Promise<void> {
  const [place] = await all([store.prepareManifest(manifest), storeBodies(store, bodies)]);
  await place();
  await store.keepBodies(new Set([...bodies.keys(), ...keep]));
}
