import { type Command, InvalidArgumentError } from 'commander';
import type { ChangeAnswer } from 'sluice-gateway/changes/held.js';
import type { HistoryEntry } from 'sluice-gateway/snapshot/history.js';
import { ask, tell } from '../ask.js';
import { config, json, type Options, socket, socketOf } from '../options.js';
import { sayTable, show } from '../output.js';
import { showChange } from './apply.js';

function showHistory(entries: readonly HistoryEntry[]): void {
  const rows = entries.toReversed().map(({ revision, at, who, isPolicy, changed }) => {
    const what = isPolicy ? 'policy' : 'members';
    return [String(revision), at, who, what, changed];
  });
  sayTable(['REVISION', 'SINCE', 'WHO', 'OF', 'CHANGED'], rows);
}

function parseRevision(text: string): number {
  if (!/^[1-9][0-9]{0,14}$/.test(text)) throw new InvalidArgumentError('Give a revision of sluice history.');
  return Number(text);
}

/** Adds `sluice history` and `rollback`. */
export function addHistory(program: Command): void {
  program
    .command('history')
    .description('list what was in force, the newest first')
    .addOption(config())
    .addOption(socket())
    .addOption(json())
    .action(async (options: Options) =>
      show(options, await ask<HistoryEntry[]>(socketOf(options), '/history'), showHistory),
    );
  program
    .command('rollback')
    .description('enforce a revision of the history, until --release or the next apply')
    .argument('[revision]', 'which one', parseRevision)
    .option('--release', 'go back to what the controller client brings')
    .addOption(config())
    .addOption(socket())
    .addOption(json())
    .action(async (revision: number | undefined, options: Options & { release?: boolean }) => {
      if ((revision === undefined) !== (options.release === true))
        throw new Error('Cannot roll back: give either a revision of sluice history or --release');
      const answer =
        revision === undefined
          ? await tell<ChangeAnswer>(socketOf(options), '/release')
          : await tell<ChangeAnswer>(socketOf(options), '/rollback', { revision: String(revision) });
      const what =
        revision === undefined ? 'is in force' : 'is held in force until sluice rollback --release';
      show(options, answer, (told) => showChange(told, what));
    });
}
