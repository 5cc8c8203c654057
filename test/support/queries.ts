import { globSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';

const deploy = fileURLToPath(new URL('../../../deploy', import.meta.url));
export const RULES_FILE = join(deploy, 'prometheus', 'rules.yaml');
export const RULES_TEST_FILE = join(deploy, 'prometheus', 'rules.test.yaml');
export const RUNBOOKS_FILE = join(deploy, 'docs', 'runbooks.md');

export interface AlertRule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly runbook_url: string };
}

/** The alerts that we ship. */
export function readAlerts(): AlertRule[] {
  const { groups } = parse(readFileSync(RULES_FILE, 'utf8')) as { groups: { rules: AlertRule[] }[] };
  return groups.flatMap(({ rules }) => rules);
}

interface Target {
  readonly expr: string;
}

export interface Dashboard {
  readonly file: string;
  readonly uid: string;
  readonly panels: readonly { readonly title: string; readonly targets: readonly Target[] }[];
  readonly annotations: { readonly list: readonly Target[] };
  readonly templating: { readonly list: readonly { readonly type: string; readonly query: string }[] };
}

/** The dashboards that we ship. */
export function readDashboards(): Dashboard[] {
  return globSync(join(deploy, 'grafana', '*.json')).map((file) => ({
    file: basename(file, '.json'),
    ...(JSON.parse(readFileSync(file, 'utf8')) as Omit<Dashboard, 'file'>),
  }));
}

/** Expressions of a dashboard, with Grafana's variables as it would fill them in. */
export function expressionsOf({ panels, annotations }: Dashboard): string[] {
  return [...panels.flatMap(({ targets }) => targets), ...annotations.list].map(({ expr }) =>
    expr
      .replaceAll('$__rate_interval', '5m')
      .replaceAll('$__range', '6h')
      .replaceAll(/\$(?:instance|group)/g, '.*'),
  );
}

/** The metrics, by the names of their families, that alerts and dashboards ask for. */
export function usedMetrics(): ReadonlySet<string> {
  const dashboards = readDashboards();
  const variables = dashboards.flatMap(({ templating }) => templating.list.map(({ query }) => query));
  const texts = [...readAlerts().map(({ expr }) => expr), ...dashboards.flatMap(expressionsOf), ...variables];
  const names = texts.flatMap((text) => text.match(/\bsluice_[a-z0-9_]+/g) ?? []);
  return new Set(names.map((name) => name.replace(/_(?:bucket|sum|count)$/, '')));
}
