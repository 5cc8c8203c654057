import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Families, pulled, pulledNumber } from './family.js';

/** Where the kernel tells its own numbers; of the network namespace of the process. */
export const PROC_NETFILTER = '/proc/sys/net/netfilter';

/** A number from a file of `/proc`; none when there is no such file, as without the conntrack module. */
async function readNumber(path: string): Promise<readonly number[]> {
  try {
    const text = (await readFile(path, 'utf8')).trim();
    if (!/^[0-9]+$/.test(text))
      throw new Error(`Cannot read ${path}: ${JSON.stringify(text)} is not a number`);
    return [Number(text)];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

export function conntrackMetrics(families: Families, folder: string) {
  const entries = pulledNumber(families, {
    name: 'sluice_conntrack_entries',
    help: 'Connections in the kernel table',
  });
  const limit = pulledNumber(families, {
    name: 'sluice_conntrack_limit',
    help: 'Connections that the kernel table can hold; beyond it new connections are dropped',
  });
  entries(() => readNumber(join(folder, 'nf_conntrack_count')));
  limit(() => readNumber(join(folder, 'nf_conntrack_max')));
  return {
    /** Asked at scrape: of the kernel, all processors together. */
    conntrackStats: pulled(families, {
      name: 'sluice_conntrack_failures_total',
      help: 'Packets that connection tracking could not take up, and entries it gave up before their time, by kind',
      labels: ['kind'],
      kind: 'counter',
      merge: 'sum',
      of: ([kind, count]: readonly [string, number]) => ({ labels: { kind }, value: count }),
    }),
  };
}
