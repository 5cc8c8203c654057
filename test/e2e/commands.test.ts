import { execFile } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { emptyInventory } from 'sluice-controller-client/inventory.js';
import { parseConfig } from 'sluice-gateway/config/config.js';
import t, { type Test } from 'tap';
import { run } from '../support/namespace.js';
import { patience } from '../support/patience.js';
import { needPrivileges } from '../support/privileged.js';
import { SLUICE } from '../support/product.js';
import type { Said } from '../support/stage.js';
import { ACCOUNT, CONFIG, POLICY, REGION } from '../support/workers.js';

needPrivileges();

t.setTimeout(600_000 * patience);

/** Runs a command in a folder, where no gateway is. */
function sluice(folder: string, ...args: string[]): Promise<Said> {
  return new Promise((resolve) => {
    execFile(process.execPath, [SLUICE, ...args], { cwd: folder }, (failure, out, error) => {
      resolve({ code: failure === null ? 0 : Number(failure.code), out, error });
    });
  });
}

const scope = { accountId: ACCOUNT, region: REGION, refreshedAt: new Date().toISOString() };
const place = { accountId: ACCOUNT, region: REGION, seenAt: scope.refreshedAt };
const subnet = { ...place, vpcId: 'vpc-1', zone: `${REGION}a`, tags: {} };
const KNOWN = {
  ...emptyInventory(),
  scopes: [{ ...scope, learntAt: { tags: scope.refreshedAt } }],
  functions: [
    {
      ...place,
      arn: `arn:aws:lambda:${REGION}:${ACCOUNT}:function:worker`,
      name: 'worker',
      vpcId: 'vpc-1',
      subnetIds: ['subnet-1', 'subnet-2'],
      securityGroupIds: [],
      ipv6AllowedForDualStack: true,
      tags: { team: 'pay' },
    },
  ],
  subnets: [
    { ...subnet, id: 'subnet-1', cidrs: ['10.0.1.0/28', 'fd00:1::/64'] },
    { ...subnet, id: 'subnet-2', cidrs: ['10.0.7.0/28'] },
  ],
};

/** Permits one of the two subnets of the worker. */
const MIXED = POLICY.replace('{ type: serverless, tags: { team: pay } }', '{ cidr: 10.0.1.0/24 }');
const WARNS =
  'terraform {\n}\nresource "aviatrix_distributed_firewalling_default_action_rule" "d" {\n  action = "DENY"\n}\n';

function folderOf(t: Test): string {
  return t.testdir({
    'sluice.yaml': CONFIG,
    policy: { 'policy.yaml': POLICY },
    'mixed.yaml': MIXED,
    'warns.tf': WARNS,
    'empty.yaml': '',
    snapshot: { 'inventory.json': JSON.stringify(KNOWN) },
  });
}

const config = ['--config', 'sluice.yaml'];
const explain = (src: string, dst: string, ...rest: string[]) => [
  'explain',
  '--src',
  src,
  '--dst',
  dst,
  ...rest,
];
const FROM_WORKER =
  '  from 10.0.1.0, in Anywhere, workers\n       workers: 10.0.1.0/28 by function worker (subnet-1)';
const TO_DATA_CENTRE = '  to   10.20.0.5, in Anywhere, data-centre\n       data-centre: 10.20.0.0/16 by cidr';
const NO_GATEWAY =
  'Cannot ask gateway: no gateway listens on none.sock: start one with sluice run, or name another socket with --socket';

/** Arguments, exit code, standard output, standard error; a list is what the text starts with, line for line. */
type Case = readonly [args: readonly string[], code: number, out: string | readonly string[], error: string];

