// One contract for every kind of sink, each before a receiver of its own.
import { mkdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { createLog } from '../../log.js';
import type { FlowSink, SinkCounts } from '../queue.js';
import { type SinkInput, sinkSchema } from './config.js';
import { guardedKafkaSink, numbered, type Stand, stands } from './fixture.js';
import { HttpOutput, LINES } from './http.js';
import { openSink } from './open.js';

const RECORDS = 250;
const log = createLog({ write: () => undefined });
const FAST = { retryMs: 5, retryMsMax: 20, batchRecordsMax: 40, batchWaitMs: 1 };
const numbers = (first: number, count: number) => Array.from({ length: count }, (_, index) => first + index);

// The SDK signs with them; nobody checks.
process.env.AWS_ACCESS_KEY_ID = 'test';
process.env.AWS_SECRET_ACCESS_KEY = 'test';

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}

const isBalanced = ({ received, written, dropped, queued }: SinkCounts) =>
  received === written + dropped + queued;

const open = (config: SinkInput, queue = {}): Promise<FlowSink> =>
  openSink(sinkSchema.parse(config), { gateway: 'gw-a', log, queue: { ...FAST, ...queue } });

function writeAll(sink: FlowSink, ports: readonly number[]): void {
  for (const port of ports) sink.write(numbered(port));
}

async function deliversAll(t: Test, stand: Stand): Promise<void> {
  const receiver = await stand.receive();
  if (receiver === undefined) {
    t.pass(stand.name, { skip: 'there is no such receiver on this machine' });
    return;
  }
  const sink = await open(stand.config(receiver.port));
  writeAll(sink, numbers(1_000, RECORDS));
  await until(() => sink.counts().written === RECORDS);
  sink.write(numbered(5_000));
  await sink.stop();
  t.match(sink.counts(), { received: RECORDS + 1, written: RECORDS + 1, queued: 0, dropped: 0 });
  await until(() => receiver.ports.length === RECORDS + 1);
  const expected = [...numbers(1_000, RECORDS), 5_000];
  t.same(stand.keepsOrder ? receiver.ports : receiver.ports.toSorted((a, b) => a - b), expected);
  await receiver.close();
}

async function waitsForReceiver(t: Test, stand: Stand, folder: string): Promise<void> {
  const first = await stand.receive();
  if (first === undefined || !stand.isReliable || first.port === 0) return first?.close();
  await first.close();
  const spill = { path: join(folder, 'spill'), bytesMax: 1 << 20 };
  rmSync(spill.path, { recursive: true, force: true });
  const early = await open({ ...stand.config(first.port), spill }, { stopMs: 200 });
  writeAll(early, numbers(1, 100));
  await until(() => isBalanced(early.counts()));
  t.match(early.counts(), { received: 100, written: 0, queued: 100 });
  await early.stop();
  t.match(early.counts(), { written: 0, dropped: 0, queued: 100 }, 'kept for the next process');

  const sink = await open({ ...stand.config(first.port), spill });
  writeAll(sink, numbers(101, 100));
  const late = await stand.receive(first.port);
  if (late === undefined) return sink.stop();
  await until(() => sink.counts().written === 200);
  t.match(sink.counts(), { received: 200, queued: 0, dropped: 0 });
  await until(() => late.ports.length >= 200);
  t.same(late.ports, numbers(1, 200), 'the older ones first');
  await late.close();
  await sink.stop();
}

const folder = t.testdir();
for (const stand of stands(folder)) {
  t.test(stand.name, async (t) => {
    mkdirSync(folder, { recursive: true });
    await deliversAll(t, stand);
    await waitsForReceiver(t, stand, folder);
  });
}

