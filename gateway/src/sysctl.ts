import { readFile, writeFile } from 'node:fs/promises';

const ROOT = '/proc/sys/net';

async function set(key: string, value: string): Promise<void> {
  const path = `${ROOT}/${key}`;
  if ((await readFile(path, 'utf8')).trim() !== value) await writeFile(path, value);
}

/** Lets connection tracking count bytes and keep times: flow records are made of them. */
export async function enableTracking(): Promise<void> {
  await set('netfilter/nf_conntrack_acct', '1');
  await set('netfilter/nf_conntrack_timestamp', '1');
}

/** Makes the machine a router: only to be called once a program is in force. */
export async function enableForwarding(): Promise<void> {
  await set('ipv4/ip_forward', '1');
  await set('ipv6/conf/all/forwarding', '1');
}