const CASES: readonly Case[] = [
  [['version'], 0, `sluice 0.1.0, node ${process.version}`, ''],
  [
    ['check', ...config, '--policy', 'policy'],
    0,
    [
      'policy/policy.yaml:8:5: info: dns-forgotten: no rule permits DNS (udp 53) from "workers", if it goes',
      'by the gateway',
      '  shown by 10.0.1.0 to 10.20.0.0, protocol 17, port 53',
      'policy/policy.yaml:8:5: info: ntp-forgotten: no rule permits NTP (udp 123) from "workers", if it',
      'goes by the gateway',
      '  shown by 10.0.1.0 to 10.20.0.0, protocol 17, port 123',
      'The policy can be enforced: 1 rule, 4 groups, 1 function, default DENY',
    ],
    '',
  ],
  [
    ['check', '--policy', 'warns.tf'],
    1,
    'warning: warns.tf:1:1: terraform is skipped: it is no part of policy\nThe policy can be enforced: 0 rules, 2 groups, 0 functions, default DENY',
    '',
  ],
  [['check'], 2, '', 'Cannot tell which policy is meant: give --config FILE or --policy PATH'],
  [['compile'], 2, '', 'Cannot tell which policy is meant: give --config FILE or --policy PATH'],
  [['compile', ...config], 0, ['table inet sluice {'], ''],
  [
    [...explain('worker', '10.20.0.5', '--port', '5000'), ...config],
    0,
    `PERMIT by rule "workers-to-ledger" (priority 10, PERMIT)\n${FROM_WORKER}\n${TO_DATA_CENTRE}`,
    '',
  ],
  [
    [...explain('worker', '10.20.0.5', '--port', '5001'), ...config],
    1,
    `DENY by default action DENY\n${FROM_WORKER}\n${TO_DATA_CENTRE}\n  past rule "workers-to-ledger" (priority 10, PERMIT): it is for other ports`,
    '',
  ],
  [
    [...explain('worker', '10.20.0.5', '--port', '5000'), ...config, '--policy', 'mixed.yaml'],
    1,
    [
      'MIXED: it depends on which address is meant',
      'PERMIT by rule "workers-to-ledger" (priority 10, PERMIT)',
      '  from 10.0.1.0, in Anywhere, workers',
      '       workers: 10.0.1.0/24 by cidr',
      ...TO_DATA_CENTRE.split('\n'),
      'DENY by default action DENY',
      '  from 10.0.7.0, in Anywhere',
    ],
    '',
  ],
  [
    [...explain('worker', 'fd00:20::5', '--port', '5000'), ...config],
    1,
    [
      'DENY by default action DENY',
      '  from fd00:1::, in Anywhere, workers',
      '       workers: fd00:1::/64 by function worker (subnet-1)',
      '  to   fd00:20::5, in Anywhere',
      '  past rule "workers-to-ledger" (priority 10, PERMIT): its destinations do not hold the address',
    ],
    '',
  ],
  [
    [...explain('10.0.1.1', '10.20.0.5', '--protocol', 'icmp'), ...config],
    1,
    ['DENY by default action DENY'],
    '',
  ],
  [[...explain('worker', '10.20.0.5'), ...config], 2, '', 'Cannot explain: protocol tcp needs a port'],
  [
    [...explain('nobody', '10.20.0.5', '--port', '1'), ...config],
    2,
    '',
    'Cannot explain: "nobody" is neither an address nor a known function',
  ],
  [
    [...explain('10.0.1.1', 'fd00::1', '--port', '1'), ...config],
    2,
    '',
    'Cannot explain: the source has no IPv6 address, the destination is one',
  ],
  [
    [...explain('worker', '010.0.0.1', '--port', '1'), ...config],
    2,
    '',
    'Cannot explain: "010.0.0.1" is neither an address nor a known function',
  ],
  ...['70000', '0x1bb', '', '-1', 'https'].map(
    (port): Case => [
      [...explain('worker', '10.20.0.5', `--port=${port}`), ...config],
      2,
      '',
      `Cannot explain: port "${port}" is not a number from 0 to 65535`,
    ],
  ),
  [
    [...explain('worker', '10.20.0.5', '--protocol', 'tls', '--port', '1'), ...config],
    2,
    '',
    'Cannot explain: protocol "tls" is not tcp, udp, icmp or 0 to 255',
  ],
  [
    ['explain', '--dst', '10.20.0.5'],
    2,
    '',
    "error: required option '--src <address|function>' not specified",
  ],
  [
    ['groups', ...config],
    0,
    [
      'GROUP            PREFIXES  FUNCTIONS  RESOLVED',
      'Anywhere         2         0          yes',
      'Public Internet  96        0          yes',
      'workers          3         1          yes',
      'data-centre      1         0          yes',
    ],
    '',
  ],
  [
    ['groups', 'workers', ...config],
    0,
    ['workers: 3 prefixes', 'PREFIX       SINCE                 FROM'],
    '',
  ],
  [
    ['groups', 'nobody', ...config],
    2,
    '',
    'Cannot show group: there is none called "nobody", sluice groups lists them',
  ],
  [
    ['inventory', ...config],
    0,
    'FUNCTION  ACCOUNT       REGION     IDENTITY          PREFIXES\nworker    111122223333  us-east-1  dedicated-subnet  10.0.1.0/28 10.0.7.0/28 fd00:1::/64',
    '',
  ],
  ...['status', 'groups', 'inventory', 'flows', 'top'].map(
    (command): Case => [[command, '--socket', 'none.sock'], 2, '', NO_GATEWAY],
  ),
  [[...explain('worker', '10.20.0.5', '--port', '1'), '--socket', 'none.sock'], 2, '', NO_GATEWAY],
  [['run'], 2, '', "error: required option '--config <file>' not specified"],
  [['run', '--config', 'none.yaml'], 2, '', 'Cannot read configuration none.yaml: there is no such file'],
  [['run', '--config', 'policy'], 2, '', 'Cannot read configuration policy: it is a folder'],
  [
    ['check', '--config', 'empty.yaml'],
    2,
    '',
    'empty.yaml:1:1: the file is empty, expected gateway and policy',
  ],
  [['flow'], 2, '', "error: unknown command 'flow'\n(Did you mean flows?)"],
  [['status', '--jsn'], 2, '', "error: unknown option '--jsn'\n(Did you mean --json?)"],
];

