import { rmSync, writeFileSync } from 'node:fs';

import { isDeepStrictEqual } from 'node:util';
import type { GroupAnswer, Status } from 'sluice-gateway/admin/answers.js';
import type { ExplainAnswer, Finding } from 'sluice-gateway/analysis/output.js';

import type { FlowRecord } from 'sluice-gateway/flows/record.js';
import type { InventoryBody } from 'sluice-gateway/snapshot/format.js';
import t, { type Test } from 'tap';
import { parseExposition } from '../support/exposition.js';
import { patience } from '../support/patience.js';
import { needPrivileges } from '../support/privileged.js';
import { SnapshotForger } from '../support/snapshots.js';
import type { Stage } from '../support/stage.js';
import { until } from '../support/wait.js';
import {
  ACCOUNT,
  awsState,
  CONFIG,
  LEDGER,
  POLICY,
  REGION,
  ROGUE,
  setUpWorkers,
  WORKER,
  writePolicy,
} from '../support/workers.js';

needPrivileges();

t.setTimeout(600_000 * patience);

const arnOf = (name: string) => `arn:aws:lambda:${REGION}:${ACCOUNT}:function:${name}`;

/** Questions, and whether packets pass. */
const QUESTIONS = [
  { from: WORKER.address, src: WORKER.name, zone: WORKER.zone, port: LEDGER.port, passes: true },
  { from: WORKER.address, src: WORKER.name, zone: WORKER.zone, port: LEDGER.port + 1, passes: false },
  { from: ROGUE.address, src: ROGUE.address, zone: ROGUE.zone, port: LEDGER.port, passes: false },
] as const;

async function explainAgrees(t: Test, stage: Stage): Promise<void> {
  for (const { from, src, zone, port, passes } of QUESTIONS) {
    const question = ['--src', src, '--dst', LEDGER.to, '--port', String(port), '--json'];
    const [asked, read] = await Promise.all([
      stage.sluice('explain', ...question, '--socket', stage.path('admin.sock')),
      stage.sluice('explain', ...question, '--config', stage.path('sluice.yaml')),
    ]);
    t.equal(asked.code, passes ? 0 : 1, `${src} to ${port}: exit code`);
    const { kernel } = JSON.parse(asked.out) as ExplainAnswer;
    // From files it is not known since when an address is in a group.
    const { verdict, reason, rule, passed, src: side } = JSON.parse(read.out) as ExplainAnswer;
    t.match(
      { ...asked, out: JSON.parse(asked.out) },
      { ...read, out: { verdict, reason, rule, passed, src: side } },
      `${src} to ${port}: the gateway says what files say`,
    );
    t.strictSame(
      kernel,
      { state: 'same', verdict, rule: rule.name },
      `${src} to ${port}: so does the kernel`,
    );
    const expected = passes ? ['PERMIT', 'rule', 'workers-to-ledger'] : ['DENY', 'default', 'default'];
    t.same([verdict, reason, rule.name], expected, `${src} to ${port}: explained`);
    const [arrived] = stage.attempt(zone, [{ from, to: LEDGER.to, port, protocol: 'tcp' }]);
    t.equal(arrived, passes, `${src} to ${port}: packets say what explain says`);
  }
}

/** Rules that a check by the gateway's counters says were never hit. */
async function neverHit(stage: Stage): Promise<unknown> {
  const { out } = await stage.sluice('check', '--config', stage.path('sluice.yaml'), '--json');
  const { findings } = JSON.parse(out) as { findings: Finding[] };
  return findings.filter(({ kind }) => kind === 'never-hit').map(({ id }) => id);
}

