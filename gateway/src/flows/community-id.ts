import { hash } from 'node:crypto';
import { IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, type Tuple } from '../conntrack/tuple.js';
import type { Address } from '../net/address.js';
import { WORDS } from '../net/words.js';

const IPPROTO_SCTP = 132;
/** The protocols whose ports the specification hashes. */
const WITH_PORTS: ReadonlySet<number> = new Set([IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP]);

/** Message types that answer each other, both ways round; Zeek's list, which the specification takes over. */
function answers(pairs: readonly (readonly [number, number])[]): ReadonlyMap<number, number> {
  return new Map(pairs.flatMap(([a, b]) => [[a, b] as const, [b, a] as const]));
}

const ANSWERS: Readonly<Record<typeof IPPROTO_ICMP | typeof IPPROTO_ICMPV6, ReadonlyMap<number, number>>> = {
  // echo, timestamp, information, router advertisement and solicitation, address mask
  [IPPROTO_ICMP]: answers([
    [8, 0],
    [13, 14],
    [15, 16],
    [9, 10],
    [17, 18],
  ]),
  // echo, router, neighbour, multicast listener, node information, home agent address discovery
  [IPPROTO_ICMPV6]: answers([
    [128, 129],
    [133, 134],
    [135, 136],
    [130, 131],
    [139, 140],
    [144, 145],
  ]),
};

interface Ports {
  readonly src: number;
  readonly dst: number;
  /** True: the direction belongs to the identity, since no message answers this one. */
  readonly oneWay: boolean;
}

function portsOf({ protocol, srcPort, dstPort, icmp }: Tuple): Ports | undefined {
  if (protocol === IPPROTO_ICMP || protocol === IPPROTO_ICMPV6) {
    if (icmp === undefined) return undefined;
    const answer = ANSWERS[protocol].get(icmp.type);
    return { src: icmp.type, dst: answer ?? icmp.code, oneWay: answer === undefined };
  }
  if (!WITH_PORTS.has(protocol) || srcPort === undefined || dstPort === undefined) return undefined;
  return { src: srcPort, dst: dstPort, oneWay: false };
}

/** What is hashed, by its length: written over each time. Seed and padding stay 0. */
const inputs = new Map<number, DataView>();

function inputOf(bytes: number): DataView {
  let input = inputs.get(bytes);
  if (input === undefined) {
    input = new DataView(new ArrayBuffer(bytes));
    inputs.set(bytes, input);
  }
  return input;
}

function storeAddress({ family, value }: Address, input: DataView, at: number): void {
  if (family === 4) input.setUint32(at, Number(value));
  else {
    input.setBigUint64(at, value >> 64n);
    input.setBigUint64(at + 8, BigInt.asUintN(64, value));
  }
}

/**
 * Community ID version 1 with seed 0 (github.com/corelight/community-id-spec): the same text for both
 * directions of a connection, by which other monitors' records are joined. One SHA-1 over
 *
 *     seed (2) | lower address | higher address | protocol (1) | 0 (1) | its port (2) | the other port (2)
 */
export function communityId(tuple: Tuple): string {
  const ports = portsOf(tuple);
  let [first, second] = [tuple.src, tuple.dst];
  let [firstPort, secondPort] = [ports?.src ?? 0, ports?.dst ?? 0];
  const reversed = first.value === second.value ? firstPort > secondPort : first.value > second.value;
  if (reversed && ports?.oneWay !== true) {
    [first, second] = [second, first];
    [firstPort, secondPort] = [secondPort, firstPort];
  }
  const width = 4 * WORDS[first.family];
  const input = inputOf(2 + 2 * width + 2 + (ports === undefined ? 0 : 4));
  storeAddress(first, input, 2);
  storeAddress(second, input, 2 + width);
  input.setUint8(2 + 2 * width, tuple.protocol);
  if (ports !== undefined) {
    input.setUint16(4 + 2 * width, firstPort);
    input.setUint16(6 + 2 * width, secondPort);
  }
  return `1:${hash('sha1', input, 'base64')}`;
}
