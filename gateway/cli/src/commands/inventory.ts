import type { Command } from 'commander';
import type { InventoryBody } from 'sluice-gateway/snapshot/format.js';
import { type Advice, adviceOn } from '../advice.js';
import { ask } from '../ask.js';
import { readFiles } from '../files.js';
import { config, json, type Options, socket, socketOf } from '../options.js';
import { COLUMNS_MAX, say, sayTable, show, wrap } from '../output.js';

interface Shown extends InventoryBody {
  readonly advice: readonly Advice[];
}

const GAP_COLUMNS = 2;

/** The last column of a row, cut so that the row fits. */
function fit(head: readonly string[], rows: readonly (readonly string[])[]): string[][] {
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column]!.length)));
  const left = widths.slice(0, -1).reduce((sum, width) => sum + width + GAP_COLUMNS, 0);
  const columns = Math.max(COLUMNS_MAX - left, GAP_COLUMNS);
  const cut = (text: string) => (text.length <= columns ? text : `${text.slice(0, columns - 1)}…`);
  return rows.map((row) => [...row.slice(0, -1), cut(row.at(-1)!)]);
}

const NAME_COLUMNS_MAX = 32;

function showInventory({ functions, scopes, feeds = [], advice }: Shown): void {
  const head = ['FUNCTION', 'ACCOUNT', 'REGION', 'IDENTITY', 'PREFIXES'];
  const rows = functions.map(({ name, accountId, region, identity, prefixes, addresses = [] }) => [
    name.length <= NAME_COLUMNS_MAX ? name : `${name.slice(0, NAME_COLUMNS_MAX - 1)}…`,
    accountId,
    region,
    identity,
    prefixes.length === 0
      ? 'not enforceable'
      : (identity === 'dedicated-eni' ? addresses : prefixes).join(' '),
  ]);
  sayTable(head, fit(head, rows));
  if (feeds.length > 0) {
    say();
    const feedHead = ['NAME OR FEED', 'PREFIXES', 'LAST READ', 'ERROR'];
    const read = feeds.map(({ name, prefixes, error, refreshedAt = 'never' }) => [
      name,
      String(prefixes),
      error === undefined ? 'in time' : refreshedAt,
      error ?? '',
    ]);
    sayTable(feedHead, fit(feedHead, read));
  }
  const remarks = [
    ...functions.flatMap(({ name, detail }) => (detail === undefined ? [] : [`${name}: ${detail}`])),
    ...advice.map((one) => one.advice),
    ...scopes.flatMap(({ accountId, region, error }) =>
      error === undefined ? [] : [`${accountId} ${region}: ${error}`],
    ),
  ];
  if (remarks.length > 0) say();
  for (const line of remarks.flatMap((remark) => wrap(remark, COLUMNS_MAX))) say(line);
}

/** Adds `sluice inventory`. */
export function addInventory(program: Command): void {
  program
    .command('inventory')
    .description('show the functions that AWS names, how sure their addresses mean them, and what would help')
    .addOption(config())
    .addOption(socket())
    .addOption(json())
    .action(async (options: Options) => {
      const inventory =
        options.config === undefined
          ? await ask<InventoryBody>(socketOf(options), '/inventory')
          : (await readFiles(options)).snapshot.inventory;
      show(options, { ...inventory, advice: adviceOn(inventory) }, showInventory);
    });
}
