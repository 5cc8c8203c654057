import { existsSync, readFileSync, rmSync } from 'node:fs';
import type { Status } from 'sluice-gateway/admin/answers.js';
import t, { type Test } from 'tap';
import { FIRST, pageOf } from '../support/aws/pages.js';
import type { FaultKind } from '../support/aws/state.js';
import { parseExposition, seriesValue } from '../support/exposition.js';
import { patience } from '../support/patience.js';
import { needPrivileges } from '../support/privileged.js';
import type { Stage } from '../support/stage.js';
import { until } from '../support/wait.js';
import { PYTHON } from '../support/wire.js';
import {
  ACCOUNT,
  awsState,
  LEDGER,
  type OwnFunction,
  POLICY,
  REGION,
  ROGUE,
  setUpWorkers,
  startTraffic,
  WORKER,
  writePolicy,
} from '../support/workers.js';

needPrivileges();

t.setTimeout(600_000 * patience);

/** Fails at once where AWS refuses, as it would after more attempts. */
const ENVIRONMENT = { AWS_RETRY_MODE: 'standard', AWS_MAX_ATTEMPTS: '2' };
const team = { team: 'pay' };
const PAGE_ITEMS = 50;

/** Sixty functions, of which the worker comes with the second page. */
function sixtyFunctions(): OwnFunction[] {
  const names = Array.from({ length: 59 }, (_, index) => `fn-${index}`);
  const onFirstPage = new Set(
    pageOf('lambda:ListFunctions', [...names, ROGUE.name], (name) => name, FIRST, PAGE_ITEMS, undefined)
      .items,
  );
  const worker = names.findLast((name) => !onFirstPage.has(name))!;
  return [
    { name: ROGUE.name, subnet: ROGUE.subnet },
    ...names.map((name, index) => ({
      name,
      subnet: name === worker ? WORKER.subnet : `10.9.${index}.0/28`,
      tags: team,
    })),
  ];
}

const TRIES: readonly (readonly [kind: FaultKind, error: string])[] = [
  ['throttle', 'lambda:ListFunctions failed with TooManyRequestsException: Rate exceeded'],
  [
    'deny',
    `lambda:ListFunctions failed with AccessDeniedException: User: arn:aws:iam::${ACCOUNT}:user/test is not `,
  ],
  ['cut', 'lambda:ListFunctions failed with '],
  ['badMarker', 'lambda:ListFunctions failed with InvalidParameterValueException: Invalid Marker'],
  ['loop', 'lambda:ListFunctions '],
];

/** In which the client has asked AWS again. */
const REFRESHES_SECONDS = 2.5;

function known(stage: Stage) {
  const samples = parseExposition(stage.metrics());
  return {
    workers: seriesValue(samples, 'sluice_group_prefixes', { group: 'workers' }),
    ageSeconds: seriesValue(samples, 'sluice_inventory_age_seconds', { account: ACCOUNT, region: REGION }),
  };
}

async function faultsLeaveAll(t: Test, stage: Stage, all: readonly OwnFunction[]): Promise<void> {
  const stream = stage.openStream('a', WORKER.address, LEDGER.to, LEDGER.port);
  const arrived = startTraffic(stage);
  await until('the connection is alive', () => stream.answersMs.length > 5 && arrived().permitted > 0);
  let asOf = '';
  let ageSeconds = 0;
  for (const [kind, error] of TRIES) {
    stage.changeAws(
      awsState(all, [{ operation: 'lambda:ListFunctions', kind, page: kind === 'badMarker' ? 1 : 2 }]),
    );
    // A refresh under way may still have been whole; from the first that failed so on, all do.
    const failed = ({ scopes }: Status) => scopes[0]?.error?.startsWith(error) === true;
    asOf = (await stage.ready(failed)).scopes[0]!.refreshedAt!;
    const before = known(stage).ageSeconds;
    ageSeconds = await until(`the age grows under ${kind}`, () => {
      const age = known(stage).ageSeconds;
      return age > before + REFRESHES_SECONDS && age;
    });
    const { scopes } = await stage.ready(failed);
    t.equal(scopes[0]!.refreshedAt, asOf, `${kind}: as of the last whole answer`);
    const { out } = await stage.sluice('status', '--socket', stage.path('admin.sock'));
    t.match(out, `  AWS ${ACCOUNT} ${REGION}: as of ${asOf}`, `${kind}: status says how old`);
    t.match(out.replace(/\s+/g, ' '), error, `${kind}: status says why`);
    t.equal(known(stage).workers, 59, `${kind}: no group shrinks`);
    const { permitted } = arrived();
    await until(`permitted traffic goes on under ${kind}`, () => arrived().permitted > permitted);
  }
  // Two of the workers are deleted.
  stage.changeAws(awsState(all.filter(({ subnet }) => !['10.9.2.0/28', '10.9.3.0/28'].includes(subnet))));
  await stage.ready(({ scopes }) => scopes[0]!.error === undefined && scopes[0]!.refreshedAt! > asOf);
  const now = known(stage);
  t.equal(now.workers, 57, 'a whole answer does shrink the group');
  t.ok(now.ageSeconds < ageSeconds, 'and is young');
  const answers = stream.answersMs.length;
  await until('the permitted connection goes on', () => stream.answersMs.length > answers);
  t.equal(arrived().denied, 0, 'nothing denied passed');
}

