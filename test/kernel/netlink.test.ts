import '../support/own-namespace.js';
import { release } from 'node:os';
import { mock } from 'node:test';
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import { SocketClosedError } from 'nftables-napi';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { NetlinkError, UnknownOutcomeError } from 'sluice-gateway/netlink/error.js';
import { Batch } from 'sluice-gateway/nft/batch.js';
import { EMPTY_TABLE, NftKernel, type TableContent } from 'sluice-gateway/nft/kernel.js';
import type { NumberMap } from 'sluice-gateway/nft/program.js';
import { goto } from 'sluice-gateway/nft/statement.js';
import { watchTable } from 'sluice-gateway/nft/watch.js';
import { watchForeign } from 'sluice-gateway/preflight/preflight.js';
import t, { type Test } from 'tap';
import { here } from '../support/namespace.js';
import { until } from '../support/wait.js';

const nft = (...args: string[]) => here.run('nft', args);
const ruleset = () => nft('list', 'ruleset');
/** Of a malformed attribute in a batch 6.1 and 6.12 tell the errno alone, 6.18 what is wrong too. */
const [major, minor] = release().split('.').map(Number);
const saysWhatIsMalformed = major! > 6 || (major === 6 && minor! >= 18);
const chain = (name: string) => ({ name, rules: [] });
/** Behind a burst of changes tables of others are looked at. */
const SETTLED_MS = 1_000;

function open(t: Test): { connection: NetlinkConnection; kernel: NftKernel } {
  nft('flush', 'ruleset');
  const connection = new NetlinkConnection(NETLINK_NETFILTER);
  t.teardown(() => connection.close());
  return { connection, kernel: new NftKernel(connection) };
}

/** Makes a table with a map. */
function filled(map: NumberMap): Batch {
  const batch = new Batch().addTable().addMap(map);
  for (let next = 0; next < map.elements.length; ) next = batch.addElements(map, next);
  return batch;
}

/** A map with so many keys. */
const marks = (length: number): NumberMap => ({
  name: 'marks',
  key: 'mark',
  data: 'mark',
  interval: false,
  elements: Array.from({ length }, (_, key) => ({ first: BigInt(key), last: BigInt(key), data: key })),
});

/** What a promise was rejected with. */
async function rejection(promise: Promise<unknown>): Promise<Error> {
  return promise.then(
    () => {
      throw new Error('Cannot go on: it was not rejected');
    },
    (error: Error) => error,
  );
}

t.test('a transaction takes effect whole or not at all, and an error names the operation', async (t) => {
  const { kernel } = open(t);
  const batch = () => new Batch().addTable().addChain(chain('first'));
  const cases: [string, Batch, Partial<NetlinkError>][] = [
    [
      'in the middle',
      batch().deleteChain('absent').addChain(chain('last')),
      { operation: 'delete chain "absent"', code: 'ENOENT', offset: 32 },
    ],
    [
      'the first of two',
      batch()
        .addRule('first', [goto('absent')])
        .deleteMap('absent'),
      { operation: 'add rule to "first"', code: 'ENOENT' },
    ],
    [
      'at the end',
      batch().deleteCounter('absent'),
      {
        operation: 'delete counter "absent"',
        code: 'ENOENT',
        message: 'Cannot delete counter "absent": ENOENT',
      },
    ],
    [
      'with words of the kernel',
      batch().addChain(chain('x'.repeat(300))),
      {
        code: 'ERANGE',
        ...(saysWhatIsMalformed ? { kernelMessage: 'Attribute failed policy validation', offset: 32 } : {}),
      },
    ],
  ];
  for (const [label, tried, expected] of cases) {
    const error = await rejection(kernel.commit(tried));
    t.type(error, NetlinkError);
    t.match(error, expected, label);
    t.equal(ruleset(), '', 'nothing is left behind');
    t.equal(await kernel.hasTable(), false);
  }
  await kernel.commit(batch());
  t.strictSame(await kernel.list(), { ...EMPTY_TABLE, chains: new Set(['first']) });
  await kernel.commit(new Batch());
});

t.test('names and counters are listed, however many, and those of our table alone', async (t) => {
  const { kernel } = open(t);
  t.strictSame(await kernel.list(), EMPTY_TABLE, 'no table');
  nft('add', 'table', 'ip', 'sluice');
  nft('add', 'chain', 'ip', 'sluice', 'foreign');
  nft('add', 'table', 'inet', 'other');
  nft('add', 'chain', 'inet', 'other', 'foreign');
  const names = Array.from({ length: 3_000 }, (_, index) => `name_${index}`);
  const map = (name: string): NumberMap => ({
    name,
    key: 'mark',
    data: 'mark',
    interval: false,
    elements: [],
  });
  const batch = new Batch().addTable();
  for (const name of names) batch.addChain(chain(name)).addMap(map(name)).addCounter(name);
  // Counters and limits of one name are two objects.
  for (const name of names) batch.addLimit({ name, perSecond: 100, burstPackets: 5 });
  await kernel.commit(batch);
  const all = new Set(names);
  t.strictSame(await kernel.list(), { chains: all, maps: all, counters: all, limits: all });
  nft('delete', 'counter', 'inet', 'sluice', 'name_7');
  nft('add', 'counter', 'inet', 'sluice', 'name_7', '{', 'packets', '3', 'bytes', String(2 ** 40 + 1), '}');
  const counters = await kernel.counters();
  t.equal(counters.size, names.length);
  t.strictSame(counters.get('name_7'), { packets: 3n, bytes: 2n ** 40n + 1n });
  t.strictSame(counters.get('name_8'), { packets: 0n, bytes: 0n });
});

