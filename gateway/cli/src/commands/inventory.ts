import type { Command } from 'commander';
import type { InventoryBody } from 'sluice-gateway/snapshot/format.js';
import { ask } from '../ask.js';
import { readFiles } from '../files.js';
import { config, json, type Options, socket, socketOf } from '../options.js';
import { say, sayTable, show } from '../output.js';

function showInventory({ functions, scopes }: InventoryBody): void {
  sayTable(
    ['FUNCTION', 'ACCOUNT', 'REGION', 'IDENTITY', 'PREFIXES'],
    functions.map(({ name, accountId, region, identity, prefixes }) => [
      name,
      accountId,
      region,
      identity,
      prefixes.length === 0 ? 'not enforceable' : prefixes.join(' '),
    ]),
  );
  for (const { accountId, region, error } of scopes)
    if (error !== undefined) say(`${accountId} ${region}: ${error}`);
}

/** Adds `sluice inventory`. */
export function addInventory(program: Command): void {
  program
    .command('inventory')
    .description('show the functions that AWS names, and how sure their addresses mean them')
    .addOption(config())
    .addOption(socket())
    .addOption(json())
    .action(async (options: Options) => {
      const inventory =
        options.config === undefined
          ? await ask<InventoryBody>(socketOf(options), '/inventory')
          : (await readFiles(options)).snapshot.inventory;
      show(options, inventory, showInventory);
    });
}
