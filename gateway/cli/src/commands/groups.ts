import type { Command } from 'commander';
import { Ledger, printOrigins } from 'sluice-controller-client/snapshot/provenance.js';
import { answerGroups, type GroupAnswer } from 'sluice-gateway/admin/answers.js';
import type { Origin } from 'sluice-gateway/snapshot/provenance.js';
import { ask } from '../ask.js';
import { readFiles } from '../files.js';
import { config, isFromFiles, json, type Options, policy, socket, socketOf } from '../options.js';
import { plural, say, sayTable, sayWrapped, show } from '../output.js';

/** A function by its account, region and name: an ARN alone fills a line. */
function shortArn(text: string): string {
  const [, region, account, name] = /^arn:[^:]*:lambda:([^:]*):([^:]*):function:(.*)$/.exec(text) ?? [];
  return name === undefined ? text : `${account}/${region}/${name}`;
}

function originText({ via, by, group }: Origin): string {
  const steps = [...(by === undefined ? [] : [`by ${by}`]), ...(group === undefined ? [] : [`in ${group}`])];
  return [shortArn(via), ...steps].join(' ');
}

function showOrigins(origins: readonly Origin[]): void {
  sayTable(
    ['PREFIX', 'SINCE', 'FROM'],
    origins.map((origin) => [origin.prefix, origin.since.replace(/\.\d+Z$/, 'Z'), originText(origin)]),
  );
}

function showGroup({ name, prefixes, functions, resolved, origins }: GroupAnswer): void {
  const count = plural(prefixes.length, 'prefix').replace(/xs$/, 'xes');
  sayWrapped('', `${name}: ${count}${resolved ? '' : ', not all of it is known'}`);
  if (origins === undefined) {
    for (const prefix of prefixes) say(`  ${prefix}`);
    for (const arn of functions) sayWrapped('  holds ', arn);
  } else showOrigins(origins);
}

function showGroups(groups: readonly GroupAnswer[]): void {
  sayTable(
    ['GROUP', 'PREFIXES', 'FUNCTIONS', 'RESOLVED'],
    groups.map(({ name, prefixes, functions, resolved }) => [
      name,
      String(prefixes.length),
      String(functions.length),
      resolved ? 'yes' : 'no',
    ]),
  );
}

/** As the gateway answers, from files: since when is known as far as the snapshot beside them says. */
async function fromFiles(name: string | undefined, options: Options): Promise<GroupAnswer[]> {
  const { snapshot, wanted, config } = await readFiles(options);
  const groups = answerGroups(snapshot, name);
  if (name === undefined) return groups;
  const ledger = config === undefined ? new Ledger() : await Ledger.open(config.snapshot.path);
  const stamped = ledger.stamp(wanted.content.groups, new Date());
  return groups.map((group) => ({ ...group, origins: printOrigins(stamped.get(group.name) ?? []) }));
}

/** Adds `sluice groups`. */
export function addGroups(program: Command): void {
  program
    .command('groups')
    .description('show groups; of one, every prefix with what it came from and since when')
    .argument('[name]', 'one group, in full')
    .addOption(config())
    .addOption(policy())
    .addOption(socket())
    .addOption(json())
    .action(async (name: string | undefined, options: Options) => {
      const groups = isFromFiles(options)
        ? await fromFiles(name, options)
        : await ask<GroupAnswer[]>(socketOf(options), '/groups', name === undefined ? {} : { name });
      show(options, groups, (groups) =>
        name === undefined ? showGroups(groups) : groups.forEach(showGroup),
      );
    });
}
