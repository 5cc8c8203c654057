import { execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  constants,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import t from 'tap';
import { createLog, type Log } from '../../log.js';
import type { QueueOptions, SinkCounts } from '../queue.js';
import type { FlowRecord } from '../record.js';
import { type SinkInput, sinkSchema } from './config.js';
import { openSink } from './open.js';

/** Run as a child, this file writes records to its standard output as fast as it can until told to stop. */
const CHILD = 'sink-test-child';

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

const open = (config: SinkInput, queue: Partial<QueueOptions> = {}, log = logInto([])) =>
  openSink(sinkSchema.parse(config), { gateway: 'gw', log, queue });

const indices = (text: string) =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => (JSON.parse(line) as FlowRecord).generation! - 1);

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise(setImmediate);
}

async function fileTests(): Promise<void> {
  const written = (sink: { counts(): SinkCounts }, count: number) =>
    until(() => sink.counts().written === count);

  await t.test('a file is appended to, followed through rotation, and holds nothing that acts', async (t) => {
    const path = join(t.testdir(), 'flows.jsonl');
    writeFileSync(path, '{"generation":1}\n');
    const sink = await open({ type: 'file', path });
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

  await t.test('a batch that is larger than any before, of any characters', async (t) => {
    const path = join(t.testdir(), 'flows.jsonl');
    const sink = await open({ type: 'file', path });
    const count = 300;
    const name = '\u{1f600}é'.repeat(2_000);
    for (let index = 0; index < count; index++) sink.write(record(index, name));
    await sink.stop();
    const lines = readFileSync(path, 'utf8').split('\n');
    t.equal(lines.pop(), '');
    t.same(
      indices(lines.join('\n')),
      Array.from({ length: count }, (_, index) => index),
    );
    t.ok(lines.every((line) => JSON.parse(line).gateway === name));
    t.same(sink.counts().dropped, 0);
  });

  await t.test('a full disk: tried again, told once, and what is left at the end is counted', async (t) => {
    const logged: Record<string, unknown>[] = [];
    const sink = await open({ type: 'file', path: '/dev/full' }, { retryMs: 1 }, logInto(logged));
    sink.write(record(0));
    await until(() => logged.length > 0);
    for (let turn = 0; turn < 50; turn++) await new Promise(setImmediate);
    t.match(sink.counts(), { written: 0, queued: 1, dropped: 0 });
    await sink.stop();
    t.match(sink.counts(), { queued: 0, droppedByReason: { stopped: 1 } });
    t.match(logged, [
      { level: 'warn', error: /ENOSPC/ },
      { level: 'error', reason: 'stopped' },
    ]);
    t.equal(logged.length, 2);
  });

  await t.test('rotation by size and age, compressed, with so many kept', async (t) => {
    const folder = t.testdir();
    const path = join(folder, 'flows.jsonl');
    const rotate = { bytesMax: 1_024, seconds: 3_600, keepFiles: 3 };
    const sink = await open({ type: 'file', path, rotate }, { batchRecordsMax: 1 });
    for (let index = 0; index < 60; index++) {
      sink.write(record(index));
      await until(() => sink.counts().queued === 0);
      // A name a millisecond.
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    await sink.stop();
    const names = readdirSync(folder).sort();
    t.equal(names.length, 4);
    t.ok(
      names.slice(1).every((name) => /^flows\.jsonl\.\d{8}T\d{6}\.\d{3}Z\.gz$/.test(name)),
      names.join(' '),
    );
    const texts = names.slice(1).map((name) => gunzipSync(readFileSync(join(folder, name))).toString());
    t.ok([...texts, readFileSync(path, 'utf8')].every((text) => text.length <= 1_024));
    const all = [...texts, readFileSync(path, 'utf8')].flatMap(indices);
    t.same(
      all,
      Array.from(all, (_, at) => 60 - all.length + at),
      'the newest, none twice, none missing',
    );
    t.equal(statSync(join(folder, names[1]!)).mode & 0o007, 0, 'not for everybody');

    const aged = await open({
      type: 'file',
      path: join(folder, 'aged'),
      rotate: { seconds: 1, gzip: false },
    });
    aged.write(record(0));
    await until(() => aged.counts().written === 1);
    await new Promise((resolve) => setTimeout(resolve, 1_050));
    aged.write(record(1));
    await aged.stop();
    const [plain] = readdirSync(folder).filter((name) => name.startsWith('aged.'));
    t.same(
      [
        indices(readFileSync(join(folder, plain!), 'utf8')),
        indices(readFileSync(join(folder, 'aged'), 'utf8')),
      ],
      [[0], [1]],
    );
  });

  await t.test('a write that stops inside a line: the line comes again, on a line of its own', async (t) => {
    const path = join(t.testdir(), 'fifo');
    execFileSync('mkfifo', [path]);
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    t.teardown(() => closeSync(reader));
    const options = { retryMs: 0 };
    const sink = await open({ type: 'file', path }, options);
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
    await t.rejects(open({ type: 'file', path: '/nonexistent/flows' }), {
      message: /^Cannot open flow log: "\/nonexistent\/flows" should be a file to append to, ENOENT/,
      cause: { code: 'ENOENT' },
    });
    await t.rejects(open({ type: 'file', path: t.testdir() }), /EISDIR/);
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
    t.equal(last.received, last.written + last.dropped);
    t.ok(last.droppedByReason['queue-full'] > 0);
    t.equal(last.queued, 0);
    t.equal(indices(text).length, last.written);
  });
}

async function child(): Promise<void> {
  const log = createLog({ write: () => undefined });
  const sink = await open({ type: 'stdout', queueRecordsMax: 1_000 }, {}, log);
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
  await fileTests();
  await stdoutTest();
}
