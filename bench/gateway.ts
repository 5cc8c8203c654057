import { readConfig } from 'sluice-gateway/config/config.js';
import { Gateway } from 'sluice-gateway/gateway.js';
import { createLog } from 'sluice-gateway/log.js';

/** `gateway.js CONFIG`: the gateway of the product, without a controller client; the benchmark writes the snapshots. */
const gateway = new Gateway(readConfig(process.argv[2]!), createLog({ level: 'debug' }));
await gateway.start();
process.once('SIGTERM', () => void gateway.stop().then(() => process.exit(0)));
