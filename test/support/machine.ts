import { type ChildProcess, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { here, type Namespace } from './namespace.js';
import type { Said } from './stage.js';
import { until } from './wait.js';

/** Where the source has it: what is compiled lies elsewhere. */
const SCRIPT = fileURLToPath(new URL('../../support/machine.sh', import.meta.url));
const SYSTEMD = '/lib/systemd/systemd';
const OUTPUT_BYTES_MAX = 1 << 26;

/** The cgroup hierarchy that systemd manages: its own under cgroup v1, or the only one. */
const CGROUPS = existsSync('/sys/fs/cgroup/systemd') ? '/sys/fs/cgroup/systemd' : '/sys/fs/cgroup';

const child = (pid: number): number | undefined => {
  const path = `/proc/${pid}/task/${pid}/children`;
  const [first = ''] = existsSync(path) ? readFileSync(path, 'utf8').trim().split(' ') : [];
  return first === '' ? undefined : Number(first);
};

/** Why there can be no such machine here. */
export function whyNoMachine(): string | undefined {
  if (!existsSync(SYSTEMD)) return `needs ${SYSTEMD}`;
  const probe = spawnSync('unshare', [
    '-m',
    '-p',
    '-f',
    '-u',
    '-i',
    '-C',
    '--propagation',
    'private',
    'true',
  ]);
  return probe.status === 0 ? undefined : `needs namespaces: ${probe.stderr.toString().trim()}`;
}

/**
 * This machine once more, as systemd's first process sees it: in a network namespace, with files of its own over those
 * that are here, where packages can be installed and services run. Gone after `remove`.
 */
export class Machine {
  readonly #unshare: ChildProcess;
  readonly #cgroup: string;
  readonly #pid: number;

  private constructor(unshare: ChildProcess, cgroup: string, pid: number) {
    this.#unshare = unshare;
    this.#cgroup = cgroup;
    this.#pid = pid;
  }

  /** Boots in a network namespace, with an empty folder for what it writes. */
  static async boot(namespace: Namespace, folder: string): Promise<Machine> {
    mkdirSync(folder);
    const cgroup = join(CGROUPS, namespace.name);
    mkdirSync(cgroup);
    // Not by `ip netns exec`, which puts another /sys over this one.
    const enter = `echo $$ > ${cgroup}/cgroup.procs && exec nsenter --net=/run/netns/${namespace.name}`;
    const namespaces = 'unshare -m -p -f -u -i -C --propagation private';
    const unshare = here.spawn('sh', ['-c', `${enter} ${namespaces} sh ${SCRIPT} ${folder}`]);
    const errors: Buffer[] = [];
    unshare.stderr!.on('data', (chunk: Buffer) => errors.push(chunk));
    const pid = await until('systemd runs', () => {
      if (unshare.exitCode !== null) throw new Error(`Cannot boot: ${Buffer.concat(errors)}`);
      const first = child(unshare.pid!);
      return (
        first !== undefined && readFileSync(`/proc/${first}/cmdline`, 'utf8').startsWith(SYSTEMD) && first
      );
    });
    const machine = new Machine(unshare, cgroup, pid);
    await until('the machine is up', () => machine.try('systemctl', 'is-active', 'basic.target').code === 0);
    return machine;
  }

  /** Runs a command to its end. */
  try(...command: string[]): Said {
    const enter = ['-t', String(this.#pid), '-m', '-p', '-n', '-u', '-i', '-C', '-r', '-w'];
    const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', DEBIAN_FRONTEND: 'noninteractive', HOME: '/root' };
    const { status, stdout, stderr, error } = spawnSync('nsenter', [...enter, ...command], {
      env,
      maxBuffer: OUTPUT_BYTES_MAX,
    });
    if (error !== undefined) throw error;
    return { code: status ?? -1, out: stdout.toString(), error: stderr.toString() };
  }

  /** As above, of a command that must succeed: what it wrote to its standard output. */
  run(...command: string[]): string {
    const { code, out, error } = this.try(...command);
    if (code !== 0) throw new Error(`Cannot go on: ${command.join(' ')} ended with ${code}\n${out}${error}`);
    return out;
  }

  /** Where a path of the machine lies for this process. */
  path(path: string): string {
    return join(`/proc/${this.#pid}/root`, path);
  }

  write(path: string, text: string): void {
    writeFileSync(this.path(path), text);
  }

  async remove(): Promise<void> {
    process.kill(this.#pid, 'SIGKILL');
    await until(
      'the machine is gone',
      () => this.#unshare.exitCode !== null || this.#unshare.signalCode !== null,
    );
    const below = spawnSync('find', [this.#cgroup, '-depth', '-type', 'd']).stdout.toString().trim();
    for (const path of below.split('\n')) rmdirSync(path);
  }
}
