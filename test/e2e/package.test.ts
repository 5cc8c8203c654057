import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { Machine } from '../support/machine.js';
import { sysctl } from '../support/namespace.js';
import { bootMachine, needMachine, putPackage, readyOn } from '../support/package.js';
import { patience } from '../support/patience.js';
import type { Stage } from '../support/stage.js';
import { until } from '../support/wait.js';
import {
  type Arrived,
  CONFIG,
  LEDGER,
  POLICY,
  setUpWorkers,
  startTraffic,
  WORKER,
} from '../support/workers.js';

needMachine(t);

t.setTimeout(600_000 * patience);

const UNITS = ['sluice-boot', 'sluice-gateway', 'sluice-controller-client'] as const;
type Unit = (typeof UNITS)[number];
/** Of the score of `systemd-analyze security`, in tenths. */
const EXPOSURE_MAX = 20;
const CAP_NET_ADMIN = 1 << 12;

/** As the package has it, of the interfaces and the account of the stage. */
const PACKAGE_CONFIG = CONFIG.split('\n')
  .filter((line) => !/^(?:snapshot|admin|state):/.test(line))
  .map((line) => line.replace('path: flows.jsonl', 'path: /var/log/sluice/flows.jsonl'))
  .join('\n');

const property = (machine: Machine, unit: Unit, name: string) =>
  machine.run('systemctl', 'show', '--value', '--property', name, unit).trim();

function statusOf(machine: Machine, unit: Unit): ReadonlyMap<string, string> {
  const text = readFileSync(machine.path(`/proc/${property(machine, unit, 'MainPID')}/status`), 'utf8');
  return new Map(text.split('\n').map((line) => line.split(':\t') as [string, string]));
}

function capabilities(machine: Machine, unit: Unit): number {
  const status = statusOf(machine, unit);
  return Number(`0x${status.get('CapEff')}`) | Number(`0x${status.get('CapBnd')}`);
}

const userOf = (machine: Machine, unit: Unit) =>
  machine.run('id', '-un', statusOf(machine, unit).get('Uid')!.split('\t')[0]!).trim();

async function goesOn(arrived: () => Arrived, when: string): Promise<void> {
  const { permitted } = arrived();
  await until(`permitted traffic arrives ${when}`, () => arrived().permitted > permitted);
}

