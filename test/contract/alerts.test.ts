import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { createMetrics } from 'sluice-gateway/metrics/metrics.js';
import t from 'tap';
import { parse } from 'yaml';
import {
  expressionsOf,
  RULES_FILE,
  RULES_TEST_FILE,
  RUNBOOKS_FILE,
  readAlerts,
  readDashboards,
  usedMetrics,
} from '../support/queries.js';

/** The alerts that operators were promised. */
const PROMISED = [
  'EnforcementStale',
  'ApplyFailing',
  'PolicyDrift',
  'DefaultDropMissing',
  'InventoryStale',
  'DenyBurst',
  'ShadowDeny',
  'ConntrackAbove80',
  'EnaAllowanceExceeded',
  'FlowLogLoss',
  'SinkFailing',
  'KernelKnownBad',
];

const skip =
  spawnSync('promtool', ['--version']).error !== undefined &&
  'needs promtool of the Debian package prometheus';

/** What promtool says, whether or not it is content. */
function promtool(...args: string[]): string {
  try {
    return execFileSync('promtool', args, { stdio: 'pipe' }).toString();
  } catch (error) {
    const { stdout, stderr } = error as { stdout: Buffer; stderr: Buffer };
    return `${stdout}${stderr}`;
  }
}

t.test('promtool takes the alerts, and their unit tests pass', { skip }, async (t) => {
  t.match(promtool('check', 'rules', RULES_FILE), /SUCCESS: [0-9]+ rules found/);
  t.match(promtool('test', 'rules', RULES_TEST_FILE), /SUCCESS/);
});

interface AlertTest {
  readonly alertname: string;
  readonly exp_alerts: readonly unknown[];
}

t.test('each alert has a runbook, a test in which it fires and one in which it is silent', async (t) => {
  const { tests } = parse(readFileSync(RULES_TEST_FILE, 'utf8')) as {
    tests: { alert_rule_test: AlertTest[] }[];
  };
  const tested = tests.flatMap(({ alert_rule_test }) => alert_rule_test);
  const paragraphs = new Map(
    readFileSync(RUNBOOKS_FILE, 'utf8')
      .split('\n## ')
      .slice(1)
      .map((text) => [text.slice(0, text.indexOf('\n')), text.slice(text.indexOf('\n')).trim()]),
  );
  const alerts = readAlerts();
  const names = alerts.map(({ alert }) => alert);
  t.strictSame(
    PROMISED.filter((name) => !names.includes(name)),
    [],
  );
  t.strictSame([...paragraphs.keys()], names, 'one paragraph an alert, in their order');
  for (const { alert, labels, annotations } of alerts) {
    t.match(labels.severity, /^(?:critical|warning|info)$/, alert);
    t.equal(annotations.runbook_url, `deploy/docs/${basename(RUNBOOKS_FILE)}#${alert.toLowerCase()}`);
    t.ok(paragraphs.get(alert)!.length > 100, `${alert}: the runbook says something`);
    const own = tested.filter(({ alertname }) => alertname === alert);
    t.ok(
      own.some(({ exp_alerts }) => exp_alerts.length > 0),
      `${alert} fires`,
    );
    t.ok(
      own.some(({ exp_alerts }) => exp_alerts.length === 0),
      `${alert} is silent`,
    );
  }
});

t.test('every expression of the dashboards parses', { skip }, async (t) => {
  const dashboards = readDashboards();
  t.strictSame(dashboards.map(({ file }) => file).sort(), [
    'sluice-denies',
    'sluice-egress',
    'sluice-health',
    'sluice-overview',
  ]);
  for (const dashboard of dashboards) {
    t.equal(dashboard.uid, dashboard.file, 'links between dashboards hold');
    const rules = expressionsOf(dashboard).map((expr, index) => ({ record: `panel:${index}`, expr }));
    // YAML holds JSON.
    const folder = t.testdir({ 'rules.yaml': JSON.stringify({ groups: [{ name: dashboard.uid, rules }] }) });
    t.match(promtool('check', 'rules', `${folder}/rules.yaml`), `SUCCESS: ${rules.length} rules found`);
  }
});

t.test('alerts and dashboards ask for metrics that are there', async (t) => {
  const exported = new Set(
    createMetrics()
      .describe()
      .map(({ name }) => name),
  );
  const used = usedMetrics();
  t.ok(used.size > 20);
  for (const name of used) t.ok(exported.has(name), name);
});
