import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Of /proc/meminfo: where nf_tables' elements, the arrays over them and its per-processor counters can be. Not the
 * reclaimable slabs: they hold what files are cached, which comes and goes.
 */
const FIELDS = ['SUnreclaim', 'VmallocUsed', 'Percpu', 'KernelStack'] as const;

const POLL_MS = 100;
/** The kernel has settled when so many readings in a row differ by less than this. */
const SETTLED_READINGS = 5;
const SETTLED_BYTES = 1 << 20;
const SETTLE_MS_MAX = 20_000;

/** Memory that the kernel uses for itself, on the whole machine. */
export function kernelBytes(): number {
  const text = readFileSync('/proc/meminfo', 'utf8');
  const kibibytes = FIELDS.map((field) =>
    Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1]),
  );
  return 1024 * kibibytes.reduce((sum, value) => sum + value, 0);
}

/** `kernelBytes` when it stands still: what a transaction deletes is freed later, by a worker of the kernel. */
export async function settledKernelBytes(): Promise<number> {
  const readings = [kernelBytes()];
  for (const end = performance.now() + SETTLE_MS_MAX; performance.now() < end; ) {
    await sleep(POLL_MS);
    readings.push(kernelBytes());
    const last = readings.slice(-SETTLED_READINGS);
    if (last.length === SETTLED_READINGS && Math.max(...last) - Math.min(...last) < SETTLED_BYTES) break;
  }
  return readings.at(-1)!;
}