function installs(t: Test, machine: Machine): void {
  machine.run('apt-get', 'install', '-y', '/tmp/sluice_1.deb');
  t.equal(machine.run('dpkg', '--verify', 'sluice'), '', 'what is installed is what was packed');
  for (const unit of UNITS)
    t.not(machine.try('systemctl', 'is-active', unit).code, 0, `${unit} waits to be told`);
  const files = machine.run('dpkg', '-L', 'sluice');
  t.notMatch(files, /\.test\.js|\/(?:tap|typescript|@biomejs)\//, 'no tests and nothing that builds');
  const said = machine.try(
    'sluice',
    'check',
    '--config',
    '/etc/sluice/sluice.yaml',
    '--policy',
    '/etc/sluice/policy',
  );
  t.equal(said.code, 0, `the example is right: ${said.out}${said.error}`);
  const paths = UNITS.map((unit) => `/lib/systemd/system/${unit}.service`);
  t.equal(
    machine.run('systemd-analyze', 'verify', '--man=yes', ...paths),
    '',
    'systemd has nothing to say of the units',
  );
  for (const path of paths) {
    const args = ['security', '--offline=true', `--threshold=${EXPOSURE_MAX}`, '--no-pager', path];
    t.equal(machine.try('systemd-analyze', ...args).code, 0, `${path} is exposed less than 2.0`);
  }
}

async function runs(t: Test, machine: Machine): Promise<void> {
  machine.write('/etc/sluice/sluice.yaml', PACKAGE_CONFIG);
  machine.write('/etc/sluice/policy/policy.yaml', POLICY);
  machine.run('systemctl', 'enable', '--now', ...UNITS);
  await readyOn(machine, (text) => text.includes('2 functions'));
  t.equal(
    capabilities(machine, 'sluice-gateway'),
    CAP_NET_ADMIN,
    'the gateway may change the network and nothing else',
  );
  t.equal(capabilities(machine, 'sluice-controller-client'), 0, 'the client may do nothing');
  const startedWith = (unit: Unit, file: 'cmdline' | 'environ') =>
    machine.run('cat', `/proc/${property(machine, unit, 'MainPID')}/${file}`);
  const flags = /--max-semi-space-size=8\0--heap-growing-percent=40\0/;
  t.match(startedWith('sluice-controller-client', 'cmdline'), flags, 'its heap is bounded');
  t.match(startedWith('sluice-gateway', 'environ'), /NODE_OPTIONS=--max-semi-space-size=8\0/);
  t.equal(userOf(machine, 'sluice-gateway'), 'sluice');
  t.equal(userOf(machine, 'sluice-controller-client'), 'sluice-client');
  await until('systemd is told', () =>
    /^revision [0-9]+ is in the kernel$/.test(property(machine, 'sluice-gateway', 'StatusText')),
  );
  const asRoot = machine.try('sluice', 'run', '--only', 'client', '--config', '/etc/sluice/sluice.yaml');
  t.equal(asRoot.code, 2);
  t.match(asRoot.error, 'it needs no capabilities');
}

/** What happens to a service while traffic flows, and what must not: the longest silence of a stream is told. */
async function withoutGap(t: Test, machine: Machine, stage: Stage, arrived: () => Arrived): Promise<void> {
  const steps: Readonly<Record<string, () => void>> = {
    restarted: () => machine.run('systemctl', 'restart', 'sluice-gateway'),
    'stopped, then started': () => {
      machine.run('systemctl', 'stop', 'sluice-gateway', 'sluice-controller-client');
      machine.run('systemctl', 'start', 'sluice-gateway', 'sluice-controller-client');
    },
    upgraded: () => machine.run('dpkg', '-i', '/tmp/sluice_2.deb'),
    reloaded: () => machine.run('systemctl', 'reload', 'sluice-gateway'),
  };
  const stream = stage.openStream('a', WORKER.address, LEDGER.to, LEDGER.port);
  await until('the connection is alive', () => stream.answersMs.length > 5);
  for (const [what, step] of Object.entries(steps)) {
    const begun = stream.answersMs.length;
    const pid = property(machine, 'sluice-gateway', 'MainPID');
    step();
    await readyOn(machine, (text) => text.includes('2 functions'));
    await goesOn(arrived, what);
    const answers = stream.answersMs.length;
    await until('the connection goes on', () => stream.answersMs.length > answers);
    const times = stream.answersMs.slice(begun - 1);
    const gaps = times.slice(1).map((time, index) => time - times[index]!);
    t.comment(`${what}: longest silence of a permitted connection ${Math.max(...gaps)} ms`);
    const isSame = property(machine, 'sluice-gateway', 'MainPID') === pid;
    t.equal(isSame, what === 'reloaded', `${what}: the process is ${isSame ? 'the same' : 'another'}`);
    t.notOk(stream.hasEnded, `${what}: the permitted connection lives`);
    t.equal(arrived().denied, 0, `${what}: nothing denied passed`);
  }
  t.match(machine.run('sluice', 'version'), /^sluice 2\.0/, 'the new version runs');
  t.equal(
    readFileSync(machine.path('/etc/sluice/sluice.yaml'), 'utf8'),
    PACKAGE_CONFIG,
    'the configuration is kept',
  );
}

async function isWatched(t: Test, machine: Machine, arrived: () => Arrived): Promise<void> {
  const folder = '/run/systemd/system/sluice-gateway.service.d';
  machine.run('mkdir', '-p', folder);
  machine.write(`${folder}/short.conf`, '[Service]\nWatchdogSec=2\n');
  machine.run('systemctl', 'daemon-reload');
  machine.run('systemctl', 'restart', 'sluice-gateway');
  const pid = property(machine, 'sluice-gateway', 'MainPID');
  machine.run('kill', '-STOP', pid);
  await until('systemd starts another', () => Number(property(machine, 'sluice-gateway', 'NRestarts')) > 0);
  await readyOn(machine);
  t.not(property(machine, 'sluice-gateway', 'MainPID'), pid);
  t.match(machine.run('journalctl', '--no-pager', '-u', 'sluice-gateway'), 'Watchdog timeout');
  await goesOn(arrived, 'again');
  t.equal(arrived().denied, 0, 'nothing denied passed');
}

/** As at the next boot, before anything else of ours runs. */
function boots(t: Test, machine: Machine, stage: Stage): void {
  const { gateway } = stage;
  machine.run('systemctl', 'stop', ...UNITS);
  for (const key of ['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding']) sysctl(gateway, key, 0);
  gateway.run('nft', ['flush', 'ruleset']);
  for (const family of ['-4', '-6'])
    for (const iif of ['lam0', 'lam1', 'wan0', 'dc0'])
      gateway.ip(family, 'rule', 'del', 'pref', '1', 'iif', iif);
  machine.run('systemctl', 'start', 'sluice-boot');
  t.match(
    gateway.run('nft', ['list', 'table', 'inet', 'sluice']),
    'chain forward',
    'the program is in the kernel',
  );
  t.match(gateway.ip('rule', 'list'), /iif lam0/, 'the guard too');
}

async function leaves(t: Test, machine: Machine, stage: Stage, arrived: () => Arrived): Promise<void> {
  machine.run('systemctl', 'start', 'sluice-gateway');
  await readyOn(machine);
  const said = machine.run('dpkg', '-r', 'sluice');
  t.match(said, 'The rules of Sluice stay in the kernel');
  const table = () => stage.gateway.run('nft', ['list', 'table', 'inet', 'sluice']);
  t.match(table(), 'chain forward', 'they do');
  await goesOn(arrived, 'after the package is gone');
  t.equal(arrived().denied, 0, 'nothing denied passed');
  t.equal(machine.try('test', '-d', '/var/lib/sluice').code, 0, 'state is kept');
  machine.run('dpkg', '-P', 'sluice');
  for (const path of ['/var/lib/sluice', '/var/lib/sluice-snapshot', '/var/log/sluice', '/usr/lib/sluice'])
    t.not(machine.try('test', '-e', path).code, 0, `${path} is gone`);
  t.match(table(), 'chain forward', 'the kernel enforces all the same');
}

t.test(
  'the package is installed, upgraded and removed under traffic, and nothing denied passes',
  async (t) => {
    const stage = await setUpWorkers(t);
    const machine = await bootMachine(t, stage);
    putPackage(machine, stage, '1.0', '/tmp/sluice_1.deb');
    putPackage(machine, stage, '2.0', '/tmp/sluice_2.deb');
    await t.test('installed', async (t) => installs(t, machine));
    await t.test('started', (t) => runs(t, machine));
    const arrived = startTraffic(stage);
    await goesOn(arrived, 'at first');
    await t.test('without a gap', (t) => withoutGap(t, machine, stage, arrived));
    await t.test('watched', (t) => isWatched(t, machine, arrived));
    await t.test('at boot', async (t) => boots(t, machine, stage));
    await t.test('removed', (t) => leaves(t, machine, stage, arrived));
  },
);
