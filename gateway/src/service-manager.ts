import { sendDatagram } from 'nftables-napi';
import type { Log } from './log.js';

/** How the gateway is. */
export interface Health {
  /** One line for people: what is in force, or why nothing is. */
  readonly status: string;
  /** For how long the reconciler has been at one application; 0 while it is at none. */
  readonly busyMs: number;
}

/** An application that takes longer does not end: a new process takes over what is in the kernel. */
export const BUSY_MS_MAX = 120_000;
/** A ping that comes late is none that is missing. */
const PINGS_A_PERIOD = 3;
/** How often the status is looked at where no watchdog wants a ping more often. */
const STATUS_MS = 1_000;

/**
 * Tells systemd how this process is, by datagrams (sd_notify(3)): ready, reloading, stopping, one line of status, and
 * pings for its watchdog (sd_watchdog_enabled(3)) from the event loop, as long as the reconciler is not stuck. Does
 * nothing where systemd did not start it. Takes what systemd said out of the environment: no child is to speak for us.
 */
export class ServiceManager {
  readonly #health: () => Health;
  readonly #log: Log;
  readonly #socket: string | undefined;
  readonly #watchdogMs: number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #told = '';

  constructor(health: () => Health, log: Log, env: NodeJS.ProcessEnv = process.env) {
    const { NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID } = env;
    this.#health = health;
    this.#log = log;
    this.#socket = NOTIFY_SOCKET;
    const isOurs = WATCHDOG_PID === undefined || WATCHDOG_PID === String(process.pid);
    const watchdogMs = Number(WATCHDOG_USEC) / 1_000;
    this.#watchdogMs = isOurs && watchdogMs >= 1 ? watchdogMs : undefined;
    for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']) delete env[name];
  }

  /** The last known program is in force. Pings from here on. */
  ready(): void {
    this.#tell('READY=1');
    if (this.#socket === undefined) return;
    const everyMs = Math.min(STATUS_MS, (this.#watchdogMs ?? Number.POSITIVE_INFINITY) / PINGS_A_PERIOD);
    this.#timer ??= setInterval(() => this.#look(), everyMs);
    this.#look();
  }

  /** Until the next `ready`. */
  reloading(): void {
    this.#tell(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1_000n}`);
  }

  stopping(): void {
    clearInterval(this.#timer);
    this.#tell('STOPPING=1\nSTATUS=stopping, the program stays in the kernel');
  }

  #look(): void {
    const { status, busyMs } = this.#health();
    if (status !== this.#told) this.#tell(`STATUS=${status}`);
    this.#told = status;
    if (this.#watchdogMs === undefined) return;
    if (busyMs <= BUSY_MS_MAX) this.#tell('WATCHDOG=1');
    else
      this.#log.error('an application does not end, the watchdog is to start the gateway anew', { busyMs });
  }

  #tell(text: string): void {
    if (this.#socket === undefined) return;
    try {
      sendDatagram(this.#socket, text);
    } catch (error) {
      this.#log.debug('systemd could not be told', { error: error as Error });
    }
  }
}
