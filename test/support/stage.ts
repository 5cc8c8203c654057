import { type ChildProcess, execFile } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import type { Status } from 'sluice-gateway/admin/answers.js';
import type { FlowRecord } from 'sluice-gateway/flows/record.js';
import type { Attempt } from './attempt.js';
import type { State } from './aws/state.js';
import { parseExposition, seriesValue } from './exposition.js';
import { createLab, type Lab } from './lab.js';
import { Namespace, sysctl } from './namespace.js';
import { Product, SLUICE } from './product.js';
import { until } from './wait.js';

const script = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const AWS_LISTEN = '127.0.0.1:4566';
const OUTPUT_BYTES_MAX = 1 << 26;

/** Where a function's traffic comes from: the host behind one of the two Lambda interfaces. */
export type Zone = 'a' | 'b';

/** An echo server behind one of the egress interfaces. */
export interface StageServer {
  readonly protocol: Attempt['protocol'];
  readonly to: string;
  readonly port: number;
  readonly at: 'dataCentre' | 'internet';
}

/** What a command of the product said, and its exit code. */
export interface Said {
  readonly code: number;
  readonly out: string;
  readonly error: string;
}

/** A live TCP connection on which an answer comes every few milliseconds. */
export interface Stream {
  /** When each answer came, in milliseconds since 1970. */
  readonly answersMs: readonly number[];
  /** The connection was closed or reset. */
  readonly hasEnded: boolean;
}

/** What a gateway's admin socket says of it; undefined while nobody answers. */
export function askStatus(socketPath: string): Promise<Status | undefined> {
  return new Promise((resolve) => {
    const asked = get({ socketPath, path: '/status' }, (response) => {
      text(response).then(
        (body) => resolve(JSON.parse(body) as Status),
        () => resolve(undefined),
      );
    });
    asked.on('error', () => resolve(undefined));
  });
}

/**
 * The whole product in namespaces of its own: lab, servers, an AWS endpoint, a folder for configuration, policy and
 * all that the product writes. Everything is gone after `remove`, however far it came.
 */
export class Stage {
  readonly folder = mkdtempSync(join(tmpdir(), 'sluice-stage-'));
  readonly gateway = new Namespace('gw');
  readonly lab: Lab;
  product: Product | undefined;
  #aws: ChildProcess | undefined;

  /** `first` is called while the gateway has no interfaces yet. */
  constructor(first: (stage: Pick<Stage, 'gateway' | 'path'>) => void = () => undefined) {
    chmodSync(this.folder, 0o755);
    first(this);
    this.lab = createLab(this.gateway);
    // As many distributions have it: the product must cope.
    sysctl(this.gateway, 'net.ipv4.conf.all.rp_filter', 1);
  }

  /** A path in the folder. */
  path(name: string): string {
    return join(this.folder, name);
  }

  /** Adds the addresses of functions to the two hosts that stand for two availability zones. */
  addAddresses(functions: readonly { readonly address: string; readonly zone: Zone }[]): void {
    for (const { address, zone } of functions) {
      const { namespace, address4 } = this.lab[zone];
      if (address !== address4) namespace.ip('addr', 'add', `${address}/24`, 'dev', 'eth0');
    }
  }

  async startServers(servers: readonly StageServer[]): Promise<void> {
    for (const at of ['dataCentre', 'internet'] as const) {
      const args = servers
        .filter((server) => server.at === at)
        .map(({ protocol, to, port }) => `${protocol}|${to}|${port}`);
      const child = this.lab[at].namespace.spawn(process.execPath, [script('serve.js'), ...args]);
      await once(child.stdout!, 'data');
    }
  }

