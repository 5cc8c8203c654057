import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import {
  COMMAND_SCHEMAS,
  commandsJsonSchema,
  type ExplainAnswer,
  type Finding,
  type LearnAnswer,
  type SimulateAnswer,
} from 'sluice-gateway/analysis/output.js';
import t, { type Test } from 'tap';
import { SLUICE } from '../support/product.js';
import type { Said } from '../support/stage.js';

/** Runs a command in a folder, with something on its standard input. */
function sluice(folder: string, args: readonly string[], input = ''): Promise<Said> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [SLUICE, ...args], { cwd: folder }, (failure, out, error) => {
      resolve({ code: failure === null ? 0 : Number(failure.code), out, error });
    });
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });
}

/** What a command says as JSON, which is as published. */
async function ask<Name extends keyof typeof COMMAND_SCHEMAS>(
  t: Test,
  folder: string,
  name: Name,
  args: readonly string[],
) {
  const { out, code, error } = await sluice(folder, [name, ...args, '--json']);
  t.ok(code < 2, error);
  const answer: unknown = JSON.parse(out);
  t.strictSame(COMMAND_SCHEMAS[name].parse(answer), answer, `${name} says what its schema has`);
  return { code, answer };
}

t.test('the schemas that are published are those of the code', async (t) => {
  const file = fileURLToPath(new URL('../../../deploy/commands.schema.json', import.meta.url));
  const text = `${JSON.stringify(commandsJsonSchema(), undefined, 2)}\n`;
  if (process.env.UPDATE_SCHEMA === '1') writeFileSync(file, text);
  t.equal(readFileSync(file, 'utf8'), text, 'else: UPDATE_SCHEMA=1 and run this file again');
});

const group = (name: string, ...cidrs: string[]) =>
  `  - { name: ${name}, selector: { any: [${cidrs.map((cidr) => `{ all: { cidr: ${cidr} } }`).join(', ')}] } }\n`;
const rule = (name: string, priority: number, action: string, src: string, dst: string, more = '') =>
  `  - { name: ${name}, priority: ${priority}, action: ${action}, src: [${src}], dst: [${dst}], protocol: TCP${more} }\n`;
const GROUPS = [
  group('apps', '10.0.1.0/24'),
  group('jobs', '10.0.2.0/24'),
  group('ledger', '10.20.0.0/24'),
  group('old-ledger', '10.20.0.0/28'),
].join('');
const HTTPS = ', portRanges: [{ lo: 443 }]';
const policyOf = (...rules: string[]) =>
  `version: sluice.policy/1\nsmartGroups:\n${GROUPS}policies:\n${rules.join('') || '  []\n'}`;

const LINTED = policyOf(
  rule('keep-out', 10, 'DENY', 'Anywhere', 'old-ledger'),
  rule('pay', 20, 'PERMIT', 'apps', 'ledger', HTTPS),
  rule('pay-again', 30, 'PERMIT', 'apps', 'ledger', HTTPS),
  rule('old', 40, 'PERMIT', 'apps', 'old-ledger', HTTPS),
  rule('out', 50, 'PERMIT', 'jobs', 'Public Internet'),
  rule('no-jobs', 60, 'DENY', 'jobs', 'ledger'),
);

t.test('check finds what is probably not meant, with its place and what shows it', async (t) => {
  const folder = t.testdir({ 'policy.yaml': LINTED, 'fine.yaml': policyOf() });
  const { code, answer } = await ask(t, folder, 'check', ['--policy', 'policy.yaml']);
  t.equal(code, 1);
  const found = (answer as { findings: Finding[] }).findings.map(({ id, level, at, proof }) => [
    id,
    level,
    at,
    proof && `${proof.src} ${proof.dst} ${proof.protocol} ${proof.port}`,
  ]);
  t.strictSame(found, [
    ['shadowed/pay-again', 'warning', 'policy.yaml:10:5', '10.0.1.1 10.20.0.17 6 443'],
    ['contradictory/old', 'warning', 'policy.yaml:11:5', '10.0.1.1 10.20.0.1 6 443'],
    ['redundant/no-jobs', 'info', 'policy.yaml:13:5', '10.0.2.1 10.20.0.17 6 443'],
    ['overlap/keep-out/pay/old-ledger/ledger', 'info', 'policy.yaml:8:5', '10.0.1.1 10.20.0.1 6 443'],
    ['over-broad/out/Public Internet', 'warning', 'policy.yaml:12:5', '10.0.2.1 1.0.0.1 6 443'],
    ['dns-forgotten', 'info', 'policy.yaml:9:5', '10.0.1.0 10.20.0.0 17 53'],
    ['ntp-forgotten', 'info', 'policy.yaml:9:5', '10.0.1.0 10.20.0.0 17 123'],
  ]);
  const { out } = await sluice(folder, ['check', '--policy', 'policy.yaml']);
  t.match(out, /^policy\.yaml:10:5: warning: shadowed: rule "pay-again" never decides: /m);
  t.match(out, /^ {2}shown by 10\.0\.1\.1 to 10\.20\.0\.17, protocol 6, port 443$/m);
  t.ok(
    out.split('\n').every((line) => line.length <= 100),
    'it fits 100 columns',
  );
  t.match(await sluice(folder, ['check', '--policy', 'fine.yaml']), { code: 0, error: '' });
});

