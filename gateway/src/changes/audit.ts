import { FileOutput } from '../flows/sinks/file.js';
import type { Log } from '../log.js';
import { printableJson } from '../text.js';
import type { bounded } from './diff.js';

const ROTATION = { bytesMax: 16 << 20, seconds: Number.MAX_SAFE_INTEGER, keepFiles: 8, gzip: true };
/** Lines that wait for a disk; more are not written, which is told. */
const LINES_MAX = 1_000;
/** Connections that a change ends are counted for so long, or until the next change. */
const COUNT_MS = 5_000;

type What =
  | 'start'
  | 'snapshot'
  | 'trial'
  | 'apply'
  | 'confirm'
  | 'revert'
  | 'rollback'
  | 'release'
  | 'revoked';

interface Pair {
  readonly before: number | undefined;
  readonly after: number | undefined;
}

/** One line of the audit log. */
export interface AuditEvent extends Partial<ReturnType<typeof bounded>> {
  readonly event: What;
  readonly who: string;
  /** Why a trial ended without being confirmed. */
  readonly why?: string;
  readonly revision?: Pair;
  readonly generation?: Pair;
  /** Live connections that the change before ended. */
  readonly connections?: number;
}

/** Who changed what, one JSON object a line, in a file that rotates: see deploy/docs/changes.md. */
export class AuditLog {
  readonly #path: string;
  #output: FileOutput | undefined;
  readonly #log: Log;
  #waiting: string[] = [];
  #writing: Promise<void> | undefined;
  #revoked = 0;
  #counting: NodeJS.Timeout | undefined;

  constructor(path: string, log: Log) {
    this.#path = path;
    this.#log = log;
  }

  write(event: AuditEvent): void {
    this.#tellRevoked();
    this.#counting = setTimeout(() => this.#tellRevoked(), COUNT_MS);
    this.#add(event);
  }

  /** A live connection was ended by the change that was written last. */
  revoked(): void {
    this.#revoked++;
    this.#counting ??= setTimeout(() => this.#tellRevoked(), COUNT_MS);
  }

  async close(): Promise<void> {
    this.#tellRevoked();
    await this.#writing;
    await this.#output?.close();
  }

  #tellRevoked(): void {
    clearTimeout(this.#counting);
    this.#counting = undefined;
    if (this.#revoked > 0) this.#add({ event: 'revoked', who: 'gateway', connections: this.#revoked });
    this.#revoked = 0;
  }

  #add(event: AuditEvent): void {
    const line = printableJson({ time: new Date().toISOString(), ...event });
    if (this.#waiting.length >= LINES_MAX) {
      this.#log.error('the audit log can not keep up, a line of it is lost', { line });
      return;
    }
    this.#waiting.push(line);
    this.#writing ??= this.#writeAll();
  }

  async #append(lines: readonly string[]): ReturnType<FileOutput['append']> {
    try {
      this.#output ??= await FileOutput.open(this.#path, ROTATION);
      return await this.#output.append(lines);
    } catch (error) {
      return { written: 0, error };
    }
  }

  async #writeAll(): Promise<void> {
    await undefined;
    while (this.#waiting.length > 0) {
      const lines = this.#waiting.splice(0);
      const { written, error } = await this.#append(lines);
      for (const line of lines.slice(written))
        this.#log.error('a line of the audit log could not be written', { line, error: error as Error });
    }
    this.#writing = undefined;
  }
}
