import { execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  constants,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import t from 'tap';
import { createLog, type Log } from '../log.js';
import { type Appended, type Output, QueuedSink, type SinkCounts } from './queue.js';
import type { FlowRecord } from './record.js';
import { openSink } from './sink.js';

/** Run as a child, this file writes records to its standard output as fast as it can until told to stop. */
const CHILD = 'sink-test-child';
const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

const record = (index: number, gateway = 'gw'): FlowRecord => ({
  schema: 'sluice.flow/1',
  time: '2026-01-02T03:04:05.678Z',
  event: 'deny',
  gateway,
  generation: index + 1,
});

function logInto(lines: Record<string, unknown>[]): Log {
  return createLog({ terminal: false, write: (line) => lines.push(JSON.parse(line)) });
}

const indices = (text: string) =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => (JSON.parse(line) as FlowRecord).generation! - 1);

const balanced = (counts: SinkCounts) =>
  counts.received === counts.written + counts.dropped + counts.queued &&
  counts.dropped === Object.values(counts.droppedByReason).reduce((sum, count) => sum + count, 0);

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise(setImmediate);
}

/** An output whose every append is answered by hand, or by a rule. */
class ScriptedOutput implements Output {
  readonly lines: string[] = [];
  readonly #answer: (lines: readonly string[]) => Appended | Promise<Appended>;
  closed = false;

  constructor(answer: (lines: readonly string[]) => Appended | Promise<Appended>) {
    this.#answer = answer;
  }

  async append(lines: readonly string[]): Promise<Appended> {
    const appended = await this.#answer(lines);
    this.lines.push(...lines.slice(0, appended.written));
    return appended;
  }

  reopen(): void {}

  async close(): Promise<void> {
    this.closed = true;
  }
}

async function queueTests(): Promise<void> {
  await t.test('every record is written once, in order, or counted as dropped', async (t) => {
    t.comment(`TEST_SEED=${seed}`);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ records: fc.nat(12), turns: fc.nat(3) }), { maxLength: 30 }),
        fc.infiniteStream(fc.record({ part: fc.nat(100), fails: fc.boolean(), turns: fc.nat(2) })),
        fc.record({
          queueRecordsMax: fc.integer({ min: 1, max: 20 }),
          batchRecordsMax: fc.integer({ min: 1, max: 9 }),
        }),
        async (bursts, answers, limits) => {
          let unbalanced = false;
          const output = new ScriptedOutput(async (lines) => {
            const { part, fails, turns } = answers.next().value!;
            for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate);
            unbalanced ||= !balanced(sink.counts());
            if (!fails) return { written: lines.length };
            return { written: Math.floor((lines.length * part) / 101), error: new Error('ENOSPC') };
          });
          const sink = new QueuedSink('s', output, logInto([]), { ...limits, attemptsMax: 3, retryMs: 0 });
          let index = 0;
          for (const { records, turns } of bursts) {
            for (let i = 0; i < records; i++) sink.write(record(index++));
            unbalanced ||= !balanced(sink.counts()) || sink.counts().queued > limits.queueRecordsMax;
            for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate);
          }
          await sink.stop();
          sink.write(record(index++));
          const counts = sink.counts();
          const written = indices(output.lines.join(''));
          return (
            !unbalanced &&
            balanced(counts) &&
            counts.received === index &&
            counts.queued === 0 &&
            counts.written === written.length &&
            counts.droppedByReason.stopped === 1 &&
            output.closed &&
            written.every((value, at) => at === 0 || value > written[at - 1]!)
          );
        },
      ),
      { seed, numRuns: 60 },
    );
  });

  await t.test('a full queue drops the newest, says so once, and says when it is over', async (t) => {
    const logged: Record<string, unknown>[] = [];
    const gate = Promise.withResolvers<void>();
    const output = new ScriptedOutput(async (lines) => {
      await gate.promise;
      return { written: lines.length };
    });
    const sink = new QueuedSink('s', output, logInto(logged), { queueRecordsMax: 3 });
    for (let index = 0; index < 8; index++) sink.write(record(index));
    t.match(sink.counts(), {
      received: 8,
      written: 0,
      queued: 3,
      dropped: 5,
      droppedByReason: { 'queue-full': 5 },
    });
    gate.resolve();
    await until(() => sink.counts().queued === 0);
    t.same(indices(output.lines.join('')), [0, 1, 2]);
    t.match(logged, [
      { level: 'error', message: 'flow records are being dropped', sink: 's', reason: 'queue-full' },
      { level: 'info', message: 'flow records are written again', sink: 's', dropped: 5 },
    ]);
    t.equal(logged.length, 2);
    await sink.stop();
  });

  await t.test('an output that never answers does not hold up the stop', async (t) => {
    const output = new ScriptedOutput(() => new Promise(() => undefined));
    const sink = new QueuedSink('s', output, logInto([]), { stopMs: 10 });
    sink.write(record(0));
    sink.write(record(1));
    await sink.stop();
    t.match(sink.counts(), { received: 2, written: 0, queued: 0, droppedByReason: { stopped: 2 } });
  });
}

