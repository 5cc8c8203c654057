import { type Address, parseAddress, printAddress } from 'sluice-gateway/net/address.js';
import { BITS } from 'sluice-gateway/net/family.js';
import { type Prefix, parsePrefix, prefixContains } from 'sluice-gateway/net/prefix.js';
import { evaluate } from 'sluice-gateway/policy/evaluate.js';
import { type PolicyInForce, policyInForce } from 'sluice-gateway/policy/in-force.js';
import { TCP, type TestPacket } from 'sluice-test/support/frames.js';
import type { Random } from '../data/random.js';
import { DENIED_TAG } from '../wire/wire.js';
import { BLOCKS, block, SERVICE_PORT, SPACES, type World } from './worlds.js';

/** Where a packet comes from: the hosts of the lab. */
export const LEGS = ['a', 'b', 'internet', 'dataCentre'] as const;
export type Leg = (typeof LEGS)[number];

const BEHIND: Readonly<Record<Exclude<Leg, 'internet'>, readonly Prefix[]>> = {
  a: ['10.0.1.0/24', '10.0.128.0/17', 'fd00:1::/64', 'fd00:a::/64'].map(parsePrefix),
  b: ['10.0.2.0/24', '10.0.64.0/18', 'fd00:2::/64', 'fd00:b::/64'].map(parsePrefix),
  dataCentre: ['10.20.0.0/16', 'fd00:20::/64'].map(parsePrefix),
};

function legOf(address: Address): Leg {
  for (const leg of ['a', 'b', 'dataCentre'] as const)
    if (BEHIND[leg].some((prefix) => prefixContains(prefix, address))) return leg;
  return 'internet';
}

const CALLERS = ['10.0.1.10', 'fd00:1::10', '10.0.2.10', 'fd00:2::10', '10.0.129.7'].map(parseAddress);
const SERVICES = ['203.0.113.10', '203.0.113.20', '2606:2800::10', '10.20.0.5', 'fd00:20::5'].map(
  parseAddress,
);

/** An address of a block, at its edges as likely as inside; of a block from which no prefix comes as likely as not. */
function addressIn(side: keyof typeof SPACES, random: Random): Address {
  const { family, value, length } = block(random.pick(SPACES[side]), random.below(BLOCKS));
  const all = (1n << BigInt(BITS[family] - length)) - 1n;
  const host = random.pick([0n, 1n, all, all - 1n, random.bits(BITS[family] - length)]);
  return { family, value: value | host };
}

const TCP_NUMBER = 6;
const UDP_NUMBER = 17;
const PORTS = [SERVICE_PORT, SERVICE_PORT + 2, 443, 8_050, 53, 6_001];

type Candidate = Omit<TestPacket, 'tag'>;

/** Any packet from function to service, at times a steady one's; one in ten the other way. */
function anyPacket(random: Random): Candidate {
  const from = random.below(4) === 0 ? random.pick(CALLERS) : addressIn('source', random);
  const toOf = () => (random.below(4) === 0 ? random.pick(SERVICES) : addressIn('destination', random));
  let to = toOf();
  while (to.family !== from.family) to = toOf();
  const [src, dst] = random.below(10) === 0 ? [to, from] : [from, to];
  const icmp = src.family === 4 ? 1 : 58;
  const protocol = random.pick([TCP_NUMBER, TCP_NUMBER, UDP_NUMBER, UDP_NUMBER, icmp]);
  return {
    ...{ src, dst, protocol, srcPort: 1_024 + random.below(30_000) },
    dstPort: protocol === icmp ? 0 : random.pick(PORTS),
    tcpFlags: random.below(2) === 0 ? TCP.syn : TCP.ack,
  };
}

/** A datagram that is most likely permitted. */
function steadyPacket(random: Random): Candidate {
  const src = random.pick(CALLERS);
  const dst = random.pick(SERVICES.filter(({ family }) => family === src.family));
  const dstPort = SERVICE_PORT + random.below(2);
  return { src, dst, protocol: UDP_NUMBER, srcPort: 1_024 + random.below(30_000), dstPort };
}

/** Those prefixes of a group that hold an address, by group. */
type Holding = Map<readonly Prefix[], readonly Prefix[]>;

