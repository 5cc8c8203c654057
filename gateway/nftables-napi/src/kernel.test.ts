// What needs privilege: this file runs itself again in a network namespace of its own.
import { execFileSync, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { ethtoolStats, NetlinkSocket, SocketClosedError } from './index.js';

const NETLINK_ROUTE = 0;
const NETLINK_NETFILTER = 12;
const NLMSG_ERROR = 2;
const NFNL_MSG_BATCH_BEGIN = 16;
const NFNL_MSG_BATCH_END = 17;
const NFT_MSG_NEWTABLE = 0xa00;
const NFT_MSG_GETTABLE = 0xa01;
const NFT_MSG_NEWSET = 0xa09;
const NFT_MSG_NEWSETELEM = 0xa0c;
const REQUEST = 1;
const ACK = 4;
const CREATE = 0x400;
const INET = 1;

const INDEX = new URL('./index.js', import.meta.url).href;
/** How many times as long as elsewhere to wait. */
const PATIENCE = Number(process.env.TEST_PATIENCE ?? 1);
const INSIDE = 'NFTABLES_NAPI_TEST_NAMESPACE';

function u32be(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** One attribute, padded; nested where it has several parts. */
function attribute(type: number, ...parts: Buffer[]): Buffer {
  const length = 4 + parts.reduce((sum, part) => sum + part.length, 0);
  const bytes = Buffer.alloc((length + 3) & ~3);
  bytes.writeUInt16LE(length, 0);
  bytes.writeUInt16LE(type, 2);
  let at = 4;
  for (const part of parts) at += part.copy(bytes, at);
  return bytes;
}

/** One nfnetlink message: header, `struct nfgenmsg`, attributes. */
function message(type: number, flags: number, ...attributes: Buffer[]): Buffer {
  const bytes = Buffer.concat([Buffer.alloc(20), ...attributes]);
  bytes.writeUInt32LE(bytes.length, 0);
  bytes.writeUInt16LE(type, 4);
  bytes.writeUInt16LE(flags | REQUEST, 6);
  bytes[16] = INET;
  if (type === NFNL_MSG_BATCH_BEGIN || type === NFNL_MSG_BATCH_END) bytes.writeUInt16BE(10, 18);
  return bytes;
}

const text = (value: string) => Buffer.from(`${value}\0`);
/** nf_tables' NFTA_*_TABLE, NFTA_*_NAME and so on are all numbered from 1. */
const table = (name: string) => attribute(1, text(name));

/** The most that an element can carry along (`NFT_USERDATA_MAXLEN`): many bytes, little work. */
const USERDATA = Buffer.alloc(256, 'u');
/** A nested attribute holds 65,535 bytes. */
const ELEMENTS_A_MESSAGE = 200;

/** A batch that makes a table with a set of so many addresses, 276 bytes each. */
function batch(name: string, elements: number): Buffer {
  const set = [table(name), attribute(2, text('s'))];
  const properties = [attribute(4, u32be(7)), attribute(5, u32be(4)), attribute(10, u32be(1))];
  const size = attribute(9 | 0x8000, attribute(1, u32be(elements + 1)));
  const messages = [
    message(NFNL_MSG_BATCH_BEGIN, 0),
    message(NFT_MSG_NEWTABLE, CREATE, table(name)),
    message(NFT_MSG_NEWSET, CREATE, ...set, ...properties, size),
  ];
  for (let first = 0; first < elements; first += ELEMENTS_A_MESSAGE) {
    const count = Math.min(ELEMENTS_A_MESSAGE, elements - first);
    const list = Array.from({ length: count }, (_, index) => {
      const key = attribute(1 | 0x8000, attribute(1, u32be(first + index)));
      return attribute(1 | 0x8000, key, attribute(6, USERDATA));
    });
    messages.push(message(NFT_MSG_NEWSETELEM, CREATE, ...set, attribute(3 | 0x8000, ...list)));
  }
  // 6.18 answers the end of a batch, 6.1 does not: the message before it asks for the acknowledgement.
  const last = messages.at(-1)!;
  last.writeUInt16LE(last.readUInt16LE(6) | ACK, 6);
  messages.push(message(NFNL_MSG_BATCH_END, 0));
  return Buffer.concat(messages);
}

/** A netfilter socket that resolves with the errno of the next answer. */
function requester() {
  let answer = (_errno: number) => {};
  const socket = new NetlinkSocket({
    protocol: NETLINK_NETFILTER,
    sendBufferBytes: 64 << 20,
    onReceive(bytes) {
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      answer(view.getUint16(4, true) === NLMSG_ERROR ? Math.abs(view.getInt32(16, true)) : 0);
    },
  });
  const request = async (bytes: Uint8Array) => {
    const answered = new Promise<number>((resolve) => {
      answer = resolve;
    });
    await socket.send(bytes);
    return answered;
  };
  return { socket, request };
}

/** Asks for one table: `nft list tables` would list every element of every set, for minutes. */
async function exists(name: string): Promise<boolean> {
  const { socket, request } = requester();
  const errno = await request(message(NFT_MSG_GETTABLE, 0, table(name)));
  socket.close();
  return errno === 0;
}

function tests(): void {
  t.test('batches from a few bytes to 20 MB, the event loop turning meanwhile', async (t) => {
    const { socket, request } = requester();
    t.equal(await request(batch('small', 0)), 0);
    t.equal(await request(batch('some', 1000)), 0);
    const big = batch('big', 76_000);
    t.ok(big.length > 20e6, `${big.length} bytes`);
    let turned = false;
    setImmediate(() => {
      turned = true;
    });
    t.equal(await request(big), 0);
    t.equal(turned, true, 'the event loop turned while the kernel worked');
    for (const name of ['small', 'some', 'big']) t.ok(await exists(name), name);
    t.equal(
      await request(message(NFT_MSG_NEWTABLE, ACK | CREATE, table('alone'))),
      22,
      'EINVAL: not a batch',
    );
    socket.close();
  });

  t.test('a batch in flight is finished after close; what is queued behind it is not', async (t) => {
    const { socket } = requester();
    const flying = socket.send(batch('flying', 76_000));
    const queued = t.rejects(socket.send(batch('queued', 0)), SocketClosedError);
    await new Promise((resolve) => setImmediate(resolve));
    socket.close();
    await flying;
    await queued;
    t.ok(await exists('flying'));
    t.notOk(await exists('queued'));
  });

  t.test('a process that exits with a batch in flight', async (t) => {
    const script = `import { NetlinkSocket } from '${INDEX}';
      import { readFileSync } from 'node:fs';
      const socket = new NetlinkSocket({ protocol: 12, sendBufferBytes: 64 << 20, onReceive() {} });
      socket.send(readFileSync(0));
      setImmediate(() => process.exit(3));`;
    // Without background threads: Node may hang at its end while V8 works in one (nodejs/node#54918).
    const run = spawnSync(process.execPath, ['--single-threaded', '--input-type=module', '-e', script], {
      input: batch('left', 76_000),
      encoding: 'utf8',
      env: { ...process.env, NODE_OPTIONS: '' },
      timeout: 60_000 * PATIENCE,
    });
    t.strictSame([run.status, run.signal, run.stderr], [3, null, '']);
    t.ok(await exists('left'), 'libuv waits for its threads: the transaction is whole');
  });

  t.test('events of a group arrive, until it is left; those that do not fit are counted', async (t) => {
    const RTNLGRP_LINK = 1;
    let events = 0;
    let losses = 0;
    const listen = (receiveBufferBytes: number, coalesceMs: number) =>
      new NetlinkSocket({
        protocol: NETLINK_ROUTE,
        receiveBufferBytes,
        coalesceMs,
        onReceive(bytes, lost) {
          events += bytes.length > 0 ? 1 : 0;
          losses += lost;
        },
      });
    const flip = (times: number) => {
      const lines = Array.from({ length: times }, (_, index) => `link set lo mtu ${2000 + index}`);
      execFileSync('ip', ['-batch', '-'], { input: lines.join('\n') });
    };
    const settle = () => new Promise((resolve) => setTimeout(resolve, 300 * PATIENCE));

    const socket = listen(8 << 20, 0);
    t.ok(socket.receiveBufferBytes >= 16 << 20, 'beyond rmem_max');
    socket.join(RTNLGRP_LINK);
    flip(100);
    await settle();
    t.ok(events > 0);
    t.equal(losses, 0);
    socket.leave(RTNLGRP_LINK);
    const before = events;
    flip(100);
    await settle();
    t.equal(events, before, 'nothing after leave');
    socket.close();

    const small = listen(1, 100);
    small.join(RTNLGRP_LINK);
    flip(200);
    await settle();
    t.ok(losses > 0, `${losses} losses`);
    small.close();
  });

  t.test('datagrams of any length start at multiples of four, zeros between them', async (t) => {
    const NETLINK_KOBJECT_UEVENT = 15;
    const received: Buffer[] = [];
    const socket = new NetlinkSocket({
      protocol: NETLINK_KOBJECT_UEVENT,
      coalesceMs: 50,
      onReceive: (bytes) => received.push(Buffer.from(bytes)),
    });
    socket.join(1);
    const names = ['v', 'vv', 'vvv', 'vvvv', 'vvvvv'];
    for (const name of names)
      execFileSync('ip', ['link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}p`]);
    const added = () => received.flatMap((bytes) => [...bytes.toString('latin1').matchAll(/add@[^\0]*/g)]);
    const wanted = names.flatMap((name) => [name, `${name}p`]);
    const isThere = (name: string) => added().some(([text]) => text.endsWith(`/net/${name}`));
    while (!wanted.every(isThere)) await new Promise((resolve) => setTimeout(resolve, 5));
    socket.close();
    t.strictSame([...new Set(added().map(({ index }) => index % 4))], [0]);
    // Each field of an event ends with one zero, each event with up to three more.
    for (const bytes of received) t.notMatch(bytes.toString('latin1'), /[^\0]\0{5}|[\x01-\x1f]/);
    t.ok(received.every((bytes) => bytes.length % 4 === 0));
  });

  t.test('datagrams of another process are ignored', async (t) => {
    const received: Uint8Array[] = [];
    const socket = new NetlinkSocket({
      protocol: NETLINK_NETFILTER,
      onReceive: (bytes) => received.push(bytes),
    });
    const forged = message(NFT_MSG_NEWTABLE, 0, table('forged'));
    const script = `import socket, sys
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
s.bind((0, 0))
s.sendto(sys.stdin.buffer.read(), (${socket.portId}, 0))`;
    execFileSync('python3', ['-c', script], { input: forged });
    await socket.send(message(NFT_MSG_GETTABLE, ACK, table('absent')));
    while (received.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    t.equal(Buffer.concat(received).includes('forged'), false);
    t.equal(Buffer.concat(received).readUInt16LE(4), NLMSG_ERROR, 'the answer of the kernel');
    socket.close();
  });

  t.test('without privilege: the socket opens, the kernel refuses by name', async (t) => {
    const script = `import { NetlinkSocket } from '${INDEX}';
      process.setgroups([]); process.setgid(65534); process.setuid(65534);
      const socket = new NetlinkSocket({ protocol: 12, receiveBufferBytes: 64 << 20, onReceive() {} });
      if (socket.receiveBufferBytes >= 64 << 20) throw new Error('granted ' + socket.receiveBufferBytes);
      try { socket.join(1); } catch (error) { console.log(error.operation, error.code, error.errno); }
      socket.close();`;
    // By a shell that clears what the test runner puts into the environment of every process: it writes files.
    const shell = ['-c', 'NODE_OPTIONS= exec "$0" "$@"', process.execPath];
    const args = [...shell, '--single-threaded', '--input-type=module', '-e', script];
    const run = spawnSync('sh', args, { encoding: 'utf8', timeout: 60_000 * PATIENCE });
    t.strictSame([run.status, run.stdout, run.stderr], [0, 'join EPERM 1\n', '']);
  });
}

/** Runs a script with these capabilities and no others: what it prints. */
function confined(capabilities: string, script: string): string {
  const text = `import { probeTcp, resetTcp } from '${INDEX}';
    const end = (port, ...address) => ({ address: Uint8Array.from(address), port });
    const numbers = { sequence: 1, acknowledgement: 2 ** 32 - 1, mark: 2 ** 32 - 1 };
    const attempt = (act) => { try { act(); return 'done'; } catch (error) { return error.code; } };
    console.log(${script});`;
  const own = ['--single-threaded', '--input-type=module', '-e', text];
  const limits = [`--bounding-set=-all${capabilities}`, `--inh-caps=-all${capabilities}`];
  const shell = ['sh', '-c', 'NODE_OPTIONS= exec "$0" "$@"', process.execPath, ...own];
  return execFileSync('setpriv', [...limits, ...shell], { encoding: 'utf8', timeout: 60_000 }).trim();
}

function tcpTests(): void {
  t.test('speaking for an end of a TCP connection needs CAP_NET_ADMIN and no more', async (t) => {
    execFileSync('ip', ['link', 'set', 'lo', 'up']);
    const foreign = 'end(40000, 192, 0, 2, 9)';
    const here = 'end(443, 127, 0, 0, 1)';
    const foreign6 = 'end(40000, ...Array(15).fill(7), 9)';
    const here6 = 'end(443, ...Array(15).fill(0), 1)';
    const all = [
      `attempt(() => resetTcp({ source: ${foreign}, destination: ${here}, ...numbers }))`,
      `attempt(() => probeTcp(${foreign}, ${here}))`,
      `attempt(() => resetTcp({ source: ${foreign6}, destination: ${here6}, ...numbers }))`,
      `attempt(() => probeTcp(${foreign6}, ${here6}))`,
    ].join();
    t.equal(confined(',+net_admin', all), 'done done done done');
    t.equal(confined('', all), 'EPERM EPERM EPERM EPERM');
    const privileged = `attempt(() => probeTcp(end(80, 192, 0, 2, 9), ${here}))`;
    t.equal(confined(',+net_admin', privileged), 'EACCES');
    t.equal(confined(',+net_admin,+net_bind_service', privileged), 'done');
  });
}

function ethtoolTests(): void {
  t.test('statistics of a driver by its own names, in this namespace', async (t) => {
    execFileSync('ip', ['link', 'add', 'stats0', 'type', 'veth', 'peer', 'name', 'stats1']);
    const links = JSON.parse(execFileSync('ip', ['-j', 'link', 'show']).toString()) as {
      readonly ifname: string;
      readonly ifindex: number;
    }[];
    const indexOf = (name: string) => BigInt(links.find(({ ifname }) => ifname === name)!.ifindex);
    const [first, second] = [ethtoolStats('stats0'), ethtoolStats('stats1')];
    t.equal(first.get('peer_ifindex'), indexOf('stats1'));
    t.equal(second.get('peer_ifindex'), indexOf('stats0'));
    t.ok(first.size > 1, 'veth counts for each queue too');
    t.throws(() => ethtoolStats('none0'), { code: 'ENODEV', operation: 'read statistics' });
    t.equal(ethtoolStats('lo').size, 0, 'its driver counts nothing');
    t.throws(() => ethtoolStats('a234567890123456'), RangeError);
  });
}

if (process.env[INSIDE] !== undefined) {
  tests();
  tcpTests();
  ethtoolTests();
} else if (process.getuid?.() !== 0) {
  t.pass('everything', { skip: 'needs root, to make a network namespace' });
} else {
  const self = [process.execPath, ...process.execArgv, fileURLToPath(import.meta.url)];
  const env = { ...process.env, [INSIDE]: '1' };
  const run = spawnSync('unshare', ['--net', ...self], { stdio: 'inherit', env });
  if (run.error !== undefined) throw run.error;
  process.exitCode = run.status ?? 1;
}
