import { parseArgs } from 'node:util';
import { ConfigError } from 'sluice-gateway/config/config.js';
import { createLog } from 'sluice-gateway/log.js';
import { runControllerClient } from './run.js';

/** The controller client as a process: `main.js --config FILE`. `sluice run` starts it as an unprivileged child. */
const { values } = parseArgs({ options: { config: { type: 'string' } } });
try {
  if (values.config === undefined)
    throw new ConfigError('Cannot start controller client: --config FILE is missing');
  await runControllerClient(values.config);
} catch (error) {
  createLog().error('the controller client can not run', { error: error as Error });
  process.exitCode = 2;
} finally {
  if (process.connected) process.disconnect();
}
