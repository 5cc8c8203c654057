import {
  type Icmp,
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_TCP,
  IPPROTO_UDP,
  readAddressAt,
  type Tuple,
} from '../conntrack/tuple.js';
import type { Family } from '../net/family.js';

/** Other protocols whose header starts with two ports (IANA). */
const IPPROTO_DCCP = 33;
const IPPROTO_SCTP = 132;
const IPPROTO_UDPLITE = 136;

/** IPv6 extension headers, RFC 8200 and RFC 7045. */
const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const AUTHENTICATION = 51;
const DESTINATION_OPTIONS = 60;
const MOBILITY = 135;
/** RFC 8200 names each header once, destination options twice: more is an attempt to hide. */
const EXTENSION_HEADERS_MAX = 8;

const IPV4_HEADER_BYTES = 20;
const IPV6_HEADER_BYTES = 40;

/** What the copied start of a packet tells. */
export interface Packet {
  /** Ports and ICMP are undefined where the copy ends before them, and in all fragments but the first. */
  readonly tuple: Tuple;
  readonly tcp: TcpHeader | undefined;
}

/** What a TCP header says of where its sender stands. */
export interface TcpHeader {
  /** Of the first octet that it carries. */
  readonly sequence: number;
  /** The next octet that the sender expects; means something with the flag ACK only. */
  readonly acknowledgement: number;
  /** The flags octet: CWR, ECE, URG, ACK, PSH, RST, SYN, FIN from high to low. */
  readonly flags: number;
}

/**
 * Where the transport header is, and of which protocol; `at` is undefined where the packet has none to read.
 */
interface Transport {
  readonly protocol: number;
  readonly at: number | undefined;
}

function transport4(view: DataView): Transport {
  const protocol = view.getUint8(9);
  const isLaterFragment = (view.getUint16(6) & 0x1fff) !== 0;
  const headerBytes = (view.getUint8(0) & 0x0f) * 4;
  return { protocol, at: isLaterFragment || headerBytes < IPV4_HEADER_BYTES ? undefined : headerBytes };
}

function transport6(view: DataView): Transport {
  let protocol = view.getUint8(6);
  let at = IPV6_HEADER_BYTES;
  for (let headers = 0; headers < EXTENSION_HEADERS_MAX; headers++) {
    switch (protocol) {
      case HOP_BY_HOP:
      case ROUTING:
      case DESTINATION_OPTIONS:
      case MOBILITY:
      case AUTHENTICATION:
      case FRAGMENT: {
        if (at + 8 > view.byteLength) return { protocol, at: undefined };
        const length = view.getUint8(at + 1);
        if (protocol === FRAGMENT && (view.getUint16(at + 2) & 0xfff8) !== 0) {
          return { protocol: view.getUint8(at), at: undefined };
        }
        const isAuthentication = protocol === AUTHENTICATION;
        const bytes = protocol === FRAGMENT ? 8 : isAuthentication ? (length + 2) * 4 : (length + 1) * 8;
        protocol = view.getUint8(at);
        at += bytes;
        break;
      }
      default:
        return { protocol, at };
    }
  }
  return { protocol, at: undefined };
}

/** Echo and its like: `id` is at the fifth octet. */
function hasIcmpId(protocol: number, type: number): boolean {
  if (protocol === IPPROTO_ICMPV6) return type === 128 || type === 129;
  return type === 0 || type === 8 || (type >= 13 && type <= 18);
}

function readIcmp(view: DataView, protocol: number, at: number): Icmp | undefined {
  if (at + 2 > view.byteLength) return undefined;
  const type = view.getUint8(at);
  const hasId = hasIcmpId(protocol, type) && at + 6 <= view.byteLength;
  return { type, code: view.getUint8(at + 1), id: hasId ? view.getUint16(at + 4) : 0 };
}

function readTcp(view: DataView, at: number): TcpHeader {
  return {
    sequence: view.getUint32(at + 4),
    acknowledgement: view.getUint32(at + 8),
    flags: view.getUint8(at + 13),
  };
}

function hasPorts(protocol: number): boolean {
  switch (protocol) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_DCCP:
    case IPPROTO_SCTP:
    case IPPROTO_UDPLITE:
      return true;
    default:
      return false;
  }
}

/**
 * Reads the start of an IPv4 or IPv6 packet, which anyone may have sent: undefined for what does not hold the
 * addresses. Never throws.
 */
export function readPacket(view: DataView): Packet | undefined {
  if (view.byteLength === 0) return undefined;
  const version = view.getUint8(0) >> 4;
  if (version !== 4 && version !== 6) return undefined;
  const family: Family = version;
  if (view.byteLength < (family === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES)) return undefined;
  const src = readAddressAt(view, family === 4 ? 12 : 8, family);
  const dst = readAddressAt(view, family === 4 ? 16 : 24, family);
  const { protocol, at } = family === 4 ? transport4(view) : transport6(view);
  const bytes = at === undefined ? 0 : view.byteLength - at;
  const ports = at !== undefined && bytes >= 4 && hasPorts(protocol);
  const isIcmp = protocol === (family === 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
  return {
    tuple: {
      src,
      dst,
      protocol,
      srcPort: ports ? view.getUint16(at) : undefined,
      dstPort: ports ? view.getUint16(at + 2) : undefined,
      icmp: at !== undefined && isIcmp ? readIcmp(view, protocol, at) : undefined,
    },
    tcp: at !== undefined && protocol === IPPROTO_TCP && bytes >= 14 ? readTcp(view, at) : undefined,
  };
}
