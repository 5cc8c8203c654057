import { mkdtempSync, readdirSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { createLog, type Log } from '../log.js';
import { type Appended, type Output, QueuedSink, type QueueOptions, type SinkCounts } from './queue.js';
import type { FlowRecord } from './record.js';
import { Spill } from './spill.js';

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

const indices = (lines: readonly string[]) =>
  lines.map((line) => (JSON.parse(line) as FlowRecord).generation! - 1);

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

interface SinkParts {
  readonly output: Output;
  readonly spill?: Spill;
  readonly log?: Log;
  readonly options?: Partial<QueueOptions>;
}

function sinkOf({ output, spill, log = logInto([]), options }: SinkParts): QueuedSink {
  return new QueuedSink(
    { name: 's', format: JSON.stringify, output, spill, log },
    { retryMs: 0, ...options },
  );
}

/** What an output does: after so many turns it takes a part, refuses one, and fails or not. */
const anyAnswer = fc.record({
  part: fc.nat(100),
  refuses: fc.boolean(),
  fails: fc.boolean(),
  turns: fc.nat(2),
});
type Answer = typeof anyAnswer extends fc.Arbitrary<infer T> ? T : never;

async function answerBy(
  { part, refuses, fails, turns }: Answer,
  items: readonly string[],
): Promise<Appended> {
  for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate);
  if (!fails) return { written: items.length };
  const written = Math.floor((items.length * part) / 101);
  return { written, ...(refuses && { refused: 1 }), error: new Error('ENOSPC') };
}

const anyBursts = fc.array(fc.record({ records: fc.nat(12), turns: fc.nat(3) }), { maxLength: 30 });
const anyLimits = fc.record({
  queueRecordsMax: fc.integer({ min: 2, max: 20 }),
  batchRecordsMax: fc.integer({ min: 1, max: 9 }),
});
const isRising = (values: readonly number[]) =>
  values.every((value, at) => at === 0 || value > values[at - 1]!);

t.test('every record is written once, in order, or counted as dropped', async (t) => {
  t.comment(`TEST_SEED=${seed}`);
  await fc.assert(
    fc.asyncProperty(anyBursts, fc.infiniteStream(anyAnswer), anyLimits, async (bursts, answers, limits) => {
      let unbalanced = false;
      const output = new ScriptedOutput(async (items) => {
        const appended = await answerBy(answers.next().value!, items);
        unbalanced ||= !balanced(sink.counts());
        return appended;
      });
      const sink = sinkOf({ output, options: limits });
      let index = 0;
      for (const { records, turns } of bursts) {
        for (let i = 0; i < records; i++) sink.write(record(index++));
        unbalanced ||= !balanced(sink.counts()) || sink.counts().queued > limits.queueRecordsMax;
        for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate);
      }
      await sink.stop();
      sink.write(record(index++));
      const counts = sink.counts();
      const written = indices(output.lines);
      return (
        !unbalanced &&
        balanced(counts) &&
        counts.received === index &&
        counts.queued === 0 &&
        counts.written === written.length &&
        counts.droppedByReason.stopped >= 1 &&
        output.closed &&
        isRising(written)
      );
    }),
    { seed, numRuns: 60 },
  );
});

t.test('with a spill nothing is dropped, over any number of restarts', async (t) => {
  t.comment(`TEST_SEED=${seed}`);
  await fc.assert(
    fc.asyncProperty(
      fc.array(anyBursts, { minLength: 1, maxLength: 3 }),
      fc.infiniteStream(anyAnswer),
      anyLimits,
      async (lives, answers, { queueRecordsMax, batchRecordsMax }) => {
        const folder = mkdtempSync(join(tmpdir(), 'sluice-spill-'));
        const seen = new Set<number>();
        let [index, isFine, twice] = [0, true, 0];
        for (const bursts of [...lives, undefined]) {
          const spill = await Spill.open(folder, 1 << 20);
          const before = spill.records;
          // The last life has an output that is well again.
          const output = new ScriptedOutput((items) =>
            bursts === undefined
              ? { written: items.length }
              : answerBy({ ...answers.next().value!, refuses: false }, items),
          );
          const sink = sinkOf({
            output,
            spill,
            options: { queueRecordsMax: queueRecordsMax * 10 + 12, batchRecordsMax },
          });
          const first = index;
          for (const { records, turns } of bursts ?? []) {
            for (let i = 0; i < records; i++) sink.write(record(index++));
            isFine &&= balanced(sink.counts());
            for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate);
            isFine &&= balanced(sink.counts());
            // The disk takes longer than turns: enough room for what comes meanwhile, else the limit is what is tested.
            await until(() => sink.counts().queued - spill.records < queueRecordsMax * 5);
          }
          if (bursts === undefined) await until(() => sink.counts().queued === 0);
          await sink.stop();
          const counts = sink.counts();
          isFine &&= balanced(counts) && counts.dropped === 0 && counts.received === before + index - first;
          for (const one of indices(output.lines)) {
            if (seen.has(one)) twice++;
            seen.add(one);
          }
        }
        isFine &&= seen.size === index && readdirSync(folder).length === 0;
        rmSync(folder, { recursive: true });
        return isFine && twice === 0;
      },
    ),
    { seed, numRuns: 40 },
  );
});