async function fileTests(): Promise<void> {
  const written = (sink: { counts(): SinkCounts }, count: number) =>
    until(() => sink.counts().written === count);

  await t.test('a file is appended to, followed through rotation, and holds nothing that acts', async (t) => {
    const path = join(t.testdir(), 'flows.jsonl');
    writeFileSync(path, '{"generation":1}\n');
    const sink = await openSink({ type: 'file', path }, logInto([]));
    sink.write(record(1, 'gw\n\u001b[2J\u009b\u202e"'));
    await written(sink, 1);
    const first = readFileSync(path, 'utf8');
    t.notMatch(first.replaceAll('\n', ''), /[\u0000-\u001f\u007f-\u009f\u202e]/);
    t.same(indices(first), [0, 1]);
    t.equal(JSON.parse(first.split('\n')[1]!).gateway, 'gw\n\u001b[2J\u009b\u202e"');

    renameSync(path, `${path}.1`);
    sink.write(record(2));
    await written(sink, 2);
    t.same(indices(readFileSync(path, 'utf8')), [2], 'renamed away: a new file');
    t.equal(statSync(path).mode & 0o007, 0, 'not for everybody');
    renameSync(path, `${path}.2`);
    writeFileSync(path, '');
    sink.write(record(3));
    await written(sink, 3);
    t.same(indices(readFileSync(path, 'utf8')), [3], 'another file by that name');
    sink.reopen();
    sink.write(record(4));
    await sink.stop();
    t.same(indices(readFileSync(path, 'utf8')), [3, 4], 'opened again, flushed on stop');
    t.same(indices(readFileSync(`${path}.1`, 'utf8')), [0, 1]);
  });

  await t.test('a full disk: tried again, then dropped and counted', async (t) => {
    const logged: Record<string, unknown>[] = [];
    const sink = await openSink({ type: 'file', path: '/dev/full' }, logInto(logged), {
      attemptsMax: 2,
      retryMs: 1,
    });
    sink.write(record(0));
    await until(() => sink.counts().dropped === 1);
    t.match(sink.counts(), { written: 0, queued: 0, droppedByReason: { 'write-failed': 1 } });
    t.match(logged[0], { reason: 'write-failed', error: /ENOSPC/ });
    await sink.stop();
  });

  await t.test('a write that stops inside a line: the line comes again, on a line of its own', async (t) => {
    const path = join(t.testdir(), 'fifo');
    execFileSync('mkfifo', [path]);
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    t.teardown(() => closeSync(reader));
    const options = { attemptsMax: 1_000, retryMs: 0 };
    const sink = await openSink({ type: 'file', path }, logInto([]), options);
    for (let index = 0; index < 400; index++) sink.write(record(index, 'x'.repeat(1_000)));
    // Once the pipe is full the first attempt has failed, and what of it was written is counted.
    await until(() => sink.counts().written > 0);
    const buffer = Buffer.alloc(10_000);
    let text = '';
    await until(() => {
      try {
        text += buffer.toString('latin1', 0, readSync(reader, buffer));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      }
      return sink.counts().queued === 0 && text.endsWith('\n') && text.includes('"generation":400}');
    });
    await sink.stop();
    const whole = text.split('\n').filter((line) => line.endsWith('}'));
    const torn = text.split('\n').filter((line) => line !== '' && !line.endsWith('}'));
    t.same(indices(whole.join('\n')), [...Array(400).keys()]);
    t.ok(torn.length > 0, `${torn.length} fragments`);
    t.equal(sink.counts().written, 400);
  });

  await t.test('what cannot be opened is an error at once', async (t) => {
    await t.rejects(openSink({ type: 'file', path: '/nonexistent/flows' }, logInto([])), {
      message: /^Cannot open flow log: "\/nonexistent\/flows" should be a file to append to, ENOENT/,
      cause: { code: 'ENOENT' },
    });
    await t.rejects(openSink({ type: 'file', path: t.testdir() }, logInto([])), /EISDIR/);
  });
}

async function stdoutTest(): Promise<void> {
  await t.test('a stalled reader of standard output fills the queue and stops nothing else', async (t) => {
    const child = spawn(process.execPath, [fileURLToPath(import.meta.url), CHILD], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let counts = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      counts += text;
    });
    // Nobody reads the pipe until the child, whose loop must be alive for that, has told of drops.
    await until(() => counts.includes('\n'));
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      text += part;
    });
    child.stdin.end();
    await new Promise((resolve) => child.on('close', resolve));
    const last = JSON.parse(counts.trim().split('\n').at(-1)!) as SinkCounts;
    t.ok(balanced(last));
    t.ok(last.droppedByReason['queue-full'] > 0);
    t.equal(last.queued, 0);
    t.equal(indices(text).length, last.written);
  });
}

async function child(): Promise<void> {
  const sink = await openSink({ type: 'stdout' }, createLog({ write: () => undefined }), {
    queueRecordsMax: 1_000,
  });
  let index = 0;
  let told = false;
  const timer = setInterval(() => {
    for (let i = 0; i < 500; i++) sink.write(record(index++));
    if (!told && sink.counts().dropped > 0) process.stderr.write(`${JSON.stringify(sink.counts())}\n`);
    told ||= sink.counts().dropped > 0;
  }, 1);
  process.stdin.resume().on('end', async () => {
    clearInterval(timer);
    await sink.stop();
    process.stderr.write(`${JSON.stringify(sink.counts())}\n`);
  });
}

if (process.argv[2] === CHILD) await child();
else {
  await queueTests();
  await fileTests();
  await stdoutTest();
}
