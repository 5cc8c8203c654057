import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import {
  NetlinkSocket,
  NetlinkSystemError,
  probeTcp,
  resetTcp,
  SocketClosedError,
  type SocketOptions,
} from './index.js';

const NETLINK_ROUTE = 0;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const RTM_GETLINK = 18;
const TYPE_UNKNOWN = 1000;
const REQUEST_ACK = 0x005;
const REQUEST_DUMP = 0x301;
const EOPNOTSUPP = 95;

/** One message: header, then `payloadBytes` zeros. */
function message(type: number, flags: number, sequence: number, payloadBytes: number): Uint8Array {
  const bytes = new Uint8Array(16 + payloadBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, flags, true);
  view.setUint32(8, sequence, true);
  return bytes;
}

const linkDump = (sequence: number) => message(RTM_GETLINK, REQUEST_DUMP, sequence, 4);

interface Header {
  readonly type: number;
  readonly sequence: number;
  readonly portId: number;
  readonly error: number;
}

/** Every header in a delivery; throws unless the messages fill it exactly. */
function headers(bytes: Uint8Array): Header[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const found: Header[] = [];
  let at = 0;
  while (at < bytes.length) {
    const length = view.getUint32(at, true);
    if (length < 16 || at + length > bytes.length) throw new RangeError(`length ${length} at ${at}`);
    const type = view.getUint16(at + 4, true);
    const error = type === NLMSG_ERROR ? -view.getInt32(at + 16, true) : 0;
    found.push({
      type,
      sequence: view.getUint32(at + 8, true),
      portId: view.getUint32(at + 12, true),
      error,
    });
    at += (length + 3) & ~3;
  }
  return found;
}

interface Received {
  readonly bytes: Uint8Array;
  readonly lost: number;
}

/** A socket, and a way to wait for the delivery that makes `enough` true. */
function listening(options: Partial<SocketOptions> = {}) {
  const received: Received[] = [];
  let wake = () => {};
  const onReceive = (bytes: Uint8Array, lost: number) => {
    received.push({ bytes, lost });
    wake();
  };
  const socket = new NetlinkSocket({ protocol: NETLINK_ROUTE, onReceive, ...options });
  const until = async (enough: (all: readonly Received[]) => boolean) => {
    while (!enough(received)) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    return received;
  };
  return { socket, received, until };
}

const all = (received: readonly Received[]) => received.flatMap(({ bytes }) => headers(bytes));
const lost = (received: readonly Received[]) => received.reduce((sum, one) => sum + one.lost, 0);

/**
 * A process that ends while V8 compiles or collects in the background may hang (nodejs/node#54918), and these end at
 * odd moments: without background threads. Nor are the test runner's own options theirs.
 */
const CHILD = { flags: ['--single-threaded'], env: { ...process.env, NODE_OPTIONS: '' }, timeoutMs: 60_000 };

/** Runs a script of this package's user in a process of its own. */
function child(script: string, ...flags: string[]) {
  const text = `import { NetlinkSocket } from ${JSON.stringify(new URL('./index.js', import.meta.url).href)};
    const dump = new Uint8Array([20,0,0,0, 18,0, 1,3, 1,0,0,0, 0,0,0,0, 0,0,0,0]);
    ${script}`;
  const run = spawnSync(process.execPath, [...CHILD.flags, ...flags, '--input-type=module', '-e', text], {
    encoding: 'utf8',
    env: CHILD.env,
    timeout: CHILD.timeoutMs,
  });
  return { status: run.status, signal: run.signal, stdout: run.stdout, stderr: run.stderr };
}

