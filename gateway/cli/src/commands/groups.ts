import type { Command } from 'commander';
import { answerGroups, type GroupAnswer } from 'sluice-gateway/admin/answers.js';
import { ask } from '../ask.js';
import { readFiles } from '../files.js';
import { config, isFromFiles, json, type Options, policy, socket, socketOf } from '../options.js';
import { plural, say, sayTable, show } from '../output.js';

function showGroups(groups: readonly GroupAnswer[], isInFull: boolean): void {
  if (!isInFull) {
    sayTable(
      ['GROUP', 'PREFIXES', 'FUNCTIONS', 'RESOLVED'],
      groups.map(({ name, prefixes, functions, resolved }) => [
        name,
        String(prefixes.length),
        String(functions.length),
        resolved ? 'yes' : 'no',
      ]),
    );
    return;
  }
  for (const { name, prefixes, functions, resolved } of groups) {
    say(
      `${name}: ${plural(prefixes.length, 'prefix').replace(/xs$/, 'xes')}${resolved ? '' : ', not resolved yet'}`,
    );
    for (const prefix of prefixes) say(`  ${prefix}`);
    for (const arn of functions) say(`  holds ${arn}`);
  }
}

/** Adds `sluice groups`. */
export function addGroups(program: Command): void {
  program
    .command('groups')
    .description('show groups and their prefixes')
    .argument('[name]', 'one group, in full')
    .addOption(config())
    .addOption(policy())
    .addOption(socket())
    .addOption(json())
    .action(async (name: string | undefined, options: Options) => {
      const groups = isFromFiles(options)
        ? answerGroups((await readFiles(options)).snapshot, name)
        : await ask<GroupAnswer[]>(socketOf(options), '/groups', name === undefined ? {} : { name });
      show(options, groups, (groups) => showGroups(groups, name !== undefined));
    });
}
