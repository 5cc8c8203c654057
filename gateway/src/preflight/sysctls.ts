import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Finding, Level } from './finding.js';

/** Bytes of kernel memory for one connection with its counters and times, rounded up (`slabinfo` says 256 to 320). */
const CONNECTION_BYTES = 400;
/** Of the memory, for a full table. */
const MEMORY_SHARE_MAX = 0.5;
const FILL_RATIO_MAX = 0.75;
const CONNECTIONS_PER_BUCKET_MAX = 4;
/** Fewer are soon full on a gateway: a Lambda function opens connections by the thousand. */
const CONNECTIONS_MIN = 65_536;

/** How a setting is looked at. `key` is its path below `/proc/sys`. */
interface Setting {
  readonly key: string;
  readonly expected?: string;
  readonly isFine: (value: string) => boolean;
  /** When it is not fine. */
  readonly level: Exclude<Level, 'ok'>;
  readonly detail: string;
}

const anything = () => true;
const is =
  (...values: readonly string[]) =>
  (value: string) =>
    values.includes(value);
const atMost = (most: number) => (value: string) => Number(value) <= most;

const ours = (key: string, why: string): Setting => ({
  ...{ key, expected: '1', isFine: is('1'), level: 'info' },
  detail: `set by the gateway when it starts: ${why}`,
});
const told = (key: string, detail: string): Setting => ({ key, isFine: anything, level: 'info', detail });

const SETTINGS: readonly Setting[] = [
  ours('net/ipv4/ip_forward', 'once a program is in force'),
  ours('net/ipv6/conf/all/forwarding', 'once a program is in force'),
  ours('net/netfilter/nf_conntrack_acct', 'flow records count bytes and packets'),
  ours('net/netfilter/nf_conntrack_timestamp', 'flow records tell when connections began'),
  {
    key: 'net/netfilter/nf_conntrack_events',
    expected: '1 or 2',
    isFine: is('1', '2'),
    level: 'warning',
    detail: 'with 0 the kernel tells of no connection: there are no flow records of what is permitted',
  },
  told(
    'net/netfilter/nf_conntrack_tcp_loose',
    'does no harm at 1: a new TCP connection without a bare SYN is dropped by the program',
  ),
  {
    key: 'net/netfilter/nf_conntrack_tcp_be_liberal',
    expected: '0',
    isFine: is('0'),
    level: 'warning',
    detail: 'with 1 segments outside the window of a permitted connection pass as its own',
  },
  {
    key: 'net/netfilter/nf_conntrack_tcp_timeout_established',
    expected: '86400 or less',
    isFine: atMost(86_400),
    level: 'info',
    detail:
      'seconds for which an idle or lost connection holds its place in the table; the default is five days',
  },
  told('net/netfilter/nf_conntrack_udp_timeout', 'seconds until a UDP connection without an answer ends'),
  told('net/netfilter/nf_conntrack_udp_timeout_stream', 'seconds until an answered UDP connection ends'),
  told(
    'net/netfilter/nf_conntrack_log_invalid',
    'does not matter: packets that are invalid are logged and counted by the program',
  ),
  told('net/netfilter/nf_log/2', 'does not matter: the program logs to a group of its own'),
  told('net/netfilter/nf_log/10', 'does not matter: the program logs to a group of its own'),
  told('net/ipv4/conf/all/rp_filter', 'any will do: src_valid_mark is set, and the program checks by itself'),
  {
    key: 'net/ipv4/conf/all/send_redirects',
    expected: '0',
    isFine: is('0'),
    level: 'info',
    detail: 'with 1 the gateway tells functions of one interface to reach each other past it',
  },
  told(
    'net/ipv4/ip_local_port_range',
    "does not bound SNAT, which takes ports from 1024 up: 64,512 connections to one server's port an address",
  ),
  told('net/core/rmem_max', 'does not matter: the buffers of our sockets are forced beyond it'),
  told('net/core/wmem_max', 'does not matter: the buffers of our sockets are forced beyond it'),
];

