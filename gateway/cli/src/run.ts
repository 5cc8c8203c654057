import { type ChildProcess, spawn } from 'node:child_process';
import { chownSync, mkdirSync, readFileSync } from 'node:fs';
import { clientArguments } from 'sluice-controller-client/command.js';
import { type Config, readConfig } from 'sluice-gateway/config/config.js';
import { Gateway } from 'sluice-gateway/gateway.js';
import { createLog, type Log, type LogFields } from 'sluice-gateway/log.js';
import { ServiceManager } from 'sluice-gateway/service-manager.js';
import { hasNetAdmin } from './capability.js';

const RESTART_MS_MIN = 500;
const RESTART_MS_MAX = 30_000;
/** A child that takes longer to stop is killed. */
const STOP_MS_MAX = 5_000;

interface User {
  readonly uid: number;
  readonly gid: number;
}

/** The user of that name, from /etc/passwd. */
function findUser(name: string): User {
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((text) => text.split(':'))
    .find(([user]) => user === name);
  if (line === undefined) {
    throw new Error(
      `Cannot start controller client: there is no user ${JSON.stringify(name)}, create it or name another`,
    );
  }
  return { uid: Number(line[2]), gid: Number(line[3]) };
}

/** Keeps the controller client running under its own user, as a child that ends with this process. */
class ClientProcess {
  readonly #config: Config;
  readonly #log: Log;
  readonly #user: User;
  #child: ChildProcess | undefined;
  #timer: NodeJS.Timeout | undefined;
  #restartMs = RESTART_MS_MIN;
  #isStopping = false;

  constructor(config: Config, log: Log) {
    this.#config = config;
    this.#log = log;
    this.#user = findUser(config.controllerClient.user);
    mkdirSync(config.snapshot.path, { recursive: true });
    chownSync(config.snapshot.path, this.#user.uid, this.#user.gid);
  }

  start(): void {
    const startedMs = performance.now();
    const child = spawn(process.execPath, clientArguments(this.#config.file), {
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      ...this.#user,
    });
    this.#child = child;
    const ended = (fields: LogFields) => {
      if (this.#isStopping || this.#child !== child) return;
      this.#child = undefined;
      if (performance.now() - startedMs > RESTART_MS_MAX) this.#restartMs = RESTART_MS_MIN;
      this.#log.error('the controller client ended and is started again, what is in force stays', {
        ...fields,
        afterMs: this.#restartMs,
      });
      this.#timer = setTimeout(() => this.start(), this.#restartMs);
      this.#restartMs = Math.min(this.#restartMs * 2, RESTART_MS_MAX);
    };
    child.once('error', (error) => ended({ error }));
    child.once('exit', (code, signal) => ended({ code: code ?? undefined, signal: signal ?? undefined }));
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    clearTimeout(this.#timer);
    const child = this.#child;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    const deadline = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX);
    await ended;
    clearTimeout(deadline);
  }
}

/** The gateway, and the controller client where it is wanted, until SIGTERM or SIGINT. */
export async function runGateway(configFile: string, withClient: boolean): Promise<void> {
  const config = readConfig(configFile);
  if (!hasNetAdmin()) {
    throw new Error('Cannot run gateway: it needs CAP_NET_ADMIN, run it as root');
  }
  const log = createLog();
  const gateway = new Gateway(config, log);
  const manager = new ServiceManager(() => gateway.health(), log);
  let client: ClientProcess | undefined;
  try {
    await gateway.start();
    // Only root can give its child another user; with ours the child would have our capability.
    if (withClient && process.getuid?.() === 0) client = new ClientProcess(config, log);
  } catch (error) {
    await gateway.stop();
    throw error;
  }
  log.info('gateway started', { gateway: config.gateway.name, metrics: config.metrics.listen });
  manager.ready();
  if (withClient && client === undefined)
    log.warn('not root: the controller client is not started, run it under another user');
  client?.start();
  process.on('SIGHUP', () => {
    manager.reloading();
    gateway.reopenSinks();
    manager.ready();
  });
  await new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve());
  });
  log.info('stopping: the program stays in the kernel and goes on enforcing');
  manager.stopping();
  await client?.stop();
  await gateway.stop();
}
