import { readFile } from 'node:fs/promises';

const PID_COLUMN = 2;
const DROPS_COLUMN = 8;

/**
 * How many messages the kernel could not queue to the netlink socket with a port id, since it was opened, modulo 2^32:
 * `sk_drops`, which counts every one that a full receive buffer or the congestion after it cost. Undefined for a socket
 * of another network namespace.
 */
export async function socketDrops(protocol: number, portId: number): Promise<number | undefined> {
  for (const line of (await readFile('/proc/net/netlink', 'utf8')).split('\n').slice(1)) {
    const columns = line.trim().split(/\s+/);
    if (Number(columns[1]) === protocol && Number(columns[PID_COLUMN]) === portId)
      return Number(columns[DROPS_COLUMN]) >>> 0;
  }
  return undefined;
}
