import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** Number, then how many records it holds: known without reading it. */
const FILE_NAME = /^(\d{12})-(\d+)\.json$/;

interface SpillFile {
  readonly name: string;
  readonly records: number;
  readonly bytes: number;
}

/** The oldest of what waits, read. */
export interface Spilled {
  readonly items: readonly string[];
  /** Records of a file that can't be read any more. */
  readonly unreadable: number;
  /** From now on its records wait no more. */
  take(): void;
  /** Deletes the file: all of it was delivered. Until then a restart brings it again. */
  done(): Promise<void>;
}

/** A queue of items on disk, a file for each `append`, at most `bytesMax` in all. Outlives the process. */
export class Spill {
  readonly #folder: string;
  readonly #bytesMax: number;
  readonly #files: SpillFile[] = [];
  #next = 0;
  #bytes = 0;
  #records = 0;

  private constructor(folder: string, bytesMax: number) {
    this.#folder = folder;
    this.#bytesMax = bytesMax;
  }

  /** Opens a folder, made where there is none; what an earlier process left in it comes first. */
  static async open(folder: string, bytesMax: number): Promise<Spill> {
    const spill = new Spill(folder, bytesMax);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    for (const name of (await readdir(folder)).sort()) {
      const [, number, records] = FILE_NAME.exec(name) ?? [];
      if (number === undefined) continue;
      spill.#add({ name, records: Number(records), bytes: (await stat(join(folder, name))).size });
      spill.#next = Number(number) + 1;
    }
    return spill;
  }

  /** Records that wait. */
  get records(): number {
    return this.#records;
  }

  /** Appends items as one; false, with nothing written, where they would exceed `bytesMax`. */
  async append(items: readonly string[]): Promise<boolean> {
    const text = JSON.stringify(items);
    const bytes = Buffer.byteLength(text);
    if (this.#bytes + bytes > this.#bytesMax) return false;
    const name = `${String(this.#next++).padStart(12, '0')}-${items.length}.json`;
    const path = join(this.#folder, name);
    await writeFile(`${path}.part`, text, { mode: 0o600 });
    await rename(`${path}.part`, path);
    this.#add({ name, records: items.length, bytes });
    return true;
  }

  /** Reads the oldest, undefined where there is none. */
  async read(): Promise<Spilled | undefined> {
    const [file] = this.#files;
    if (file === undefined) return undefined;
    const path = join(this.#folder, file.name);
    const items = await readFile(path, 'utf8')
      .then(JSON.parse)
      .catch(() => undefined);
    const isWhole = Array.isArray(items) && items.length === file.records;
    return {
      items: isWhole ? items : [],
      unreadable: isWhole ? 0 : file.records,
      take: () => {
        this.#files.shift();
        this.#records -= file.records;
      },
      done: async () => {
        this.#bytes -= file.bytes;
        await rm(path, { force: true });
      },
    };
  }

  #add(file: SpillFile): void {
    this.#files.push(file);
    this.#bytes += file.bytes;
    this.#records += file.records;
  }
}
