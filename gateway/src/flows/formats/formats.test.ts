// Golden files of every format, and independent readers where this machine has them.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { createLog } from '../../log.js';
import { printableJson } from '../../text.js';
import { FORMATS, type Format, formatOf } from '../format.js';
import { type FlowRecord, flowRecordSchema } from '../record.js';
import { type SinkInput, sinkSchema } from '../sinks/config.js';
import { parseSyslog } from '../sinks/fixture.js';
import { decodeIpfix } from '../sinks/ipfix.fixture.js';
import { openSink } from '../sinks/open.js';
import { otlpFormat } from '../sinks/otlp.js';
import { syslogFormat } from '../sinks/syslog.js';
import { RECORDS } from './fixture.js';
import { ipfixFormat, message, set, templateSet } from './ipfix.js';
import { VPC_FIELDS } from './vpc-flow-log.js';

const options = { gatewayIp: '192.0.2.10' };
const lines = (format: Format) => RECORDS.flatMap((record) => format(record)?.split('\n') ?? []);
const chosen = formatOf('vpc-flow-log', {
  ...options,
  fields: ['pkt-srcaddr', 'flow-direction', 'bytes', 'region'],
});

const syslog = syslogFormat(formatOf('sluice', options), 'local3');

const GOLDEN: Readonly<Record<string, Format>> = {
  ...Object.fromEntries(FORMATS.map((name) => [name, formatOf(name, options)])),
  'vpc-flow-log-chosen': chosen,
  otlp: otlpFormat,
  syslog: (record) => syslog(record)?.replace(` ${process.pid} `, ' PID '),
};

for (const [name, format] of Object.entries(GOLDEN)) {
  t.test(`${name}: as in the golden file`, (t) => {
    const path = new URL(`../../../src/flows/formats/golden/${name}.txt`, import.meta.url);
    const text = `${lines(format).join('\n')}\n`;
    if (process.env.UPDATE_GOLDEN === '1') writeFileSync(path, text);
    t.equal(text, readFileSync(path, 'utf8'), 'else: UPDATE_GOLDEN=1 and run this file again');
    t.notMatch(text.replaceAll('\n', ''), /[\u0000-\u001f\u007f-\u009f\u202e]/, 'nothing in it acts');
    t.end();
  });
}

t.test('sluice: every field of every record as its slow twin has it', (t) => {
  const names = (of: string) => ['x\n\u001b', of];
  const full: Required<FlowRecord> = {
    ...(RECORDS[2] as Required<FlowRecord>),
    src: {
      ...RECORDS[2]!.src!,
      functions: names('f'),
      functionsOmitted: 2,
      groups: names('g'),
      groupsOmitted: 3,
    },
    dst: { ...RECORDS[2]!.dst!, name: 'a"b', groupsOmitted: 1 },
    icmp: { type: 8, code: 1 },
    permittedBy: { name: '\u202e', priority: 0 },
    suppressed: 5,
    loss: RECORDS.at(-1)!.loss!,
  };
  t.same(Object.keys(full).sort(), Object.keys(flowRecordSchema.shape).sort());
  const without = Object.keys(full).map(
    (key) => ({ ...full, [key === 'schema' ? 'rule' : key]: undefined }) as FlowRecord,
  );
  const odd = { ...full, protocol: 47, nat: { ip: '::1' }, src: { ip: '::2', functions: [], groups: [] } };
  for (const record of [
    full,
    odd,
    ...RECORDS,
    ...without.filter(({ time, event, gateway }) => time && event && gateway),
  ]) {
    const text = formatOf('sluice', options)(record)!;
    t.same(JSON.parse(text), JSON.parse(printableJson(record)));
  }
  t.end();
});

t.test('VPC Flow Log lines: fields by their number, whatever names hold', (t) => {
  const counts = lines(formatOf('vpc-flow-log', { ...options, fields: VPC_FIELDS })).map(
    (line) => line.split(' ').length,
  );
  t.same(new Set(counts), new Set([VPC_FIELDS.length]));
  const all = lines(formatOf('vpc-flow-log', options)).map((line) => line.split(' '));
  t.ok(all.every((fields) => fields.length === 14));
  t.same(
    all.filter((fields) => fields[12] === 'ACCEPT').map((fields) => fields[9]),
    ['600', '5000', '104'],
    'no byte twice',
  );
  t.end();
});

