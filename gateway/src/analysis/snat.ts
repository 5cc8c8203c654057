import { printAddress } from '../net/address.js';
import type { GatewayInterfaces } from '../policy/fixed-chains.js';
import type { Snat } from './output.js';

/** The source NAT that a configuration has; undefined: none. */
export function snatOf({ snat }: GatewayInterfaces): Snat | undefined {
  if (snat === undefined) return undefined;
  const to = snat.to === 'masquerade' ? snat.to : printAddress(snat.to);
  return { to, interfaces: [...snat.interfaces], ...(to !== 'masquerade' && { ip: to }) };
}
