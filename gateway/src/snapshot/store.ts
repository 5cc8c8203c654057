import { mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { BODIES_FOLDER, MANIFEST_FILE } from './format.js';

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes a file so that after a crash its name holds the old bytes or the new, whole. */
export async function writeFileAtomically(path: string, bytes: Uint8Array | string): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  const handle = await open(temporary, 'w', 0o644);
  try {
    await handle.writeFile(bytes);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, path);
  await syncFolder(dirname(path));
}

/**
 * Stores a snapshot in a folder: bodies first, the manifest last, so that a reader at any moment finds the old
 * snapshot or the new. Bodies of the one before stay for who is still reading it; older ones go.
 */
export async function storeSnapshot(
  folder: string,
  snapshot: {
    readonly manifestBytes: Uint8Array | string;
    readonly bodies: ReadonlyMap<string, Uint8Array | string>;
  },
  keep: ReadonlySet<string> = new Set(),
): Promise<void> {
  const bodiesFolder = join(folder, BODIES_FOLDER);
  await mkdir(bodiesFolder, { recursive: true });
  const present = new Set(await readdir(bodiesFolder));
  for (const [digest, bytes] of snapshot.bodies) {
    if (!present.has(digest)) await writeFileAtomically(join(bodiesFolder, digest), bytes);
  }
  await writeFileAtomically(join(folder, MANIFEST_FILE), snapshot.manifestBytes);
  for (const name of present) {
    if (!snapshot.bodies.has(name) && !keep.has(name)) await rm(join(bodiesFolder, name), { force: true });
  }
}
