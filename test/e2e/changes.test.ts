import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { Status } from 'sluice-gateway/admin/answers.js';
import type { AuditEvent } from 'sluice-gateway/changes/audit.js';
import type { HistoryEntry } from 'sluice-gateway/snapshot/history.js';
import t, { type Test } from 'tap';
import { patience } from '../support/patience.js';
import { needPrivileges } from '../support/privileged.js';
import type { Stage } from '../support/stage.js';
import { until } from '../support/wait.js';
import {
  LEDGER,
  POLICY,
  ROGUE,
  setUpWorkers,
  startTraffic,
  WORKER,
  writePolicy,
} from '../support/workers.js';

needPrivileges();

t.setTimeout(600_000 * patience);

/** Longer than what a test does meanwhile. */
const TRIAL = `${60 * patience}s`;

const CLOSED = POLICY.replace('action: PERMIT', 'action: DENY');
const MOVED = POLICY.replaceAll('workers-to-ledger', 'moved');

class Desk {
  readonly stage: Stage;

  constructor(stage: Stage) {
    this.stage = stage;
  }

  async run(...args: string[]) {
    return this.stage.sluice(...args, '--config', this.stage.path('sluice.yaml'));
  }

  candidate(text: string): string {
    const folder = this.stage.path('candidate');
    mkdirSync(folder, { recursive: true });
    writeFileSync(`${folder}/policy.yaml`, text);
    return folder;
  }

  async apply(text: string, ...args: string[]) {
    return this.run('apply', '--policy', this.candidate(text), '--json', ...args);
  }

  passes(): boolean {
    return this.stage.attempt('a', [{ from: WORKER.address, ...LEDGER, protocol: 'tcp' }])[0]!;
  }

  policyFile(): string {
    return readFileSync(this.stage.path('policy/policy.yaml'), 'utf8');
  }

  async held(): Promise<Status['held']> {
    return (await this.stage.ready()).held;
  }

  async history(): Promise<HistoryEntry[]> {
    return this.stage.ask<HistoryEntry[]>('history');
  }

  audit(): AuditEvent[] {
    const text = readFileSync(this.stage.path('state/audit.jsonl'), 'utf8');
    return text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as AuditEvent);
  }

  async audited(event: AuditEvent['event'], why?: string): Promise<AuditEvent> {
    return until(`${event} is in the audit log`, () =>
      this.audit().findLast((line) => line.event === event && line.why === why),
    );
  }
}

async function setUp(t: Test): Promise<Desk> {
  const stage = await setUpWorkers(t);
  stage.start();
  await stage.ready(({ functions }) => functions > 0);
  await until('a first entry', async () => (await stage.ask<HistoryEntry[]>('history')).length > 0);
  return new Desk(stage);
}

t.test('a trial ends by itself, by its canary, when asked, and when the gateway is killed', async (t) => {
  const desk = await setUp(t);
  const { stage } = desk;
  const stream = stage.openStream('a', WORKER.address, LEDGER.to, LEDGER.port);
  await until('the stream flows', () => stream.answersMs.length > 0);

  const failed = await desk.apply(CLOSED, '--confirm', TRIAL, '--canary', 'exit 7');
  t.equal(failed.code, 1, failed.error);
  t.match(JSON.parse(failed.out), { state: 'reverted', why: 'the canary failed' });
  t.ok(desk.passes());
  t.match(await desk.audited('revert', 'the canary failed'), {
    who: /^uid 0/,
    rules: { changed: ['workers-to-ledger'] },
  });

  const canary = `${process.execPath} ${stage.path('none.js')} || exit 0`;
  const tried = await desk.apply(CLOSED, '--confirm', TRIAL, '--canary', canary);
  t.match(
    { code: tried.code, ...JSON.parse(tried.out) },
    { code: 0, state: 'trial', until: /Z$/, changed: 'rules ~1' },
  );
  t.notOk(desk.passes(), 'the trial is in force');
  t.match(await desk.held(), { kind: 'trial', who: /^uid 0/, until: JSON.parse(tried.out).until });
  const second = await desk.apply(POLICY, '--confirm', TRIAL);
  t.match(second, {
    code: 2,
    error: /^Cannot apply: a policy is on trial until .*Z, by uid 0.*: confirm or revert it first$/m,
  });
  t.equal(desk.policyFile(), POLICY, 'the files are as they were');
  t.match(await desk.run('status'), { code: 0, out: /^ {2}on trial until .*, by uid 0/m });
  await until('live connections are counted', () =>
    desk.audit().some(({ event, connections = 0 }) => event === 'revoked' && connections > 0),
  );
  t.match(await desk.run('revert'), { code: 0, out: /is in force again/ });
  t.ok(desk.passes());

  t.match(await desk.apply(CLOSED, '--confirm', '1s', '--canary', 'sleep 60'), {
    code: 2,
    error: 'Cannot confirm: the time is up, what was in force before is again\n',
  });
  await desk.audited('revert', 'time');
  t.ok(desk.passes());
  t.equal(await desk.held(), undefined);

  await desk.apply(CLOSED, '--confirm', TRIAL);
  await stage.product!.stop('SIGKILL');
  t.notOk(desk.passes(), 'the kernel has the trial');
  t.equal((await desk.run('boot')).code, 0);
  t.ok(desk.passes(), 'without a client too, what was confirmed is enforced');
  stage.start();
  await stage.ready(({ functions }) => functions > 0);
  t.ok(desk.passes(), 'the next gateway has what was confirmed');
  await desk.apply(CLOSED, '--confirm', TRIAL);
  await stage.product!.stop();
  t.ok(desk.passes(), 'one that is stopped takes it back first');
  t.equal((await desk.audited('revert', 'stop')).who, 'gateway');
});

