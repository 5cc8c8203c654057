import { connect, here, macOf, Namespace, type Place, sysctl } from './namespace.js';

/** A host of the lab, and the addresses by which others reach it. */
export interface LabHost {
  readonly namespace: Namespace;
  readonly address4: string;
  readonly address6: string;
}

/**
 * The gateway with a host behind each of its interfaces:
 *
 *     function a 10.0.1.10 ── lam0 ┐           ┌ wan0 ── internet     203.0.113.10, 203.0.113.20
 *                                  ├ gateway ──┤
 *     function b 10.0.2.10 ── lam1 ┘           └ dc0  ── data centre  10.20.0.5
 */
export interface Lab {
  readonly gateway: Place;
  readonly a: LabHost;
  readonly b: LabHost;
  readonly internet: LabHost;
  readonly dataCentre: LabHost;
  remove(): void;
}

export const LAB_INTERFACES = { lambda: ['lam0', 'lam1'], egress: ['wan0', 'dc0'] } as const;

interface Leg {
  readonly port: string;
  readonly net4: string;
  readonly net6: string;
  readonly host: number;
  /** Addresses of servers behind the host. */
  readonly behind: readonly string[];
}

const LEGS = {
  a: { port: 'lam0', net4: '10.0.1', net6: 'fd00:1:', host: 10, behind: [] },
  b: { port: 'lam1', net4: '10.0.2', net6: 'fd00:2:', host: 10, behind: [] },
  internet: {
    port: 'wan0',
    net4: '198.18.0',
    net6: 'fd00:f:',
    host: 2,
    behind: ['203.0.113.10/32', '203.0.113.20/32', '2606:2800::10/128'],
  },
  dataCentre: {
    port: 'dc0',
    net4: '172.31.0',
    net6: 'fd00:d:',
    host: 2,
    behind: ['10.20.0.5/32', 'fd00:20::5/128'],
  },
} as const satisfies Record<string, Leg>;

function addHost(gateway: Place, label: string, leg: Leg): Namespace {
  const namespace = new Namespace(label);
  connect(gateway, { name: leg.port, addresses: [`${leg.net4}.1/24`, `${leg.net6}:1/64`] }, namespace, {
    name: 'eth0',
    addresses: [`${leg.net4}.${leg.host}/24`, `${leg.net6}:${leg.host}/64`],
  });
  for (const address of leg.behind) namespace.ip('addr', 'add', address, 'dev', 'lo');
  namespace.ip('route', 'add', 'default', 'via', `${leg.net4}.1`);
  namespace.ip('-6', 'route', 'add', 'default', 'via', `${leg.net6}:1`);
  // The queue for an unresolved neighbour holds few packets: no test is about that.
  for (const net of [`${leg.net4}.`, `${leg.net6}:`]) {
    const address = `${net}${leg.host}`;
    gateway.ip(
      'neigh',
      'add',
      address,
      'lladdr',
      macOf(namespace, 'eth0'),
      'dev',
      leg.port,
      'nud',
      'permanent',
    );
  }
  return namespace;
}

/** Builds the lab around a gateway: this process's own namespace, or a named one. Forwarding is left off. */
export function createLab(gateway: Place = here): Lab {
  gateway.ip('link', 'set', 'lo', 'up');
  for (const key of ['net.ipv4.conf.all.rp_filter', 'net.ipv4.conf.default.rp_filter'])
    sysctl(gateway, key, 0);
  const a = addHost(gateway, 'a', LEGS.a);
  const b = addHost(gateway, 'b', LEGS.b);
  const internet = addHost(gateway, 'internet', LEGS.internet);
  const dataCentre = addHost(gateway, 'dc', LEGS.dataCentre);
  gateway.ip('route', 'add', 'default', 'via', '198.18.0.2');
  gateway.ip('-6', 'route', 'add', 'default', 'via', 'fd00:f::2');
  gateway.ip('route', 'add', '10.20.0.0/16', 'via', '172.31.0.2');
  gateway.ip('-6', 'route', 'add', 'fd00:20::/64', 'via', 'fd00:d::2');
  return {
    gateway,
    a: { namespace: a, address4: '10.0.1.10', address6: 'fd00:1::10' },
    b: { namespace: b, address4: '10.0.2.10', address6: 'fd00:2::10' },
    internet: { namespace: internet, address4: '203.0.113.10', address6: '2606:2800::10' },
    dataCentre: { namespace: dataCentre, address4: '10.20.0.5', address6: 'fd00:20::5' },
    remove: () => {
      for (const namespace of [a, b, internet, dataCentre]) namespace.remove();
    },
  };
}

/** Lets the gateway forward, as the product does once its program is in force. */
export function forwardPackets(gateway: Place): void {
  sysctl(gateway, 'net.ipv4.ip_early_demux', 0);
  sysctl(gateway, 'net.ipv4.ip_forward', 1);
  sysctl(gateway, 'net.ipv6.conf.all.forwarding', 1);
}