t.test('wrong arguments are refused before anything is opened', async (t) => {
  const onReceive = () => {};
  const wrong: [object, ErrorConstructor, string][] = [
    [{ protocol: '0', onReceive }, TypeError, 'protocol is a string, not a number'],
    [{ protocol: 32, onReceive }, RangeError, 'protocol is 32, not an integer from 0 to 31'],
    [{ protocol: 0.5, onReceive }, RangeError, 'protocol is 0.5'],
    [{ protocol: Number.NaN, onReceive }, RangeError, 'protocol is NaN'],
    [{ protocol: 0 }, TypeError, 'onReceive is a undefined, not a function'],
    [{ protocol: 0, onReceive, coalesceMs: -1 }, RangeError, 'coalesceMs is -1'],
    [{ protocol: 0, onReceive, receiveBufferBytes: 2 ** 30 }, RangeError, 'receiveBufferBytes is 1073741824'],
    [{ protocol: 0, onReceive, sendBufferBytes: 0 }, RangeError, 'sendBufferBytes is 0'],
  ];
  for (const [options, type, text] of wrong) {
    const refused = () => new NetlinkSocket(options as SocketOptions);
    t.throws(refused, { constructor: type, message: new RegExp(text) }, text);
  }
  const { socket } = listening();
  t.throws(() => socket.ignore(-1), RangeError);
  t.throws(() => socket.join(0), RangeError);
  t.throws(() => socket.leave(2 ** 31), RangeError);
  t.throws(() => socket.setOption(10, 2 ** 31), RangeError);
  await t.rejects(socket.send([] as unknown as Uint8Array), TypeError);
  socket.close();
});

t.test('wrong ends and numbers of a TCP connection are refused', async (t) => {
  const end = (bytes: number, port: number) => ({ address: new Uint8Array(bytes), port });
  t.throws(() => probeTcp(end(5, 1), end(4, 1)), { message: /an address has 5 bytes, not 4 or 16/ });
  t.throws(() => probeTcp(end(4, 1), end(4, 65_536)), RangeError);
  const reset = { source: end(4, 1), destination: end(4, 1), sequence: 0, acknowledgement: 0, mark: 0 };
  t.throws(() => resetTcp({ ...reset, sequence: -1 }), { message: /sequence is -1/ });
  t.throws(() => resetTcp({ ...reset, acknowledgement: 2 ** 32 }), RangeError);
  t.throws(() => resetTcp({ ...reset, mark: 0.5 }), RangeError);
});

t.test('system errors carry operation, number and name', async (t) => {
  const { socket } = listening({ sendBufferBytes: 4096 });
  t.throws(() => socket.join(100_000), {
    constructor: NetlinkSystemError,
    operation: 'join',
    code: 'EINVAL',
  });
  t.throws(() => socket.setOption(9999, 1), { operation: 'set option', errno: 92, code: 'ENOPROTOOPT' });
  await t.rejects(socket.send(new Uint8Array(1 << 20)), { operation: 'send', errno: 90, code: 'EMSGSIZE' });
  t.throws(() => listening({ protocol: 31 }), { operation: 'open', code: 'EPROTONOSUPPORT' });
  t.match(
    new NetlinkSystemError('send', 1).message,
    'Cannot send: the netlink socket says EPERM, operation not',
  );
  t.equal(new NetlinkSystemError('send', 4000).code, 'E4000');
  socket.close();
});

t.test('a dump arrives whole, and what was received stays as it was', async (t) => {
  const { socket, until } = listening({ receiveBufferBytes: 1 << 20 });
  t.ok(socket.receiveBufferBytes > 4096, 'granted by the kernel');
  const done = (sequence: number) => (received: readonly Received[]) =>
    all(received).some((header) => header.type === NLMSG_DONE && header.sequence === sequence);
  await socket.send(linkDump(1));
  const first = [...(await until(done(1)))];
  const before = first.map(({ bytes }) => bytes.slice());
  for (let sequence = 2; sequence < 12; sequence++) {
    await socket.send(linkDump(sequence));
    await until(done(sequence));
  }
  t.strictSame(
    first.map(({ bytes }) => bytes),
    before,
    'eleven receives later',
  );
  for (const header of all(await until(() => true))) t.equal(header.portId, socket.portId);
  socket.close();
});

