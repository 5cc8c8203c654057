/** `ok`: as it should be. `info`: worth knowing. `warning`: works, worse. `error`: the gateway does not start. */
export type Level = 'ok' | 'info' | 'warning' | 'error';

/** One thing that preflight looked at. */
export interface Finding {
  /** Stable: `feature.fib`, `problem.lookup_miss`, `sysctl.net.ipv4.ip_forward`, `foreign.ct_mark`, … */
  readonly name: string;
  readonly level: Level;
  /** What is found. */
  readonly value: string;
  readonly expected?: string;
  /** Why it matters and what to do about it, in a sentence. */
  readonly detail: string;
}