function interfaceSettings(name: string): Setting[] {
  return [
    ours(`net/ipv4/conf/${name}/src_valid_mark`, 'rp_filter looks routes up with the mark of the guard'),
    {
      key: `net/ipv4/conf/${name}/rp_filter`,
      expected: '0 or 2',
      isFine: is('0', '2'),
      level: 'info',
      detail: 'with 1 packets are dropped, uncounted, that came by another interface than answers would take',
    },
    {
      key: `net/ipv6/conf/${name}/accept_ra`,
      isFine: anything,
      level: 'info',
      detail: 'made 2 by the gateway where it is 1: a router ignores router advertisements otherwise',
    },
  ];
}

/** `/proc/sys/net/ipv4/conf/eth0.1/x` has no name with dots that could be read back; slashes are kept there. */
const nameOf = (key: string) => (key.includes('.') ? key : key.replaceAll('/', '.'));

/** A file of `/proc`, read at once: it waits for no disk. Undefined where there is none: no such interface or module. */
function readProc(root: string, path: string): string | undefined {
  try {
    return readFileSync(join(root, path), 'utf8').trim().replaceAll('\t', ' ');
  } catch (error) {
    if (['ENOENT', 'EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}

const settingsOf = (interfaces: readonly string[]) => [
  ...SETTINGS,
  ...interfaces.flatMap((name) => interfaceSettings(name)),
];

function findSetting(root: string, setting: Setting): Finding {
  const { key, expected, isFine, level, detail } = setting;
  const name = `sysctl.${nameOf(key)}`;
  const value = readProc(root, `sys/${key}`);
  if (value === undefined) return { name, level: 'ok', value: '-', detail: 'there is none here' };
  const found = { name, value, ...(expected !== undefined && { expected }), detail };
  return { ...found, level: isFine(value) ? 'ok' : level };
}

/** The table of connections: its size beside what is in it, its buckets and the memory. */
function findConnections(root: string): Finding[] {
  const number = (path: string) => Number(readProc(root, path) ?? Number.NaN);
  const folder = 'sys/net/netfilter/nf_conntrack';
  const most = number(`${folder}_max`);
  const count = number(`${folder}_count`);
  const buckets = number(`${folder}_buckets`);
  const memoryBytes = Number(/^MemTotal:\s*([0-9]+) kB/m.exec(readProc(root, 'meminfo') ?? '')?.[1]) * 1024;
  if (Number.isNaN(most)) return [];
  const fits = Math.floor((memoryBytes * MEMORY_SHARE_MAX) / CONNECTION_BYTES);
  const mebibytes = Math.round((most * CONNECTION_BYTES) / 2 ** 20);
  const level = most < CONNECTIONS_MIN || most > fits ? 'warning' : 'ok';
  const isCrowded = most / buckets > CONNECTIONS_PER_BUCKET_MAX;
  return [
    {
      name: 'sysctl.net.netfilter.nf_conntrack_max',
      value: String(most),
      expected: `${CONNECTIONS_MIN} to ${fits}`,
      level,
      detail: `beyond it new connections are dropped; a full table takes about ${mebibytes} MiB`,
    },
    {
      name: 'sysctl.net.netfilter.nf_conntrack_count',
      value: String(count),
      expected: `${Math.floor(most * FILL_RATIO_MAX)} or less`,
      level: count > most * FILL_RATIO_MAX ? 'warning' : 'ok',
      detail: 'connections now: raise nf_conntrack_max, or shorten time-outs, before the table is full',
    },
    {
      name: 'sysctl.net.netfilter.nf_conntrack_buckets',
      value: String(buckets),
      expected: `${Math.ceil(most / CONNECTIONS_PER_BUCKET_MAX)} or more`,
      level: isCrowded ? 'warning' : 'ok',
      detail:
        'of a full table each has a list that every packet walks; set it in the first network namespace',
    },
  ];
}

/** Settings of the kernel in this network namespace that bear on a gateway. Changes none. Cost: half a millisecond. */
export function findSysctls(interfaces: readonly string[], procRoot: string): Finding[] {
  return [
    ...settingsOf(interfaces).map((setting) => findSetting(procRoot, setting)),
    ...findConnections(procRoot),
  ];
}
