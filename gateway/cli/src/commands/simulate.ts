import { type Command, Option } from 'commander';
import type { Change, SimulateAnswer } from 'sluice-gateway/analysis/output.js';
import { readFlows } from 'sluice-gateway/analysis/read-flows.js';
import { Simulation, sourceTest } from 'sluice-gateway/analysis/simulate.js';
import { matcherOf } from 'sluice-gateway/matcher/of-snapshot.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import { type FileOptions, type FromFiles, readFiles } from '../files.js';
import { config, json, type Options } from '../options.js';
import { complain, EXIT, plural, say, sayWrapped, show } from '../output.js';

/** Changes that the human form shows without --all. */
const CHANGES_SHOWN_MAX = 20;

export const flows = () =>
  new Option('--flows <file...>', 'flow records or VPC Flow Logs, .gz too; - is standard input');

/** The policy in files as it is in force now, and who is who under it. */
export function candidateOf({ snapshot }: FromFiles) {
  return { policy: policyInForce(snapshot.policy, new Date()), matcher: matcherOf(snapshot, []) };
}

/** Says which groups that rules name could not be resolved: they hold nothing here. */
export function complainUnresolved({ snapshot }: FromFiles): void {
  const named = new Set(snapshot.policy.rules.flatMap(({ src, dst }) => [...src, ...dst]));
  const unresolved = snapshot.groups.filter(({ name, resolved }) => !resolved && named.has(name));
  if (unresolved.length === 0) return;
  const names = unresolved.map(({ name }) => name).join(', ');
  complain(
    `warning: not resolved, and so without members here: ${names}; --config FILE says what AWS is known of`,
  );
}

const short = (text: string) => text.replaceAll(/arn:[^,]*:function:/g, '');

function sumText({ records, connections, bytesOut, bytesIn }: SimulateAnswer['changed']): string {
  const traffic = `${bytesOut} bytes out, ${bytesIn} in`;
  return `${plural(records, 'record')}, ${plural(connections, 'connection')}, ${traffic}`;
}

function showChange({ source, destination, before, after, example, ...sums }: Change): void {
  const was = `${before.verdict}${before.rule === undefined ? '' : ` by ${before.rule}`}`;
  sayWrapped('  ', `${short(source)} to ${destination}: ${was}, would be ${after.verdict} by ${after.rule}`);
  sayWrapped('    ', sumText(sums));
  const { time, src, dst, protocol, port } = example;
  sayWrapped('    ', `as at ${time} ${src} to ${dst}, protocol ${protocol}, port ${port}`);
}

function showSimulation(answer: SimulateAnswer, all: boolean): void {
  const { records, judged, breaks, opens, changed, changes, recordsOmitted, skipped } = answer;
  sayWrapped('', `${plural(records, 'record')}, ${judged} judged; would change: ${sumText(changed)}`);
  sayWrapped('  would break: ', `${sumText(breaks)}, of ${plural(breaks.sources, 'source')}`);
  sayWrapped('  would open:  ', sumText(opens));
  const shown = all ? changes : changes.slice(0, CHANGES_SHOWN_MAX);
  for (const change of shown) showChange(change);
  const hidden = changes.length - shown.length;
  if (hidden > 0) say(`  and ${plural(hidden, 'change')} more, --all shows them`);
  if (recordsOmitted > 0) say(`  and ${plural(recordsOmitted, 'record')} of yet other changes`);
  if (skipped.loss > 0) say(`  events are missing in these flows: ${plural(skipped.loss, 'record')} of loss`);
  if (skipped.unreadable > 0) say(`  not readable: ${plural(skipped.unreadable, 'line')}`);
}

/** Adds `sluice simulate`. */
export function addSimulate(program: Command): void {
  program
    .command('simulate')
    .description('say which recorded flows would get another verdict by another policy')
    .addOption(new Option('--policy <path>', 'the candidate: a policy file or folder').makeOptionMandatory())
    .addOption(flows().makeOptionMandatory())
    .option('--all', `every change, not the first ${CHANGES_SHOWN_MAX}`)
    .addOption(config())
    .addOption(json())
    .action(
      async ({
        flows,
        all = false,
        ...options
      }: Options & FileOptions & { flows: string[]; all?: boolean }) => {
        const files = await readFiles(options);
        complainUnresolved(files);
        const { policy, matcher } = candidateOf(files);
        const simulation = new Simulation(policy, matcher);
        await readFlows(flows, sourceTest(policy, matcher), (read) => simulation.take(read));
        const answer = simulation.result();
        show(options, answer, (answer) => showSimulation(answer, all));
        if (answer.breaks.records > 0) process.exitCode = EXIT.found;
      },
    );
}
