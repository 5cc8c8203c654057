import { type Command, Option } from 'commander';
import { clientArguments } from 'sluice-controller-client/command.js';
import { readConfig } from 'sluice-gateway/config/config.js';
import { hasNetAdmin } from '../capability.js';
import { config } from '../options.js';

const PARTS = ['gateway', 'client'] as const;
type Part = (typeof PARTS)[number];

/** Does not return: the client takes the place of this process. */
function becomeClient(configFile: string): void {
  const { file } = readConfig(configFile);
  if (hasNetAdmin())
    throw new Error('Cannot run controller client: it needs no capabilities, run it as another user');
  process.execve!(process.execPath, [process.execPath, ...clientArguments(file)]);
}

async function run(configFile: string, only: Part | undefined): Promise<void> {
  if (only === 'client') return becomeClient(configFile);
  // No other command needs the gateway's modules, and they take longer to load than all else.
  const { runGateway } = await import('../run.js');
  await runGateway(configFile, only === undefined);
}

/** Adds `sluice run`. */
export function addRun(program: Command): void {
  program
    .command('run')
    .description('enforce policy on this machine until SIGTERM or SIGINT')
    .addOption(config().makeOptionMandatory())
    .addOption(
      new Option('--only <part>', 'one of the two processes; the client under a user of its own').choices(
        PARTS,
      ),
    )
    .action(({ config, only }: { config: string; only?: Part }) => run(config, only));
}