function statusOf(pid: number, key: string): string {
  return new RegExp(`^${key}:[ \\t]*(.*)$`, 'm')
    .exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]!
    .trim();
}

async function clientIsPowerless(t: Test, stage: Stage): Promise<void> {
  const pid = stage.product!.clientPid!;
  const [uid, ...uids] = statusOf(pid, 'Uid').split('\t');
  const [gid] = statusOf(pid, 'Gid').split('\t');
  t.not(uid, '0', 'the client is not root');
  t.same(uids, [uid, uid, uid], 'and can not become root again');
  t.equal(statusOf(pid, 'Groups'), '', 'it has no other groups');
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapAmb'])
    t.match(statusOf(pid, set), /^0+$/, `${set} is empty`);
  t.not(statusOf(stage.product!.pid, 'CapEff'), statusOf(pid, 'CapEff'), 'the gateway has capabilities');
  const asClient = ['setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups'];
  const run =
    (...args: string[]) =>
    () =>
      stage.gateway.run(asClient[0]!, [...asClient.slice(1), ...args]);
  t.ok(existsSync(stage.path('state/last-good/manifest.json')), 'the gateway keeps its state');
  t.throws(
    run('cat', stage.path('state/last-good/manifest.json')),
    /Permission denied/,
    'the client can not read it',
  );
  t.throws(run('ls', stage.path('state')), /Permission denied/, 'nor list it');
  t.throws(run('cat', stage.path('flows.jsonl')), /Permission denied/, 'nor read the flow log');
  t.throws(run('touch', stage.path('state/x')), /Permission denied/, 'nor write into it');
  t.throws(run('nft', 'list', 'ruleset'), /Operation not permitted/, 'nor list the ruleset');
  t.throws(run('nft', 'flush', 'ruleset'), /Operation not permitted/, 'nor remove it');
  t.throws(
    run('ip', 'route', 'add', 'blackhole', '192.0.2.0/24'),
    /Operation not permitted/,
    'nor change routes',
  );
  const connect = `import socket; socket.socket(socket.AF_UNIX).connect(${JSON.stringify(stage.path('admin.sock'))})`;
  t.throws(run(PYTHON, '-c', connect), /PermissionError/, 'nor connect to the admin socket');
}

async function clientComesBack(t: Test, stage: Stage): Promise<void> {
  const product = stage.product!;
  const pid = product.clientPid!;
  const logStart = product.log.length;
  process.kill(pid, 'SIGKILL');
  const next = await until('another client runs', () => product.clientPid !== pid && product.clientPid);
  t.not(next, pid);
  t.match(
    product.logFrom(logStart).find(({ level }) => level === 'error'),
    {
      message: 'the controller client ended and is started again, what is in force stays',
      signal: 'SIGKILL',
      afterMs: 500,
    },
    'it is told',
  );
  writePolicy(stage, POLICY.replace('workers-to-ledger', 'renamed'));
  await until('its successor brings policy', async () => (await ruleOfWorker(stage)) === 'renamed');
}

async function ruleOfWorker(stage: Stage): Promise<string> {
  const question = ['--src', WORKER.address, '--dst', LEDGER.to, '--port', String(LEDGER.port)];
  return (await stage.ask<{ rule: { name: string } }>('explain', ...question)).rule.name;
}

t.test('stale beats empty', async (t) => {
  const all = sixtyFunctions();
  const stage = await setUpWorkers(t, awsState(all));
  stage.start(ENVIRONMENT);
  await stage.ready(({ functions }) => functions === 60);
  t.equal(known(stage).workers, 59);
  await t.test('a failed second page', (t) => faultsLeaveAll(t, stage, all));
  await t.test('the client has no privileges', (t) => clientIsPowerless(t, stage));
  await t.test('a killed client', (t) => clientComesBack(t, stage));
  await t.test('AWS can not be reached at the start', async (t) => {
    const { workers } = known(stage);
    t.equal(await stage.product!.stop(), 0, 'sluice run ends well');
    await stage.stopAws();
    stage.start(ENVIRONMENT);
    const { scopes } = await stage.ready(({ scopes }) => scopes[0]?.error !== undefined);
    t.match(scopes[0]!.error, /ECONNREFUSED/);
    t.equal(known(stage).workers, workers, 'what was known stays');
    t.same(stage.attempt('a', [{ from: WORKER.address, ...LEDGER, protocol: 'tcp' }]), [true]);
    t.same(stage.attempt('b', [{ from: ROGUE.address, ...LEDGER, protocol: 'tcp' }]), [false]);
    writePolicy(stage, POLICY.replace('workers-to-ledger', 'without-aws'));
    await until('policy is taken all the same', async () => (await ruleOfWorker(stage)) === 'without-aws');
  });
  await t.test('and what was known of it is lost', async (t) => {
    const { workers } = known(stage);
    await stage.product!.stop();
    rmSync(stage.path('snapshot/inventory.json'));
    stage.start(ENVIRONMENT);
    await stage.ready();
    const said = 'nothing is known of AWS and it can not be read in full, what is in force stays';
    await until('it is told', () => stage.product!.log.includes(said));
    t.equal(known(stage).workers, workers, 'no group loses members');
    await stage.startAws(awsState(all));
    await stage.ready(({ scopes }) => scopes[0]!.error === undefined);
    t.equal(known(stage).workers, 59, 'AWS is read again');
  });
});
