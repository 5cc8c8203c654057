// The codecs of conntrack, nflog and routing rules before a real kernel, with the usual tools as judges. This
// file runs itself again in a network namespace of its own.
import { execFileSync, spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { NetlinkSocket } from 'nftables-napi';
import t, { type Test } from 'tap';
import { parseAddress } from '../net/address.js';
import { NETLINK_NETFILTER, NETLINK_ROUTE, NetlinkConnection } from '../netlink/connection.js';
import { type Message, readMessages } from '../netlink/reader.js';
import { MessageWriter } from '../netlink/writer.js';
import { decodePacket, type NflogPacket } from '../nflog/decode.js';
import { encodeBind } from '../nflog/encode.js';
import {
  type BlackholeRule,
  decodeRule,
  encodeAddRule,
  encodeDeleteRule,
  encodeDumpRules,
  RTNLGRP_IPV4_RULE,
  RTNLGRP_IPV6_RULE,
} from '../route/rule.js';
import { type Connection, type ConntrackEvent, decodeEntry, decodeEvent } from './decode.js';
import { encodeDelete, encodeDump, encodeGet } from './encode.js';
import { NFNLGRP_CONNTRACK_DESTROY, NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_UPDATE } from './groups.js';
import type { Tuple } from './tuple.js';

const INSIDE = 'SLUICE_TEST_NAMESPACE';

const tool = (...command: string[]) =>
  execFileSync(command[0]!, command.slice(1), { encoding: 'utf8', stdio: 'pipe' });

/** Sends one request, whose sequence number is 1, and gives its answer. */
function asking(connection: NetlinkConnection) {
  return (write: (writer: MessageWriter, sequence: number) => void): Promise<readonly Message[]> => {
    const writer = new MessageWriter();
    write(writer, 1);
    return connection.request({ bytes: writer.bytes(), lastSequence: 1, operation: () => 'ask' });
  };
}

/** Keeps what a socket receives, and waits until there is enough of it. */
function listening<Event>(
  protocol: number,
  groups: readonly number[],
  decode: (message: Message) => Event | undefined,
) {
  const events: Event[] = [];
  let wake = () => {};
  const socket = new NetlinkSocket({
    protocol,
    onReceive(bytes) {
      for (const message of readMessages(bytes)) {
        const event = decode(message);
        if (event !== undefined) events.push(event);
      }
      wake();
    },
  });
  for (const group of groups) socket.join(group);
  const until = async (count: number) => {
    while (events.length < count) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    return events;
  };
  return { socket, until };
}

const CONNTRACK_GROUPS = [NFNLGRP_CONNTRACK_NEW, NFNLGRP_CONNTRACK_UPDATE, NFNLGRP_CONNTRACK_DESTROY];

const ENTRIES: readonly [string, readonly string[]][] = [
  [
    'tcp',
    ['-s', '10.0.0.5', '-d', '10.0.0.9', '--sport', '1000', '--dport', '443', '--state', 'ESTABLISHED'],
  ],
  ['udp', ['-s', '10.0.0.5', '-d', '10.0.0.9', '--sport', '1001', '--dport', '53']],
  [
    'tcp',
    ['-s', '2001:db8::5', '-d', '2001:db8::9', '--sport', '1002', '--dport', '443', '--state', 'SYN_SENT'],
  ],
  ['icmp', ['-s', '10.0.0.5', '-d', '10.0.0.9', '--icmp-type', '8', '--icmp-code', '0', '--icmp-id', '77']],
  [
    'icmpv6',
    [
      '-s',
      '2001:db8::5',
      '-d',
      '2001:db8::9',
      '--icmpv6-type',
      '128',
      '--icmpv6-code',
      '0',
      '--icmpv6-id',
      '78',
    ],
  ],
  [
    'sctp',
    [
      '-s',
      '10.0.0.5',
      '-d',
      '10.0.0.9',
      '--orig-port-src',
      '1003',
      '--orig-port-dst',
      '5000',
      '--state',
      'ESTABLISHED',
      '--orig-vtag',
      '1',
      '--reply-vtag',
      '2',
    ],
  ],
  ['99', ['-s', '10.0.0.5', '-d', '10.0.0.99']],
];

function conntrackTests(): void {
  t.test('connections: dump, get and delete, every protocol', async (t) => {
    const connection = new NetlinkConnection(NETLINK_NETFILTER);
    const ask = asking(connection);
    const list = async (request: Omit<Parameters<typeof encodeDump>[1], 'sequence'> = {}) => {
      const answer = await ask((writer, sequence) => encodeDump(writer, { ...request, sequence }));
      return answer.map((message) => decodeEntry(message)!);
    };
    const { socket, until } = listening<ConntrackEvent>(NETLINK_NETFILTER, CONNTRACK_GROUPS, decodeEvent);
    for (const [index, [protocol, rest]] of ENTRIES.entries()) {
      tool('conntrack', '-I', '-p', protocol, '-t', '600', '-m', String(0x70000 + index), ...rest);
    }
    const events = [...(await until(ENTRIES.length))];
    const entries = await list();
    t.strictSame(
      entries.map(({ mark }) => mark).sort(),
      ENTRIES.map((_, index) => 0x70000 + index),
    );
    for (const event of events) {
      const { kind, eventMs, ...rest } = event;
      t.equal(kind, 'new');
      const entry = entries.find(({ id }) => id === event.id)!;
      t.strictSame([rest.original, rest.reply, rest.mark], [entry.original, entry.reply, entry.mark]);
    }
    t.equal((await list({ family: 6 })).length, 2);
    t.strictSame(
      (await list({ mark: { value: 0x70001, mask: 0xffffffff } })).map(({ mark }) => mark),
      [0x70001],
    );
    t.equal((await list({ mark: { value: 0x70000, mask: 0xffff0000 } })).length, ENTRIES.length);
    t.equal((await list({ mark: { value: 0, mask: 0xffff0000 } })).length, 0);

    for (const entry of entries) await deleteOnce(t, ask, entry);
    t.equal(tool('conntrack', '-L'), '');
    const ended = (await until(2 * ENTRIES.length)).slice(ENTRIES.length);
    t.ok(ended.every(({ kind }) => kind === 'destroy'));
    t.strictSame(
      ended.map(({ id }) => id),
      entries.map(({ id }) => id),
    );
    socket.close();
    connection.close();
  });
}

async function deleteOnce(t: Test, ask: ReturnType<typeof asking>, entry: Connection): Promise<void> {
  const { original, id } = entry;
  const get = () => ask((writer, sequence) => encodeGet(writer, { sequence, original }));
  const remove = (id: number, original: Tuple) =>
    ask((writer, sequence) => encodeDelete(writer, { sequence, original, id }));
  const name = `protocol ${original.protocol}`;
  t.strictSame(decodeEntry((await get())[0]!)?.id, id, name);
  await t.rejects(remove((id ^ 1) >>> 0, original), { code: 'ENOENT' }, `${name}: another id`);
  const elsewhere = { ...original, dst: entry.reply.dst };
  await t.rejects(remove(id, elsewhere), { code: 'ENOENT' }, `${name}: another tuple`);
  t.equal((await get()).length, 1, `${name}: still there`);
  await remove(id, original);
  await t.rejects(get(), { code: 'ENOENT' }, `${name}: gone`);
}

function nflogTests(): void {
  t.test('logged packets', async (t) => {
    tool('ip', 'link', 'set', 'lo', 'up');
    tool('nft', 'add table inet t; add chain inet t o { type filter hook output priority 0; }');
    tool('nft', 'add rule inet t o udp dport 9 meta mark set 0x80000005 log prefix "deny" group 300');
    const { socket, until } = listening<NflogPacket>(NETLINK_NETFILTER, [], decodePacket);
    const request = {
      sequence: 1,
      group: 300,
      copyBytes: 64,
      bufferBytes: 65536,
      thresholdPackets: 3,
      timeoutMs: 500,
    };
    const writer = new MessageWriter();
    encodeBind(writer, { ...request, conntrack: false });
    await socket.send(writer.bytes());
    const sender = createSocket('udp4');
    sender.bind(4000, '127.0.0.1');
    await once(sender, 'listening');
    for (let count = 0; count < 3; count++) sender.send('hello', 9, '127.0.0.1');
    const packets = await until(3);
    sender.close();
    const loopback = parseAddress('127.0.0.1');
    for (const packet of packets) {
      t.match(packet, { prefix: 'deny', mark: 0x80000005, hook: 3, outdev: 1, indev: undefined });
      t.match(packet.tuple, { src: loopback, dst: loopback, protocol: 17, srcPort: 4000, dstPort: 9 });
    }
    t.equal(packets.length, 3);
    socket.close();
  });
}

function ruleTests(): void {
  t.test('routing rules', async (t) => {
    const connection = new NetlinkConnection(NETLINK_ROUTE);
    const ask = asking(connection);
    const groups = [RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE];
    const { socket, until } = listening(NETLINK_ROUTE, groups, decodeRule);
    const list = async (family: 4 | 6) =>
      (await ask((writer, sequence) => encodeDumpRules(writer, sequence, family))).map(
        (message) => decodeRule(message)!.rule,
      );
    for (const family of [4, 6] as const) {
      const guard: BlackholeRule = { family, priority: 50, iifname: 'lam0', fwmark: 0, fwmask: 0x80000000 };
      const shown = () => tool('ip', `-${family}`, 'rule', 'show', 'pref', '50').replace(/\s+/g, ' ').trim();
      const known = { ...guard, action: 'blackhole', otherwiseSelects: false };
      await ask((writer, sequence) => encodeAddRule(writer, sequence, guard));
      t.equal(shown(), '50: from all fwmark 0/0x80000000 iif lam0 [detached] blackhole');
      const again = ask((writer, sequence) => encodeAddRule(writer, sequence, guard));
      await t.rejects(again, { code: 'EEXIST' });
      const rules = await list(family);
      t.strictSame(
        rules.filter(({ priority }) => priority === 50),
        [known],
      );
      t.ok(
        rules.some(({ priority, action }) => priority === 32766 && action === 'other'),
        'the main table',
      );
      await ask((writer, sequence) => encodeDeleteRule(writer, sequence, guard));
      t.equal(shown(), '');
      const gone = ask((writer, sequence) => encodeDeleteRule(writer, sequence, guard));
      await t.rejects(gone, { code: 'ENOENT' });
      t.strictSame((await until(family === 4 ? 2 : 4)).slice(-2), [
        { kind: 'added', rule: known },
        { kind: 'removed', rule: known },
      ]);
    }
    socket.close();
    connection.close();
  });
}

if (process.env[INSIDE] !== undefined) {
  conntrackTests();
  nflogTests();
  ruleTests();
} else if (process.getuid?.() !== 0) {
  t.pass('everything', { skip: 'needs root, to make a network namespace' });
} else {
  const self = [process.execPath, ...process.execArgv, fileURLToPath(import.meta.url)];
  const run = spawnSync('unshare', ['--net', ...self], {
    stdio: 'inherit',
    env: { ...process.env, [INSIDE]: '1' },
  });
  if (run.error !== undefined) throw run.error;
  process.exitCode = run.status ?? 1;
}
