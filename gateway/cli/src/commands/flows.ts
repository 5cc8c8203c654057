import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import { type FlowsAnswer, functionName } from 'sluice-gateway/admin/recent-flows.js';
import type { FlowRecord } from 'sluice-gateway/flows/record.js';
import { ask } from '../ask.js';
import { config, json, type Options, socket, socketOf } from '../options.js';
import { cell, complain, endText, plural, say, sayJson, shortSize } from '../output.js';

const FOLLOW_MS = 250;

function verdictText({ verdict, enforced }: FlowRecord): string {
  return `${enforced === false ? '~' : ''}${verdict ?? ''}`;
}

function sourceText({ src, loss }: FlowRecord): string {
  if (loss !== undefined) return `${loss.events ?? 'some'} of ${loss.source}`;
  const [first, ...others] = src?.functions ?? [];
  if (first === undefined) return src === undefined ? '' : endText(src);
  return functionName(first) + (others.length === 0 ? '' : ` +${others.length}`);
}

function trafficText({ bytes, suppressed }: FlowRecord): string {
  if (bytes !== undefined) return `${shortSize(bytes.out)}/${shortSize(bytes.in)}`;
  return suppressed === undefined ? '' : `+${shortSize(suppressed)}`;
}

/** Heads and widths of the columns, which fit 100 with a space between them. */
const COLUMNS: readonly (readonly [head: string, columns: number, text: (record: FlowRecord) => string])[] = [
  ['TIME', 8, ({ time }) => time.slice(11, 19)],
  ['EVENT', 6, ({ event }) => event],
  ['VERDICT', 7, verdictText],
  ['SOURCE', 20, sourceText],
  ['DESTINATION', 24, ({ dst }) => (dst === undefined ? '' : endText(dst))],
  ['PROTO', 5, ({ protocol = '' }) => String(protocol)],
  ['RULE', 14, ({ rule, reason = '' }) => rule?.name ?? reason],
  ['OUT/IN', 9, trafficText],
];

const sayRow = (cells: readonly string[]) =>
  say(
    cells
      .map((text, index) => cell(text, COLUMNS[index]![1]))
      .join(' ')
      .trimEnd(),
  );

interface FlowsOptions extends Options {
  readonly follow?: boolean;
  readonly function?: string;
  readonly group?: string;
  readonly rule?: string;
  readonly verdict?: string;
  readonly cidr?: string;
  readonly port?: string;
}

const FILTERS = ['function', 'group', 'rule', 'verdict', 'cidr', 'port'] as const;

function filtersOf(options: FlowsOptions): Record<string, string> {
  const given = FILTERS.flatMap((name) => {
    const value = options[name];
    return value === undefined ? [] : [[name, value] as const];
  });
  return Object.fromEntries(given);
}

async function showFlows(options: FlowsOptions): Promise<void> {
  const [address, filters] = [socketOf(options), filtersOf(options)];
  let since: number | undefined;
  do {
    const question = { ...filters, ...(since !== undefined && { since: String(since) }) };
    const { records, next, missed } = await ask<FlowsAnswer>(address, '/flows', question);
    if (options.json !== true && since === undefined) sayRow(COLUMNS.map(([head]) => head));
    since = next;
    if (missed > 0) complain(`${plural(missed, 'record')} came faster than they could be shown`);
    for (const record of records) {
      if (options.json === true) sayJson(record);
      else sayRow(COLUMNS.map(([, , text]) => text(record)));
    }
    if (options.follow === true) await delay(FOLLOW_MS);
  } while (options.follow === true);
}

/** Adds `sluice flows`. */
export function addFlows(program: Command): void {
  program
    .command('flows')
    .description('show the newest flow records; ~ before a verdict: what a MONITOR rule would have decided')
    .option('--follow', 'go on until interrupted')
    .option('--function <name|arn>', 'of this function')
    .option('--group <name>', 'from or to this group')
    .option('--rule <name>', 'decided by this rule')
    .option('--verdict <verdict>', 'PERMIT, DENY or REJECT')
    .option('--cidr <cidr>', 'from or to these addresses')
    .option('--port <port>', 'to this port')
    .addOption(config())
    .addOption(socket())
    .addOption(json())
    .action(showFlows);
}
