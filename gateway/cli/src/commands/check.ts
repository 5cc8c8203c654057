import type { Command } from 'commander';
import type { Wanted } from 'sluice-controller-client/wanted.js';
import type { Finding, Level } from 'sluice-gateway/preflight/finding.js';
import { preflight } from 'sluice-gateway/preflight/preflight.js';
import { readFiles, readInterfaces } from '../files.js';
import { config, json, needsFiles, type Options, policy } from '../options.js';
import { COLUMNS_MAX, EXIT, plural, say, sayTable, show, wrap } from '../output.js';
import { hasNetAdmin } from '../run.js';

function showCheck({ content, warnings }: Wanted): void {
  for (const warning of warnings) say(`warning: ${warning}`);
  const { rules, defaultAction } = content.policy;
  const functions = content.inventory.functions.length;
  const counts = `${plural(rules.length, 'rule')}, ${plural(content.groups.length, 'group')}, ${plural(functions, 'function')}`;
  say(`The policy can be enforced: ${counts}, default ${defaultAction.action}`);
}

const GAP_COLUMNS = 2;

const TOPICS = [
  ['KERNEL', /^(?=kernel$)|^(?=problem\.)/],
  ['FEATURE', /^feature\./],
  ['SYSCTL', /^sysctl\./],
  ['OTHER TABLES', /^foreign\./],
] as const;

function showTopic(head: string, name: RegExp, findings: readonly Finding[]): void {
  const rows = findings
    .filter((finding) => name.test(finding.name))
    .map((finding) => [finding.name.replace(name, ''), finding.level, finding.expected ?? '', finding.value]);
  const heads = [head, 'LEVEL', 'EXPECTED', 'FOUND'];
  const widths = [0, 1, 2].map((column) => Math.max(...[heads, ...rows].map((row) => row[column]!.length)));
  const left = widths.reduce((sum, width) => sum + width + GAP_COLUMNS, 0);
  const cut = (text: string) =>
    left + text.length <= COLUMNS_MAX ? text : `${text.slice(0, COLUMNS_MAX - left - 1)}…`;
  sayTable(
    heads,
    rows.map((row) => [...row.slice(0, -1), cut(row.at(-1)!)]),
  );
}

/** Tables by topic, then in words what is not as it should be. */
function showKernel(findings: readonly Finding[]): void {
  for (const [head, name] of TOPICS) {
    showTopic(head, name, findings);
    say();
  }
  for (const { name, level, detail } of findings.filter((finding) => finding.level !== 'ok')) {
    const indent = ' '.repeat('warning  '.length);
    const [first, ...rest] = wrap(`${name}: ${detail}`, COLUMNS_MAX - indent.length);
    say(`${level.padEnd(indent.length)}${first}`);
    for (const line of rest) say(`${indent}${line}`);
  }
}

const EXIT_OF: Readonly<Record<Level, number>> = {
  ...{ ok: EXIT.fine, info: EXIT.fine, warning: EXIT.found, error: EXIT.failed },
};

async function checkKernel(options: Options): Promise<void> {
  if (!hasNetAdmin()) throw new Error('Cannot check kernel: it needs CAP_NET_ADMIN, run it as root');
  const findings = await preflight({ interfaces: readInterfaces(options.config) });
  show(options, { findings }, () => showKernel(findings));
  process.exitCode = Math.max(...findings.map(({ level }) => EXIT_OF[level]));
}

function counts({ content }: Awaited<ReturnType<typeof readFiles>>['wanted']) {
  return {
    rules: content.policy.rules.length,
    groups: content.groups.length,
    functions: content.inventory.functions.length,
  };
}

/** Adds `sluice check`. */
export function addCheck(program: Command): void {
  program
    .command('check')
    .description('read configuration and policy, and say what is wrong or worth knowing')
    .option(
      '--kernel',
      'look at the kernel and at the tables of others instead, as sluice run does when it starts',
    )
    .addOption(config())
    .addOption(policy())
    .addOption(json())
    .action(async ({ kernel, ...options }: Options & { kernel?: boolean }) => {
      if (kernel === true) return checkKernel(options);
      needsFiles(options);
      const { wanted } = await readFiles(options);
      show(options, { warnings: wanted.warnings, ...counts(wanted) }, () => showCheck(wanted));
      if (wanted.warnings.length > 0) process.exitCode = EXIT.found;
    });
}