/** How a line of the configuration may be wrong, and what is said. */
const CONFIG_CASES: readonly (readonly [from: string, to: string, error: string])[] = [
  [
    '  name: gw-a',
    '  nmae: gw-a',
    'bad.yaml:2:3: gateway.name is missing\nbad.yaml:2:3: unknown key "nmae" in gateway',
  ],
  ['refreshSeconds: 2', 'refresh: 2', 'bad.yaml:6:79: unknown key "refresh" in inventory.aws'],
  ['policy: { path', 'policy: { path: x, path', 'bad.yaml:5:20: YAML syntax: Map keys must be unique'],
  ['  name:', '\tname:', 'bad.yaml:2:1: YAML syntax: Tabs are not allowed as indentation'],
  [
    'lam0, lam1',
    'lam0, "lam 1"',
    'bad.yaml:3:28: gateway.lambdaInterfaces.1 is "lam 1": an interface name has 1 to 15 characters of A-Z a-z 0-9 _ . @ -',
  ],
  ['wan0, dc0', 'wan0, lam0', 'bad.yaml:4:21: "lam0" is a Lambda interface too: an interface has one side'],
  ['[lam0, lam1]', '[]', 'bad.yaml:3:21: gateway.lambdaInterfaces is empty: give at least one'],
  ['[lam0, lam1]', 'lam0', 'bad.yaml:3:21: gateway.lambdaInterfaces is "lam0", expected a list'],
  [
    `"${ACCOUNT}"`,
    ACCOUNT,
    `bad.yaml:6:38: inventory.aws.accounts.0.id is ${ACCOUNT}, expected a string: put it in quotes`,
  ],
  [
    'refreshSeconds: 2',
    'refreshSeconds: 0',
    'bad.yaml:6:95: inventory.aws.refreshSeconds is 0: the lowest allowed is 1',
  ],
  [
    'type: file',
    'type: fluentd',
    'bad.yaml:8:26: flows.sinks.0.type is "fluentd": expected stdout, file, syslog, http, otlp, ipfix, kafka or s3',
  ],
  ['{ socket: admin.sock }', '', 'bad.yaml:10:8: admin is empty, expected a map'],
  [
    '127.0.0.1:9464 }',
    '127.0.0.1:9464, rulesMax: 5000 }',
    'bad.yaml:9:46: metrics.rulesMax is 5000: the highest allowed is 2000',
  ],
  [
    '127.0.0.1:9464',
    'localhost',
    'bad.yaml:9:20: Cannot parse listen address: "localhost" is not ADDRESS:PORT, as 127.0.0.1:9464 or [::1]:9464',
  ],
];

