import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fstatSync,
  ftruncateSync,
  globSync,
  mkdirSync,
  openSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { needPrivileges } from '../support/privileged.js';
import { SLUICE } from '../support/product.js';
import { rounds, seed } from '../support/seed.js';
import { SnapshotForger } from '../support/snapshots.js';
import type { Stage } from '../support/stage.js';
import { until } from '../support/wait.js';
import { awsState, FUNCTIONS, POLICY, setUpWorkers, startTraffic, writePolicy } from '../support/workers.js';

/**
 * The product under whatever happens to it, under traffic that never stops: after each round it converges to the policy in
 * its files, and in no moment of any of them has a denied packet passed.
 */

needPrivileges();

const ROUNDS = 15 * rounds;
const SETTLE_MS_MAX = 1_500;
const FILL_BYTES = 1 << 20;
const FLOOD_REVISIONS = 300;
t.setTimeout(60_000 + ROUNDS * 20_000);

/** A generator of its own, so that a round is what its seed says: mulberry32. */
function randomOf(state: number): (below: number) => number {
  let at = state >>> 0;
  return (below) => {
    at = (at + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(at ^ (at >>> 15), at | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

interface Scene {
  readonly stage: Stage;
  readonly random: (below: number) => number;
  readonly env: NodeJS.ProcessEnv;
  /** What was done, for who has to find out why. */
  readonly told: string[];
}

const alive = (pid: number | undefined): pid is number => pid !== undefined && existsSync(`/proc/${pid}`);

/** Kills the gateway and waits until its client has gone too: one writer a folder. */
async function killGateway({ stage }: Scene, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
  const client = stage.product!.clientPid;
  if (alive(client)) process.kill(client, 'SIGKILL');
  await stage.product!.stop(signal);
}

/** Changes a file as no program would: cut, a bit turned, or emptied. */
function spoil(path: string, random: Scene['random']): string {
  const file = openSync(path, 'r+');
  try {
    const { size } = fstatSync(file);
    const how = (['cut', 'turned', 'emptied'] as const)[random(3)]!;
    const at = size === 0 ? 0 : random(size);
    const byte = Buffer.alloc(1);
    if (how !== 'turned') ftruncateSync(file, how === 'cut' ? at : 0);
    else if (readSync(file, byte, 0, 1, at) === 1)
      writeSync(file, Buffer.of(byte[0]! ^ (1 << random(8))), 0, 1, at);
    return `${how} ${path} at ${at} of ${size}`;
  } finally {
    closeSync(file);
  }
}

const STATE_FILES = ['in-force.json', 'last-good-history.json', 'held.json', 'last-good/**/*', 'audit.jsonl'];
const CLIENT_FILES = ['*.json', 'bodies/*'];

function spoilOne(scene: Scene, folder: string, patterns: readonly string[]): void {
  const { stage, random, told } = scene;
  const files = globSync([...patterns], { cwd: stage.path(folder) })
    .map((name) => stage.path(`${folder}/${name}`))
    .filter((path) => statSync(path, { throwIfNoEntry: false })?.isFile())
    .sort();
  if (files.length > 0) told.push(spoil(files[random(files.length)]!, random));
}

const CHAOS: Readonly<Record<string, (scene: Scene) => Promise<void>>> = {
  async 'the gateway is killed'(scene) {
    await delay(scene.random(SETTLE_MS_MAX));
    await killGateway(scene);
    scene.stage.start(scene.env);
  },
  async 'the gateway is killed while it starts'(scene) {
    await killGateway(scene);
    for (let times = 1 + scene.random(3); times > 0; times--) {
      scene.stage.start(scene.env);
      await delay(scene.random(900));
      await killGateway(scene);
    }
    scene.stage.start(scene.env);
  },
  async 'the client is killed'({ stage, random }) {
    const client = await until('there is a client', () => stage.product!.clientPid);
    await delay(random(700));
    if (alive(client)) process.kill(client, 'SIGKILL');
  },
  async 'a boot is killed'(scene) {
    await killGateway(scene);
    const { stage, random } = scene;
    const boot = stage.gateway.spawn(process.execPath, [
      SLUICE,
      'boot',
      '--config',
      stage.path('sluice.yaml'),
    ]);
    await delay(random(800));
    boot.kill('SIGKILL');
    if (random(2) === 0) await stage.sluice('boot', '--config', stage.path('sluice.yaml'));
    stage.start(scene.env);
  },
  async 'a state file is spoiled'(scene) {
    await killGateway(scene);
    spoilOne(scene, 'state', STATE_FILES);
    if (scene.random(2) === 0) await scene.stage.sluice('boot', '--config', scene.stage.path('sluice.yaml'));
    scene.stage.start(scene.env);
  },
  async 'a file of the client is spoiled'(scene) {
    const isAlive = scene.random(2) === 0;
    if (!isAlive) await killGateway(scene);
    spoilOne(scene, 'snapshot', CLIENT_FILES);
    if (isAlive) await killGateway(scene);
    scene.stage.start(scene.env);
  },
  async 'the disk of the state is full'(scene) {
    const { stage, random } = scene;
    const full = stage.path('state/full');
    // The file system is the test's own and small.
    spawnSync('dd', ['if=/dev/zero', `of=${full}`, `bs=${FILL_BYTES}`]);
    writePolicy(stage, `${POLICY}# ${random(1_000_000)}\n`);
    if (random(2) === 0) {
      await killGateway(scene);
      stage.start(scene.env);
    }
    await delay(random(SETTLE_MS_MAX));
    rmSync(full);
  },
  async 'snapshots come in a flood'(scene) {
    const { stage, random } = scene;
    const client = stage.product!.clientPid;
    if (!alive(client)) return;
    process.kill(client, 'SIGSTOP');
    const forger = new SnapshotForger(stage.path('snapshot'));
    const manifest = forger.manifest();
    const policy = forger.policy();
    for (let next = 1; next <= FLOOD_REVISIONS; next++) {
      const rules = policy.rules.map((rule) => ({ ...rule, priority: next }));
      const digest = forger.body({ ...policy, rules });
      forger.publish({ ...manifest, revision: manifest.revision + next, policy: { digest } });
      if (random(10) === 0) await delay(3);
    }
    // It may be at a revision of its own: one writer a folder.
    await delay(random(SETTLE_MS_MAX));
    await killGateway(scene);
    stage.start(scene.env);
  },
  async 'the client is of another version'({ stage, random }) {
    const client = stage.product!.clientPid;
    if (!alive(client)) return;
    process.kill(client, 'SIGSTOP');
    const forger = new SnapshotForger(stage.path('snapshot'));
    const manifest = forger.manifest();
    const other = [{ format: 'sluice.snapshot/2' }, { later: true }, { groups: undefined }][random(3)];
    forger.publish(JSON.stringify({ ...manifest, revision: manifest.revision + 1, ...other }));
    await delay(random(SETTLE_MS_MAX));
    forger.publish(manifest);
    process.kill(client, 'SIGCONT');
  },
  async 'memory runs out'(scene) {
    await killGateway(scene);
    const megabytes = 8 + scene.random(24);
    scene.told.push(`${megabytes} MB`);
    const starved = scene.stage.start({
      ...scene.env,
      SLUICE_TEST_NODE_OPTIONS: `--max-old-space-size=${megabytes}`,
    });
    await delay(500 + scene.random(SETTLE_MS_MAX));
    if (!starved.hasEnded) await killGateway(scene);
    scene.stage.start(scene.env);
  },
  async 'the clock jumps'(scene) {
    await killGateway(scene);
    const jump = ['-400d', '+400d', '-1h', '+1h'][scene.random(4)]!;
    scene.told.push(jump);
    const library = globSync('/usr/lib/*/faketime/libfaketime.so.1')[0];
    if (library !== undefined)
      scene.stage.start({
        ...scene.env,
        LD_PRELOAD: library,
        FAKETIME: jump,
        FAKETIME_DONT_FAKE_MONOTONIC: '1',
      });
    else scene.stage.start(scene.env);
    await delay(500 + scene.random(SETTLE_MS_MAX));
    await killGateway(scene);
    scene.stage.start(scene.env);
  },
  async 'policy is on trial when the gateway is killed'(scene) {
    const { stage } = scene;
    await stage.ready();
    mkdirSync(stage.path('open'), { recursive: true });
    writeFileSync(
      stage.path('open/policy.yaml'),
      POLICY.replace('portRanges: [{ lo: 5000 }]', 'portRanges: [{ lo: 4999, hi: 5000 }]'),
    );
    const { code, error } = await stage.sluice(
      ...[
        'apply',
        '--config',
        stage.path('sluice.yaml'),
        '--policy',
        stage.path('open'),
        '--confirm',
        '60s',
        '--json',
      ],
    );
    if (code !== 0) scene.told.push(error);
    await killGateway(scene);
    stage.start(scene.env);
  },
};

const ONE_MORE = `  - name: one-more
    priority: 20
    action: PERMIT
    src: [workers]
    dst: [data-centre]
    protocol: UDP
    portRanges: [{ lo: 4998 }]
`;

/** A policy of so many rules is in force once its file is saved: the client is well, and so is the gateway. */
async function converges(
  t: Test,
  { stage }: Scene,
  arrived: ReturnType<typeof startTraffic>,
  round: number,
  what: string,
) {
  const wanted = 1 + (round % 2);
  writePolicy(stage, wanted === 1 ? POLICY : POLICY.replace('defaultAction', `${ONE_MORE}defaultAction`));
  try {
    await stage.ready(
      ({ functions, rules, held }) => functions > 0 && rules === wanted && held === undefined,
    );
  } catch (cause) {
    throw new Error(`Cannot go on after ${what}`, { cause });
  }
  const before = arrived().permitted;
  await until(`permitted traffic goes on after ${what}`, () => arrived().permitted > before);
  t.equal(arrived().denied, 0, `${what}: nothing denied passed`);
}

t.test('whatever happens, nothing denied passes, and it converges', async (t) => {
  const random = randomOf(seed);
  const stage = await setUpWorkers(t, awsState(FUNCTIONS), (stage) => {
    const state = stage.path('state');
    mkdirSync(state);
    spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'sluice-chaos', state]);
  });
  const scene: Scene = { stage, random, env: {}, told: [] };
  const names = Object.keys(CHAOS);
  try {
    stage.start(scene.env);
    await stage.ready(({ functions }) => functions > 0);
    const arrived = startTraffic(stage);
    await until('permitted traffic arrives', () => arrived().permitted > 0);
    for (let round = 0; round < ROUNDS; round++) {
      // Each once in the short form; then as it comes.
      const name = names[round < names.length ? round : random(names.length)]!;
      scene.told.length = 0;
      await CHAOS[name]!(scene);
      const what = `round ${round}, ${name}${scene.told.map((one) => `; ${one}`).join('')}`;
      await converges(t, scene, arrived, round, what);
    }
    t.ok((await stage.ready()).dropped.deny! > 0, 'denied traffic was there to pass');
  } finally {
    await stage.product?.stop('SIGKILL');
    spawnSync('umount', [stage.path('state')]);
  }
});
