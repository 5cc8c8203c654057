import { type Command, InvalidArgumentError, Option } from 'commander';
import {
  POLICY_FORMATS,
  type PolicyFormat,
  printPolicy,
} from 'sluice-controller-client/sources/print-policy.js';
import { Learner } from 'sluice-gateway/analysis/learn.js';
import type { LearnAnswer } from 'sluice-gateway/analysis/output.js';
import { readFlows } from 'sluice-gateway/analysis/read-flows.js';
import { Simulation } from 'sluice-gateway/analysis/simulate.js';
import { prefixCountOf } from 'sluice-gateway/snapshot/read.js';
import { type FromFiles, readFiles } from '../files.js';
import { config, json, needsFiles, type Options, policy } from '../options.js';
import { COLUMNS_MAX, complain, EXIT, plural, show, wrap } from '../output.js';
import { candidateOf, complainUnresolved, flows } from './simulate.js';

const PREFIXES_MAX = 32;

interface LearnOptions extends Options {
  readonly flows: readonly string[];
  readonly group: string;
  readonly format: PolicyFormat;
  readonly prefixesMax: number;
}

function parseCount(text: string): number {
  if (/^[1-9][0-9]{0,3}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('It is not a number from 1 to 9999.');
}

async function learn(
  files: FromFiles,
  { flows, group, format, prefixesMax }: LearnOptions,
): Promise<LearnAnswer> {
  const { snapshot, wanted } = files;
  const { policy, matcher } = candidateOf(files);
  const simulation = new Simulation(policy, matcher);
  const learner = new Learner({
    ...{ group, matcher, prefixesMax },
    isResolved: snapshot.groups.some(({ name, resolved }) => name === group && resolved),
    sizes: new Map(snapshot.groups.map((one) => [one.name, prefixCountOf(one)])),
    enforcedRule: (flow) => {
      const decided = simulation.decide(flow);
      return decided === policy.byDefault ? undefined : decided;
    },
  });
  await readFlows(
    flows,
    (ip) => learner.isMember(ip),
    (read) => learner.take(read),
  );
  const { groups, existing, rules, summary } = learner.proposal();
  const comment = [
    `What ${JSON.stringify(group)} was seen to reach, from ${summary.learnt} of ${summary.records} records.`,
    'A policy of its own: beside the files that define these groups already, leave those out.',
  ];
  const written = [group, ...existing].flatMap((name) => wanted.known.loaded.written.get(name) ?? []);
  return { ...summary, format, policy: printPolicy({ comment, written, groups, rules }, format) };
}

function showLearnt({ learnt, permitted, denied, deniedBy, rules, omitted, policy }: LearnAnswer): void {
  process.stdout.write(policy);
  const found = `${plural(rules, 'rule')} for ${plural(learnt, 'record')}; ${permitted} permitted already`;
  complain(`${found}, ${denied} refused by rules in force and not learnt`);
  for (const { rule, records } of deniedBy)
    complain(wrap(`  refused by rule "${rule}": ${plural(records, 'record')}`, COLUMNS_MAX).join('\n'));
  if (omitted > 0) complain(`  beyond what is kept: ${plural(omitted, 'record')}`);
}

/** Adds `sluice learn`. */
export function addLearn(program: Command): void {
  program
    .command('learn')
    .description('propose the least policy that permits what a group was seen to reach')
    .requiredOption('--group <name>', 'the group whose flows are learnt from')
    .addOption(flows().makeOptionMandatory())
    .addOption(new Option('--format <name>', 'how it is written').choices(POLICY_FORMATS).default('yaml'))
    .option('--prefixes-max <number>', 'prefixes of each new group', parseCount, PREFIXES_MAX)
    .addOption(config())
    .addOption(policy())
    .addOption(json())
    .action(async (options: LearnOptions) => {
      needsFiles(options);
      const files = await readFiles(options);
      if (!files.snapshot.groups.some(({ name }) => name === options.group)) {
        throw new Error(
          `Cannot learn: there is no group called ${JSON.stringify(options.group)}, sluice groups lists them`,
        );
      }
      complainUnresolved(files);
      const answer = await learn(files, options);
      show(options, answer, showLearnt);
      if (answer.learnt === 0) process.exitCode = EXIT.found;
    });
}
