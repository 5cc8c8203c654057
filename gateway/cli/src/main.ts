#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { addApply } from './commands/apply.js';
import { addBoot } from './commands/boot.js';
import { addCheck } from './commands/check.js';
import { addCompile } from './commands/compile.js';
import { addExplain } from './commands/explain.js';
import { addFlows } from './commands/flows.js';
import { addGroups } from './commands/groups.js';
import { addHistory } from './commands/history.js';
import { addInventory } from './commands/inventory.js';
import { addLearn } from './commands/learn.js';
import { addRun } from './commands/run.js';
import { addSimulate } from './commands/simulate.js';
import { addStatus } from './commands/status.js';
import { addTop } from './commands/top.js';
import { json, type Options } from './options.js';
import { complain, EXIT, say, show } from './output.js';

/** Every command, for those who ask what there is: the manual and the completion are made of it. */
export const program = new Command('sluice')
  .description('An egress firewall for serverless functions')
  .configureOutput({ writeErr: complain })
  .exitOverride((error) => {
    process.exit(error.exitCode === 0 ? EXIT.fine : EXIT.failed);
  });

addRun(program);
addBoot(program);
addCheck(program);
addCompile(program);
addExplain(program);
addSimulate(program);
addLearn(program);
addApply(program);
addHistory(program);
addStatus(program);
addGroups(program);
addInventory(program);
addFlows(program);
addTop(program);

program
  .command('version')
  .description('say which version this is')
  .addOption(json())
  .action((options: Options) => {
    const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
    show(options, { version, node: process.version }, () =>
      say(`sluice ${version}, node ${process.version}`),
    );
  });

if (import.meta.main) {
  try {
    await program.parseAsync();
  } catch (error) {
    complain(error instanceof Error ? error.message : String(error));
    process.exitCode = EXIT.failed;
  }
}
