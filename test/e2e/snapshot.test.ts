import { existsSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import type { Status } from 'sluice-gateway/admin/answers.js';
import type { Manifest, PolicyBody } from 'sluice-gateway/snapshot/format.js';
import t, { type Test } from 'tap';
import { sysctl } from '../support/namespace.js';
import { patience } from '../support/patience.js';
import { needPrivileges } from '../support/privileged.js';
import { SnapshotForger } from '../support/snapshots.js';
import type { Stage } from '../support/stage.js';
import { until } from '../support/wait.js';
import {
  type Arrived,
  LEDGER,
  POLICY,
  setUpWorkers,
  startTraffic,
  WORKER,
  writePolicy,
} from '../support/workers.js';

needPrivileges();

t.setTimeout(600_000 * patience);

/** Of a stream with an answer every 20 ms, that has stopped. */
const SILENCE_MS = 1_000 * patience;

interface Forgery {
  readonly what: string;
  /** Puts it in the folder. Were it taken, everything would pass. */
  readonly make: (forger: SnapshotForger, next: Manifest) => void;
  readonly reason: RegExp;
}

const open = (policy: PolicyBody): PolicyBody => ({
  ...policy,
  defaultAction: { action: 'PERMIT', logging: false },
});
const changeRule = (policy: PolicyBody, change: Partial<PolicyBody['rules'][number]>): PolicyBody => ({
  ...open(policy),
  rules: [{ ...policy.rules[0]!, ...change }],
});

/** Publishes a manifest whose policy permits everything, after `spoil` has had its way with it. */
const spoilt =
  (spoil: (manifest: Manifest, forger: SnapshotForger) => Manifest | string): Forgery['make'] =>
  (forger, next) =>
    forger.publish(spoil({ ...next, policy: { digest: forger.body(open(forger.policy())) } }, forger));

const spoiltPolicy =
  (spoil: (policy: PolicyBody) => PolicyBody): Forgery['make'] =>
  (forger, next) =>
    forger.publish({ ...next, policy: { digest: forger.body(spoil(forger.policy())) } });

const changeGroup = (manifest: Manifest, change: Partial<Manifest['groups'][number]>): Manifest => ({
  ...manifest,
  groups: manifest.groups.map((group) => (group.name === 'data-centre' ? { ...group, ...change } : group)),
});

const FORGERIES: readonly Forgery[] = [
  {
    what: 'a truncated body',
    make: spoilt((manifest, forger) => {
      truncateSync(forger.bodyPath(manifest.policy.digest), 100);
      return manifest;
    }),
    reason: /^Cannot read snapshot: body [0-9a-f]{64} does not have this digest$/,
  },
  {
    what: 'a flipped byte',
    make: spoilt((manifest, forger) => {
      const digest = forger.body({ ...open(forger.policy()), rules: [] });
      const path = forger.bodyPath(digest);
      writeFileSync(path, readFileSync(path, 'utf8').replace('"logging":false', '"logging":true '));
      return { ...manifest, policy: { digest } };
    }),
    reason: /^Cannot read snapshot: body [0-9a-f]{64} does not have this digest$/,
  },
  {
    what: 'a body that is not there',
    make: spoilt((manifest) => ({ ...manifest, inventory: { digest: '0'.repeat(64), functions: [] } })),
    reason: /^Cannot read snapshot: a body that the manifest names can't be read: ENOENT/,
  },
  {
    what: 'a torn manifest',
    make: spoilt((manifest) => JSON.stringify(manifest).slice(0, -20)),
    reason: /^Cannot read snapshot: the manifest is not JSON/,
  },
  {
    what: 'a lower revision',
    make: spoilt((manifest) => ({ ...manifest, revision: 1 })),
    reason: /^Cannot take snapshot: its revision is 1, the newest is [0-9]+ and revisions only grow/,
  },
  {
    what: 'the same revision with other content',
    make: spoilt((manifest) => ({ ...manifest, revision: manifest.revision - 1 })),
    reason: /^Cannot take snapshot: its revision is ([0-9]+), the newest is \1 and revisions only grow/,
  },
  {
    what: 'an unknown group',
    make: spoiltPolicy((policy) => changeRule(policy, { dst: ['nobody'] })),
    reason: /^Cannot read snapshot: rule "workers-to-ledger" names group "nobody", which is not there$/,
  },
  {
    what: 'host bits',
    make: spoilt((manifest, forger) =>
      changeGroup(manifest, { bodies: [forger.body({ prefixes: ['10.20.0.5/16'] })], prefixCount: 1 }),
    ),
    reason:
      /^Cannot read snapshot: group "data-centre": Cannot parse CIDR: "10\.20\.0\.5\/16" has host bits set/,
  },
  {
    what: 'a DENY by a group that is not resolved',
    make: (forger, next) => {
      const digest = forger.body(changeRule(forger.policy(), { action: 'DENY' }));
      const unresolved = { resolved: false, bodies: [], prefixCount: 0 };
      forger.publish(changeGroup({ ...next, policy: { digest } }, unresolved));
    },
    reason:
      /^Cannot read snapshot: rule "workers-to-ledger" denies by group "data-centre", which could not be resolved$/,
  },
  {
    what: 'another count of prefixes',
    make: spoilt((manifest) => changeGroup(manifest, { prefixCount: 2 })),
    reason: /^Cannot read snapshot: group "data-centre" has 1 prefixes, its manifest says 2$/,
  },
];

async function goesOn(what: string, arrived: () => Arrived): Promise<void> {
  const { permitted } = arrived();
  await until(`permitted traffic arrives ${what}`, () => arrived().permitted > permitted);
}

const failures = (stage: Stage) => stage.metric('sluice_apply_failures_total', { stage: 'snapshot' });

async function refused(t: Test, stage: Stage, arrived: () => Arrived): Promise<void> {
  const product = stage.product!;
  const client = product.clientPid!;
  // So that there is a revision below that in force.
  await stage.ready(({ revision }) => revision.applied! > 2);
  for (const of of ['snapshot', 'compile', 'load', 'switch', 'collect', 'all']) {
    await until(`${of} is timed`, () => stage.metric('sluice_apply_seconds_count', { stage: of }) > 0);
  }
  process.kill(client, 'SIGSTOP');
  const forger = new SnapshotForger(stage.path('snapshot'));
  const good = forger.manifest();
  await stage.ready(({ revision }) => revision.applied === good.revision);
  for (const { what, make, reason } of FORGERIES) {
    forger.publish(good);
    const logStart = product.log.length;
    const before = failures(stage);
    make(forger, { ...good, revision: good.revision + 1 });
    const line = await until(`${what} is told`, () =>
      product
        .logFrom(logStart)
        .find(({ message }) => message === 'a snapshot was refused, the one in force stays'),
    );
    t.equal(line.level, 'error', `${what} is an error`);
    t.match(line.error, reason, `${what}: the reason is told`);
    t.equal(failures(stage), before + 1, `${what}: it is counted`);
    const { revision, ready } = await stage.ready();
    t.same(
      [ready, revision],
      [true, { wanted: good.revision, applied: good.revision }],
      `${what}: nothing changed`,
    );
    await goesOn(`after ${what}`, arrived);
    t.equal(arrived().denied, 0, `${what}: nothing denied passed`);
  }
  forger.publish({ ...good, revision: good.revision + 10 });
  await stage.ready(({ revision }) => revision.applied === good.revision + 10);
  process.kill(client, 'SIGCONT');
  await stage.ready(({ revision }) => revision.applied! > good.revision + 10);
}

async function runsAgain(t: Test, stage: Stage, arrived: () => Arrived): Promise<void> {
  const stream = stage.openStream('a', WORKER.address, LEDGER.to, LEDGER.port);
  const isAlive = async (when: string) => {
    const answers = stream.answersMs.length;
    await until(`the connection lives ${when}`, () => stream.answersMs.length > answers);
    t.notOk(stream.hasEnded, `the permitted connection goes on ${when}`);
    await goesOn(when, arrived);
    t.equal(arrived().denied, 0, `nothing denied passes ${when}`);
  };
  await isAlive('before the stop');
  t.equal(await stage.product!.stop(), 0, 'SIGTERM ends it well');
  await isAlive('without the product');
  stage.start();
  await stage.ready();
  await isAlive('after the take-over');
  const client = stage.product!.clientPid!;
  t.equal(await stage.product!.stop('SIGKILL'), 'SIGKILL', 'it is killed');
  await isAlive('after kill -9');
  await until('the client does not outlive it', () => !existsSync(`/proc/${client}`));
  stage.start();
  await stage.ready();
  await isAlive('after another take-over');
}

/** As after a reboot, with AWS gone, the client's folder lost and policy broken: nobody can bring a snapshot. */
async function startsFromLastGood(t: Test, stage: Stage, arrived: () => Arrived): Promise<void> {
  const { gateway } = stage;
  await stage.product!.stop();
  const { revision } = new SnapshotForger(stage.path('state/last-good')).manifest();
  await stage.stopAws();
  rmSync(stage.path('snapshot'), { recursive: true });
  writePolicy(stage, 'version: sluice.policy/1\npolicies: [');
  for (const key of ['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding']) sysctl(gateway, key, 0);
  gateway.run('nft', ['flush', 'ruleset']);
  gateway.run('conntrack', ['-F']);
  for (const iif of ['lam0', 'lam1', 'wan0', 'dc0']) gateway.ip('rule', 'del', 'pref', '1', 'iif', iif);
  const { permitted } = arrived();
  stage.start();
  const status = await stage.ready();
  t.equal(status.revision.applied, revision, 'the last good snapshot is in force');
  await until('permitted traffic passes again', () => arrived().permitted > permitted);
  t.equal(arrived().denied, 0, 'nothing denied passed, at no moment');
  const messages = stage.product!.logFrom().map(({ message }) => message);
  t.same(messages.slice(0, 2), ['in force', 'gateway started'], 'it is in force before anything else');
  await until('the client says what is wrong', () =>
    stage.product!.log.includes('the policy can not be used, what is in force stays'),
  );
  t.ok((await stage.ask<Status>('status')).ready, 'the gateway is ready all the same');
}

t.test('a snapshot is taken whole or not at all, and outlives what brought it', async (t) => {
  const stage = await setUpWorkers(t);
  stage.start();
  await stage.ready(({ functions }) => functions > 0);
  const arrived = startTraffic(stage);
  await goesOn('at first', arrived);
  await t.test('refused', (t) => refused(t, stage, arrived));
  await t.test('stopped, killed and started', (t) => runsAgain(t, stage, arrived));
  await t.test('the last good one', (t) => startsFromLastGood(t, stage, arrived));
});

t.test('a process that finds in the kernel what is wanted writes nothing', async (t) => {
  const stage = await setUpWorkers(t);
  stage.start();
  await stage.ready(({ functions }) => functions > 0);
  const arrived = startTraffic(stage);
  await goesOn('at first', arrived);
  const listing = () =>
    stage.gateway
      .run('nft', ['-a', '-t', 'list', 'table', 'inet', 'sluice'])
      .replace(/packets \d+ bytes \d+/g, '');
  const note = stage.path('state/in-force.json');
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    await until('what is in force is noted', () => existsSync(note));
    const before = listing();
    await stage.product!.stop(signal);
    const { mtimeMs } = statSync(note);
    stage.start();
    const { generation } = await stage.ready();
    t.equal(listing(), before, `${signal}: each rule is the one that was there`);
    t.match(before, `chain generation_${generation} `);
    await goesOn(signal, arrived);
    // To own the table is a transaction: the ruleset has another id.
    await until('it is noted again', () => statSync(note).mtimeMs !== mtimeMs);
    t.equal(arrived().denied, 0, 'nothing denied passed');
  }
  await stage.product!.stop();
  stage.gateway.run('nft', ['add table inet stranger']);
  const before = listing();
  stage.start();
  await stage.ready();
  t.not(listing(), before, 'where anybody wrote anything, all is written anew');
});

