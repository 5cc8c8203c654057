import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Namespace } from 'sluice-test/support/namespace.js';

/** The product's gateway as a program: `gateway.js CONFIG`. */
export const GATEWAY = fileURLToPath(new URL('gateway.js', import.meta.url));
const WAIT_MS_MAX = 120_000;

/** What a configuration says of a gateway that nothing goes through, in a folder for its files. */
export const GATEWAY_CONFIG = `gateway: { name: bench, lambdaInterfaces: [lam0], egressInterfaces: [wan0] }
snapshot: { path: snapshot/ }
flows: { sinks: [{ type: file, path: flows.jsonl }] }
admin: { socket: admin.sock }
state: { path: state/ }
`;

/** The product's gateway, in a namespace of its own, which follows the snapshot in a folder. */
export class GatewayProcess {
  readonly pid: number;
  readonly #namespace = new Namespace('bench');
  /** When each revision came into force, in milliseconds since 1970, by the gateway's log. */
  readonly #inForce = new Map<number, number>();
  #lastSaid = '';

  constructor(folder: string) {
    for (const name of ['lam0', 'wan0']) this.#namespace.ip('link', 'add', name, 'type', 'veth');
    // As the package's unit starts it.
    const args = ['--max-semi-space-size=8', GATEWAY, join(folder, 'sluice.yaml')];
    const child = this.#namespace.spawn(process.execPath, args);
    // `ip netns exec` becomes the gateway itself.
    this.pid = child.pid!;
    child.stdout!.resume();
    createInterface(child.stderr!).on('line', (line) => {
      this.#lastSaid = line;
      const { message, revision, time } = JSON.parse(line) as Record<string, string>;
      if (message === 'in force') this.#inForce.set(Number(revision), Date.parse(time!));
    });
  }

  /** When a revision, or one that took its place, came into force. */
  async inForce(revision: number): Promise<number> {
    for (const endMs = Date.now() + WAIT_MS_MAX; Date.now() < endMs; await delay(5)) {
      const [, ms] = [...this.#inForce].find(([one]) => one >= revision) ?? [];
      if (ms !== undefined) return ms;
    }
    throw new Error(`Cannot measure: revision ${revision} does not come into force\n${this.#lastSaid}`);
  }

  remove(): void {
    this.#namespace.remove();
  }
}
