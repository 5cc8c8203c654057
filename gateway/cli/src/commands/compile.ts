import type { Command } from 'commander';
import { printProgram } from 'sluice-gateway/nft/print.js';
import { compilePolicy, programOf } from 'sluice-gateway/policy/compile.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import { groupPrefixes } from 'sluice-gateway/snapshot/read.js';
import { readFiles } from '../files.js';
import { config, json, needsFiles, type Options, policy } from '../options.js';
import { show } from '../output.js';

/** Adds `sluice compile`. */
export function addCompile(program: Command): void {
  program
    .command('compile')
    .description('print the kernel program that policy makes, as an nft file')
    .addOption(config())
    .addOption(policy())
    .addOption(json())
    .action(async (options: Options) => {
      needsFiles(options);
      const { snapshot, interfaces } = await readFiles(options);
      const compiled = compilePolicy({
        policy: policyInForce(snapshot.policy, new Date()),
        groups: groupPrefixes(snapshot),
        excluded: [],
        epoch: '',
      });
      const text = printProgram(programOf(compiled, interfaces, 1));
      show(options, { program: text }, () => process.stdout.write(text));
    });
}
