import { cpSync, writeFileSync } from 'node:fs';
import t from 'tap';
import { forwardPackets } from '../support/lab.js';
import { sysctl } from '../support/namespace.js';
import { patience } from '../support/patience.js';
import { needPrivileges } from '../support/privileged.js';
import { SLUICE } from '../support/product.js';
import type { Stage } from '../support/stage.js';
import { until } from '../support/wait.js';
import {
  awsState,
  CONFIG,
  FUNCTIONS,
  LEDGER,
  ROGUE,
  setUpWorkers,
  startTraffic,
  WORKER,
} from '../support/workers.js';

needPrivileges();

t.setTimeout(600_000 * patience);

const INTERFACES = ['lam0', 'lam1', 'wan0', 'dc0'];
type First = NonNullable<Parameters<typeof setUpWorkers>[2]>;

/** Addresses that are made of those of the hardware would be others after this boot. */
const sameAddresses: First = ({ gateway }) => sysctl(gateway, 'net.ipv6.conf.default.addr_gen_mode', 1);

/** Boots in a gateway that has no interfaces yet. */
const bootWith =
  (state: string | undefined, said: string[]): First =>
  (stage) => {
    sameAddresses(stage);
    const file = stage.path('sluice.yaml');
    writeFileSync(file, CONFIG);
    if (state !== undefined) cpSync(state, stage.path('state'), { recursive: true });
    said.push(stage.gateway.run(process.execPath, [SLUICE, 'boot', '--json', '--config', file]));
  };

async function enforces(stage: Stage, worker: boolean): Promise<boolean> {
  const [permitted] = stage.attempt('a', [{ from: WORKER.address, ...LEDGER, protocol: 'tcp' }]);
  const [otherPort] = stage.attempt('a', [
    { from: WORKER.address, to: LEDGER.to, port: LEDGER.port + 1, protocol: 'udp' },
  ]);
  const [denied] = stage.attempt('b', [{ from: ROGUE.address, ...LEDGER, protocol: 'tcp' }]);
  return permitted === worker && otherPort === false && denied === false;
}

t.test('a boot enforces what was last in force before the network is up', async (t) => {
  const before = await setUpWorkers(t, awsState(FUNCTIONS), sameAddresses);
  before.start();
  const { revision } = await before.ready(({ functions }) => functions > 0);
  await before.product!.stop();
  const said: string[] = [];
  const stage = await setUpWorkers(t, awsState(FUNCTIONS), bootWith(before.path('state'), said));
  t.match(JSON.parse(said[0]!), { revision: revision.applied, generation: Number });
  const chain = stage.gateway.run('nft', ['list', 'ruleset']);
  t.match(chain, /chain generation_[0-9]+/);
  for (const name of INTERFACES)
    t.match(stage.gateway.ip('rule'), new RegExp(`^1:.* iif ${name} blackhole`, 'm'));
  forwardPackets(stage.gateway);
  t.ok(await enforces(stage, true), 'without a gateway process, before any client');
  const arrived = startTraffic(stage);
  await until('permitted traffic arrives', () => arrived().permitted > 0);
  const monitor = stage.gateway.spawn('nft', ['monitor']);
  const changes: string[] = [];
  monitor.stdout!.on('data', (chunk: Buffer) => changes.push(chunk.toString()));
  stage.start();
  await stage.ready(({ functions }) => functions > 0);
  t.notMatch(changes.join(''), /(?:rule|chain|element|map) inet sluice /, 'the gateway wrote nothing');
  t.equal(arrived().denied, 0);
  t.ok(await enforces(stage, true), 'and goes on from there');
});

t.test('a boot that knows nothing, or nothing sound, drops everything', async (t) => {
  const broken = t.testdir({ 'last-good': { 'manifest.json': '{"format":' }, 'in-force.json': '{' });
  for (const state of [undefined, broken]) {
    const said: string[] = [];
    const stage = await setUpWorkers(t, awsState(FUNCTIONS), bootWith(state, said));
    t.match(JSON.parse(said[0]!), { generation: 1 });
    t.notMatch(said[0], 'revision');
    forwardPackets(stage.gateway);
    t.ok(await enforces(stage, false), 'all is dropped');
    const arrived = startTraffic(stage);
    stage.start();
    await stage.ready(({ functions }) => functions > 0);
    await until('permitted traffic arrives', () => arrived().permitted > 0);
    t.equal(arrived().denied, 0);
  }
});