async function answersAreWhole(t: Test, stage: Stage): Promise<void> {
  t.match(await stage.ask<Status>('status'), {
    gateway: 'gw-a',
    ready: true,
    reason: /^revision [0-9]+ is in the kernel$/,
    generation: Number,
    revision: { wanted: Number, applied: Number },
    ...{ rules: 1, groups: 4, functions: 2 },
    scopes: [{ accountId: ACCOUNT, region: REGION, refreshedAt: /Z$/ }],
    dropped: { deny: Number, reject: 0, invalid: Number, spoofed: 0, unclassified: Number, input: Number },
  });
  t.match(await stage.ask<GroupAnswer[]>('groups', 'workers'), [
    { name: 'workers', resolved: true, prefixes: [WORKER.subnet], functions: [arnOf(WORKER.name)] },
  ]);
  t.match(await stage.ask<InventoryBody>('inventory'), {
    functions: [ROGUE, WORKER].map(({ name, subnet }) => ({
      arn: arnOf(name),
      ...{ name, accountId: ACCOUNT, region: REGION, identity: 'dedicated-subnet', prefixes: [subnet] },
    })),
  });
  const { out } = await stage.sluice('flows', '--json', '--socket', stage.path('admin.sock'));
  const records = out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as FlowRecord);
  const opened = records.find(({ event }) => event === 'open');
  t.match(opened, {
    schema: 'sluice.flow/1',
    ...{ event: 'open', verdict: 'PERMIT', enforced: true, reason: 'rule', gateway: 'gw-a', protocol: 'TCP' },
    rule: { name: 'workers-to-ledger', priority: 10 },
    src: { ip: WORKER.address, functions: [arnOf(WORKER.name)], account: ACCOUNT, region: REGION },
    dst: { ip: LEDGER.to, port: LEDGER.port },
  });
  t.ok(
    stage.flows().some((record) => isDeepStrictEqual(record, opened)),
    'the log has the same record',
  );
}

const rule = (name: string, rest: string) =>
  `  - { name: ${name}, action: PERMIT, src: [Anywhere], dst: [Anywhere], protocol: TCP, ${rest} }\n`;
const rules = (...all: string[]) => `version: sluice.policy/1\npolicies:\n${all.join('')}`;
const group = (expression: string) =>
  `version: sluice.policy/1\nsmartGroups:\n  - name: g\n    selector: { any: [{ all: { ${expression} } }] }\n`;
const list = (line: string) =>
  `resource "aviatrix_distributed_firewalling_policy_list" "l" {\n  policies {\n    name = "r"\n    action = "PERMIT"\n    protocol = "TCP"\n    src_smart_groups = ["def000ad-0000-0000-0000-000000000000"]\n    dst_smart_groups = ["def000ad-0000-0000-0000-000000000000"]\n${line}  }\n}\n`;

/** Policies that can't be used, all of which would permit more; and where and how that is said. */
const BAD: readonly (readonly [file: string, text: string, error: string])[] = [
  [
    'p.yaml',
    group('cidr: 10.20.0.5/16'),
    '4:38: Cannot parse CIDR: "10.20.0.5/16" has host bits set, the network is 10.20.0.0/16',
  ],
  [
    'p.yaml',
    group('cidr: 010.0.0.1'),
    '4:38: Cannot parse CIDR: "010.0.0.1" does not start with an IPv4 or IPv6 address (no leading zeros, no zone)',
  ],
  [
    'p.yaml',
    rules(rule('r', 'priority: 1').replace('src: [Anywhere]', 'src: [Anywher]')),
    '3:38: unknown group "Anywher": did you mean "Anywhere"?',
  ],
  [
    'p.yaml',
    rules(rule('r', 'priority: 1'), rule('s', 'priority: 1')),
    '4:91: priority 1 is given twice: first at FOLDER/p.yaml:3:91, by rule "r"',
  ],
  [
    'p.yaml',
    rules(rule('r', 'priority: 1, portRanges: [{ lo: 70000 }]')),
    '3:113: "lo" is 70000: the highest allowed is 65535',
  ],
  [
    'p.yaml',
    'version: sluice.policy/1\npolicies: [\n',
    '3:1: YAML syntax: Flow sequence in block collection must be sufficiently indented and end with a ]',
  ],
  ['p.tf', list('').slice(0, -2), '1:61: Terraform syntax: this block is never closed'],
  [
    'p.tf',
    list('    web_groups = ["w"]\n'),
    '8:18: web_groups would narrow the rule and is not enforced here: remove it',
  ],
  [
    'p.yaml',
    group('type: subnet, id: subnet-0'),
    '4:30: unknown subnet "subnet-0": AWS knows none of this id here',
  ],
];

