// Events that the kernel could not deliver: counted exactly, told, and made up for.
import '../support/own-namespace.js';
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { ConntrackTable } from 'sluice-gateway/conntrack/table.js';
import { FlowAssembler } from 'sluice-gateway/flows/assemble.js';
import type { FlowRecord } from 'sluice-gateway/flows/record.js';
import { FlowWatch } from 'sluice-gateway/flows/watch.js';
import { createLog } from 'sluice-gateway/log.js';
import { Matcher } from 'sluice-gateway/matcher/matcher.js';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { UnknownOutcomeError } from 'sluice-gateway/netlink/error.js';
import t, { type Test } from 'tap';
import { here } from '../support/namespace.js';
import { until } from '../support/wait.js';

const LOAD = fileURLToPath(new URL('../support/conntrack-load.js', import.meta.url));
const LOG_GROUP = 7;
/** More than the receive buffer and the reader's slots hold, and fewer than the kernel keeps, 262,144. */
const CONNECTIONS = 240_000;
const PACKETS = 500_000;
const SLOW_RECORDS = 70_000;
const SLOW_RECORD_MS = 0.25;

/** In a process of its own, while this one does nothing else. */
const blocked = (...args: string[]) => execFileSync(process.execPath, [LOAD, ...args], { stdio: 'inherit' });

/** Loses the first answer on its way. */
class LosingConnection extends NetlinkConnection {
  losses = 0;

  override async request(request: Parameters<NetlinkConnection['request']>[0]) {
    const answer = await super.request(request);
    if (this.losses++ === 0) throw new UnknownOutcomeError('Cannot tell outcome of a test: it was lost');
    return answer;
  }
}

async function watching(t: Test, connection = new NetlinkConnection(NETLINK_NETFILTER)) {
  const records: FlowRecord[] = [];
  const lost = { conntrack: 0, nflog: 0 };
  let packets = 0;
  /** How many of the next records keep the process busy. */
  const slow = { records: 0 };
  const matcher = Matcher.build({ groups: [], functions: [], excluded: [] });
  const rule = { name: 'any', priority: 1, action: 'PERMIT' as const, logging: true };
  const assembler = new FlowAssembler({
    gateway: 'gw',
    rules: { ruleOf: () => rule },
    matcher: () => matcher,
    now: () => new Date(),
    connectionsMax: 2 * CONNECTIONS,
  });
  const watch = await FlowWatch.start({
    observers: [],
    logGroup: LOG_GROUP,
    table: new ConntrackTable(connection),
    assembler,
    onPacket: () => packets++,
    onRecord: (record) => {
      records.push(record);
      if (slow.records-- <= 0) return;
      const endMs = performance.now() + SLOW_RECORD_MS;
      while (performance.now() < endMs);
    },
    onLost: (source, events) => {
      lost[source] += events;
    },
    updateSeconds: 0,
    updateRecordsMax: 1,
    log: createLog({ write: () => undefined }),
  });
  t.teardown(async () => {
    await watch.close();
    connection.close();
  });
  const count = (event: FlowRecord['event']) =>
    records.reduce((sum, one) => sum + (one.event === event ? 1 : 0), 0);
  const told = (source: string) =>
    records.reduce((sum, { loss }) => sum + (loss?.source === source ? (loss.events ?? 0) : 0), 0);
  return { watch, assembler, slow, records, lost, count, told, packets: () => packets };
}

const sourceKeys = (records: readonly FlowRecord[], event: FlowRecord['event']) =>
  new Set(records.flatMap((one) => (one.event === event ? [`${one.src!.ip} ${one.src!.port}`] : [])));

t.test('connections that begin and end while nobody reads', async (t) => {
  const { slow, records, lost, count, told } = await watching(t);
  blocked('new', '0', String(CONNECTIONS));
  await until('every open', () => count('open') >= CONNECTIONS);
  t.ok(lost.conntrack > 0, `${lost.conntrack} events lost`);
  t.equal(told('conntrack'), lost.conntrack);
  t.ok(records.every(({ loss, time }) => loss === undefined || loss.since! <= time));
  t.equal(count('open'), CONNECTIONS, 'the listing told the others');
  t.equal(sourceKeys(records, 'open').size, CONNECTIONS, 'each once');
  const before = lost.conntrack;
  // Events are still waiting when the listing is done.
  slow.records = SLOW_RECORDS;
  blocked('delete', '0', String(CONNECTIONS));
  for (const left of [0.75, 0.5, 0.25, 0])
    await until('the slow ones', () => slow.records <= left * SLOW_RECORDS);
  await until('every close', () => count('close') >= CONNECTIONS);
  t.ok(lost.conntrack > before, `${lost.conntrack - before} events lost`);
  t.equal(count('close'), CONNECTIONS);
  t.equal(sourceKeys(records, 'close').size, CONNECTIONS, 'each once');
  const unread = records.filter(({ event, endReason }) => event === 'close' && endReason === undefined);
  t.equal(unread.length, lost.conntrack - before, 'exactly those whose end was lost lack its reason');
});

t.test('a listing whose answer was lost is made again', async (t) => {
  blocked('new', '0', '10');
  const losing = new LosingConnection(NETLINK_NETFILTER);
  const { watch, assembler, records } = await watching(t, losing);
  await watch.takeOver();
  t.same([losing.losses, assembler.connections.known, records.length], [2, 10, 0]);
  losing.losses = 0;
  t.same([...(await new ConntrackTable(losing).generationsInUse())], [1]);
  blocked('delete', '0', '10');
});

t.test('packets logged while nobody reads', async (t) => {
  here.ip('link', 'set', 'lo', 'up');
  here.run('nft', ['add table inet t; add chain inet t o { type filter hook output priority 0; }']);
  here.run('nft', [
    `add rule inet t o udp dport 9 meta mark set 1 log prefix "x" group ${LOG_GROUP} snaplen 128 drop`,
  ]);
  const { records, lost, told, packets } = await watching(t);
  const flood = `import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(${PACKETS}):
  try: s.sendto(b'x' * 100, ('127.0.0.1', 9))
  except PermissionError: pass`;
  execFileSync('python3', ['-c', flood]);
  const sender = createSocket('udp4');
  t.teardown(() => sender.close());
  sender.bind(0, '127.0.0.1');
  await once(sender, 'listening');
  await until('loss', () => records.some(({ loss }) => loss?.source === 'nflog'));
  // The packet after a loss tells by its number how many are missing.
  let sent = PACKETS;
  await until('how many', () => {
    if (lost.nflog > 0) return true;
    sender.send('x', 9, '127.0.0.1', () => undefined);
    sent++;
    return false;
  });
  await until('every packet', () => packets() + lost.nflog === sent);
  t.comment(`${lost.nflog} packets lost`);
  t.equal(told('nflog'), lost.nflog);
});
