import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';

const ROOT = '/proc/sys/net';

/** Undefined where there is no such setting: no such interface, or a kernel without IPv6. */
async function get(key: string): Promise<string | undefined> {
  try {
    return (await readFile(`${ROOT}/${key}`, 'utf8')).trim();
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

async function set(key: string, value: string): Promise<void> {
  const present = await get(key);
  if (present !== undefined && present !== value) await writeFile(`${ROOT}/${key}`, value);
}

/** Whether there is such an interface in this network namespace. */
export function hasInterface(name: string): boolean {
  return existsSync(`${ROOT}/ipv4/conf/${name}`);
}

/**
 * Has reverse-path filtering (`rp_filter`) look routes up with the packet's mark: without the guard's bit in it the
 * lookup ends in the guard's own blackhole, and every packet would be dropped.
 */
export async function honourMarks(interfaces: readonly string[]): Promise<void> {
  for (const name of interfaces) await set(`ipv4/conf/${name}/src_valid_mark`, '1');
}

/** Lets connection tracking count bytes and keep times: flow records are made of them. */
export async function enableTracking(): Promise<void> {
  await set('netfilter/nf_conntrack_acct', '1');
  await set('netfilter/nf_conntrack_timestamp', '1');
}

/**
 * Makes the machine a router: only to be called once a program is in force. A router ignores router advertisements
 * unless told otherwise, and on EC2 the IPv6 default route comes by them. Early demultiplexing (both families have the
 * one setting) costs a router throughput, and drops what it finds a socket for: while we speak for one end of a rejected
 * connection, the answers to it.
 */
export async function enableForwarding(interfaces: readonly string[]): Promise<void> {
  for (const name of interfaces) {
    const key = `ipv6/conf/${name}/accept_ra`;
    if ((await get(key)) === '1') await set(key, '2');
  }
  await set('ipv4/ip_early_demux', '0');
  await set('ipv4/ip_forward', '1');
  await set('ipv6/conf/all/forwarding', '1');
}
