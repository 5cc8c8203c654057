import type { Config } from './config/config.js';
import { parseAddress } from './net/address.js';
import type { GatewayInterfaces } from './policy/fixed-chains.js';

/** Names of all of them. */
export const namesOf = ({ lambda, egress }: GatewayInterfaces) => [...lambda, ...egress];

/** The interfaces of a configuration as the program needs them. */
export function interfacesOf({ gateway }: Config): GatewayInterfaces {
  const { snat } = gateway;
  return {
    lambda: gateway.lambdaInterfaces,
    egress: gateway.egressInterfaces,
    inputIcmp: gateway.input.icmp,
    newConnectionsPerSecondMax: gateway.fairness.newConnectionsPerSecondMax,
    ...(snat !== undefined && {
      snat: {
        interfaces: snat.interfaces,
        to: snat.to === 'masquerade' ? ('masquerade' as const) : parseAddress(snat.to),
      },
    }),
  };
}