/** What ends at a time, and by what it is known that it has. */
interface Ending {
  readonly what: string;
  readonly write: (stage: Stage, forger: SnapshotForger, at: string) => Promise<void>;
  readonly isOver: (stage: Stage, status: Status) => boolean;
}

const ENDINGS: readonly Ending[] = [
  {
    what: 'a rule',
    write: async (stage, forger, expires) => {
      writePolicy(
        stage,
        POLICY.replace('    logging: true\n', `    logging: true\n    expires: ${expires}\n`),
      );
      await until('the snapshot says so', () => forger.policy().rules[0]!.expires === expires);
      process.kill(stage.product!.clientPid!, 'SIGSTOP');
    },
    isOver: (_, { rules }) => rules === 0,
  },
  {
    what: 'an address in a group',
    write: async (stage, forger, at) => {
      process.kill(stage.product!.clientPid!, 'SIGSTOP');
      const manifest = forger.manifest();
      const groups = manifest.groups.map((group) =>
        group.name === 'workers' ? { ...group, expires: { at, prefixCount: 0, bodies: [] } } : group,
      );
      forger.publish({ ...manifest, revision: manifest.revision + 1, groups });
    },
    isOver: (stage) => stage.product!.log.includes('addresses left groups'),
  },
];

for (const { what, write, isOver } of ENDINGS) {
  t.test(`${what} expires by the clock of the gateway, without a client`, async (t) => {
    const stage = await setUpWorkers(t);
    stage.start();
    await stage.ready(({ functions }) => functions > 0);
    const stream = stage.openStream('a', WORKER.address, LEDGER.to, LEDGER.port);
    await until('the connection is alive', () => stream.answersMs.length > 5);
    const expiresMs = Date.now() + 4_000 * patience;
    const forger = new SnapshotForger(stage.path('snapshot'));
    await write(stage, forger, new Date(expiresMs).toISOString());
    await stage.ready(({ revision }) => revision.applied === forger.manifest().revision);
    t.ok(Date.now() < expiresMs, 'it is in force in time');
    await stage.ready((status) => isOver(stage, status));
    t.ok(Date.now() >= expiresMs, 'it counted until then');
    await until('the connection is silent', () => Date.now() - stream.answersMs.at(-1)! > SILENCE_MS);
    const answers = stream.answersMs.length;
    const question = { from: WORKER.address, ...LEDGER, protocol: 'tcp' } as const;
    t.same(stage.attempt('a', [question]), [false], 'a new connection does not pass');
    t.equal(stream.answersMs.length, answers, 'the live one has stopped');
    t.ok(stream.answersMs.at(-1)! > expiresMs - SILENCE_MS, 'and not before it ended');
    const { code, out } = await stage.sluice(
      ...['explain', '--src', WORKER.address, '--dst', LEDGER.to, '--port', String(LEDGER.port)],
      ...['--socket', stage.path('admin.sock')],
    );
    t.equal(code, 1);
    t.match(out, 'DENY by default action DENY');
    if (what === 'a rule') return;
    const shown = await stage.sluice('groups', 'workers', '--socket', stage.path('admin.sock'));
    t.notMatch(shown.out, WORKER.subnet, 'it is shown as a member no more');
  });
}