async function badPolicies(t: Test, stage: Stage): Promise<void> {
  const product = stage.product!;
  for (const [file, text, error] of BAD) {
    const folder = stage.path('policy');
    const said = `${folder}/${file}:${error.replace('FOLDER', folder)}`;
    const logStart = product.log.length;
    rmSync(`${folder}/policy.yaml`, { force: true });
    writeFileSync(`${folder}/${file}`, text);
    const checked = await stage.sluice('check', '--config', stage.path('sluice.yaml'));
    t.strictSame(checked, { code: 2, out: '', error: `${said}\n` }, error);
    await until(`the client says ${said}`, () =>
      product.logFrom(logStart).some(({ message }) => message === said),
    );
    const messages = product
      .logFrom(logStart)
      .filter(({ level }) => level === 'error')
      .map(({ message }) => message);
    t.ok(
      messages.includes('the policy can not be used, what is in force stays'),
      `${error}: and that all stays`,
    );
    rmSync(`${folder}/${file}`);
  }
  t.same(
    stage.attempt('a', [{ from: WORKER.address, ...LEDGER, protocol: 'tcp' }]),
    [true],
    'what was permitted is',
  );
  t.same(
    stage.attempt('b', [{ from: ROGUE.address, ...LEDGER, protocol: 'tcp' }]),
    [false],
    'what was denied is',
  );
  const logStart = product.log.length;
  writePolicy(stage, POLICY);
  await until('the client says that it is well', () =>
    product
      .logFrom(logStart)
      .some(({ message }) => message === 'the policy is good again and in the snapshot'),
  );
}

t.test('a running gateway answers', async (t) => {
  const stage = await setUpWorkers(t);
  stage.start();
  await stage.ready(({ functions }) => functions > 0);
  t.strictSame(await neverHit(stage), ['never-hit/workers-to-ledger']);
  await t.test('explain', (t) => explainAgrees(t, stage));
  t.strictSame(await neverHit(stage), [], 'its packets were counted');
  await t.test('JSON', (t) => answersAreWhole(t, stage));
  await t.test('bad policies', (t) => badPolicies(t, stage));
  const second = await stage.sluice('run', '--config', stage.path('sluice.yaml'));
  t.match(second, { code: 2, error: /^Cannot .*log group 1/m }, 'a second one does not start');
  t.ok((await stage.ask<Status>('status')).ready, 'the first goes on');
  await stage.product!.stop();
  writeFileSync(stage.path('sluice.yaml'), `${CONFIG}controllerClient: { user: nobody-here }\n`);
  t.match(await stage.sluice('run', '--config', stage.path('sluice.yaml')), {
    code: 2,
    error: /^Cannot start controller client: there is no user "nobody-here", create it or name another$/m,
  });
  writeFileSync(stage.path('sluice.yaml'), CONFIG.replace('lam0, lam1', 'lam0, lam1, lam9'));
  stage.start();
  const status = ['status', '--socket', stage.path('admin.sock')];
  const said = await until('the gateway answers', async () => {
    const answer = await stage.sluice(...status);
    return answer.code < 2 && answer;
  });
  t.match(
    said,
    { code: 1, out: /^gw-a: NOT READY, there is no interface lam9\n/ },
    'a missing interface is told',
  );
});

/** Everything that acts on a terminal or ends a name where it is quoted. */
const HOSTILE = 'a\n\u001b[2J\u001b]0;t\u0007\r"\'=\\{b="c"} 7 \u009b31m\u2028\u202ez\u007f\ufeff;`$(id)`';
const ACTING = /[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069\ufeff]/u;

/** Hostile in the words of `JSON.stringify`, so that it can stand in policy files of JSON. */
const HOSTILE_POLICY = JSON.stringify({
  version: 'sluice.policy/1',
  smartGroups: [
    { name: HOSTILE, selector: { any: [{ all: { type: 'serverless', tags: { [HOSTILE]: HOSTILE } } }] } },
  ],
  policies: [
    {
      name: HOSTILE,
      priority: 1,
      action: 'PERMIT',
      src: [HOSTILE],
      dst: ['Anywhere'],
      protocol: 'TCP',
      logging: true,
    },
    {
      name: `${HOSTILE}2`,
      priority: 2,
      action: 'DENY',
      src: ['Anywhere'],
      dst: ['Anywhere'],
      protocol: 'TCP',
      logging: true,
    },
  ],
});

const COMMANDS = [
  ['status'],
  ['groups'],
  ['groups', HOSTILE],
  ['groups', `no ${HOSTILE}`],
  ['inventory'],
  ['flows'],
  ['flows', '--rule', HOSTILE],
  ['top'],
  ['explain', '--src', WORKER.address, '--dst', LEDGER.to, '--port', '5000'],
  ['explain', '--src', HOSTILE, '--dst', LEDGER.to, '--port', '5000'],
  ['explain', '--src', WORKER.address, '--dst', HOSTILE],
  [`no ${HOSTILE}`],
];

const isHarmless = (text: string) => text.split('\n').every((line) => !ACTING.test(line));

