import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Namespace } from './namespace.js';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
/** What the product is made of. */
const PARTS = ['gateway', 'controller-client', 'node_modules'];

/** The product's command line. */
export const SLUICE = join(ROOT, 'gateway', 'cli', 'dist', 'main.js');

/** A line of the product's log. */
export interface LogLine extends Readonly<Record<string, unknown>> {
  readonly level: string;
  readonly message: string;
}

/** A running `sluice run`. */
export class Product {
  readonly #child: ChildProcess;
  readonly #log: Buffer[] = [];

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.stderr!.on('data', (chunk: Buffer) => this.#log.push(chunk));
    child.stdout!.resume();
  }

  /**
   * Starts the product in a namespace. The unprivileged user that the controller client runs as must be able to
   * read the program, and a clone may lie where only root can: so its parts are mounted below `folder`, in the
   * mount namespace that `ip netns exec` makes for this process alone.
   */
  static start(namespace: Namespace, folder: string, config: string, env: NodeJS.ProcessEnv): Product {
    const app = join(folder, 'app');
    for (const part of PARTS) mkdirSync(join(app, part), { recursive: true });
    const mounts = PARTS.map((part) => `mount --bind "${join(ROOT, part)}" "${join(app, part)}"`);
    const node = process.execPath.startsWith(ROOT)
      ? join(app, process.execPath.slice(ROOT.length))
      : process.execPath;
    const main = join(app, 'gateway', 'cli', 'dist', 'main.js');
    // A test runner's own options are not the product's, whose unprivileged child could not read what they name.
    const script = [
      'export NODE_OPTIONS="$SLUICE_TEST_NODE_OPTIONS"',
      ...mounts,
      `exec "${node}" "${main}" run --config "${config}"`,
    ].join(' && ');
    return new Product(namespace.spawn('sh', ['-c', script], env));
  }

  /** What it wrote to its log so far. */
  get log(): string {
    return Buffer.concat(this.#log).toString();
  }

  get hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** Of `sluice run` itself. */
  get pid(): number {
    return this.#child.pid!;
  }

  /** Of the controller client; undefined while there is none. */
  get clientPid(): number | undefined {
    const path = `/proc/${this.pid}/task/${this.pid}/children`;
    const [child] = existsSync(path) ? readFileSync(path, 'utf8').trim().split(' ') : [];
    return child === undefined || child === '' ? undefined : Number(child);
  }

  /** What it wrote to its log after the first `start` characters, one JSON object a line. */
  logFrom(start = 0): LogLine[] {
    const lines = this.log.slice(start).split('\n').slice(0, -1);
    return lines.map((line) => JSON.parse(line) as LogLine);
  }

  /** Ends it. Gives its exit code, or the signal that killed it. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | NodeJS.Signals> {
    if (!this.hasEnded) {
      const ended = once(this.#child, 'exit');
      this.#child.kill(signal);
      await ended;
    }
    return (this.#child.exitCode ?? this.#child.signalCode)!;
  }
}
