import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import type { Busy, DestinationLabel, SourceLabel, TopAnswer } from 'sluice-gateway/admin/busiest.js';
import { functionName } from 'sluice-gateway/admin/recent-flows.js';
import { ask } from '../ask.js';
import { config, json, type Options, socket, socketOf } from '../options.js';
import { cell, endText, say, sayJson, shortSize } from '../output.js';

const REFRESH_MS = 2_000;
/** ECMA-48: to the first line, and forget what is below. */
const CLEAR = '\u001b[H\u001b[J';
const OTHERS = '(others)';

const sourceText = ({ source, sharedBy }: SourceLabel) =>
  functionName(source) + (sharedBy > 1 ? ` +${sharedBy - 1}` : '');
const destinationText = (label: DestinationLabel) => `${endText(label)} ${label.protocol}`;

/** Widths that fit 100 with two spaces between them. */
const NAME = 60;
const NUMBER = 11;
const DENY = { source: 26, destination: 34, rule: 23 };

function sayBusy<Label>(head: string, busy: readonly Busy<Label>[], text: (label: Label) => string): void {
  const sayRow = (name: string, ...numbers: readonly string[]) =>
    say([cell(name, NAME), ...numbers.map((number) => number.padStart(NUMBER))].join('  '));
  sayRow(head, 'CONNECTIONS', 'BYTES OUT', 'BYTES IN');
  for (const { label, connections, bytes } of busy) {
    const name = label === undefined ? OTHERS : text(label);
    sayRow(name, String(connections), shortSize(bytes.out), shortSize(bytes.in));
  }
  say();
}

function sayDenies(denies: TopAnswer['denies']): void {
  const sayRow = (source: string, destination: string, rule: string, count: string) => {
    const texts = [cell(source, DENY.source), cell(destination, DENY.destination), cell(rule, DENY.rule)];
    say([...texts, count.padStart(NUMBER)].join('  '));
  };
  sayRow('DENIED', 'DESTINATION', 'RULE', 'COUNT');
  for (const { label, connections } of denies) {
    if (label === undefined) sayRow(OTHERS, '', '', String(connections));
    else sayRow(sourceText(label), destinationText(label.destination), label.rule, String(connections));
  }
}

function sayTop({ seconds, functions, destinations, denies }: TopAnswer): void {
  say(`The last ${seconds} seconds; bytes of connections that ended, denials as far as they are logged`);
  say();
  sayBusy('FUNCTION', functions, sourceText);
  sayBusy('DESTINATION', destinations, destinationText);
  sayDenies(denies);
}

async function showTop(
  options: Options & { readonly count: string; readonly once?: boolean },
): Promise<void> {
  const address = socketOf(options);
  const isOnce = options.once === true || options.json === true || !process.stdout.isTTY;
  for (;;) {
    const answer = await ask<TopAnswer>(address, '/top', { count: options.count });
    if (options.json === true) return sayJson(answer);
    if (!isOnce) process.stdout.write(CLEAR);
    sayTop(answer);
    if (isOnce) return;
    await delay(REFRESH_MS);
  }
}

/** Adds `sluice top`. */
export function addTop(program: Command): void {
  program
    .command('top')
    .description('show the busiest functions, destinations and denies of the last minute')
    .option('--count <count>', 'how many of each, up to 100', '10')
    .option('--once', 'show once; so it is where the output is no terminal')
    .addOption(config())
    .addOption(socket())
    .addOption(json())
    .action(showTop);
}
