import { readFile, stat } from 'node:fs/promises';
import type { FeedSource } from 'sluice-gateway/config/groups.js';

/** Of one file or answer. */
const FEED_BYTES_MAX = 256 << 20;
const FETCH_MS_MAX = 10_000;

/** What a source held, and by what a later reading sees that it is the same. */
export interface Fetched {
  readonly bytes: Buffer;
  /** The ETag of a web server; of a file its inode, time and size. */
  readonly tag: string;
}

/** Reads a source as a whole; undefined where it is what `tag` says. Throws with what went wrong. */
export async function fetchSource({ url, path }: FeedSource, tag: string): Promise<Fetched | undefined> {
  return url === undefined ? readLocal(path!, tag) : readWeb(url, tag);
}

function checkSize(bytes: number, what: string): void {
  if (bytes > FEED_BYTES_MAX)
    throw new RangeError(`Cannot read feed: ${what} has ${bytes} bytes, the limit is ${FEED_BYTES_MAX}`);
}

async function readLocal(path: string, before: string): Promise<Fetched | undefined> {
  const tagOf = async () => {
    const { ino, mtimeMs, size } = await stat(path);
    checkSize(size, path);
    return `${ino} ${mtimeMs} ${size}`;
  };
  const tag = await tagOf();
  if (tag === before) return undefined;
  const bytes = await readFile(path);
  if (tag !== (await tagOf())) throw new Error(`Cannot read feed: ${path} was written while it was read`);
  return { bytes, tag };
}

async function readWeb(url: string, before: string): Promise<Fetched | undefined> {
  const { fetch } = await import('undici');
  const response = await fetch(url, {
    headers: before === '' ? {} : { 'if-none-match': before },
    signal: AbortSignal.timeout(FETCH_MS_MAX),
  });
  if (response.status === 304) return undefined;
  if (!response.ok || response.body === null) {
    throw new Error(`Cannot read feed: ${url} answered ${response.status}`);
  }
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of response.body) {
    parts.push(part as Uint8Array);
    bytes += (part as Uint8Array).length;
    checkSize(bytes, url);
  }
  return { bytes: Buffer.concat(parts), tag: response.headers.get('etag') ?? '' };
}
