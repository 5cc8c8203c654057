import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { needPrivileges } from '../support/privileged.js';
import { RULES_FILE, readAlerts, usedMetrics } from '../support/queries.js';
import type { Stage } from '../support/stage.js';
import { until } from '../support/wait.js';
import { CONFIG, LEDGER, ROGUE, setUpWorkers, WORKER } from '../support/workers.js';

needPrivileges();

const skip =
  spawnSync('prometheus', ['--version']).error !== undefined && 'needs the Debian package prometheus';
const LISTEN = '127.0.0.1:9090';

/** What is known of metrics without any series on this stage. */
const WITHOUT_SERIES = new Map([
  ['sluice_ena_allowance_exceeded_total', 'veth is not ENA'],
  ['sluice_ena_conntrack_available', 'veth is not ENA'],
  ['sluice_scrape_failures_total', 'nothing fails'],
]);

/** Starts a Prometheus with our alerts beside the gateway, which scrapes it every second. */
function startPrometheus(stage: Stage): void {
  const config = {
    global: { scrape_interval: '1s', evaluation_interval: '1s' },
    rule_files: [RULES_FILE],
    scrape_configs: [{ job_name: 'sluice', static_configs: [{ targets: ['127.0.0.1:9464'] }] }],
  };
  // YAML holds JSON.
  writeFileSync(stage.path('prometheus.yaml'), JSON.stringify(config));
  mkdirSync(stage.path('prometheus'));
  const child = stage.gateway.spawn('prometheus', [
    `--config.file=${stage.path('prometheus.yaml')}`,
    `--storage.tsdb.path=${stage.path('prometheus')}`,
    `--web.listen-address=${LISTEN}`,
    '--log.level=error',
  ]);
  child.stdout?.resume();
  child.stderr?.resume();
}

/** What Prometheus answers; undefined while it does not. */
function ask<Answer>(stage: Stage, path: string): Answer | undefined {
  const source = `const answer = await fetch('http://${LISTEN}/api/v1/${path}').catch(() => undefined);
    process.stdout.write(answer?.ok ? await answer.text() : '{}');`;
  const text = stage.gateway.run(process.execPath, ['--input-type=module', '-e', source]);
  return (JSON.parse(text) as { data?: Answer }).data;
}

interface Targets {
  readonly activeTargets: readonly { readonly health: string; readonly lastError: string }[];
}

interface RuleGroups {
  readonly groups: readonly {
    readonly rules: readonly { readonly name: string; readonly health: string; readonly state: string }[];
  }[];
}

t.test('a real Prometheus scrapes a running gateway, and our alerts work on it', { skip }, async (t) => {
  const stage = await setUpWorkers(t);
  writeFileSync(
    stage.path('sluice.yaml'),
    CONFIG.replace('egressInterfaces', 'snat: { interfaces: [dc0], to: masquerade }\n  egressInterfaces'),
  );
  // One that is there already gets no owner: a stranger may change it.
  stage.gateway.run('nft', ['add', 'table', 'inet', 'sluice']);
  stage.start();
  await stage.ready(({ functions }) => functions > 0);
  startPrometheus(stage);
  const attempt = { protocol: 'tcp', ...LEDGER } as const;
  t.same(stage.attempt('a', [{ from: WORKER.address, ...attempt }]), [true]);
  t.same(stage.attempt('b', [{ from: ROGUE.address, ...attempt }]), [false]);
  await until('Prometheus has scraped', () =>
    ask<Targets>(stage, 'targets')?.activeTargets.some(({ health }) => health === 'up'),
  );
  t.match(ask<Targets>(stage, 'targets'), { activeTargets: [{ health: 'up', lastError: '' }] });

  const known = new Set(
    ask<{ readonly metric: string }[]>(stage, 'targets/metadata')!.map(({ metric }) => metric),
  );
  for (const name of usedMetrics()) t.ok(known.has(name), `${name} is exported`);
  // A connection is counted at its end.
  stage.gateway.run('conntrack', ['-D', '-s', WORKER.address]);
  const wanted = [...usedMetrics()].filter((name) => !WITHOUT_SERIES.has(name));
  const hasSeries = (names: ReadonlySet<string>, name: string) =>
    names.has(name) || names.has(`${name}_bucket`);
  await until('each has a series', () => {
    const names = new Set(ask<string[]>(stage, 'label/__name__/values'));
    return wanted.every((name) => hasSeries(names, name));
  }).catch((error: Error) => {
    const names = new Set(ask<string[]>(stage, 'label/__name__/values'));
    t.fail(error.message, { missing: wanted.filter((name) => !hasSeries(names, name)) });
  });

  const evaluated = await until('every alert was evaluated', () => {
    const rules = ask<RuleGroups>(stage, 'rules')!.groups.flatMap((group) => group.rules);
    return rules.every(({ health }) => health !== 'unknown') && rules;
  });
  t.strictSame(
    evaluated.map(({ name }) => name).sort(),
    readAlerts()
      .map(({ alert }) => alert)
      .sort(),
  );
  for (const { name, health, state } of evaluated) {
    t.equal(health, 'ok', name);
    // Whether it fires depends on the kernel of this machine.
    if (name !== 'KernelKnownBad') t.not(state, 'firing', `${name} is silent`);
  }
  // A stranger's chain.
  stage.gateway.run('nft', ['add', 'chain', 'inet', 'sluice', 'stranger']);
  await until('drift fires', () =>
    ask<RuleGroups>(stage, 'rules')!
      .groups.flatMap(({ rules }) => rules)
      .some(({ name, state }) => name === 'PolicyDrift' && state === 'firing'),
  );
});
