import { type ChildProcess, type ExecFileSyncOptions, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';

const OUTPUT_BYTES_MAX = 1 << 28;

/** Runs a command to its end and gives its standard output; throws with its standard error. */
export function run(command: string, args: readonly string[], options: ExecFileSyncOptions = {}): string {
  return execFileSync(command, [...args], {
    stdio: ['pipe', 'pipe', 'pipe'],
    maxBuffer: OUTPUT_BYTES_MAX,
    ...options,
  }).toString();
}

/** A place on the network: where commands run, and interfaces are. */
export interface Place {
  /** Runs `ip` there. */
  ip(...args: string[]): string;
  /** Runs a command there to its end. */
  run(command: string, args: readonly string[], options?: ExecFileSyncOptions): string;
  /** Starts a command there. */
  spawn(command: string, args: readonly string[], env?: NodeJS.ProcessEnv): ChildProcess;
}

/** The namespace of this process. */
export const here: Place = {
  ip: (...args) => run('ip', args),
  run,
  spawn: (command, args, env = process.env) => spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], env }),
};

/** A named network namespace that a test made. */
export class Namespace implements Place {
  readonly name: string;
  readonly #children = new Set<ChildProcess>();

  constructor(label: string) {
    this.name = `sl-${label}-${randomBytes(3).toString('hex')}`;
    run('ip', ['netns', 'add', this.name]);
    this.ip('link', 'set', 'lo', 'up');
  }

  ip(...args: string[]): string {
    return run('ip', ['-n', this.name, ...args]);
  }

  run(command: string, args: readonly string[], options: ExecFileSyncOptions = {}): string {
    return run('ip', ['netns', 'exec', this.name, command, ...args], options);
  }

  /** Ended with the namespace, at the latest. */
  spawn(command: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env): ChildProcess {
    const child = here.spawn('ip', ['netns', 'exec', this.name, command, ...args], env);
    this.#children.add(child);
    child.once('exit', () => this.#children.delete(child));
    return child;
  }

  /** Ends what was started inside and removes the namespace with its interfaces. */
  remove(): void {
    for (const child of this.#children) child.kill('SIGKILL');
    run('ip', ['netns', 'del', this.name]);
  }
}

/** Sets a sysctl in a place. */
export function sysctl(place: Place, key: string, value: number): void {
  place.run('sysctl', ['-qw', `${key}=${value}`]);
}

/** The hardware address of an interface. */
export function macOf(place: Place, interfaceName: string): string {
  const [link] = JSON.parse(place.ip('-j', 'link', 'show', 'dev', interfaceName)) as { address: string }[];
  return link!.address;
}

export interface Port {
  readonly name: string;
  /** In CIDR form. */
  readonly addresses: readonly string[];
}

/** Joins the gateway's place to a namespace by a pair of interfaces. */
export function connect(gateway: Place, port: Port, namespace: Namespace, peer: Port): void {
  gateway.ip('link', 'add', port.name, 'type', 'veth', 'peer', 'name', peer.name, 'netns', namespace.name);
  for (const [place, { name, addresses }] of [
    [gateway, port],
    [namespace, peer],
  ] as const) {
    for (const address of addresses) {
      place.ip('addr', 'add', address, 'dev', name, ...(address.includes(':') ? ['nodad'] : []));
    }
    place.ip('link', 'set', name, 'up');
  }
}