/** A request that the kernel carries out and does not acknowledge. */
function unacknowledged(): { bytes: Uint8Array; lastSequence: number; operation: () => string } {
  const { bytes, lastSequence } = new Batch().addTable().finish();
  const flags = bytes.length - 20 - 32 + 6;
  bytes[flags] = bytes[flags]! & ~4;
  return { bytes, lastSequence, operation: () => 'add table' };
}

t.test('an answer that does not come: the outcome is unknown, and the next request works', async (t) => {
  const { connection, kernel } = open(t);
  mock.timers.enable({ apis: ['setTimeout'] });
  t.teardown(() => mock.timers.reset());
  const request = connection.request(unacknowledged());
  let isSettled = false;
  const outcome = rejection(request).finally(() => {
    isSettled = true;
  });
  while (!ruleset().includes('table')) await turn();
  for (let turns = 0; turns < 100; turns++) await turn();
  mock.timers.tick(4_999);
  await turn();
  t.equal(isSettled, false, 'patient');
  mock.timers.tick(1);
  const error = await outcome;
  t.type(error, UnknownOutcomeError);
  t.match(error.message, 'Cannot tell outcome of add table: no answer came');
  t.equal(await kernel.hasTable(), true);
});

t.test('a process that was busy for as long does not take it for silence', async (t) => {
  const { kernel } = open(t);
  const batch = new Batch().addTable();
  for (let index = 0; index < 30_000; index++) batch.addCounter(`counter_number_${index}`);
  await kernel.commit(batch);
  const cell = new Int32Array(new SharedArrayBuffer(4));
  /** Reads so much that it comes in parts, and lets the time be up between them with a part waiting to be read. */
  const readInterrupted = async (): Promise<number> => {
    let timeIsUp: (() => void) | undefined;
    let isSettled = false;
    const { setTimeout } = globalThis;
    const spy = mock.method(globalThis, 'setTimeout', (callback: () => void) => {
      timeIsUp = callback;
      return setTimeout(() => {}, 0);
    });
    const counters = kernel.counters().finally(() => {
      isSettled = true;
    });
    while (timeIsUp === undefined && !isSettled) await turn();
    t.equal(isSettled, false, 'interrupted');
    Atomics.wait(cell, 0, 0, 100);
    timeIsUp!();
    return counters.then(({ size }) => size).finally(() => spy.mock.restore());
  };
  // Where the machine is busy too, no part may have come by then.
  const tries: (number | string)[] = [];
  while (tries.length < 5 && !tries.includes(30_000)) {
    tries.push(await readInterrupted().catch((error: Error) => error.message));
  }
  t.ok(tries.includes(30_000), `${tries}`);
});

/** Lets the kernel do a whole transaction, and put all its answers into the socket, before any is read. */
function blockUntil(happened: () => boolean): void {
  while (!happened());
  // Waits for the transaction before it, answers included.
  nft('add', 'table', 'inet', 'barrier');
}

t.test(
  'answers that did not fit: the outcome is unknown, and what is left of them is for nobody',
  async (t) => {
    const { connection, kernel } = open(t);
    const NLM_F_ECHO = 0x8;
    const batch = filled(marks(150_000));
    const { bytes, lastSequence } = batch.finish();
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 0; at < bytes.length; at += view.getUint32(at, true)) {
      view.setUint16(at + 6, view.getUint16(at + 6, true) | NLM_F_ECHO, true);
    }
    const outcome = rejection(connection.request({ bytes, lastSequence, operation: () => 'add map' }));
    for (let turns = 0; turns < 10; turns++) await turn();
    blockUntil(() => nft('list', 'tables').includes('inet sluice'));
    const error = await outcome;
    t.type(error, UnknownOutcomeError);
    t.match(error.message, 'answers were lost');
    t.strictSame(await kernel.list(), { ...EMPTY_TABLE, maps: new Set(['marks']) });
  },
);