t.test('sends keep their order; one that fails does not stop those behind it', async (t) => {
  const { socket, until } = listening({ coalesceMs: 1, receiveBufferBytes: 1 << 20 });
  const sends = Array.from({ length: 200 }, (_, index) =>
    socket.send(
      index === 100 ? new Uint8Array(1 << 30) : message(TYPE_UNKNOWN, REQUEST_ACK, index, 3 + (index % 4)),
    ),
  );
  const outcomes = await Promise.allSettled(sends);
  t.strictSame(
    outcomes.flatMap(({ status }, index) => (status === 'rejected' ? [index] : [])),
    [100],
  );
  const answers = all(await until((received) => all(received).length === 199));
  t.strictSame(
    answers.map(({ sequence }) => sequence),
    Array.from({ length: 200 }, (_, index) => index).filter((index) => index !== 100),
  );
  t.ok(answers.every(({ type, error }) => type === NLMSG_ERROR && error === EOPNOTSUPP));
  socket.close();
});

t.test('a datagram that is too long is a loss; one below the limit is whole', async (t) => {
  const { socket, until } = listening({ sendBufferBytes: 1 << 18, receiveBufferBytes: 1 << 20 });
  const longest = 100_000;
  await socket.send(message(TYPE_UNKNOWN, REQUEST_ACK, 1, longest));
  t.equal((await until((received) => received.length === 1))[0]!.bytes.length, 16 + 4 + 16 + longest);
  await socket.send(message(TYPE_UNKNOWN, REQUEST_ACK, 2, 140_000));
  t.strictSame((await until((received) => received.length === 2))[1], { bytes: new Uint8Array(0), lost: 1 });
  await socket.send(message(TYPE_UNKNOWN, REQUEST_ACK, 3, 4));
  t.equal(all((await until((received) => received.length === 3)).slice(2))[0]!.sequence, 3);
  socket.close();
});

t.test('what overflows the receive buffer is counted, and reading goes on', async (t) => {
  const flood = new Uint8Array(200_000);
  const one = message(TYPE_UNKNOWN, REQUEST_ACK, 7, 4);
  for (let at = 0; at < flood.length; at += one.length) flood.set(one, at);
  for (const noEnobufs of [false, true]) {
    const { socket, received, until } = listening({
      receiveBufferBytes: 1,
      sendBufferBytes: 1 << 20,
      coalesceMs: 50,
      noEnobufs,
    });
    await socket.send(flood);
    await until(() => received.length > 0);
    await new Promise((resolve) => setTimeout(resolve, 100));
    t.ok(all(received).length < flood.length / one.length, 'some answers are missing');
    await socket.send(message(TYPE_UNKNOWN, REQUEST_ACK, 8, 4));
    await until(() => all(received).some(({ sequence }) => sequence === 8));
    t.equal(lost(received) > 0, !noEnobufs, `told: ${!noEnobufs}`);
    socket.close();
  }
});

t.test('after close', async (t) => {
  const { socket, received } = listening();
  await socket.send(linkDump(1));
  t.equal(socket.closed, false);
  socket.close();
  socket.close();
  t.equal(socket.closed, true);
  t.throws(() => socket.ignore(1), SocketClosedError);
  t.throws(() => socket.join(1), SocketClosedError);
  t.throws(() => socket.leave(1), SocketClosedError);
  t.throws(() => socket.setOption(10, 1), SocketClosedError);
  t.throws(() => socket.unref(), SocketClosedError);
  await t.rejects(socket.send(linkDump(2)), { constructor: SocketClosedError, message: /closed/ });
  const count = received.length;
  await new Promise((resolve) => setTimeout(resolve, 20));
  t.equal(received.length, count, 'nothing is received any more');

  const { socket: queued } = listening();
  const sends = [queued.send(linkDump(1)), queued.send(linkDump(2))];
  queued.close();
  for (const send of sends) await t.rejects(send, SocketClosedError, 'not yet begun');
});

t.test('close within onReceive, and at any moment while deliveries wait', async (t) => {
  await new Promise<void>((resolve) => {
    const socket = new NetlinkSocket({
      protocol: NETLINK_ROUTE,
      onReceive: () => {
        t.equal(socket.closed, false, 'once');
        socket.close();
        resolve();
      },
    });
    for (let sequence = 0; sequence < 20; sequence++) void socket.send(linkDump(sequence)).catch(() => {});
  });
  for (let round = 0; round < 200; round++) {
    const { socket } = listening();
    const send = socket.send(linkDump(round)).catch((error) => t.ok(error instanceof SocketClosedError));
    if (round % 3 > 0)
      await new Promise((resolve) => (round % 3 === 1 ? setImmediate(resolve) : resolve(send)));
    const until = process.hrtime.bigint() + BigInt(round * 1000);
    while (process.hrtime.bigint() < until);
    socket.close();
    await send;
  }
});

