import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { COMMAND_SCHEMAS } from 'sluice-gateway/analysis/output.js';
import t from 'tap';
import { needPrivileges } from '../support/privileged.js';
import type { Stage } from '../support/stage.js';
import { until } from '../support/wait.js';
import { CONFIG, LEDGER, POLICY, ROGUE, setUpWorkers, WORKER } from '../support/workers.js';

needPrivileges();

const COLUMNS_MAX = 100;
const SECRETS = { file: 'secret-of-a-file-6cf1', env: 'secret-of-an-environment-9b20' } as const;
const SINK = `{ type: http, url: "http://127.0.0.1:9/records", headers: { authorization: { file: token }, x-key: { env: SINK_KEY } } }`;
type Name = keyof typeof COMMAND_SCHEMAS;

/** What each command is asked, in an order in which each has an answer. */
const questions = (stage: Stage): readonly (readonly [name: Name, ...args: readonly string[]])[] => {
  const config = ['--config', stage.path('sluice.yaml')];
  const policy = ['--policy', stage.path('policy')];
  const flows = ['--flows', stage.path('flows.jsonl')];
  const ledger = ['--dst', LEDGER.to, '--port', String(LEDGER.port)];
  const next = [...config, '--policy', stage.path('next')];
  return [
    ['version'],
    ['status', ...config],
    ['groups', '--socket', stage.path('admin.sock')],
    ['groups', 'workers', '--socket', stage.path('admin.sock')],
    ['inventory', ...config],
    ['flows', ...config],
    ['top', ...config],
    ['compile', ...config],
    ['check', ...config],
    ['check --kernel', ...config],
    ['explain', '--src', WORKER.name, ...ledger, ...config],
    ['simulate', ...policy, ...config, ...flows],
    ['learn', ...config, '--group', 'workers', ...flows],
    ['apply', ...next, '--confirm', '60s'],
    ['status', ...config],
    ['revert', ...config],
    ['apply', ...next, '--confirm', '60s'],
    ['confirm', ...config],
    ['history', ...config],
    ['rollback', '1', ...config],
    ['rollback', '--release', ...config],
  ];
};

t.test('each command says JSON as published, and a human form that fits', async (t) => {
  const stage = await setUpWorkers(t);
  mkdirSync(stage.path('next'));
  writeFileSync(
    stage.path('next/policy.yaml'),
    POLICY.replace('workers-to-ledger', `workers-${'to-'.repeat(60)}ledger`),
  );
  writeFileSync(stage.path('token'), SECRETS.file);
  writeFileSync(stage.path('sluice.yaml'), CONFIG.replace('sinks: [', `sinks: [${SINK}, `));
  stage.start({ SINK_KEY: SECRETS.env });
  await stage.ready(({ functions }) => functions > 0);
  stage.attempt('a', [{ from: WORKER.address, ...LEDGER, protocol: 'tcp' }]);
  stage.attempt('b', [{ from: ROGUE.address, ...LEDGER, protocol: 'tcp' }]);
  await until('flow records', () => stage.flows().length > 0);

  const { out: help } = await stage.sluice('--help');
  const commands = [...help.matchAll(/^ {2}([a-z]+) /gm)].map(([, name]) => name!);
  const untold = commands.filter((name) => !(name in COMMAND_SCHEMAS) && !['run', 'help'].includes(name));
  t.strictSame(untold, [], 'every command has a schema');
  const asked = questions(stage);
  const unasked = commands.filter((name) => !asked.some(([one]) => one === name));
  t.strictSame(
    unasked.filter((name) => !['run', 'help', 'boot'].includes(name)),
    [],
    'and is tried here',
  );

  let told = '';
  const changes = new Set(['apply', 'confirm', 'revert', 'rollback']);
  for (const [name, ...args] of asked) {
    const words = [...name.split(' '), ...args];
    const { code, out, error } = await stage.sluice(...words, '--json');
    t.ok(code < 2, `${words.join(' ')}: ${error}`);
    for (const line of out.trimEnd().split('\n')) {
      const answer: unknown = JSON.parse(line);
      t.strictSame(COMMAND_SCHEMAS[name].parse(answer), answer, `${name} says what its schema has`);
    }
    // What changes something is not done twice: how it is told is seen where it is.
    const human = changes.has(name) ? '' : (await stage.sluice(...words)).out;
    // A program is a file, and a proposal too.
    const isFile = name === 'compile' || name === 'learn';
    const wide = isFile ? [] : human.split('\n').filter((line) => line.length > COLUMNS_MAX);
    t.strictSame(wide, [], `${name} fits ${COLUMNS_MAX} columns`);
    told += out + human;
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
