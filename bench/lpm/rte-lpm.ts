import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import type { Prefix } from 'sluice-gateway/net/prefix.js';
import { wordsOf } from '../data/addresses.js';
import { type CProgram, compile } from '../program.js';
import type { LpmContestant, LpmTable } from './contestants.js';

export const RTE_LPM: CProgram = {
  name: 'lpm/rte-lpm',
  library: 'libdpdk',
  debianPackage: 'libdpdk-dev',
};

/** How long the program looks up before it answers: a turn is a few of these, and the way there and back nothing. */
const REQUEST_MS = 25;

/** The program, with one request at a time under way. */
class RteLpm {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;

  constructor(args: readonly string[]) {
    this.#child = spawn(compile(RTE_LPM), args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#lines = createInterface(this.#child.stdout)[Symbol.asyncIterator]();
  }

  /** The numbers that it answers with. */
  async answer(): Promise<readonly number[]> {
    const line = await this.#lines.next();
    if (line.done === true) throw new Error('Cannot race: rte-lpm ended');
    return line.value.split(' ').map(Number);
  }

  ask(request: string): Promise<readonly number[]> {
    this.#child.stdin.write(`${request}\n`);
    return this.answer();
  }

  async close(): Promise<void> {
    this.#child.stdin.end();
    if (this.#child.exitCode === null) await once(this.#child, 'exit');
  }
}

function packed(prefixes: readonly Prefix[]): Uint32Array {
  const words = wordsOf(prefixes);
  const width = words.length / prefixes.length;
  const out = new Uint32Array(words.length + prefixes.length);
  for (const [index, { length }] of prefixes.entries()) {
    const at = index * (width + 1);
    out.set(words.subarray(index * width, (index + 1) * width), at);
    out[at + width] = length;
  }
  return out;
}

/** Runs a job with a folder of its own, which is gone afterwards. */
async function inFolder<Result>(job: (file: (name: string) => string) => Promise<Result>): Promise<Result> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-rte-lpm-'));
  try {
    return await job((name) => join(folder, name));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function build(prefixes: readonly Prefix[], command: 'single' | 'bulk'): Promise<LpmTable> {
  const { program, buildSeconds } = await inFolder(async (file) => {
    writeFileSync(file('prefixes'), packed(prefixes));
    const program = new RteLpm([String(prefixes[0]!.family), file('prefixes')]);
    return { program, buildSeconds: (await program.answer())[0]! };
  });
  return {
    buildSeconds,
    query: async (addresses) => {
      const answers = await inFolder(async (file) => {
        writeFileSync(file('addresses'), wordsOf(addresses));
        await program.ask(`addresses ${file('addresses')} ${file('answers')}`);
        return new Int32Array(new Uint8Array(readFileSync(file('answers'))).buffer);
      });
      const turn = async () => (await program.ask(`${command} ${REQUEST_MS}`))[0]!;
      return { answer: (at) => answers[at]!, turn };
    },
    close: () => program.close(),
  };
}

export const rteName = (family: 4 | 6) => (family === 4 ? 'rte_lpm' : 'rte_lpm6');

/**
 * rte_lpm as a packet processor has it, in a process of its own: single lookups, and in bulk. rte_lpm6 can't hold a
 * million prefixes up to /128: it has 2^21 groups of entries at most, and a host takes up to thirteen.
 */
export function rteContestants(family: 4 | 6): readonly LpmContestant[] {
  const name = rteName(family);
  const shared = { answers: 'longest', sizeMax: family === 4 ? 1_000_000 : 100_000, slow: false } as const;
  return [
    { ...shared, name, build: (prefixes) => build(prefixes, 'single') },
    { ...shared, name: `${name}, in bulk`, build: (prefixes) => build(prefixes, 'bulk') },
  ];
}