const OPEN = { schema: 'sluice.flow/1', time: '2026-11-01T00:00:00.000Z', gateway: 'gw-a', enforced: true };
const record = (src: string, dst: string, port: number, more: object = {}) =>
  JSON.stringify({
    ...{ ...OPEN, event: 'open', verdict: 'PERMIT', reason: 'rule', rule: { name: 'before', priority: 1 } },
    ...{ protocol: 'TCP', src: { ip: src, port: 40_000, functions: [], groups: ['apps'] } },
    ...{ dst: { ip: dst, port, groups: [] }, ...more },
  });
const BYTES = { out: 100, in: 1_000 };
const RECORDS = [
  record('10.0.1.7', '10.20.0.99', 443),
  record('10.0.1.7', '10.20.0.99', 443, { event: 'close', bytes: BYTES }),
  record('10.0.1.7', '203.0.113.9', 443),
  record('10.0.1.7', '203.0.113.9', 443, { event: 'close', bytes: BYTES }),
  record('10.0.2.7', '10.20.0.99', 443, { event: 'deny', verdict: 'DENY', reason: 'default' }),
  record('10.0.1.7', '10.20.0.99', 22, { event: 'deny', verdict: 'DENY', enforced: false }),
  record('10.0.1.7', '10.20.0.99', 1, { event: 'deny', verdict: 'DENY', reason: 'invalid' }),
  JSON.stringify({ ...OPEN, event: 'loss', loss: { source: 'nflog' } }),
  '{"torn":',
];
const CANDIDATE = policyOf(
  rule('pay', 20, 'PERMIT', 'apps', 'ledger', HTTPS),
  rule('jobs', 30, 'PERMIT', 'jobs', 'ledger', HTTPS),
);

t.test('simulate says what another policy would change', async (t) => {
  const lines = `${RECORDS.join('\n')}\n`;
  const folder = t.testdir({
    'policy.yaml': CANDIDATE,
    'flows.jsonl': lines,
    'same.jsonl': `${RECORDS[0]}\n`,
  });
  writeFileSync(`${folder}/flows.jsonl.gz`, gzipSync(lines));
  const simulate = (...files: string[]) => ['--policy', 'policy.yaml', '--flows', ...files];
  const { code, answer } = await ask(t, folder, 'simulate', simulate('flows.jsonl'));
  t.equal(code, 1, 'something that was permitted would break');
  const sums = { records: 2, connections: 1, bytesOut: 100, bytesIn: 1_000 };
  const opens = { records: 1, connections: 1, bytesOut: 0, bytesIn: 0 };
  t.strictSame(answer, {
    ...{ records: 9, judged: 5, monitored: 1 },
    skipped: { anomaly: 1, loss: 1, reply: 0, empty: 0, unreadable: 1 },
    changed: { ...sums, records: 3, connections: 2 },
    breaks: { ...sums, sources: 1 },
    opens,
    changes: [
      {
        ...{ source: 'apps', destination: 'Public Internet', ...sums },
        before: { verdict: 'PERMIT', rule: 'before' },
        after: { verdict: 'DENY', rule: 'default' },
        example: { time: OPEN.time, src: '10.0.1.7', dst: '203.0.113.9', protocol: 6, port: 443 },
      },
      {
        ...{ source: 'jobs', destination: 'ledger', ...opens },
        before: { verdict: 'DENY', rule: 'before' },
        after: { verdict: 'PERMIT', rule: 'jobs' },
        example: { time: OPEN.time, src: '10.0.2.7', dst: '10.20.0.99', protocol: 6, port: 443 },
      },
    ],
    recordsOmitted: 0,
  });
  const twice = (await ask(t, folder, 'simulate', simulate('flows.jsonl', 'flows.jsonl.gz'))).answer;
  t.match(twice, { records: 18, breaks: { records: 4 } }, 'files add up, .gz too');
  t.match(await sluice(folder, ['simulate', ...simulate('-')], lines), {
    code: 1,
    out: /^9 records, 5 judged; would change: 3 records, 2 connections, 100 bytes out, 1000 in\n/,
  });
  t.match(await sluice(folder, ['simulate', ...simulate('same.jsonl')]), { code: 0 });
  for (const [file, error] of [
    ['none.jsonl', 'Cannot read flows none.jsonl: there is no such file\n'],
    ['policy.yaml', /^Cannot read flows policy.yaml: line 1: it begins with neither /],
  ] as const) {
    t.match(await sluice(folder, ['simulate', ...simulate(file)]), { code: 2, out: '', error });
  }
});

