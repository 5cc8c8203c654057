import type { Command } from 'commander';
import type { Status } from 'sluice-gateway/admin/answers.js';
import type { HeldStatus } from 'sluice-gateway/changes/held.js';
import { ask } from '../ask.js';
import { config, json, type Options, socket, socketOf } from '../options.js';
import { EXIT, plural, say, sayWrapped, show } from '../output.js';

const AGES = [
  [86_400, 'day'],
  [3_600, 'hour'],
  [60, 'minute'],
  [1, 'second'],
] as const;

/** How long ago a time was, in its largest unit. */
function age(time: string): string {
  const seconds = Math.max(0, (Date.now() - Date.parse(time)) / 1_000);
  const [unitSeconds, word] = AGES.find(([unit]) => seconds >= unit) ?? AGES.at(-1)!;
  return plural(Math.floor(seconds / unitSeconds), word);
}

const HELD: Readonly<Record<HeldStatus['kind'], string>> = {
  trial: 'on trial',
  apply: 'applied, until the policy files are what was applied',
  rollback: 'held by a rollback',
};

function heldText({ kind, who, since, until, waiting }: HeldStatus): string {
  const end = until === undefined ? '' : ` until ${until}`;
  const newest = waiting === undefined ? '' : `; revision ${waiting} waits`;
  return `${HELD[kind]}${end}, by ${who} at ${since}${newest}`;
}

function showStatus(status: Status): void {
  sayWrapped('', `${status.gateway}: ${status.ready ? 'ready' : 'NOT READY'}, ${status.reason}`);
  say(
    `  generation ${status.generation ?? '-'}, revision ${status.revision.applied ?? '-'} of ${status.revision.wanted ?? '-'}`,
  );
  if (status.held !== undefined) sayWrapped('  ', heldText(status.held));
  say(
    `  ${plural(status.rules, 'rule')}, ${plural(status.groups, 'group')}, ${plural(status.functions, 'function')}`,
  );
  for (const { accountId, region, refreshedAt, error } of status.scopes) {
    const asOf = refreshedAt === undefined ? 'never read' : `as of ${refreshedAt} (${age(refreshedAt)} ago)`;
    sayWrapped('  ', `AWS ${accountId} ${region}: ${asOf}${error === undefined ? '' : `, ${error}`}`);
  }
  const dropped = Object.entries(status.dropped).map(([reason, count]) => `${reason} ${count}`);
  sayWrapped('  ', `packets dropped: ${dropped.join(', ')}`);
  for (const warning of status.warnings) sayWrapped('  ', `warning: ${warning}`);
}

/** Adds `sluice status`. */
export function addStatus(program: Command): void {
  program
    .command('status')
    .description('say what is in force, and whether it is what is wanted')
    .addOption(config())
    .addOption(socket())
    .addOption(json())
    .action(async (options: Options) => {
      const status = await ask<Status>(socketOf(options), '/status');
      show(options, status, showStatus);
      if (!status.ready) process.exitCode = EXIT.found;
    });
}
