import { readFile } from 'node:fs/promises';

const PID_COLUMN = 2;
const QUEUED_COLUMN = 4;
const DROPS_COLUMN = 8;

/** What the kernel tells of a netlink socket. */
export interface SocketState {
  /**
   * How many messages it could not queue since the socket was opened, modulo 2^32: `sk_drops`, which counts every one that
   * a full receive buffer or the congestion after it cost.
   */
  readonly drops: number;
  /** What waits to be read, in bytes, the kernel's own overhead included. */
  readonly queuedBytes: number;
}

/** The state of the netlink socket with a port id. Undefined for a socket of another network namespace. */
export async function socketState(protocol: number, portId: number): Promise<SocketState | undefined> {
  for (const line of (await readFile('/proc/net/netlink', 'utf8')).split('\n').slice(1)) {
    const columns = line.trim().split(/\s+/);
    if (Number(columns[1]) === protocol && Number(columns[PID_COLUMN]) === portId)
      return { drops: Number(columns[DROPS_COLUMN]) >>> 0, queuedBytes: Number(columns[QUEUED_COLUMN]) };
  }
  return undefined;
}
