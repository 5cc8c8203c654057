import '../support/own-namespace.js';
import { setTimeout as delay } from 'node:timers/promises';
import { NetlinkSocket } from 'nftables-napi';
import { createLog } from 'sluice-gateway/log.js';
import { NETLINK_NETFILTER, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { UnknownOutcomeError } from 'sluice-gateway/netlink/error.js';
import { Attributes, readMessages } from 'sluice-gateway/netlink/reader.js';
import { MessageWriter } from 'sluice-gateway/netlink/writer.js';
import type { Finding } from 'sluice-gateway/preflight/finding.js';
import { Preflight, PreflightError, preflight, watchForeign } from 'sluice-gateway/preflight/preflight.js';
import { type Feature, features, probeFeatures } from 'sluice-gateway/preflight/probe.js';
import { expression, Scratch } from 'sluice-gateway/preflight/scratch.js';
import t, { type Test } from 'tap';
import { labInterfaces } from '../support/load.js';
import { here } from '../support/namespace.js';
import { until } from '../support/wait.js';

/** Longer than a burst is waited for. */
const SETTLED_MS = 1_000;

/** Preflight asks the kernel without a trace, and sees what other tables do. */

const nft = (text: string) => here.run('nft', ['-f', '-'], { input: text });
const ruleset = () => here.run('nft', ['-a', 'list', 'ruleset']);
const options = { interfaces: labInterfaces };

/** Findings about others that are not `ok`, with the table and the words. */
async function foreign(): Promise<Record<string, string>> {
  const found = (await preflight({ ...options, features: [] })).filter(
    ({ name, level }) => name.startsWith('foreign.') && level !== 'ok',
  );
  return Object.fromEntries(found.map(({ name, level, value }) => [name.slice(8), `${level} ${value}`]));
}

function begin(t: Test, text = ''): void {
  nft(`flush ruleset\n${text}`);
  t.teardown(() => nft('flush ruleset'));
}

/** `NFNLGRP_NFTABLES`, `NFT_MSG_NEWTABLE`, `NFTA_TABLE_FLAGS`. */
const GROUP_NFTABLES = 7;
const NEW_TABLE = 0xa00;
const TABLE_FLAGS = 2;
const DORMANT = 1;

t.test('features are tried in a table that never wakes and does not stay', async (t) => {
  begin(
    t,
    'table inet other { set s { type ipv4_addr; elements = { 192.0.2.1 } }; chain c { ip saddr @s accept; }; }',
  );
  const before = ruleset();
  // What a process that was killed might have left.
  nft('table inet sluice_probe { chain c { type filter hook forward priority 0; policy drop; }; }');
  const flags: number[] = [];
  const socket = new NetlinkSocket({
    protocol: NETLINK_NETFILTER,
    onReceive: (bytes) => {
      for (const { type, payload } of readMessages(bytes))
        if (type === NEW_TABLE) flags.push(new Attributes(payload, 4).u32be(TABLE_FLAGS) ?? 0);
    },
  });
  t.teardown(() => socket.close());
  socket.join(GROUP_NFTABLES);
  const wanted = features({ snat: 'masquerade' });
  const found = await preflight({ ...options, features: wanted });
  t.equal(ruleset(), before, 'other tables are as they were, and none is left');
  const elsewhere = ['conntrack_netlink', 'routing_rules', 'nflog', 'nflog_connection'];
  const inTables = wanted.filter(({ name }) => !elsewhere.includes(name));
  const isThere = (name: string) =>
    found.some((one) => one.name === `feature.${name}` && one.value === 'yes');
  // A table that the kernel refuses makes no event.
  const made = inTables.filter(({ name }) => isThere(name)).length;
  await until('the events', () => flags.length > made);
  t.ok(
    flags.every((one) => one & DORMANT),
    'every one was dormant',
  );
  t.ok(flags.length <= inTables.length + 1, 'one table a feature, and the one that removed the leftover');
  for (const { name, isNeeded } of wanted) {
    const finding = found.find((one) => one.name === `feature.${name}`);
    if (isNeeded) t.match(finding, { level: 'ok', value: 'yes', expected: 'yes' }, name);
    else t.match(finding, { level: /^(?:ok|info)$/, value: /^(?:yes|no)$/ }, name);
  }
});

t.test('a feature that the kernel lacks is an error where it is needed, and told where not', async (t) => {
  begin(t);
  const lacking = (name: string, isNeeded: boolean, probe: Feature['probe']): Feature => ({
    ...{ name, isNeeded, probe, from: 'CONFIG_NFT_NOTHING', use: 'nothing' },
  });
  const unknown: Feature['probe'] = ({ netfilter }) =>
    new Scratch()
      .chain('chain')
      .rule('chain', (writer) => expression(writer, 'no_such', () => {}))
      .commit(netfilter);
  const found = await preflight({
    ...options,
    features: [
      lacking('refused', true, unknown),
      lacking('optional', false, unknown),
      lacking('silent', true, async () => false),
    ],
  });
  const detail =
    'the kernel lacks it: Cannot add rule: ENOENT; it comes with CONFIG_NFT_NOTHING, and is for nothing';
  const of = (name: string) => found.find((one) => one.name === `feature.${name}`);
  t.match(of('refused'), { level: 'error', value: 'no', expected: 'yes', detail });
  t.match(of('optional'), { level: 'info', value: 'no', detail });
  t.match(of('silent'), { level: 'error', value: 'no' });
  t.equal(ruleset(), '', 'what was refused leaves nothing');
  const log = createLog({ write: () => {} });
  const refused = Preflight.start({ ...options, features: [lacking('refused', true, unknown)] }, 0, log);
  await t.rejects(refused, {
    constructor: PreflightError,
    message: `Cannot start gateway: feature.refused: ${detail}`,
  });
});

const chain = (hook: string, priority: number, rules: string, policy = 'accept', type = 'filter') =>
  `chain x { type ${type} hook ${hook} priority ${priority}; policy ${policy}; ${rules && `${rules};`} }`;

/** A table of others, and what is found of it. */
const FOREIGN: readonly (readonly [table: string, expected: Readonly<Record<string, string>>])[] = [
  [
    `table inet a { ${chain('output', 1, 'ct mark set 7')}; }`,
    { ct_mark: 'error inet a', hook: 'info inet a' },
  ],
  [`table ip a { chain x { ct mark set meta mark; }; }`, { ct_mark: 'error ip a' }],
  [
    `table inet a { chain x { ct mark 7 ct label set 3 meta mark set ct mark; }; }`,
    { packet_mark: 'info inet a' },
  ],
  [
    `table ip6 a { ${chain('prerouting', -300, 'notrack')}; }`,
    { notrack: 'warning ip6 a', same_priority: 'warning ip6 a' },
  ],
  [`table ip a { ${chain('postrouting', 100, 'masquerade', 'accept', 'nat')}; }`, { nat: 'warning ip a' }],
  [`table ip a { ${chain('forward', -5, '', 'drop')}; }`, { drop: 'warning ip a' }],
  [`table inet a { ${chain('forward', 10, 'counter')}; }`, { same_priority: 'warning inet a' }],
  [`table inet a { ${chain('forward', 11, 'counter')}; }`, { hook: 'info inet a' }],
  [`table inet a { ${chain('forward', 0, '')}; }`, {}],
  [`table inet a { ${chain('output', 1, 'counter')}; }`, { hook: 'info inet a' }],
  [`table bridge a { ${chain('forward', 0, 'counter')}; }`, {}],
  [`table inet sluice { ${chain('forward', 0, 'ct mark set 7')}; }`, {}],
  [`table ip sluice { chain x { ct mark set 7; }; }`, { ct_mark: 'error ip sluice' }],
];

t.test('other tables are seen for what they do to ours, and stay as they are', async (t) => {
  begin(t);
  t.same(await foreign(), {});
  for (const [table, expected] of FOREIGN) {
    nft(`flush ruleset\n${table}`);
    const before = ruleset();
    t.same(await foreign(), expected, table);
    t.equal(ruleset(), before, 'untouched');
  }
});

t.test('flow tables are seen', async (t) => {
  begin(t);
  try {
    nft('table inet a { flowtable f { hook ingress priority 0; devices = { lo }; }; }');
  } catch {
    t.pass('skipped: this kernel has no flow tables', { skip: 'CONFIG_NF_FLOW_TABLE is not there' });
    return;
  }
  t.same(await foreign(), { flowtable: 'warning inet a' });
});

/** `NFNL_MSG_BATCH_BEGIN`, `BATCH_END`, `NFT_MSG_NEWRULE`; flags create, append, acknowledge. */
const [BATCH_BEGIN, BATCH_END, NEW_RULE, FLAGS] = [0x10, 0x11, 0xa06, 0x0c05];
const NFPROTO_IPV4 = 2;

/** Adds a rule with an iptables target, as iptables-nft does and nft can't. */
async function addTarget(name: string, revision: number, info: Uint8Array): Promise<void> {
  const connection = new NetlinkConnection(NETLINK_NETFILTER);
  const writer = new MessageWriter();
  writer.beginMessage({ type: BATCH_BEGIN, flags: 1, sequence: 0 }).netfilterHeader(0, 10).endMessage();
  writer.beginMessage({ type: NEW_RULE, flags: FLAGS, sequence: 1 }).netfilterHeader(NFPROTO_IPV4);
  writer.attributeString(1, 'a').attributeString(2, 'x');
  writer.nest(4, () =>
    expression(writer, 'target', () =>
      writer.attributeString(1, name).attributeU32be(2, revision).attributeBytes(3, info),
    ),
  );
  writer.endMessage();
  writer.beginMessage({ type: BATCH_END, flags: 1, sequence: 2 }).netfilterHeader(0, 10).endMessage();
  try {
    await connection.request({ bytes: writer.bytes(), lastSequence: 1, operation: () => 'add target' });
  } finally {
    connection.close();
  }
}

/** `struct xt_connmark_tginfo1`: three marks and a mode, padded; revision 2 has a shift before it. */
function connmark(revision: number, mode: number): Uint8Array {
  const info = new Uint8Array(16);
  info[revision === 2 ? 14 : 12] = mode;
  return info;
}

t.test('targets of iptables-nft are seen too', async (t) => {
  const [SET, SAVE, RESTORE] = [0, 1, 2];
  const cases: [name: string, revision: number, info: Uint8Array, expected: Record<string, string>][] = [
    ['CONNMARK', 1, connmark(1, SET), { ct_mark: 'error ip a' }],
    ['CONNMARK', 1, connmark(1, SAVE), { ct_mark: 'error ip a' }],
    ['CONNMARK', 1, connmark(1, RESTORE), { packet_mark: 'info ip a' }],
    ['CONNMARK', 2, connmark(2, SAVE), { ct_mark: 'error ip a' }],
    ['CONNMARK', 2, connmark(2, RESTORE), { packet_mark: 'info ip a' }],
    ['MARK', 2, new Uint8Array(8), { packet_mark: 'info ip a' }],
  ];
  for (const [name, revision, info, expected] of cases) {
    begin(t, 'table ip a { chain x { }; }');
    await addTarget(name, revision, info);
    t.same(await foreign(), expected, `${name} revision ${revision}, ${info}`);
  }
});

t.test('a gateway does not start beside a table that writes connection marks, and names it', async (t) => {
  begin(t, 'table inet rogue { chain marks { ct mark set 7; }; }');
  const log = createLog({ write: () => {} });
  await t.rejects(Preflight.start(options, 0, log), {
    constructor: PreflightError,
    message:
      /^Cannot start gateway: foreign\.ct_mark: table inet rogue writes connection marks, in "marks": .* remove those rules/,
  });
});

t.test('a table that begins to write connection marks later is told, and that it ended', async (t) => {
  begin(t);
  const lines: string[] = [];
  const log = createLog({ write: (line) => lines.push(line) });
  const started = await Preflight.start(options, 0, log);
  t.teardown(() => started.close());
  const marks = () => started.found().filter(({ name }: Finding) => name === 'foreign.ct_mark');
  t.match(marks(), [{ level: 'ok', value: 'none' }]);
  lines.length = 0;
  nft('table inet rogue { chain marks { ct mark set 7; }; }');
  await until('it is told', () => lines.some((line) => line.includes('"level":"error"')));
  t.match(lines[0], 'foreign.ct_mark: table inet rogue writes connection marks');
  t.match(marks(), [{ level: 'error', value: 'inet rogue' }]);
  lines.length = 0;
  nft('delete table inet rogue');
  await until('its end is told', () => lines.some((line) => line.includes('foreign.ct_mark: it is gone')));
  t.match(marks(), [{ level: 'ok', value: 'none' }]);
});

t.test('only changes of chains and rules of others call for another look', async (t) => {
  begin(t);
  let calls = 0;
  const watch = watchForeign(0, async () => {
    if (++calls === 3) throw new Error('it fails');
  });
  t.teardown(() => watch.close());
  nft('table inet sluice { chain x { counter; }; }');
  nft('table inet sluice_probe { chain x { counter; }; }');
  await delay(SETTLED_MS);
  t.equal(calls, 0, 'our own do not');
  nft('table inet other { set s { type ipv4_addr; }; }');
  await until('a table of others', () => calls === 1);
  nft('add element inet other s { 192.0.2.1 }');
  await delay(SETTLED_MS);
  t.equal(calls, 1, 'nor do elements');
  nft('add chain inet other c');
  nft('add rule inet other c counter');
  await until('its rules', () => calls > 1);
  t.equal(calls, 2, 'one call for the burst');
  nft('delete table inet other');
  await until('another look after one that failed', () => calls === 4);
});

t.test('a probe whose answer was lost is made again', async (t) => {
  let tries = 0;
  const probe = async () => {
    if (++tries < 3) throw new UnknownOutcomeError('Cannot tell outcome of probe: answers were lost');
  };
  const [finding] = await probeFeatures([{ name: 'lossy', isNeeded: true, from: '', use: '', probe }]);
  t.match(finding, { name: 'feature.lossy', level: 'ok' });
  t.equal(tries, 3);
});
