import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { COMMAND_SCHEMAS } from 'sluice-gateway/analysis/output.js';
import t from 'tap';
import { patience } from '../support/patience.js';
import { needPrivileges } from '../support/privileged.js';
import type { Stage } from '../support/stage.js';
import { until } from '../support/wait.js';
import {
  awsState,
  CONFIG,
  FUNCTIONS,
  LEDGER,
  POLICY,
  ROGUE,
  setUpWorkers,
  WORKER,
  writePolicy,
} from '../support/workers.js';

needPrivileges();

t.setTimeout(600_000 * patience);

const COLUMNS_MAX = 100;
const SECRETS = { file: 'secret-of-a-file-6cf1', env: 'secret-of-an-environment-9b20' } as const;
const SINK = `{ type: http, url: "http://127.0.0.1:9/records", headers: { authorization: { file: token }, x-key: { env: SINK_KEY } } }`;
type Name = keyof typeof COMMAND_SCHEMAS;
type Question = readonly [name: Name, ...args: readonly string[]];

/** As long as names get, and addresses as they are written at their longest. */
const GROUP = `workers-${'of-'.repeat(18)}b`;
const FUNCTION = {
  ...{ name: `worker-${'-'.repeat(57)}`, tags: { team: 'pay' } },
  ...{ subnet: '10.0.2.32/28', subnet6: 'fd00:2222:3333:4444::/64', address: '10.0.2.33' },
} as const;
const FAR = 'fd00:2020:1111:2222:3333:4444:5555:6666';
const LONG_POLICY = POLICY.replaceAll('workers', GROUP)
  .replace('{ cidr: 10.20.0.0/16 }', `{ cidr: 10.20.0.0/16 } }, { all: { cidr: ${FAR}/128 }`)
  .replace('action: DENY', 'action: DENY, logging: true');

/** What each command is asked, in an order in which each has an answer: those that change nothing, and those that do. */
const questions = (stage: Stage): Record<'asks' | 'changes', readonly Question[]> => {
  const config = ['--config', stage.path('sluice.yaml')];
  const policy = ['--policy', stage.path('policy')];
  const flows = ['--flows', stage.path('flows.jsonl')];
  const ledger = ['--dst', LEDGER.to, '--port', String(LEDGER.port)];
  const next = [...config, '--policy', stage.path('next')];
  const asks: Question[] = [
    ['version'],
    ['status', ...config],
    ['groups', '--socket', stage.path('admin.sock')],
    ['groups', GROUP, '--socket', stage.path('admin.sock')],
    ['groups', 'data-centre', ...config],
    ['inventory', ...config],
    ['flows', ...config],
    ['top', ...config],
    ['compile', ...config],
    ['check', ...config],
    ['check --kernel', ...config],
    ['explain', '--src', WORKER.name, ...ledger, ...config],
    ['explain', '--src', FUNCTION.name, '--dst', FAR, '--port', '1', '--socket', stage.path('admin.sock')],
    ['simulate', ...policy, ...config, ...flows],
    ['simulate', '--policy', stage.path('next'), ...config, ...flows],
    ['learn', ...config, '--group', GROUP, ...flows],
  ];
  const changes: Question[] = [
    ['apply', ...next, '--confirm', `${60 * patience}s`, '--canary', 'false'],
    ['apply', ...next, '--confirm', `${60 * patience}s`],
    ['status', ...config],
    ['revert', ...config],
    ['apply', ...next, '--confirm', `${60 * patience}s`],
    ['confirm', ...config],
    ['history', ...config],
    ['rollback', '1', ...config],
    ['status', ...config],
    ['rollback', '--release', ...config],
    ['apply', ...next],
  ];
  return { asks, changes };
};

