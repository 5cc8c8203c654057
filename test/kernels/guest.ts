import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { countTests, type FileResult, type Plan, type Said } from './plan.js';

/** Inside a guest: runs the test files of the plan one after another, and says how each ended, a line of JSON each. */
const OUTPUT_CHARACTERS_MAX = 1 << 18;

const plan = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as Plan;
const say = (said: Said) => process.stdout.write(`${JSON.stringify(said)}\n`);

async function runFile(file: string): Promise<FileResult> {
  const startMs = performance.now();
  const child = spawn(process.execPath, ['--enable-source-maps', file], {
    env: { ...process.env, ...plan.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: plan.fileMsMax,
    killSignal: 'SIGKILL',
  });
  const chunks: Buffer[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    // On the console, where the last words are of a guest that ends before the file does.
    stream.pipe(process.stderr, { end: false });
  }
  // Not when its output is closed: what it started may outlive it.
  const [status, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  const ms = Math.round(performance.now() - startMs);
  if (signal !== null) chunks.push(Buffer.from(`\n# ended by ${signal} after ${ms} ms\n`));
  const output = Buffer.concat(chunks).toString();
  const counts = countTests(output, status);
  return { file, ...counts, ms, output: counts.failed > 0 ? output.slice(-OUTPUT_CHARACTERS_MAX) : '' };
}

say({ kind: 'start', release: release() });
for (const file of plan.files) say({ kind: 'file', ...(await runFile(file)) });
say({ kind: 'end' });
