import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createReadStream, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Namespace, run } from 'sluice-test/support/namespace.js';

const READER = fileURLToPath(new URL('reader.js', import.meta.url));
const ULOGD = '/usr/sbin/ulogd';
/** `sysconf(_SC_CLK_TCK)` of Linux. */
const TICKS_PER_SECOND = 100;
const POLL_MS = 100;
/** Nothing used in so many polls: it has done all that there was. */
const IDLE_POLLS = 8;

export const hasUlogd = (): boolean => existsSync(ULOGD);

/** User and system time of a process, all its threads. */
function cpuTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

/** A process that writes the connections of a namespace to a file, on one processor. */
export class Writer {
  readonly file: string;
  readonly #child: ChildProcess;
  readonly #pid: number;
  #ticksBefore: number;
  readonly #output: Buffer[];

  private constructor(child: ChildProcess, pid: number, file: string, output: Buffer[]) {
    this.#child = child;
    this.#pid = pid;
    this.file = file;
    this.#output = output;
    this.#ticksBefore = cpuTicks(pid);
  }

  static async ours(namespace: Namespace, file: string, cpu: number): Promise<Writer> {
    return Writer.#start(namespace, file, [process.execPath, READER, file], cpu);
  }

  static async ulogd(namespace: Namespace, file: string, cpu: number): Promise<Writer> {
    const config = `${file}.conf`;
    const folder = run('dirname', [run('dpkg', ['-L', 'ulogd2-json']).trim().split('\n').at(-1)!]).trim();
    const plugins = ['inpflow_NFCT', 'filter_IP2STR', 'output_JSON'];
    writeFileSync(
      config,
      `[global]
logfile="${file}.log"
loglevel=7
${plugins.map((name) => `plugin="${folder}/ulogd_${name}.so"`).join('\n')}
stack=ct1:NFCT,ip1:IP2STR,json1:JSON
[ct1]
hash_enable=0
event_mask=0x5
netlink_socket_buffer_size=67108864
netlink_socket_buffer_maxsize=134217728
[json1]
sync=0
file="${file}"
`,
    );
    return Writer.#start(namespace, file, [ULOGD, '-c', config], cpu);
  }

  static async #start(namespace: Namespace, file: string, command: string[], cpu: number): Promise<Writer> {
    // `exec` all the way: the process is the one that is measured.
    const child = namespace.spawn('taskset', ['-c', String(cpu), ...command]);
    const output: Buffer[] = [];
    child.stdout!.on('data', (part: Buffer) => output.push(part));
    child.stderr!.pipe(process.stderr);
    const isOurs = command[0] === process.execPath;
    while (isOurs ? output.length === 0 : !existsSync(file)) {
      if (child.exitCode !== null) throw new Error(`Cannot race: ${command[0]} ended with ${child.exitCode}`);
      await sleep(POLL_MS);
    }
    await sleep(POLL_MS);
    return new Writer(child, child.pid!, file, output);
  }

  /** What it has used up to now does not count. */
  restart(): void {
    this.#ticksBefore = cpuTicks(this.#pid);
  }

  /** Waits until it has nothing more to do; processor seconds since it was ready, or restarted. */
  async idle(): Promise<number> {
    let [last, same] = [-1, 0];
    while (same < IDLE_POLLS) {
      await sleep(POLL_MS);
      const ticks = cpuTicks(this.#pid) + statSync(this.file).size;
      // A tick now and then is the timers'.
      same = ticks - last <= 1 ? same + 1 : 0;
      last = ticks;
    }
    return (cpuTicks(this.#pid) - this.#ticksBefore) / TICKS_PER_SECOND;
  }

  /** Ends it, and gives what it says at its end. */
  async stop(): Promise<string> {
    const closed = once(this.#child, 'close');
    process.kill(this.#pid, 'SIGTERM');
    await closed;
    return Buffer.concat(this.#output).toString().split('\n').at(-2) ?? '';
  }

  /** Calls back for every line that it wrote, after its end; gives how many there are. */
  async lines(visit: (line: string) => void = () => undefined): Promise<number> {
    let count = 0;
    for await (const line of createInterface(createReadStream(this.file))) {
      count++;
      visit(line);
    }
    return count;
  }
}
