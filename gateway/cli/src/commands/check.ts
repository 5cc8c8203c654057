import type { Command } from 'commander';
import { printPosition } from 'sluice-controller-client/sources/diagnostics.js';
import type { Wanted } from 'sluice-controller-client/wanted.js';
import { lint } from 'sluice-gateway/analysis/lint.js';
import type { Finding as LintFinding } from 'sluice-gateway/analysis/output.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import type { Finding, Level } from 'sluice-gateway/preflight/finding.js';
import { preflight } from 'sluice-gateway/preflight/preflight.js';
import { AskError, ask } from '../ask.js';
import { hasNetAdmin } from '../capability.js';
import { type FromFiles, readFiles, readInterfaces } from '../files.js';
import { config, json, needsFiles, type Options, policy, socket, socketOf } from '../options.js';
import { EXIT, plural, say, sayTable, sayWrapped, show } from '../output.js';

/** Findings that are only worth knowing which the human form shows without --all. */
const INFO_SHOWN_MAX = 20;

function showFindings(findings: readonly LintFinding[]): void {
  for (const { at, kind, level, message, proof } of findings) {
    sayWrapped('', `${at === undefined ? '' : `${at}: `}${level}: ${kind}: ${message}`);
    if (proof === undefined) continue;
    const { src, dst, protocol, port } = proof;
    sayWrapped('  ', `shown by ${src} to ${dst}, protocol ${protocol}, port ${port}`);
  }
}

function showCheck({ content, warnings }: Wanted, findings: readonly LintFinding[], all: boolean): void {
  for (const warning of warnings) sayWrapped('', `warning: ${warning}`);
  const infos = findings.filter(({ level }) => level === 'info');
  const shown = all ? infos : infos.slice(0, INFO_SHOWN_MAX);
  showFindings([...findings.filter(({ level }) => level === 'warning'), ...shown]);
  if (shown.length < infos.length)
    say(`and ${plural(infos.length - shown.length, 'finding')} more, --all shows them`);
  const { rules, defaultAction } = content.policy;
  const functions = content.inventory.functions.length;
  const counts = `${plural(rules.length, 'rule')}, ${plural(content.groups.length, 'group')}, ${plural(functions, 'function')}`;
  say(`The policy can be enforced: ${counts}, default ${defaultAction.action}`);
}

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
  sayTable([head, 'LEVEL', 'EXPECTED', 'FOUND'], rows);
}

/** Tables by topic, then in words what is not as it should be. */
function showKernel(findings: readonly Finding[]): void {
  for (const [head, name] of TOPICS) {
    showTopic(head, name, findings);
    say();
  }
  for (const { name, level, detail } of findings.filter((finding) => finding.level !== 'ok')) {
    sayWrapped(level.padEnd('warning  '.length), `${name}: ${detail}`);
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

/** How often each rule decided, by the gateway that is named; by that of a configuration only where it runs. */
async function decisionsOf(options: Options): Promise<Readonly<Record<string, number>> | undefined> {
  if (options.config === undefined && options.socket === undefined) return undefined;
  try {
    return await ask<Record<string, number>>(socketOf(options), '/decisions');
  } catch (error) {
    if (error instanceof AskError && options.socket === undefined) return undefined;
    throw error;
  }
}

/** What is probably not meant, with the place of the first rule or group that it is about. */
async function lintFiles({ snapshot, wanted }: FromFiles, options: Options): Promise<LintFinding[]> {
  const { places, groups } = wanted.known.loaded;
  const placeOf = (name: string | undefined) => groups.find((group) => group.name === name)?.at;
  const findings = lint({
    policy: policyInForce(snapshot.policy, new Date()),
    groups: snapshot.groups,
    decisions: await decisionsOf(options),
  });
  return findings.map((found) => {
    const at = places.get(found.rules[0] ?? '') ?? placeOf(found.groups[0]);
    return at === undefined ? found : { ...found, at: printPosition(at) };
  });
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
    .option('--all', `every finding, not ${INFO_SHOWN_MAX} of those that are only worth knowing`)
    .addOption(config())
    .addOption(policy())
    .addOption(socket())
    .addOption(json())
    .action(async ({ kernel, all = false, ...options }: Options & { kernel?: boolean; all?: boolean }) => {
      if (kernel === true) return checkKernel(options);
      needsFiles(options);
      const files = await readFiles(options);
      const { wanted } = files;
      const findings = await lintFiles(files, options);
      const answer = { warnings: wanted.warnings, findings, ...counts(wanted) };
      show(options, answer, () => showCheck(wanted, findings, all));
      const isWrong = wanted.warnings.length > 0 || findings.some(({ level }) => level === 'warning');
      if (isWrong) process.exitCode = EXIT.found;
    });
}
