import { parseArgs } from 'node:util';
import { startAwsEndpoint } from './server.js';
import { readState } from './state.js';

/**
 * `main.js --listen ADDRESS:PORT --state FILE`: prints `{"url": …}` on one line when it answers, and reads
 * the state again at SIGHUP; a file that it can't read then leaves the state as it was.
 */
const { values } = parseArgs({ options: { listen: { type: 'string' }, state: { type: 'string' } } });
const { listen = '127.0.0.1:0', state } = values;
const match = /^(?:\[([^\]]+)\]|([^:]+)):([0-9]+)$/.exec(listen);
if (state === undefined || match === null) {
  process.stderr.write('Usage: main.js --listen ADDRESS:PORT --state FILE\n');
  process.exit(2);
}
const endpoint = await startAwsEndpoint({
  state: readState(state),
  host: (match[1] ?? match[2])!,
  port: Number(match[3]),
});
process.on('SIGHUP', () => {
  try {
    endpoint.setState(readState(state));
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
  }
});
process.stdout.write(`${JSON.stringify({ url: endpoint.url })}\n`);
