import type { Command } from 'commander';
import { readConfig } from 'sluice-gateway/config/config.js';
import { createLog } from 'sluice-gateway/log.js';
import { hasNetAdmin } from '../capability.js';
import { config, json, type Options } from '../options.js';
import { say, show } from '../output.js';

/** Adds `sluice boot`. */
export function addBoot(program: Command): void {
  program
    .command('boot')
    .description('enforce what was last in force, before the network is up, and end')
    .addOption(config().makeOptionMandatory())
    .addOption(json())
    .action(async (options: Options & { config: string }) => {
      const read = readConfig(options.config);
      if (!hasNetAdmin()) throw new Error('Cannot boot: it needs CAP_NET_ADMIN, run it as root');
      const { boot } = await import('sluice-gateway/boot.js');
      show(options, await boot(read, createLog()), ({ revision, generation }) =>
        say(
          revision === undefined
            ? 'No snapshot is known: everything is dropped until sluice run brings one'
            : `Revision ${revision} is in force, generation ${generation}`,
        ),
      );
    });
}
