import { createReadStream } from 'node:fs';
import type { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { type LineReader, type RecordedFlow, readerFor, type SkipReason } from './recorded.js';

/** A longer line is no record. */
const LINE_LENGTH_MAX = 1 << 20;
const CHUNK_BYTES = 1 << 20;

/** Calls back for each line of a stream. */
async function eachLine(stream: AsyncIterable<Buffer>, onLine: (line: string) => void): Promise<void> {
  const decoder = new TextDecoder();
  let rest = '';
  const take = (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop()!;
    if (rest.length > LINE_LENGTH_MAX) throw new Error(`a line is longer than ${LINE_LENGTH_MAX} characters`);
    for (const line of lines) if (line !== '') onLine(line);
  };
  for await (const chunk of stream) take(decoder.decode(chunk, { stream: true }));
  take(`${decoder.decode()}\n`);
}

function open(file: string): AsyncIterable<Buffer> {
  const bytes: Readable =
    file === '-' ? process.stdin : createReadStream(file, { highWaterMark: CHUNK_BYTES });
  if (!file.endsWith('.gz')) return bytes;
  const gunzip = createGunzip({ chunkSize: CHUNK_BYTES });
  bytes.once('error', (error) => gunzip.destroy(error));
  return bytes.pipe(gunzip);
}

/**
 * Reads flows from files of JSON lines or VPC Flow Logs, `.gz` too; `-` is standard input. Files are read one after
 * the other and never kept. Rejects with the file's name.
 */
export async function readFlows(
  files: readonly string[],
  isSource: (ip: string) => boolean,
  take: (read: RecordedFlow | SkipReason) => void,
): Promise<void> {
  for (const file of files) {
    let read: LineReader | undefined;
    let lines = 0;
    try {
      await eachLine(open(file), (line) => {
        lines++;
        if (read !== undefined) return take(read(line));
        const found = readerFor(line, isSource);
        read = found.read;
        if (!found.isHeader) take(read(line));
      });
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException;
      const why = code === 'ENOENT' ? 'there is no such file' : message;
      throw new Error(`Cannot read flows ${file}: ${lines > 0 ? `line ${lines}: ` : ''}${why}`, { cause });
    }
  }
}