async function check(t: Test, folder: string, [args, code, out, error]: Case): Promise<void> {
  const said = await sluice(folder, ...args);
  const what = args.join(' ');
  t.equal(said.error.trimEnd(), error, `${what}: standard error`);
  if (typeof out === 'string') t.equal(said.out.trimEnd(), out, `${what}: standard output`);
  else t.same(said.out.split('\n').slice(0, out.length), out, `${what}: standard output begins so`);
  t.equal(said.code, code, `${what}: exit code`);
}

t.test('every command without a gateway', async (t) => {
  const folder = folderOf(t);
  // Two at a time, as there may be no more processors.
  const cases = CASES.values();
  const worker = async () => {
    for (const one of cases) await check(t, folder, one);
  };
  await Promise.all([worker(), worker()]);
});

t.test('a wrong configuration is refused with file, line and column', async (t) => {
  for (const [from, to, error] of CONFIG_CASES) {
    const text = CONFIG.replace(from, to);
    t.not(text, CONFIG, `${from} is there`);
    t.throws(() => parseConfig(text, 'bad.yaml'), { message: error }, to);
  }
});

t.test('what was known of AWS and can not be read is refused by name', async (t) => {
  const folder = folderOf(t);
  writeFileSync(`${folder}/snapshot/inventory.json`, '{"scopes":[]}');
  const error = `Cannot read known inventory: ${folder}/snapshot/inventory.json is not what the controller client wrote, remove it to begin with what AWS says`;
  await check(t, folder, [['check', ...config], 2, '', error]);
});

t.test('JSON for machines', async (t) => {
  const folder = folderOf(t);
  const ask = async (...args: string[]): Promise<Record<string, unknown>> => {
    const { out } = await sluice(folder, ...args, '--json');
    t.equal(out.indexOf('\n'), out.length - 1, `${args[0]} --json is one line`);
    return JSON.parse(out) as Record<string, unknown>;
  };
  t.strictSame(await ask('version'), { version: '0.1.0', node: process.version });
  t.match(await ask('check', ...config), {
    ...{ warnings: [], rules: 1, groups: 4, functions: 1 },
    findings: [{ id: 'dns-forgotten' }, { id: 'ntp-forgotten', at: /policy\.yaml:8:5$/ }],
  });
  const { program } = await ask('compile', ...config);
  rmSync(`${folder}/policy`, { recursive: true });
  mkdirSync(`${folder}/policy`);
  writeFileSync(`${folder}/policy/policy.yaml`, MIXED);
  t.doesNotThrow(
    () => run('unshare', ['-n', 'nft', '-c', '-f', '-'], { input: program as string }),
    'nft takes it',
  );
  const answer = await ask(...explain('worker', '10.20.0.5', '--port', '5000'), ...config);
  t.match(answer, {
    verdict: 'MIXED',
    reason: 'rule',
    rule: { name: 'workers-to-ledger', priority: 10, action: 'PERMIT' },
    alternatives: [{ verdict: 'PERMIT' }, { verdict: 'DENY', reason: 'default', rule: { name: 'default' } }],
  });
  const arn = KNOWN.functions[0]!.arn;
  t.match(await ask('groups', 'data-centre', ...config), [
    { name: 'data-centre', resolved: true, prefixes: ['10.20.0.0/16'], functions: [] },
  ]);
  t.match(await ask('groups', 'workers', ...config), [
    { origins: [{ prefix: '10.0.1.0/24', via: 'cidr', since: /^20/ }] },
  ]);
  t.match(await ask('inventory', ...config), {
    functions: [{ arn, identity: 'dedicated-subnet' }],
    scopes: [scope],
  });
});

t.test('run and the check of the kernel without the right to', async (t) => {
  const folder = folderOf(t);
  const drop = ['--bounding-set=-net_admin', '--inh-caps=-net_admin', process.execPath, SLUICE];
  const without = (...args: string[]) =>
    new Promise<Said>((resolve) => {
      execFile('setpriv', [...drop, ...args], { cwd: folder }, (failure, out, error) =>
        resolve({ code: Number(failure?.code ?? 0), out, error }),
      );
    });
  const refused = (what: string) => ({
    ...{ code: 2, out: '', error: `Cannot ${what}: it needs CAP_NET_ADMIN, run it as root\n` },
  });
  t.strictSame(await without('run', ...config), refused('run gateway'));
  t.strictSame(await without('check', '--kernel'), refused('check kernel'));
});
