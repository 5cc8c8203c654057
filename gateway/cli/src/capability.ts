import { readFileSync } from 'node:fs';

/** `CAP_NET_ADMIN` of linux/capability.h. */
const CAP_NET_ADMIN = 12n;

/** Whether this process may change the network. */
export function hasNetAdmin(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  return effective !== undefined && ((BigInt(`0x${effective}`) >> CAP_NET_ADMIN) & 1n) === 1n;
}
