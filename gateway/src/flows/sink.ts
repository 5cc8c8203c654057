import { constants } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import type { Log } from '../log.js';
import { type Appended, type FlowSink, type Output, QueuedSink, type QueueOptions } from './queue.js';

/** A sink as the configuration names it. */
export type SinkConfig = { readonly type: 'stdout' } | { readonly type: 'file'; readonly path: string };

/** Readable by the group, so that a log shipper needs no privileges. */
const FILE_MODE = 0o640;
/** A FIFO without a reader is an error, not a wait. */
const FILE_FLAGS = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK;

/** Appends to a file by name, one `stat` a batch: opens it anew when another file, or none, has its name. */
class FileOutput implements Output {
  readonly #path: string;
  #handle: FileHandle | undefined;
  /** A write stopped inside a line: the next one starts on a line of its own. */
  #torn = false;
  #moved = false;

  constructor(path: string) {
    this.#path = path;
  }

  async open(): Promise<void> {
    this.#handle = await open(this.#path, FILE_FLAGS, FILE_MODE);
    this.#moved = false;
  }

  async append(lines: readonly string[]): Promise<Appended> {
    let writtenBytes = 0;
    const chunks = lines.map((line) => Buffer.from(line));
    const lead = this.#torn ? 1 : 0;
    try {
      const handle = await this.#current();
      const all = Buffer.concat(this.#torn ? [Buffer.from('\n'), ...chunks] : chunks);
      while (writtenBytes < all.length) writtenBytes += (await handle.write(all, writtenBytes)).bytesWritten;
      this.#torn = false;
      return { written: lines.length };
    } catch (error) {
      let written = 0;
      let restBytes = writtenBytes - lead;
      for (const chunk of chunks) {
        if (chunk.length > restBytes) break;
        restBytes -= chunk.length;
        written++;
      }
      if (writtenBytes > 0) this.#torn = restBytes > 0;
      return { written, error };
    }
  }

  reopen(): void {
    this.#moved = true;
  }

  async close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }

  async #current(): Promise<FileHandle> {
    if (this.#handle !== undefined) {
      const rotated = await this.#rotated(this.#handle);
      if (rotated) this.#torn = false;
      if (rotated || this.#moved) await this.close();
    }
    if (this.#handle === undefined) await this.open();
    return this.#handle!;
  }

  async #rotated(handle: FileHandle): Promise<boolean> {
    try {
      const [ours, named] = await Promise.all([handle.stat(), stat(this.#path)]);
      return ours.ino !== named.ino || ours.dev !== named.dev;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return true;
      throw error;
    }
  }
}

/** A stream of this process. Its reader may be slow (the queue fills) or gone (every write fails). */
class StreamOutput implements Output {
  readonly #stream: NodeJS.WritableStream;

  constructor(stream: NodeJS.WritableStream) {
    this.#stream = stream;
    // Each write is told of its own failure.
    stream.on('error', () => undefined);
  }

  append(lines: readonly string[]): Promise<Appended> {
    return new Promise((resolve) => {
      this.#stream.write(lines.join(''), (error) => {
        resolve(error ? { written: 0, error } : { written: lines.length });
      });
    });
  }

  reopen(): void {}

  async close(): Promise<void> {}
}

async function openFile(path: string): Promise<Output> {
  const output = new FileOutput(path);
  try {
    await output.open();
  } catch (cause) {
    const { message } = cause as Error;
    throw new Error(
      `Cannot open flow log: ${JSON.stringify(path)} should be a file to append to, ${message}`,
      {
        cause,
      },
    );
  }
  return output;
}

/**
 * Opens a sink; throws when its file cannot be opened now. What fails later is retried, counted and logged.
 */
export async function openSink(
  config: SinkConfig,
  log: Log,
  options: Partial<QueueOptions> = {},
): Promise<FlowSink> {
  switch (config.type) {
    case 'stdout':
      return new QueuedSink('stdout', new StreamOutput(process.stdout), log, options);
    case 'file':
      return new QueuedSink(`file:${config.path}`, await openFile(config.path), log, options);
    default:
      return config satisfies never;
  }
}