  async startAws(state: State): Promise<void> {
    const file = this.path('aws.json');
    writeFileSync(file, JSON.stringify(state));
    const args = [script('aws/main.js'), '--listen', AWS_LISTEN, '--state', file];
    this.#aws = this.gateway.spawn(process.execPath, args);
    await once(this.#aws.stdout!, 'data');
  }

  /** From now on AWS knows this, faults included. */
  changeAws(state: State): void {
    writeFileSync(this.path('aws.json'), JSON.stringify(state));
    this.#aws!.kill('SIGHUP');
  }

  async stopAws(): Promise<void> {
    const ended = once(this.#aws!, 'exit');
    this.#aws!.kill('SIGKILL');
    await ended;
  }

  /** Starts `sluice run` with the configuration that lies in the folder as `sluice.yaml`. */
  start(env: NodeJS.ProcessEnv = {}): Product {
    this.product = Product.start(this.gateway, this.folder, this.path('sluice.yaml'), {
      PATH: process.env.PATH,
      AWS_ENDPOINT_URL: `http://${AWS_LISTEN}`,
      AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE',
      AWS_SECRET_ACCESS_KEY: 'example',
      AWS_EC2_METADATA_DISABLED: 'true',
      ...env,
    });
    return this.product;
  }

  /** Runs a command of the product in the gateway's namespace, as an operator would. */
  async sluice(...args: string[]): Promise<Said> {
    const command = ['netns', 'exec', this.gateway.name, process.execPath, SLUICE, ...args];
    return new Promise((resolve) => {
      execFile('ip', command, { maxBuffer: OUTPUT_BYTES_MAX }, (failure, out, error) => {
        resolve({ code: failure === null ? 0 : Number(failure.code), out, error });
      });
    });
  }

  /** As above, of the gateway that runs here: what the command answers as JSON. */
  async ask<Answer>(command: string, ...args: string[]): Promise<Answer> {
    const { out, error } = await this.sluice(command, ...args, '--json', '--socket', this.path('admin.sock'));
    if (error !== '') throw new Error(`Cannot ask ${command}: ${error}`);
    return JSON.parse(out) as Answer;
  }

  /**
   * Waits for a status that is ready and as wanted; rejects when the product ends instead. Asks the admin socket itself:
   * a command a moment would keep a processor busy.
   */
  async ready(isWanted: (status: Status) => boolean = () => true): Promise<Status> {
    return until('a status as wanted', async () => {
      if (this.product!.hasEnded) throw new Error(`Cannot go on: sluice run ended\n${this.product!.log}`);
      const status = await askStatus(this.path('admin.sock'));
      return status?.ready === true && isWanted(status) && status;
    });
  }

  /** Makes attempts from the functions of a zone, all at once: whether each was answered. */
  attempt(zone: Zone, attempts: readonly Attempt[]): boolean[] {
    const args = [script('attempt.js'), JSON.stringify(attempts)];
    return JSON.parse(this.lab[zone].namespace.run(process.execPath, args)) as boolean[];
  }

  openStream(zone: Zone, from: string, to: string, port: number): Stream {
    const args = [script('stream.js'), from, to, String(port)];
    const child = this.lab[zone].namespace.spawn(process.execPath, args);
    const answersMs: number[] = [];
    child.stdout!.on('data', (chunk: Buffer) => {
      for (const line of chunk.toString().trim().split('\n')) answersMs.push(Number(line));
    });
    return {
      answersMs,
      get hasEnded() {
        return child.exitCode !== null;
      },
    };
  }

  /** Sends datagrams without a pause from a zone, until the stage is removed. */
  flood(zone: Zone, destinations: readonly Pick<Attempt, 'from' | 'to' | 'port'>[]): void {
    this.lab[zone].namespace.spawn(process.execPath, [script('flood.js'), JSON.stringify(destinations)]);
  }

  /** The lines of the flow log so far. */
  flowLogLines(): string[] {
    const path = this.path('flows.jsonl');
    if (!existsSync(path)) return [];
    return readFileSync(path, 'utf8')
      .split('\n')
      .filter((line) => line !== '');
  }

  /** The flow log so far. */
  flows(): FlowRecord[] {
    return this.flowLogLines().map((line) => JSON.parse(line) as FlowRecord);
  }

  /** What Prometheus would scrape. */
  metrics(): string {
    const source = "process.stdout.write(await (await fetch('http://127.0.0.1:9464/metrics')).text())";
    return this.gateway.run(process.execPath, ['--input-type=module', '-e', source]);
  }

  /** The value of one series at this moment; 0 where there is none, as for a counter that nothing has counted yet. */
  metric(name: string, labels: Readonly<Record<string, string>>): number {
    return seriesValue(parseExposition(this.metrics()), name, labels);
  }

  async remove(): Promise<void> {
    // A client that a test has stopped would not end by itself.
    const client = this.product?.hasEnded === false ? this.product.clientPid : undefined;
    if (client !== undefined) process.kill(client, 'SIGCONT');
    await this.product?.stop();
    this.lab.remove();
    this.gateway.remove();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