const V2 = (src: string, dst: string, ports: string, end = 'ACCEPT OK') =>
  `2 111122223333 eni-0a1 ${src} ${dst} ${ports} 6 10 840 1790000000 1790000060 ${end}`;
const VPC = [
  V2('10.0.1.7', '10.20.0.99', '40000 443'),
  V2('10.20.0.99', '10.0.1.7', '443 40000'),
  V2('10.0.1.7', '203.0.113.9', '40000 443'),
  V2('203.0.113.9', '10.0.1.7', '443 40000'),
  V2('10.0.2.7', '10.20.0.99', '40000 443', 'REJECT OK'),
  '2 111122223333 eni-0a1 - - - - - - - 1790000000 1790000060 - NODATA',
];
const CUSTOM = [
  'dstaddr dstport srcaddr srcport protocol flow-direction action bytes pkt-srcaddr pkt-dstaddr',
  '10.9.9.9 443 10.0.1.7 40000 6 egress ACCEPT 840 10.0.1.7 10.20.0.99',
  '10.0.1.7 40000 10.20.0.99 443 6 ingress ACCEPT 840 10.20.0.99 10.0.1.7',
  '203.0.113.9 443 10.0.1.7 40000 6 egress ACCEPT 840 10.0.1.7 203.0.113.9',
];

t.test('simulate reads VPC Flow Logs, and takes no reply for a connection', async (t) => {
  const folder = t.testdir({
    'policy.yaml': CANDIDATE,
    'v2.log': `${VPC.join('\n')}\n`,
    'custom.log': `${CUSTOM.join('\n')}\n`,
    'poor.log': 'srcaddr dstaddr action\n',
  });
  const simulate = async (file: string) => {
    const { answer } = await ask(t, folder, 'simulate', ['--policy', 'policy.yaml', '--flows', file]);
    const { records, judged, skipped, breaks, opens } = answer as SimulateAnswer;
    return {
      records,
      judged,
      reply: skipped.reply,
      empty: skipped.empty,
      breaks: breaks.records,
      opens: opens.records,
    };
  };
  t.strictSame(await simulate('v2.log'), { records: 6, judged: 3, reply: 2, empty: 1, breaks: 1, opens: 1 });
  t.strictSame(await simulate('custom.log'), {
    records: 3,
    judged: 2,
    reply: 1,
    empty: 0,
    breaks: 1,
    opens: 0,
  });
  t.match(await sluice(folder, ['simulate', '--policy', 'policy.yaml', '--flows', 'poor.log']), {
    code: 2,
    error: 'Cannot read flows poor.log: line 1: VPC Flow Logs lack the field dstport, protocol\n',
  });
});

const MONITORED = policyOf(
  rule('never', 5, 'DENY', 'apps', 'old-ledger'),
  rule('watch', 10, 'DENY', 'apps', 'Anywhere', ', enforcement: MONITOR'),
);
const monitored = (dst: string, port: number, more: object = {}) =>
  record('10.0.1.7', dst, port, { event: 'deny', verdict: 'DENY', enforced: false, ...more });
const SEEN = [
  ...[1, 2, 3, 4].map((host) => monitored(`203.0.113.${host}`, 443)),
  monitored('198.51.100.7', 443),
  monitored('10.20.0.99', 8_000),
  monitored('10.20.0.98', 8_001),
  monitored('192.0.2.53', 53, { protocol: 'UDP' }),
  monitored('192.0.2.1', 0, { protocol: 'ICMP' }),
];
const OTHERS = [monitored('10.20.0.1', 443), record('10.0.2.7', '203.0.113.9', 443)];