t.test('a sink that hangs slows none of the others', async (t) => {
  const all = stands(t.testdir());
  const { createServer } = await import('node:net');
  const deaf = createServer((socket) => socket.pause().on('error', () => undefined));
  await new Promise<void>((resolve) => deaf.listen(0, '127.0.0.1', resolve));
  const { port } = deaf.address() as { port: number };
  const hung = await open(
    { type: 'http', url: `http://127.0.0.1:${port}/` },
    { queueRecordsMax: 100, stopMs: 10 },
  );
  const http = all.find(({ name }) => name === 'HTTP')!;
  const receiver = (await http.receive())!;
  const well = await open(http.config(receiver.port));
  for (const port of numbers(1, 1_000)) for (const sink of [hung, well]) sink.write(numbered(port));
  await until(() => receiver.ports.length === 1_000);
  t.match(hung.counts(), {
    received: 1_000,
    written: 0,
    queued: 100,
    droppedByReason: { 'queue-full': 900 },
  });
  await Promise.all([hung.stop(), well.stop(), receiver.close()]);
  t.ok(isBalanced(hung.counts()));
  deaf.close();
});

t.test('a Kafka broker that does not know the user, or has another certificate, gets nothing', async (t) => {
  const folder = t.testdir();
  const receiver = await stands(folder)
    .find(({ name }) => name.startsWith('Kafka over TLS'))!
    .receive();
  if (receiver === undefined) return;
  const { tls: _, ...trusting } = guardedKafkaSink(folder, receiver.port) as { tls: unknown } & SinkInput;
  const unknown = guardedKafkaSink(folder, receiver.port, 'mallory');
  for (const [config, why] of [
    [unknown, /closed|disconnect/i],
    [{ ...trusting, tls: {} }, /self-signed certificate/],
  ] as const) {
    const lines: string[] = [];
    const told = createLog({ write: (line) => lines.push(line) });
    const sink = await openSink(sinkSchema.parse(config), {
      gateway: 'gw-a',
      log: told,
      queue: { ...FAST, stopMs: 10 },
    });
    sink.write(numbered(1));
    await until(() => lines.length > 0);
    t.match(lines[0], why);
    t.match(sink.counts(), { received: 1, written: 0, queued: 1 });
    await sink.stop();
  }
  t.same(receiver.ports, []);
  await receiver.close();
});

/** Answers to a request of five records, with how many of them were rejected. */
const PARTIAL: readonly (readonly [answer: string, rejected: number])[] = [
  ['', 0],
  ['{}', 0],
  ['null', 0],
  ['thank you', 0],
  ['{"partialSuccess":null}', 0],
  ['{"partialSuccess":{"errorMessage":"a warning"}}', 0],
  ['{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}', 2],
  ['{"partialSuccess":{"rejectedLogRecords":3}}', 3],
  ['{"partialSuccess":{"rejectedLogRecords":"99"}}', 5],
  ['{"partialSuccess":{"rejectedLogRecords":-2}}', 0],
  ['{"partialSuccess":{"rejectedLogRecords":"1.5"}}', 0],
  ['{"partialSuccess":{"rejectedLogRecords":"many"}}', 0],
];

t.test(
  'what an OTLP receiver rejects of a request that it takes is dropped, and all else is written',
  async (t) => {
    const answers = PARTIAL.map(([answer]) => answer);
    const server = createServer((_, response) => void response.end(answers.shift()));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.teardown(() => server.close());
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/logs`;
    let [received, dropped] = [0, 0];
    const sink = await open({ type: 'otlp', url });
    for (const [answer, rejected] of PARTIAL) {
      writeAll(sink, numbers(1, 5));
      [received, dropped] = [received + 5, dropped + rejected];
      await until(() => sink.counts().queued === 0);
      const expected = {
        received,
        written: received - dropped,
        dropped,
        droppedByReason: { refused: dropped },
      };
      t.match(sink.counts(), expected, answer);
    }
    await sink.stop();
  },
);

t.test('what a URL holds beside its host stands in no error', async (t) => {
  const server = createServer((_, response) => void response.writeHead(503).end('busy'));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const url = `http://${host}/in/T0KEN?key=T0KEN`;
  const output = new HttpOutput({ url, headers: {}, gzip: false, body: LINES });
  t.teardown(async () => {
    await output.close();
    server.close();
  });
  const { error } = await output.append(['{}']);
  t.equal((error as Error).message, `Cannot post flow records to http://${host}: status 503, busy`);
});
