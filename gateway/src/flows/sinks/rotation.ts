import { createReadStream, createWriteStream } from 'node:fs';
import { readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';

/** When a file is moved away, and what becomes of it. */
export interface Rotation {
  readonly bytesMax: number;
  readonly seconds: number;
  /** How many that were moved away are kept, the newest. */
  readonly keepFiles: number;
  readonly gzip: boolean;
}

/** As `FILE.20260102T030405.678Z`: sorted by name they are sorted by time. */
const ROTATED = /^\.\d{8}T\d{6}\.\d{3}Z(?:\.gz)?$/;
const FILE_MODE = 0o640;

/** Compresses what was moved away from this path, if that is wanted, and deletes the oldest; one that fails is left for next time. */
export async function keepRotated(path: string, { keepFiles, gzip }: Rotation): Promise<void> {
  const [folder, name] = [dirname(path), basename(path)];
  const rotated = (await readdir(folder))
    .filter((other) => other.startsWith(name) && ROTATED.test(other.slice(name.length)))
    .sort();
  for (const old of rotated.slice(0, Math.max(0, rotated.length - keepFiles))) await rm(join(folder, old));
  if (!gzip) return;
  for (const plain of rotated.slice(-keepFiles).filter((other) => !other.endsWith('.gz'))) {
    const [from, part] = [join(folder, plain), join(folder, `${plain}.part`)];
    await pipeline(createReadStream(from), createGzip(), createWriteStream(part, { mode: FILE_MODE }));
    await rename(part, `${from}.gz`);
    await rm(from);
  }
}
