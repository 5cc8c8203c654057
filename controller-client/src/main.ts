import { parseArgs } from 'node:util';
import { ConfigError, readConfig } from 'sluice-gateway/config/config.js';
import { createLog } from 'sluice-gateway/log.js';
import { ControllerClient } from './client.js';

/**
 * The controller client as a process: `main.js --config FILE`, until SIGTERM or SIGINT, or until the gateway that started it
 * as an unprivileged child has gone.
 */
const { values } = parseArgs({ options: { config: { type: 'string' } } });
const log = createLog();
try {
  if (values.config === undefined)
    throw new ConfigError('Cannot start controller client: --config FILE is missing');
  const client = new ControllerClient(readConfig(values.config), log);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => client.stop());
  // Without the gateway that started it there is nobody to bring anything to.
  process.on('disconnect', () => client.stop());
  await client.run();
} catch (error) {
  log.error('the controller client can not run', { error: error as Error });
  process.exitCode = 2;
} finally {
  if (process.connected) process.disconnect();
}