/** Judges packets by many policies: of each group only the prefixes that hold an address are looked at, and kept. */
class Judge {
  readonly #worlds: readonly { readonly world: World; readonly policy: PolicyInForce }[];
  readonly #known = new Map<string, Holding>();

  constructor(worlds: readonly World[]) {
    this.#worlds = worlds.map((world) => ({ world, policy: policyInForce(world.policy, new Date()) }));
  }

  #holders(address: Address): (prefixes: readonly Prefix[]) => readonly Prefix[] {
    const key = printAddress(address);
    const known: Holding = this.#known.get(key) ?? new Map();
    this.#known.set(key, known);
    return (prefixes) => {
      const holding = known.get(prefixes) ?? prefixes.filter((prefix) => prefixContains(prefix, address));
      known.set(prefixes, holding);
      return holding;
    };
  }

  /** Whether every policy says the same of the packet: then what it says. */
  always({ src, dst, protocol, dstPort }: Candidate): 'permitted' | 'denied' | undefined {
    const [from, to] = [this.#holders(src), this.#holders(dst)];
    let first: boolean | undefined;
    for (const { world, policy } of this.#worlds) {
      const groups = new Map<string, readonly Prefix[]>();
      for (const [name, prefixes] of world.groups) {
        const [sources, destinations] = [from(prefixes), to(prefixes)];
        if (sources.length + destinations.length > 0) groups.set(name, [...sources, ...destinations]);
      }
      const { decided } = evaluate(policy, groups, [], { src, dst, protocol, dstPort });
      const isPermitted = decided.action === 'PERMIT';
      if (first !== undefined && first !== isPermitted) return undefined;
      first = isPermitted;
    }
    return first === true ? 'permitted' : 'denied';
  }
}

/** What is sent while policy changes, by where from. */
export interface Traffic {
  /** Denied by each policy; their tags are DENIED_TAG and the index in `all`. */
  readonly denied: Readonly<Record<Leg, readonly TestPacket[]>>;
  /** Datagrams that each policy permits. */
  readonly permitted: Readonly<Record<Leg, readonly TestPacket[]>>;
  readonly all: readonly TestPacket[];
}

const DENIED_PACKETS = 600;
const PERMITTED_PACKETS = 100;
const TRIES_MAX = 50_000;

const byLeg = (packets: readonly TestPacket[]) =>
  Object.fromEntries(LEGS.map((leg) => [leg, packets.filter(({ src }) => legOf(src) === leg)])) as Record<
    Leg,
    TestPacket[]
  >;

/** Finds packets that are denied by every world, and such that are permitted by every one. */
export function chooseTraffic(worlds: readonly World[], random: Random): Traffic {
  const judge = new Judge(worlds);
  const find = (wanted: 'permitted' | 'denied', count: number, make: (random: Random) => Candidate) => {
    const found: Candidate[] = [];
    for (let tries = 0; found.length < count; tries++) {
      if (tries > TRIES_MAX)
        throw new Error(`Cannot choose traffic: found ${found.length} ${wanted}, of ${count}`);
      const packet = make(random);
      if (judge.always(packet) === wanted) found.push(packet);
    }
    return found;
  };
  const all = find('denied', DENIED_PACKETS, anyPacket).map((packet, index) => ({
    ...packet,
    tag: (DENIED_TAG | index) >>> 0,
  }));
  const permitted = find('permitted', PERMITTED_PACKETS, steadyPacket).map((packet) => ({
    ...packet,
    tag: 0,
  }));
  return { denied: byLeg(all), permitted: byLeg(permitted), all };
}

/** Whether it is a packet of TCP that begins no connection. */
export const isMidStream = ({ protocol, tcpFlags }: TestPacket) =>
  protocol === TCP_NUMBER && tcpFlags !== TCP.syn;

/** A packet for people. */
export function printPacket(packet: TestPacket): string {
  const { src, dst, protocol, srcPort, dstPort } = packet;
  const flags = protocol !== TCP_NUMBER ? '' : isMidStream(packet) ? ' ACK' : ' SYN';
  return `${printAddress(src)} ${srcPort} to ${printAddress(dst)} ${dstPort}, protocol ${protocol}${flags}`;
}
