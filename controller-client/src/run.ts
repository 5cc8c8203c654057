import { readConfig } from 'sluice-gateway/config/config.js';
import { createLog } from 'sluice-gateway/log.js';
import { ControllerClient } from './client.js';

/** Runs a controller client until SIGTERM or SIGINT, or until the gateway that started it has gone. */
export async function runControllerClient(configFile: string): Promise<void> {
  const client = new ControllerClient(readConfig(configFile), createLog());
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => client.stop());
  // Without the gateway that started it there is nobody to bring anything to.
  process.on('disconnect', () => client.stop());
  await client.run();
}
