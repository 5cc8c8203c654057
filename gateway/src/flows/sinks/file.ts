import { constants } from 'node:fs';
import { type FileHandle, open, rename, stat } from 'node:fs/promises';
import type { Appended, Output } from '../queue.js';
import { keepRotated, type Rotation } from './rotation.js';

/** Readable by the group, so that a log shipper needs no privileges. */
export const FILE_MODE = 0o640;
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
    const all = Buffer.from(`${lead}${items.join('\n')}\n`);
    try {
      const handle = await this.#current(all.length);
      while (writtenBytes < all.length) writtenBytes += (await handle.write(all, writtenBytes)).bytesWritten;
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