t.test('a full queue drops the newest, names the limits once, and says when it is over', async (t) => {
  const logged: Record<string, unknown>[] = [];
  const gate = Promise.withResolvers<void>();
  const output = new ScriptedOutput(async (items) => {
    await gate.promise;
    return { written: items.length };
  });
  const sink = sinkOf({ output, log: logInto(logged), options: { queueRecordsMax: 3 } });
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
  t.same(indices(output.lines), [0, 1, 2]);
  t.match(logged, [
    {
      level: 'error',
      message: 'flow records are being dropped',
      sink: 's',
      reason: 'queue-full',
      queueRecordsMax: 3,
    },
    { level: 'info', message: 'flow records are written again', sink: 's', dropped: 5 },
  ]);
  t.equal(logged.length, 2);
  await sink.stop();
  const small = sinkOf({ output, options: { queueBytesMax: 300 } });
  for (let index = 0; index < 8; index++) small.write(record(index));
  t.equal(small.counts().queued, 2, 'bytes are a limit too');
  await small.stop();
  const [wide, fresh] = [1, 2].map(() => sinkOf({ output, options: { queueBytesMax: 40_000 } }));
  for (let round = 0; round < 30; round++) {
    for (let index = 0; index < 70; index++) wide!.write(record(index, 'é'.repeat(index)));
    await until(() => wide!.counts().queued === 0);
  }
  const [room, roomAtFirst] = [wide!, fresh!].map((sink) => {
    for (let index = 0; index < 1_000; index++) sink.write(record(index));
    return sink.counts().queued;
  });
  t.ok(roomAtFirst! < 1_000);
  t.equal(room, roomAtFirst, 'what was written leaves its room and no more, whatever characters it was of');
  await fresh!.stop();
  await wide!.stop();
});

t.test('a batch waits for more, but not for ever, and not at a stop', async (t) => {
  const batches: number[] = [];
  const output = new ScriptedOutput((items) => {
    batches.push(items.length);
    return { written: items.length };
  });
  const sink = sinkOf({
    output,
    options: { batchRecordsMax: 5, batchBytesMax: 1_000, batchWaitMs: 100_000 },
  });
  for (let index = 0; index < 4; index++) sink.write(record(index));
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
  t.same(batches, []);
  sink.write(record(4));
  await until(() => batches.length > 0);
  t.same(batches, [5], 'full');
  sink.write(record(5, 'x'.repeat(900)));
  await until(() => batches.length > 1);
  t.same(batches, [5, 1], 'full of bytes');
  sink.write(record(6));
  await new Promise(setImmediate);
  await sink.stop();
  t.same(batches, [5, 1, 1]);
  const soon = sinkOf({ output, options: { batchWaitMs: 1 } });
  soon.write(record(7));
  await until(() => soon.counts().written === 1);
  await soon.stop();
});

t.test('what is refused is dropped, what has no form is counted, and a failure is told once', async (t) => {
  const logged: Record<string, unknown>[] = [];
  const answers: Appended[] = [
    { written: 1, refused: 1, error: new Error('400') },
    { written: 0, error: new Error('503') },
    { written: 0, error: new Error('503') },
  ];
  const output = new ScriptedOutput((items) => answers.shift() ?? { written: items.length });
  const format = (one: FlowRecord) => (one.event === 'loss' ? undefined : JSON.stringify(one));
  const sink = new QueuedSink({ name: 's', format, output, log: logInto(logged) }, { retryMs: 0 });
  sink.write({ ...record(9), event: 'loss' });
  for (let index = 0; index < 4; index++) sink.write(record(index));
  await until(() => sink.counts().queued === 0);
  t.same(indices(output.lines), [0, 2, 3]);
  t.match(sink.counts(), { received: 5, written: 3, droppedByReason: { refused: 1, 'no-form': 1 } });
  t.match(logged, [
    { level: 'error', reason: 'refused', error: '400' },
    { level: 'warn', message: /wait/, error: '400' },
    { level: 'info', message: /again/, dropped: 1 },
  ]);
  t.equal(logged.length, 3);
  await sink.stop();
});

t.test('an output that never answers does not hold up the stop', async (t) => {
  const output = new ScriptedOutput(() => new Promise(() => undefined));
  const sink = sinkOf({ output, options: { stopMs: 10 } });
  sink.write(record(0));
  sink.write(record(1));
  await sink.stop();
  t.match(sink.counts(), { received: 2, written: 0, queued: 0, droppedByReason: { stopped: 2 } });
});

t.test('a spill has a limit, and one that can not be read is counted', async (t) => {
  const folder = t.testdir();
  const spill = await Spill.open(folder, 400);
  const stuck = new ScriptedOutput(() => ({ written: 0, error: new Error('down') }));
  const sink = sinkOf({
    output: stuck,
    spill,
    options: { queueRecordsMax: 4, batchRecordsMax: 1, retryMs: 1_000 },
  });
  for (let index = 0; index < 20; index++) {
    sink.write(record(index));
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  t.ok(spill.records > 0);
  t.ok(balanced(sink.counts()));
  t.ok(sink.counts().droppedByReason['queue-full'] > 0);
  await sink.stop();
  const left = spill.records;
  const [oldest] = readdirSync(folder).sort();
  truncateSync(join(folder, oldest!), 5);
  const unreadable = Number(/-(\d+)\./.exec(oldest!)![1]);
  const well = new ScriptedOutput((items) => ({ written: items.length }));
  const next = sinkOf({ output: well, spill: await Spill.open(folder, 400) });
  await until(() => next.counts().queued === 0);
  t.match(next.counts(), { received: left, written: left - unreadable, droppedByReason: { unreadable } });
  await next.stop();
  t.same(readdirSync(folder), []);
});