t.test('processes end at every stage', async (t) => {
  const open = 'const socket = new NetlinkSocket({ protocol: 0, onReceive() { globalThis.got?.() } });';
  const stages: Record<string, [string, number]> = {
    'open, exit': [`${open} process.exit(3)`, 3],
    'open, unref': [`${open} socket.unref();`, 0],
    'exit with a send in flight': [`${open} socket.send(dump); await null; await null; process.exit(3)`, 3],
    'exit while deliveries wait': [
      `${open} for (let i = 0; i < 50; i++) await socket.send(dump); process.exit(3)`,
      3,
    ],
    'exit within onReceive': [`${open} globalThis.got = () => process.exit(3); socket.send(dump)`, 3],
    'end while receiving': [
      `${open} socket.unref(); for (let i = 0; i < 50; i++) await socket.send(dump)`,
      0,
    ],
    'onReceive throws': [
      `${open} globalThis.got = () => { throw new Error('from within') }; socket.send(dump)`,
      1,
    ],
    'stays alive until close': [`${open} globalThis.got = () => socket.close(); socket.send(dump)`, 0],
    'fails to open': [
      `try { new NetlinkSocket({ protocol: 31, onReceive() {} }) } catch { process.exit(3) }`,
      3,
    ],
  };
  for (const [name, [script, status]] of Object.entries(stages)) {
    const run = child(script);
    t.strictSame({ status: run.status, signal: run.signal }, { status, signal: null }, name);
    if (name === 'onReceive throws') t.match(run.stderr, 'Error: from within');
    else t.equal(run.stderr, '', `${name}: nothing to say`);
  }
});

t.test('a socket that nobody refers to is collected with its thread and descriptors', async (t) => {
  const run = child(
    `import { readdirSync } from 'node:fs';
    const count = () => ['fd', 'task'].map((kind) => readdirSync('/proc/self/' + kind).length);
    const turn = () => new Promise((resolve) => setTimeout(resolve, 20));
    const open = () => new NetlinkSocket({ protocol: 0, onReceive() {} });
    const first = async () => { const socket = open(); await socket.send(dump); socket.close(); };
    await first();
    await turn();
    const before = count();
    const fifty = () => {
      for (let i = 0; i < 50; i++) {
        const socket = open();
        if (i % 2) socket.send(dump).catch(() => {});
        if (i % 5 === 0) socket.close();
      }
    };
    fifty();
    const during = count();
    for (let i = 0; i < 20; i++) { await turn(); gc(); }
    console.log(JSON.stringify({ before, during, after: count() }));
    process.exit(0);`,
    '--expose-gc',
  );
  t.equal(run.status, 0, run.stderr);
  const { before, during, after } = JSON.parse(run.stdout);
  t.ok(
    during[0] >= before[0] + 80 && during[1] >= before[1] + 40,
    `open meanwhile: ${during} after ${before}`,
  );
  t.strictSame(after, before);
});

t.test('workers end while they receive and send', async (t) => {
  const index = JSON.stringify(new URL('./index.js', import.meta.url).href);
  const script = `import { parentPort } from 'node:worker_threads';
    import { NetlinkSocket } from ${index};
    const dump = new Uint8Array([20,0,0,0, 18,0, 1,3, 1,0,0,0, 0,0,0,0, 0,0,0,0]);
    const sockets = [0, 1, 2].map(() => new NetlinkSocket({ protocol: 0, onReceive() {} }));
    parentPort.postMessage('open');
    for (;;) await Promise.all(sockets.map((socket) => socket.send(dump)));`;
  for (let round = 0; round < 20; round++) {
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(script)}`));
    await once(worker, 'message');
    if (round % 2 === 1) await new Promise((resolve) => setTimeout(resolve, round));
    t.equal(await worker.terminate(), 1);
  }
});