t.test('each command says JSON as published, and a human form that fits', async (t) => {
  const stage = await setUpWorkers(t, awsState([...FUNCTIONS, FUNCTION]));
  stage.addAddresses([{ ...FUNCTION, zone: 'b' }]);
  writePolicy(stage, LONG_POLICY);
  mkdirSync(stage.path('next'));
  writeFileSync(
    stage.path('next/policy.yaml'),
    LONG_POLICY.replace(`${GROUP}-to-ledger`, 'workers-'.repeat(32)).replace('PERMIT', 'DENY'),
  );
  writeFileSync(stage.path('token'), SECRETS.file);
  writeFileSync(stage.path('sluice.yaml'), CONFIG.replace('sinks: [', `sinks: [${SINK}, `));
  stage.start({ SINK_KEY: SECRETS.env });
  await stage.ready(({ functions }) => functions > 0);
  stage.attempt('a', [{ from: WORKER.address, ...LEDGER, protocol: 'tcp' }]);
  stage.attempt('b', [
    { from: ROGUE.address, ...LEDGER, protocol: 'tcp' },
    { from: FUNCTION.address, to: LEDGER.to, port: LEDGER.port + 1, protocol: 'tcp' },
    { from: stage.lab.b.address6, to: FAR, port: 65_535, protocol: 'tcp' },
  ]);
  await until('flow records', () => new Set(stage.flows().map(({ src }) => src?.ip)).size === 4);

  const { out: help } = await stage.sluice('--help');
  const commands = [...help.matchAll(/^ {2}([a-z]+) /gm)].map(([, name]) => name!);
  const untold = commands.filter((name) => !(name in COMMAND_SCHEMAS) && !['run', 'help'].includes(name));
  t.strictSame(untold, [], 'every command has a schema');
  const { asks, changes } = questions(stage);
  const unasked = commands.filter((name) => ![...asks, ...changes].some(([one]) => one === name));
  t.strictSame(
    unasked.filter((name) => !['run', 'help', 'boot'].includes(name)),
    [],
    'and is tried here',
  );

  let told = '';
  const ask = async (form: 'json' | 'human', [name, ...args]: Question) => {
    const words = [...name.split(' '), ...args, ...(form === 'json' ? ['--json'] : [])];
    const { code, out, error } = await stage.sluice(...words);
    t.ok(code < 2, `${words.join(' ')}: ${error}`);
    told += out;
    const lines = out.trimEnd().split('\n');
    if (form === 'json') {
      for (const line of lines) {
        const answer: unknown = JSON.parse(line);
        t.strictSame(COMMAND_SCHEMAS[name].parse(answer), answer, `${name} says what its schema has`);
      }
    } else if (name !== 'compile' && name !== 'learn') {
      // A program is a file, and a proposal too.
      const wide = lines.filter((line) => line.length > COLUMNS_MAX);
      t.strictSame(wide, [], `${name} fits ${COLUMNS_MAX} columns`);
    }
  };
  for (const form of ['json', 'human'] as const) {
    for (const question of asks) await ask(form, question);
  }
  for (const form of ['json', 'human'] as const) {
    for (const question of changes) await ask(form, question);
    // As it was, for those that follow.
    writePolicy(stage, LONG_POLICY);
    await stage.ready(({ held }) => held === undefined);
  }

  t.equal(statSync(stage.path('admin.sock')).mode & 0o777, 0o600, 'the socket is for who runs the gateway');
  const listening = stage.gateway.run('ss', ['-Hltunp']).trim().split('\n');
  const own = listening.filter((line) => line.includes(`pid=${stage.product!.pid},`));
  t.equal(own.length, 1, 'one listener on the network');
  t.match(own[0], /127\.0\.0\.1:9464/, 'that of the metrics, for this machine alone');
  const get = (path: string) =>
    stage.gateway.run(process.execPath, [
      ...['--input-type=module', '-e'],
      `process.stdout.write(await (await fetch('http://127.0.0.1:9464${path}')).text())`,
    ]);
  const bodies = ['/metrics', '/healthz', '/readyz', '/status', '/'].map(get).join('\n');
  t.match(bodies, /sluice_decisions_total/);
  for (const [from, secret] of Object.entries(SECRETS))
    for (const [where, text] of Object.entries({ bodies, told, log: stage.product!.log }))
      t.notOk(text.includes(secret), `the secret of the ${from} is not in: ${where}`);
});
