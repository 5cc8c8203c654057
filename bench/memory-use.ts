import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Of /proc/meminfo: where nf_tables' elements, the arrays over them and its per-processor counters can be. Not the
 * reclaimable slabs: they hold what files are cached, which comes and goes.
 */
const FIELDS = ['SUnreclaim', 'VmallocUsed', 'Percpu', 'KernelStack'] as const;

/** What stands still differs by less. */
const SETTLED_BYTES = 1 << 20;

/** A line of a file of /proc, in bytes. */
const bytesOf = (text: string, field: string) =>
  1024 * Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(text)![1]);

/** Memory that the kernel uses for itself, on the whole machine. */
export function kernelBytes(): number {
  const text = readFileSync('/proc/meminfo', 'utf8');
  return FIELDS.reduce((sum, field) => sum + bytesOf(text, field), 0);
}

/** Resident memory of a process, in bytes: now, or the most it ever had. */
export function processBytes(pid: number, field: 'VmRSS' | 'VmHWM'): number {
  return bytesOf(readFileSync(`/proc/${pid}/status`, 'utf8'), field);
}

/** How often to read, how many readings in a row must be alike, and when to take the last one nevertheless. */
interface Patience {
  readonly pollMs: number;
  readonly readings: number;
  readonly msMax: number;
}

/** What `read` gives when it stands still. */
export async function settled(read: () => number, { pollMs, readings, msMax }: Patience): Promise<number> {
  const seen = [read()];
  for (const endMs = performance.now() + msMax; performance.now() < endMs; ) {
    await sleep(pollMs);
    seen.push(read());
    const last = seen.slice(-readings);
    if (last.length === readings && Math.max(...last) - Math.min(...last) < SETTLED_BYTES) break;
  }
  return seen.at(-1)!;
}

/** `kernelBytes` when it stands still: what a transaction deletes is freed later, by a worker of the kernel. */
export const settledKernelBytes = () => settled(kernelBytes, { pollMs: 100, readings: 5, msMax: 20_000 });