t.test('learn proposes a policy that reads back and permits what was seen', async (t) => {
  const folder = t.testdir({
    'policy.yaml': MONITORED,
    'seen.jsonl': `${SEEN.join('\n')}\n`,
    'flows.jsonl': `${[...SEEN, ...OTHERS].join('\n')}\n`,
    // What the group's flows would have been without MONITOR: a simulation passes over what is only watched.
    'enforced.jsonl': `${SEEN.join('\n').replaceAll('"enforced":false', '"enforced":true').replaceAll('"DENY"', '"PERMIT"')}\n`,
  });
  const args = ['--group', 'apps', '--flows', 'flows.jsonl', '--policy', 'policy.yaml'];
  for (const [format, file] of [
    ['yaml', 'learnt.yaml'],
    ['terraform', 'learnt.tf'],
  ] as const) {
    const { code, answer } = await ask(t, folder, 'learn', [...args, '--format', format]);
    t.equal(code, 0);
    const { policy, ...summary } = answer as LearnAnswer;
    t.match(summary, {
      ...{ group: 'apps', records: 11, learnt: 9, permitted: 0, denied: 1, others: 1, destinations: 9 },
      deniedBy: [{ rule: 'never', records: 1 }],
    });
    writeFileSync(`${folder}/${file}`, policy);
    const simulated = ['simulate', '--policy', file, '--flows', 'enforced.jsonl', '--json'];
    const { out, code: breaks, error } = await sluice(folder, simulated);
    t.equal(breaks, 0, `${format}: ${error}`);
    t.match(
      JSON.parse(out),
      { judged: SEEN.length, changed: { records: 0 } },
      `${format} permits all of them`,
    );
    const asked = (dst: string, port: string) =>
      sluice(folder, ['explain', '--src', '10.0.1.7', '--dst', dst, '--port', port, '--policy', file]);
    t.match(
      await asked('10.20.0.5', '8001'),
      { out: /^PERMIT by rule "apps-to-ledger-tcp"/ },
      'by a group that exists',
    );
    t.match(await asked('203.0.113.9', '443'), { code: 1 }, 'an address that was not seen');
    t.match(await asked('203.0.113.1', '444'), { code: 1 }, 'a port that was not seen');
  }
  t.match(readFileSync(`${folder}/learnt.yaml`, 'utf8'), /cidr: 203\.0\.113\.[0-9]+\/3[0-9]/);
  const few = (await ask(t, folder, 'learn', [...args, '--prefixes-max', '1'])).answer as LearnAnswer;
  t.equal(few.policy.match(/cidr: (?:203|198)/g)?.length ?? 0, 0, 'both in one wide prefix');
  t.match(await sluice(folder, ['learn', '--group', 'nobody', ...args.slice(2)]), {
    code: 2,
    error: 'Cannot learn: there is no group called "nobody", sluice groups lists them\n',
  });
});

t.test('explain takes a name for its addresses, and says what keeps rules from deciding', async (t) => {
  const local = policyOf(
    rule('off', 1, 'PERMIT', 'apps', 'loop', ', enforcement: DISABLE'),
    rule('over', 2, 'PERMIT', 'apps', 'loop', ', expires: 2020-01-01T00:00:00Z'),
    rule('seen', 3, 'PERMIT', 'apps', 'loop', ', enforcement: MONITOR'),
    rule('others', 4, 'PERMIT', 'jobs', 'loop'),
    rule('elsewhere', 5, 'PERMIT', 'apps', 'ledger'),
    rule('ping', 6, 'PERMIT', 'apps', 'loop').replace('TCP', 'ICMP'),
    rule('ssh', 7, 'PERMIT', 'apps', 'loop', ', portRanges: [{ lo: 22 }]'),
    rule('web', 8, 'PERMIT', 'apps', 'loop', HTTPS),
    rule('never', 9, 'PERMIT', 'apps', 'loop'),
  ).replace('smartGroups:\n', `smartGroups:\n${group('loop', '127.0.0.0/8')}`);
  const folder = t.testdir({ 'policy.yaml': local });
  const asked = (dst: string, ...more: string[]) => [
    ...['--src', '10.0.1.7', '--dst', dst, '--port', '443', '--policy', 'policy.yaml', ...more],
  ];
  const { answer, code } = await ask(t, folder, 'explain', asked('localhost'));
  t.equal(code, 0);
  const { passed, rule: decides, dst } = answer as ExplainAnswer;
  t.equal(decides.name, 'web');
  t.strictSame(
    passed.map(({ name, why }) => `${name} ${why}`),
    [
      ...['off disabled', 'over expired', 'seen monitor', 'others source', 'elsewhere destination'],
      ...['ping protocol', 'ssh port'],
    ],
  );
  t.strictSame(dst.memberships, [{ group: 'loop', prefix: '127.0.0.0/8', via: 'cidr' }]);
  const { out } = await sluice(folder, ['explain', ...asked('localhost')]);
  t.ok(
    out.split('\n').every((line) => line.length <= 100),
    'it fits 100 columns',
  );
});