async function saysNothingRaw(t: Test, stage: Stage, when: string): Promise<void> {
  const attempts = QUESTIONS.map(({ from, zone, port }) =>
    stage.attempt(zone, [{ from, to: LEDGER.to, port, protocol: 'tcp' }]),
  );
  t.same(attempts.flat(), [true, false, false], `${when}: the rules are enforced`);
  await until('flow records', () =>
    ['open', 'deny'].every((wanted) => stage.flows().some(({ event }) => event === wanted)),
  );
  const socket = ['--socket', stage.path('admin.sock')];
  const forms = COMMANDS.flatMap((command) => [command, [...command, '--json']]);
  const all = await Promise.all(forms.map((args) => stage.sluice(...args, ...socket)));
  for (const [index, { out, error }] of all.entries()) {
    t.ok(isHarmless(out + error), `${when}: nothing raw from command ${index}`);
  }
  const groups = await stage.ask<GroupAnswer[]>('groups', HOSTILE);
  t.strictSame(
    groups.map(({ name }) => name),
    [HOSTILE],
    `${when}: JSON reads back equal`,
  );
  const { out } = await stage.sluice('groups', '--socket', stage.path('admin.sock'));
  t.equal(out.split('\n').length, 5, `${when}: one line a group`);
  const series = parseExposition(stage.metrics()).filter(({ name }) => name === 'sluice_decisions_total');
  t.equal(series.length, 3, `${when}: metrics have a series a rule`);
  for (const { labels } of series) t.notMatch(labels.rule, ACTING, `${when}: nothing raw in a label`);
  t.ok(isHarmless(stage.product!.log), `${when}: nothing raw in the log`);
  t.doesNotThrow(() => stage.product!.logFrom(), `${when}: the log is one object a line`);
  t.ok(
    stage.flows().some((record) => record.rule?.name === HOSTILE),
    `${when}: flow records name the rule`,
  );
  t.ok(
    stage.flowLogLines().every((line) => !ACTING.test(line)),
    `${when}: nothing raw in the flow log`,
  );
  for (const form of [
    ['list', 'ruleset'],
    ['-j', 'list', 'ruleset'],
  ]) {
    const listing = stage.gateway.run('nft', form);
    t.ok(
      listing.includes('forward') && !ACTING.test(listing.replaceAll(/[\n\t]/g, '')),
      `${when}: nft ${form[0]} lists`,
    );
  }
}

t.test('names and tags of strangers are shown and do nothing', async (t) => {
  const tags = { [HOSTILE]: HOSTILE };
  const stage = await setUpWorkers(
    t,
    awsState([
      { name: WORKER.name, subnet: WORKER.subnet, tags },
      { name: ROGUE.name, subnet: ROGUE.subnet, tags: { name: HOSTILE } },
    ]),
  );
  rmSync(stage.path('policy/policy.yaml'));
  writeFileSync(stage.path('policy/policy.json'), HOSTILE_POLICY);
  stage.start();
  await stage.ready(({ functions }) => functions > 0);
  await saysNothingRaw(t, stage, 'policy and tags');
  // From here on a client that was taken over writes what it likes.
  process.kill(stage.product!.clientPid!, 'SIGSTOP');
  const forger = new SnapshotForger(stage.path('snapshot'));
  const inventory = forger.inventory();
  const functions = forger.body({
    functions: inventory.functions.map((one) => ({
      ...one,
      arn: `${one.arn}${HOSTILE}`,
      name: `${one.name}${HOSTILE}`,
    })),
  });
  const digest = forger.body({
    scopes: [{ accountId: HOSTILE.slice(0, 60), region: HOSTILE.slice(0, 60), error: HOSTILE }],
  });
  const manifest = forger.manifest();
  const revision = manifest.revision + 1;
  forger.publish({ ...manifest, revision, inventory: { digest, functions: [functions] } });
  await stage.ready((status) => status.revision.applied === revision);
  await saysNothingRaw(t, stage, 'functions and scopes');
  const body = forger.body({
    ...forger.policy(),
    rules: forger.policy().rules.map((one) => ({ ...one, dst: [`no ${HOSTILE}`] })),
  });
  forger.publish({ ...manifest, revision: revision + 1, policy: { digest: body } });
  const refusal = await until('the refusal is told', () =>
    stage
      .product!.logFrom()
      .find(({ message }) => message === 'a snapshot was refused, the one in force stays'),
  );
  t.match(refusal.error, 'names group "no a\\n\\u001b[2J', 'a refusal quotes the name');
  t.ok(isHarmless(stage.product!.log), 'and nothing of it is raw');
});