/** The connector's pattern (reference: Aviatrix's log integration), its grok names written out. */
const AVIATRIX =
  /^<\d+>(?:[A-Z][a-z]{2} +\d{1,2} \d\d:\d\d:\d\d) +GW-([0-9A-Za-z][0-9A-Za-z.-]*)-(\d+\.\d+\.\d+\.\d+) +\/[\w./-]+(?:\[\d+\]:)? +(\d{4})\/(\d\d)\/(\d\d) +\d\d:\d\d:\d\d +AviatrixGwMicrosegPacket: POLICY=([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) SRC_MAC=(?:[0-9a-f]{2}:){5}[0-9a-f]{2} DST_MAC=(?:[0-9a-f]{2}:){5}[0-9a-f]{2} IP_SZ=\d+ SRC_IP=([0-9a-f.:]+) DST_IP=([0-9a-f.:]+) PROTO=(TCP|UDP|ICMP) SRC_PORT=\d+ DST_PORT=\d+ DATA=0x ACT=(PERMIT|DENY) ENFORCED=(true|false)(?: SESSION_ID=\d{1,20} SESSION_EVENT=[01] SESSION_END_REASON=[0-5] SESSION_PKT_CNT=\d+ SESSION_BYTE_CNT=\d+ SESSION_DUR=\d+)?$/;

t.test('Aviatrix lines: the published pattern, and the sample that it is from', (t) => {
  const sample =
    '<158>Mar  4 22:54:34 GW-my-spoke-192.0.2.10 /usr/local/bin/avx-gw-state-sync 2026/03/04 22:54:34 AviatrixGwMicrosegPacket: POLICY=51321a3b-0000-4ab3-9594-000000000001 SRC_MAC=02:00:00:00:00:01 DST_MAC=02:00:00:00:00:02 IP_SZ=60 SRC_IP=10.0.1.5 DST_IP=203.0.113.8 PROTO=TCP SRC_PORT=37368 DST_PORT=443 DATA=0x ACT=PERMIT ENFORCED=true SESSION_ID=15625921951502722107 SESSION_EVENT=0 SESSION_END_REASON=0 SESSION_PKT_CNT=0 SESSION_BYTE_CNT=0 SESSION_DUR=0';
  const all = lines(formatOf('aviatrix', options));
  for (const line of [sample, ...all]) t.match(line, AVIATRIX);
  t.match(
    all[1],
    /SESSION_EVENT=1 SESSION_END_REASON=1 SESSION_PKT_CNT=9 SESSION_BYTE_CNT=5600 SESSION_DUR=60500000000$/,
  );
  const id = (line = '') => /SESSION_ID=(\d+)/.exec(line)?.[1];
  t.equal(id(all[0]), id(all[1]), 'beginning and end have one session');
  t.end();
});

t.test('OCSF: what the class requires', (t) => {
  for (const line of lines(formatOf('ocsf', options))) {
    const event = JSON.parse(line) as Record<string, unknown>;
    for (const key of [
      'activity_id',
      'category_uid',
      'class_uid',
      'metadata',
      'severity_id',
      'time',
      'type_uid',
      'cloud',
    ])
      t.ok(key in event, key);
    t.equal(event.type_uid, 400_100 + (event.activity_id as number));
  }
  t.end();
});

t.test('IPFIX: templates say what records hold', (t) => {
  const templates = new Map();
  const head = { seconds: 1, sequence: 2, domain: 3 };
  t.same(decodeIpfix(message([templateSet()], head), templates).records, []);
  const items = RECORDS.map(ipfixFormat).filter((item) => item !== undefined);
  t.equal(
    items.length,
    7,
    'open, two closes, two denies, revoke, hostile names; not update, monitor and loss',
  );
  const sets = items.map((item) => {
    const bytes = Buffer.from(item, 'latin1');
    return set(bytes.readUInt16BE(), [bytes.subarray(2)]);
  });
  const { records, sequence, domain } = decodeIpfix(message(sets, head), templates);
  t.same([sequence, domain], [2, 3]);
  const [, close] = records;
  const number = (id: string) => Number(BigInt(`0x${close!.get(id)!.toString('hex')}`));
  t.same(
    ['1', '2', '29305/1', '29305/2', '7', '11', '4', '136', '233', '227'].map(number),
    [600, 5, 5_000, 4, 40_000, 443, 6, 3, 2, 50_001],
  );
  t.equal(number('152'), Date.parse('2026-01-02T03:00:00.123Z'));
  t.equal(close!.get('225')!.join('.'), '198.51.100.7');
  t.equal(close!.get('335')!.toString(), 'gatus-to-payments');
  t.end();
});

const has = (program: string) => spawnSync('which', [program]).status === 0;
const log = createLog({ write: () => undefined });

async function freePort(kind: 'udp' | 'tcp'): Promise<number> {
  if (kind === 'udp') {
    const socket = createSocket('udp4').bind(0, '127.0.0.1');
    await once(socket, 'listening');
    const { port } = socket.address();
    socket.close();
    return port;
  }
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

async function sendAll(config: SinkInput): Promise<void> {
  const sink = await openSink(sinkSchema.parse(config), {
    gateway: 'gw-a',
    log,
    queue: { retryMs: 20, retryMsMax: 50 },
  });
  for (const record of RECORDS) sink.write(record);
  while (sink.counts().queued > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  await sink.stop();
}

async function until<T>(probe: () => T | undefined): Promise<T> {
  for (;;) {
    const value = probe();
    if (value !== undefined) return value;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function nfdump(t: Test): Promise<void> {
  const folder = t.testdir();
  const port = await freePort('udp');
  const child = spawn('nfcapd', ['-w', folder, '-p', String(port), '-b', '127.0.0.1', '-t', '3600'], {
    stdio: 'ignore',
  });
  t.teardown(() => child.kill('SIGKILL'));
  await until(
    () =>
      readFileSync('/proc/net/udp', 'utf8').includes(
        `:${port.toString(16).toUpperCase().padStart(4, '0')} `,
      ) || undefined,
  );
  await sendAll({ type: 'ipfix', address: `127.0.0.1:${port}` });
  await new Promise((resolve) => setTimeout(resolve, 300));
  child.kill('SIGTERM');
  await once(child, 'exit');
  const file = execFileSync('sh', ['-c', `ls ${folder}/nfcapd.2*`])
    .toString()
    .trim();
  const format = 'fmt:%sa;%sp;%da;%dp;%pr;%pkt;%byt;%opkt;%obyt;%ts';
  const text = execFileSync('nfdump', ['-r', file, '-q', '-6', '-N', '-o', format], {
    env: { ...process.env, TZ: 'UTC' },
  }).toString();
  const rows = text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => line.split(';').map((cell) => cell.trim()));
  t.equal(rows.length, 7, text);
  const close = rows.find((row) => row[6] === '600')!;
  t.same(close.slice(0, 9), ['10.0.0.5', '40000', '203.0.113.9', '443', '6', '5', '600', '4', '5000']);
  t.match(close[9], /^2026-01-02 03:00:00\.123$/);
  t.ok(rows.some((row) => row[0] === '2001:db8::5' && row[6] === '104'));
  t.ok(
    rows.some((row) => row[5] === '42'),
    'a refusal with those that were suppressed',
  );
}

async function rsyslog(t: Test): Promise<void> {
  const folder = t.testdir();
  const port = await freePort('tcp');
  const [config, out] = [join(folder, 'rsyslog.conf'), join(folder, 'out')];
  const fields = [
    'syslogfacility-text',
    'syslogseverity-text',
    'timereported:::date-rfc3339',
    'hostname',
    'app-name',
    'msgid',
    'msg',
  ];
  const template = fields.map((field) => `%${field}%`).join('|');
  mkdirSync(join(folder, 'work'));
  writeFileSync(
    config,
    `global(workDirectory="${folder}/work" maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off")
module(load="imtcp")
input(type="imtcp" port="${port}" address="127.0.0.1" ruleset="in")
template(name="t" type="string" string="${template}\\n")
ruleset(name="in" parser="rsyslog.rfc5424") { action(type="omfile" file="${out}" template="t") }
`,
  );
  const child = spawn('rsyslogd', ['-n', '-f', config, '-i', join(folder, 'pid')], { stdio: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  await sendAll({ type: 'syslog', address: `127.0.0.1:${port}`, protocol: 'tcp' });
  const rows = await until(() => {
    const text = existsSync(out)
      ? readFileSync(out, 'utf8')
          .split('\n')
          .filter((line) => line !== '')
      : [];
    return text.length === RECORDS.length ? text : undefined;
  });
  for (const [index, row] of rows.entries()) {
    const [facility, severity, time, host, app, msgid, ...rest] = row.split('|');
    const record = RECORDS[index]!;
    const isGood = ['open', 'update', 'close'].includes(record.event);
    t.same([facility, severity, app, msgid], ['local3', isGood ? 'info' : 'warning', 'sluice', record.event]);
    t.equal(new Date(time!).getTime(), Date.parse(record.time));
    t.match(host, /^gw/);
    t.same(JSON.parse(rest.join('|')), JSON.parse(JSON.stringify(record)));
  }
}

const skip = (program: string) => (has(program) ? {} : { skip: `needs ${program}` });
t.test('nfcapd and nfdump read our IPFIX', skip('nfcapd'), nfdump);
t.test('rsyslogd reads our syslog', skip('rsyslogd'), rsyslog);
t.test('a strict parser reads it too', (t) => {
  for (const line of lines(syslog)) JSON.parse(parseSyslog(line));
  t.end();
});
