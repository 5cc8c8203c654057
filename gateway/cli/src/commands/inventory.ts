import type { Command } from 'commander';
import type { InventoryBody } from 'sluice-gateway/snapshot/format.js';
import { type Advice, adviceOn } from '../advice.js';
import { ask } from '../ask.js';
import { readFiles } from '../files.js';
import { config, json, type Options, socket, socketOf } from '../options.js';
import { say, sayTable, sayWrapped, show } from '../output.js';

interface Shown extends InventoryBody {
  readonly advice: readonly Advice[];
}

function showInventory({ functions, scopes, feeds = [], advice }: Shown): void {
  const head = ['FUNCTION', 'ACCOUNT', 'REGION', 'IDENTITY', 'PREFIXES'];
  const rows = functions.map(({ name, accountId, region, identity, prefixes, addresses = [] }) => [
    name,
    accountId,
    region,
    identity,
    prefixes.length === 0
      ? 'not enforceable'
      : (identity === 'dedicated-eni' ? addresses : prefixes).join(' '),
  ]);
  sayTable(head, rows);
  if (feeds.length > 0) {
    say();
    const feedHead = ['NAME OR FEED', 'PREFIXES', 'LAST READ', 'ERROR'];
    const read = feeds.map(({ name, prefixes, error, refreshedAt = 'never' }) => [
      name,
      String(prefixes),
      error === undefined ? 'in time' : refreshedAt,
      error ?? '',
    ]);
    sayTable(feedHead, read);
  }
  const remarks = [
    ...functions.flatMap(({ name, detail }) => (detail === undefined ? [] : [`${name}: ${detail}`])),
    ...advice.map((one) => one.advice),
    ...scopes.flatMap(({ accountId, region, error }) =>
      error === undefined ? [] : [`${accountId} ${region}: ${error}`],
    ),
  ];
  if (remarks.length > 0) say();
  for (const remark of remarks) sayWrapped('', remark);
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