t.test('more errors than fit: the first is told, and what is left of them is for nobody', async (t) => {
  const { kernel } = open(t);
  await kernel.commit(new Batch().addTable().addChain(chain('stays')));
  const batch = new Batch();
  for (let index = 0; index < 100_000; index++) batch.deleteChain(`absent_${index}`);
  const outcome = rejection(kernel.commit(batch));
  for (let turns = 0; turns < 10; turns++) await turn();
  nft('add', 'table', 'inet', 'barrier');
  t.match(await outcome, { code: 'ENOENT', operation: 'delete chain "absent_0"' });
  t.strictSame(await kernel.list(), { ...EMPTY_TABLE, chains: new Set(['stays']) });
});

t.test("answers that come when their request was given up are taken for nobody else's", async (t) => {
  const { kernel } = open(t);
  await kernel.commit(new Batch().addTable().addChain(chain('stays')));
  const batch = new Batch();
  for (let index = 0; index < 100_000; index++) batch.deleteChain(`absent_${index}`);
  mock.timers.enable({ apis: ['setTimeout'] });
  t.teardown(() => mock.timers.reset());
  let isSettled = false;
  const outcome = rejection(kernel.commit(batch)).finally(() => {
    isSettled = true;
  });
  for (let turns = 0; turns < 10; turns++) await turn();
  nft('add', 'table', 'inet', 'barrier');
  while (!isSettled) {
    mock.timers.tick(1_000);
    await turn();
  }
  await outcome;
  mock.timers.reset();
  let unknown = 0;
  const list = async (): Promise<TableContent> =>
    kernel.list().catch((error: Error) => {
      if (!(error instanceof UnknownOutcomeError)) throw error;
      unknown++;
      return list();
    });
  t.strictSame((await list()).chains, new Set(['stays']), `answered after ${unknown} that were not`);
});

t.test('a batch of 20 MB does not block the event loop', async (t) => {
  const { kernel } = open(t);
  const elements = Array.from({ length: 280_000 }, (_, index) => {
    const first = BigInt(index) << 64n;
    return { first, last: first + 1n, data: index };
  });
  const map: NumberMap = { name: 'large', key: 'ipv6_addr', data: 'mark', interval: true, elements };
  const batch = filled(map);
  t.ok(batch.bytes > 20 << 20, `${batch.bytes} bytes`);
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  const committed = kernel.commit(batch);
  const ticksBefore = ticks;
  await committed;
  clearInterval(timer);
  t.ok(ticks - ticksBefore >= 20, `${ticks} ticks of a timer meanwhile`);
  t.strictSame((await kernel.list()).maps, new Set(['large']));
});

t.test('requests are carried out in their order, each with its own outcome', async (t) => {
  const { kernel } = open(t);
  const ended: string[] = [];
  const note = (name: string) => () => void ended.push(name);
  const requests = [
    kernel.commit(new Batch().addTable().addCounter('a')).then(note('add')),
    kernel.commit(new Batch().deleteChain('absent')).catch(note('refused')),
    kernel.counters().then((counters) => ended.push(`has ${[...counters.keys()]}`)),
    kernel.commit(new Batch().deleteCounter('a')).then(note('delete')),
    kernel.counters().then((counters) => ended.push(`has ${[...counters.keys()]}`)),
  ];
  await Promise.all(requests);
  t.strictSame(ended, ['add', 'refused', 'has a', 'delete', 'has ']);
});

t.test('close with a request under way and one behind it', async (t) => {
  const { connection, kernel } = open(t);
  const batch = new Batch().addTable();
  for (let index = 0; index < 20_000; index++) batch.addChain(chain(`chain_${index}`));
  const first = rejection(kernel.commit(batch));
  const second = rejection(kernel.hasTable());
  for (let turns = 0; turns < 3; turns++) await turn();
  connection.close();
  const error = await first;
  t.type(error, UnknownOutcomeError);
  t.match(error.message, 'the connection was closed');
  t.type(await second, SocketClosedError);
  t.type(await rejection(kernel.hasTable()), SocketClosedError, 'and one after it');
  connection.close();
});

t.test('watches are told of what others change, whatever we change ourselves', async (t) => {
  const { kernel } = open(t);
  const drift: string[] = [];
  const watch = watchTable(kernel.portId, (kind) => drift.push(kind));
  let looks = 0;
  const foreign = watchForeign(kernel.portId, async () => {
    looks++;
  });
  t.teardown(() => {
    watch.close();
    foreign.close();
  });
  const committed = kernel.commit(filled(marks(400_000)));
  await turn();
  // Meanwhile nobody reads: what the kernel tells is more than buffers hold.
  here.run('sleep', ['2']);
  await committed;
  nft('add', 'chain', 'inet', 'sluice', 'foreign');
  await until('the foreign change', () => drift.length > 0);
  t.strictSame(drift, ['chain'], 'nothing of our own, nor that any of it was lost');
  await delay(SETTLED_MS);
  t.equal(looks, 0);
  nft('add', 'table', 'inet', 'other');
  await until('a look at tables of others', () => looks > 0);
});