t.test('what is confirmed replaces the files, and stays', async (t) => {
  const desk = await setUp(t);
  const { stage } = desk;
  const arrived = startTraffic(stage);
  await desk.apply(CLOSED, '--confirm', TRIAL);
  const confirmed = await desk.run('confirm', '--json');
  t.match({ code: confirmed.code, ...JSON.parse(confirmed.out) }, { code: 0, state: 'applied' });
  t.equal(desk.policyFile(), CLOSED);
  t.equal(readFileSync(stage.path('policy.before/policy.yaml'), 'utf8'), POLICY);
  t.match(await desk.run('confirm'), {
    code: 2,
    error: /^Cannot confirm: no policy is on trial, sluice history lists/,
  });
  await until('the client follows', async () => (await desk.held()) === undefined);
  t.notOk(desk.passes());
  await stage.product!.stop('SIGKILL');
  stage.start();
  await stage.ready(({ functions }) => functions > 0);
  t.notOk(desk.passes(), 'after a kill too');

  t.match({ ...(await desk.apply(MOVED)), error: '' }, { code: 0 });
  t.ok(desk.passes(), 'without a trial at once');
  await until('the client follows', async () => (await desk.held()) === undefined);
  t.ok(desk.passes());
  t.match(await desk.audited('apply'), { rules: { added: ['moved'], removed: ['workers-to-ledger'] } });
  writePolicy(stage, POLICY);
  await until('a saved file is in force as ever', async () =>
    (await desk.history()).some(
      ({ who, isPolicy, changed }) => who === 'controller client' && isPolicy && changed === 'rules +1 -1',
    ),
  );
  t.match(await desk.run('apply', '--policy', stage.path('policy')), {
    code: 2,
    error: /in force as soon as it is saved/,
  });
  t.match(await desk.run('apply', '--policy', stage.path('policy/policy.yaml')), {
    code: 2,
    error: /is a file, and what policy.path names is a folder/,
  });
  t.equal(arrived().denied, 0);
});

t.test('a rollback holds an old snapshot until it is released', async (t) => {
  const desk = await setUp(t);
  const { stage } = desk;
  const [first] = await desk.history();
  t.match(first, { isPolicy: true, who: 'controller client' });
  writePolicy(stage, CLOSED);
  await until('the change is in force', () => !desk.passes());
  await until('it is in the history', async () => (await desk.history()).length > 1);
  t.match(await desk.run('rollback', '999999'), { code: 2, error: /has no revision 999999/ });
  t.match(await desk.run('rollback'), {
    code: 2,
    error: /give either a revision of sluice history or --release/,
  });
  t.match(await desk.run('rollback', '--release'), {
    code: 2,
    error: /nothing is held, the newest policy is in force/,
  });
  t.match(await desk.run('rollback', String(first!.revision)), { code: 0, out: /is held in force/ });
  t.ok(desk.passes());
  writePolicy(stage, CLOSED.replaceAll('workers-to-ledger', 'later'));
  await until('a newer one waits', async () => ((await desk.held())?.waiting ?? 0) > first!.revision + 1);
  await stage.product!.stop('SIGKILL');
  stage.start();
  t.match(await desk.held(), { kind: 'rollback', revision: first!.revision });
  t.ok(desk.passes(), 'over a kill');
  t.match(await desk.run('history'), { code: 0, out: /^REVISION +SINCE +WHO +OF +CHANGED$/m });
  await until('the newest is known', async () => (await desk.held())?.waiting !== undefined);
  t.match(await desk.run('rollback', '--release'), { code: 0, out: /is in force/ });
  t.notOk(desk.passes());
  t.equal(await desk.held(), undefined);
  rmSync(stage.path(`state/last-good/bodies/${first!.manifest}`));
  t.match(await desk.run('rollback', String(first!.revision)), {
    code: 2,
    error: /^Cannot roll back: revision \d+ can't be read, take another one: ENOENT/,
  });
  t.ok(existsSync(stage.path('state/audit.jsonl')));
  t.notOk(existsSync(stage.path('state/held.json')));
  t.equal(stage.attempt('b', [{ from: ROGUE.address, ...LEDGER, protocol: 'tcp' }])[0], false);
});
