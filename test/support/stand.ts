import { createSocket } from 'node:dgram';
import { setTimeout as delay } from 'node:timers/promises';
import { type Address, parseAddress } from 'sluice-gateway/net/address.js';
import { NETLINK_ROUTE, NetlinkConnection } from 'sluice-gateway/netlink/connection.js';
import { Guard } from 'sluice-gateway/route/guard.js';
import { RuleCounters } from 'sluice-gateway/rule-counters.js';
import { TCP, type TestPacket, taggedPayload } from './frames.js';
import { createLab, forwardPackets, LAB_INTERFACES, type Lab } from './lab.js';
import { Loader } from './load.js';
import { here, type Namespace, sysctl } from './namespace.js';
import { Station } from './station.js';

/** The original direction of a connection. An echo's id is its source port. */
export interface Flow {
  readonly src: Address;
  readonly dst: Address;
  readonly protocol: number;
  readonly srcPort: number;
  readonly dstPort: number;
}

let lastPort = 20_000;
let lastTag = 0;

/** A flow from a source port that no other flow of this process has. */
export function flow(protocol: number, src: string, dst: string, dstPort = 0): Flow {
  return { protocol, src: parseAddress(src), dst: parseAddress(dst), srcPort: ++lastPort, dstPort };
}

/** Sequence numbers of a connection whose every packet carries the same eight bytes again. */
const TCP_START = { there: 1_000, back: 5_000 } as const;
const TCP_NEXT = { there: 1_009, back: 5_009 } as const;

function tcpNumbers(way: 'there' | 'back', flags: number): Partial<TestPacket> {
  const other = way === 'there' ? 'back' : 'there';
  return {
    tcpFlags: flags,
    tcpSequence: flags & TCP.syn ? TCP_START[way] : TCP_NEXT[way],
    tcpAcknowledgement: flags & TCP.ack ? TCP_NEXT[other] : 0,
  };
}

/** A packet of the flow under a tag of its own; one of TCP in mid-stream unless flags say else. */
export function there(flow: Flow, flags: number = TCP.ack): TestPacket {
  return { ...flow, ...tcpNumbers('there', flags), tag: ++lastTag };
}

/** The flow as its answers see it. */
export function reversed({ src, dst, srcPort, dstPort, protocol }: Flow): Flow {
  return { protocol, src: dst, dst: src, srcPort: dstPort, dstPort: srcPort };
}

/** A packet of the answer. */
export function back(flow: Flow, flags: number = TCP.ack): TestPacket {
  return { ...reversed(flow), ...tcpNumbers('back', flags), tag: ++lastTag };
}

/** Where tests take addresses from: nobody has them, so that no kernel but the gateway's ever answers. */
const BEHIND = {
  a: ['10.0.128.0/17', 'fd00:a::/64'],
  b: ['10.0.64.0/18', 'fd00:b::/64'],
} as const;
const FENCE = {
  a: '10.0.255.254',
  b: '10.0.127.254',
  internet: '203.0.113.254',
  dataCentre: '10.20.255.254',
};
type Leg = keyof typeof FENCE;
const PORTS: Readonly<Record<Leg, string>> = { a: 'lam0', b: 'lam1', internet: 'wan0', dataCentre: 'dc0' };

/** Packets that took another processor have come in after this, where they pass at all. */
const SETTLE_MS = 20;

/**
 * The lab with a station on each host, forwarding, and the guard in place, as the product has it. Behind
 * function a are 10.0.128.0/17 and fd00:a::/64, behind b 10.0.64.0/18 and fd00:b::/64.
 */
export class Stand {
  readonly lab: Lab;
  readonly stations: Readonly<Record<Leg, Station>>;
  readonly guard: Guard;
  readonly loader = new Loader();
  readonly #routing: NetlinkConnection;

  private constructor(lab: Lab, stations: Stand['stations'], routing: NetlinkConnection) {
    this.lab = lab;
    this.stations = stations;
    this.#routing = routing;
    this.guard = new Guard(routing, [...LAB_INTERFACES.lambda, ...LAB_INTERFACES.egress]);
  }

  static async create(): Promise<Stand> {
    const lab = createLab();
    const hosts: Readonly<Record<Leg, Namespace>> = {
      a: lab.a.namespace,
      b: lab.b.namespace,
      internet: lab.internet.namespace,
      dataCentre: lab.dataCentre.namespace,
    };
    for (const host of Object.values(hosts)) {
      sysctl(host, 'net.ipv4.ip_forward', 0);
      sysctl(host, 'net.ipv6.conf.all.forwarding', 0);
    }
    for (const leg of ['a', 'b'] as const) {
      here.ip('route', 'add', BEHIND[leg][0], 'via', lab[leg].address4);
      here.ip('-6', 'route', 'add', BEHIND[leg][1], 'via', lab[leg].address6);
    }
    try {
      const entries = (Object.keys(hosts) as Leg[]).map(async (leg) => [
        leg,
        await Station.open(hosts[leg], PORTS[leg]),
      ]);
      const stations = Object.fromEntries(await Promise.all(entries)) as Stand['stations'];
      const stand = new Stand(lab, stations, new NetlinkConnection(NETLINK_ROUTE));
      await stand.guard.ensure();
      forwardPackets(here);
      return stand;
    } catch (error) {
      lab.remove();
      throw error;
    }
  }

  /** Waits until everything the gateway had forwarded by now has come in at the far ends. */
  async settle(): Promise<void> {
    await delay(SETTLE_MS);
    const socket = createSocket('udp4');
    for (const leg of Object.keys(FENCE) as Leg[]) {
      const tag = ++lastTag;
      await new Promise((resolve) => socket.send(taggedPayload(tag), 9, FENCE[leg], resolve));
      await this.stations[leg].arrival(tag);
    }
    socket.close();
  }

  /** Sends packets from one host, and gives those that came out at another when all had time to. */
  async passed(from: Leg, to: Leg, ...packets: readonly TestPacket[]): Promise<readonly TestPacket[]> {
    await this.stations[from].send(...packets);
    await this.settle();
    const tagOf = ({ quoted, tag }: TestPacket) => quoted?.tag ?? tag;
    return packets.filter((packet) => this.stations[to].count(tagOf(packet)) > 0);
  }

  /** Gives true when all these packets have got from one host to another; rejects where they don't. */
  async carries(from: Leg, to: Leg, ...packets: readonly TestPacket[]): Promise<boolean> {
    await this.stations[from].send(...packets);
    for (const { quoted, tag } of packets) await this.stations[to].arrival(quoted?.tag ?? tag);
    return true;
  }

  /** Whether none of these packets gets from one host to another. */
  async stops(from: Leg, to: Leg, ...packets: readonly TestPacket[]): Promise<boolean> {
    return (await this.passed(from, to, ...packets)).length === 0;
  }

  /** Opens a TCP connection from one host to another. */
  async handshake(from: Leg, to: Leg, flow: Flow): Promise<void> {
    await this.carries(from, to, there(flow, TCP.syn));
    await this.carries(to, from, back(flow, TCP.syn | TCP.ack));
    await this.carries(from, to, there(flow));
  }

  /** Packets dropped so far, by reason. */
  dropped() {
    return new RuleCounters(this.loader.kernel, () => undefined).dropped();
  }

  close(): void {
    this.loader.close();
    this.#routing.close();
    this.lab.remove();
  }
}
