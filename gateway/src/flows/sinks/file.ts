import { constants } from 'node:fs';
import { type FileHandle, open, rename, stat } from 'node:fs/promises';
import type { Appended, Output } from '../queue.js';
import { keepRotated, type Rotation } from './rotation.js';

/** Readable by the group, so that a log shipper needs no privileges. */
export const FILE_MODE = 0o640;
/** Texts put together at once: all of them at once would be made in memory that is new each time. */
const JOINED_MAX = 64;
const BUFFER_BYTES_FIRST = 1 << 20;

/** A FIFO without a reader is an error, not a wait. */
const FILE_FLAGS = constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK;

/**
 * Appends to a file by name, one `stat` a batch: opens it anew when another file, or none, has its name. With a rotation it
 * moves the file away itself, when it has grown or aged enough.
 */
export class FileOutput implements Output {
  readonly #path: string;
  readonly #rotation: Rotation | undefined;
  #handle: FileHandle | undefined;
  /** Used again and again, as large as the largest batch needed. */
  #buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES_FIRST);
  /** A write stopped inside a line: the next one starts on a line of its own. */
  #torn = false;
  #moved = false;
  #tidying: Promise<void> = Promise.resolve();

  private constructor(path: string, rotation: Rotation | undefined) {
    this.#path = path;
    this.#rotation = rotation;
  }

  /** Throws when the file can't be opened now. What fails later is told by `append`. */
  static async open(path: string, rotation?: Rotation): Promise<FileOutput> {
    const output = new FileOutput(path, rotation);
    try {
      await output.#open();
    } catch (cause) {
      const { message } = cause as Error;
      const what = `${JSON.stringify(path)} should be a file to append to, ${message}`;
      throw new Error(`Cannot open flow log: ${what}`, { cause });
    }
    return output;
  }

  async append(items: readonly string[]): Promise<Appended> {
    let writtenBytes = 0;
    const lead = this.#torn ? '\n' : '';
    const bytes = this.#encode(lead, items);
    try {
      const handle = await this.#current(bytes);
      while (writtenBytes < bytes)
        writtenBytes += (await handle.write(this.#buffer, writtenBytes, bytes - writtenBytes)).bytesWritten;
      this.#torn = false;
      return { written: items.length };
    } catch (error) {
      let written = 0;
      let restBytes = writtenBytes - lead.length;
      for (const item of items) {
        const bytes = Buffer.byteLength(item) + 1;
        if (bytes > restBytes) break;
        restBytes -= bytes;
        written++;
      }
      if (writtenBytes > 0) this.#torn = restBytes > 0;
      return { written, error };
    }
  }

  /** Puts the lines into the buffer; how many bytes they are. */
  #encode(lead: string, items: readonly string[]): number {
    let bytes = 0;
    for (let next = 0; next < items.length; next += JOINED_MAX) {
      const lines = `${items.slice(next, next + JOINED_MAX).join('\n')}\n`;
      const text = next === 0 ? lead + lines : lines;
      // A unit of UTF-16 comes to three bytes at most.
      const bytesMax = bytes + 3 * text.length;
      if (bytesMax > this.#buffer.length) {
        const before = this.#buffer;
        this.#buffer = Buffer.allocUnsafeSlow(2 * bytesMax);
        before.copy(this.#buffer, 0, 0, bytes);
      }
      bytes += this.#buffer.write(text, bytes);
    }
    return bytes;
  }

  reopen(): void {
    this.#moved = true;
  }

  async close(): Promise<void> {
    await this.#closeFile();
    await this.#tidying;
  }

  async #open(): Promise<FileHandle> {
    this.#handle = await open(this.#path, FILE_FLAGS, FILE_MODE);
    this.#moved = false;
    return this.#handle;
  }

  async #closeFile(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close();
  }

  /** The file that has the name now, with room for so many bytes. */
  async #current(bytes: number): Promise<FileHandle> {
    const handle = this.#handle ?? (await this.#open());
    const ours = await handle.stat();
    const isReplaced = await this.#isReplaced(ours);
    if (isReplaced) this.#torn = false;
    const isDue = !isReplaced && this.#rotation !== undefined && this.#isDue(ours, bytes, this.#rotation);
    if (isDue) await this.#rotate(this.#rotation!);
    if (!isReplaced && !isDue && !this.#moved) return handle;
    await this.#closeFile();
    return this.#open();
  }

  async #isReplaced(ours: { readonly ino: number; readonly dev: number }): Promise<boolean> {
    try {
      const named = await stat(this.#path);
      return ours.ino !== named.ino || ours.dev !== named.dev;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return true;
      throw error;
    }
  }

  #isDue(
    file: { readonly size: number; readonly birthtimeMs: number },
    bytes: number,
    rotation: Rotation,
  ): boolean {
    if (file.size === 0) return false;
    return file.size + bytes > rotation.bytesMax || Date.now() - file.birthtimeMs >= rotation.seconds * 1_000;
  }

  async #rotate(rotation: Rotation): Promise<void> {
    const time = new Date().toISOString().replaceAll(/[-:]/g, '');
    await rename(this.#path, `${this.#path}.${time}`);
    this.#tidying = this.#tidying.then(() => keepRotated(this.#path, rotation)).catch(() => undefined);
  }
}
