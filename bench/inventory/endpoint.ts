import { startAwsEndpoint } from 'sluice-test/support/aws/server.js';
import type { State } from 'sluice-test/support/aws/state.js';
import { cloud, type Probe } from './cloud.js';

/** AWS as a process of its own; its parent tells which functions wear the probe's tag. */
let state: State = cloud();
const endpoint = await startAwsEndpoint({ state });

function tagged({ account, name, tags }: Probe): State {
  const accounts = state.accounts.map((known) => {
    if (known.id !== account) return known;
    const regions = Object.entries(known.regions).map(([region, { functions = [], ...rest }]) => {
      const changed = functions.map((fn) => (fn.name === name ? { ...fn, tags } : fn));
      return [region, { ...rest, functions: changed }];
    });
    return { ...known, regions: Object.fromEntries(regions) };
  });
  return { ...state, accounts };
}

process.on('message', (probe: Probe) => {
  state = tagged(probe);
  endpoint.setState(state);
  process.send!('done');
});
process.on('disconnect', () => process.exit());
process.send!(endpoint.url);
