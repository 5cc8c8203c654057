import { addressToBytes } from '../net/address.js';
import type { Family } from '../net/family.js';
import type { MessageWriter } from '../netlink/writer.js';
import {
  CT_DST_IP,
  CT_DST_IP6,
  CT_MARK,
  CT_PROTO_DST,
  CT_PROTOCOL,
  CT_SRC_IP,
  CT_SRC_IP6,
  CT_STATE_KEY,
  DIRECTION_ORIGINAL,
  FIB_F_IIF,
  FIB_F_MARK,
  FIB_F_PRESENT,
  FIB_F_SADDR,
  FIB_RESULT_OIF,
  FIB_RESULT_OIFNAME,
  META_IIFNAME,
  META_L4PROTO,
  META_MARK,
  META_NFPROTO,
  META_OIFNAME,
  META_PRIORITY,
} from './constants.js';
import {
  CMP_EQ,
  CMP_GTE,
  CMP_LTE,
  CMP_NEQ,
  Expressions,
  hostU32,
  IPPROTO_ICMP_OF_FAMILY,
  interfaceName,
  NFPROTO_OF_FAMILY,
  networkU16,
  REG_1,
  REG_BEHIND_MARK,
  REG_VERDICT,
  TCP_FIN_SYN_RST_ACK,
  TCP_FLAGS_OFFSET,
  TCP_SYN,
} from './expressions.js';
import { CT_STATE, type Field, type Rule, type Statement, type StatementOf } from './statement.js';

const original = (key: number) => (to: Expressions, register?: number) =>
  to.ct(key, DIRECTION_ORIGINAL, register);
/** The family too: ICMP in an IPv6 packet, or ICMPv6 in an IPv4 packet, is neither. */
const icmpType = (family: Family) => (to: Expressions) => {
  to.meta(META_NFPROTO);
  to.compare(CMP_EQ, Uint8Array.of(NFPROTO_OF_FAMILY[family]));
  to.meta(META_L4PROTO);
  to.compare(CMP_EQ, Uint8Array.of(IPPROTO_ICMP_OF_FAMILY[family]));
  to.transportByte(0);
};

const LOAD: Readonly<Record<Field, (to: Expressions, register?: number) => void>> = {
  iifname: (to) => to.meta(META_IIFNAME),
  oifname: (to) => to.meta(META_OIFNAME),
  mark: (to) => to.meta(META_MARK),
  priority: (to) => to.meta(META_PRIORITY),
  ctMark: (to) => to.ct(CT_MARK),
  ctOriginalSource4: original(CT_SRC_IP),
  ctOriginalSource6: original(CT_SRC_IP6),
  ctOriginalDestination4: original(CT_DST_IP),
  ctOriginalDestination6: original(CT_DST_IP6),
  ctOriginalProtocol: original(CT_PROTOCOL),
  ctOriginalDestinationPort: original(CT_PROTO_DST),
  l4proto: (to) => to.meta(META_L4PROTO),
  icmpType: icmpType(4),
  icmpv6Type: icmpType(6),
  fibSourceOifname: (to) => to.fib(FIB_RESULT_OIFNAME, FIB_F_SADDR),
};

/** Fields of one byte, matched by number; the other fields matched by number are marks of four. */
const BYTE_FIELDS: ReadonlySet<Field> = new Set(['l4proto', 'icmpType', 'icmpv6Type']);

function matchedValue(field: Field, value: string | number): Uint8Array {
  if (typeof value === 'string') return interfaceName(value);
  return BYTE_FIELDS.has(field) ? Uint8Array.of(value) : hostU32(value);
}

/** `NFT_REJECT_TCP_RST`; `NFT_REJECT_ICMPX_UNREACH` with `NFT_REJECT_ICMPX_ADMIN_PROHIBITED`. */
const REJECT_TCP_RST = 1;
const REJECT_ICMPX = 2;
const ICMPX_ADMIN_PROHIBITED = 3;

const ENCODE: {
  readonly [Kind in Statement['kind']]: (to: Expressions, statement: StatementOf<Kind>) => void;
} = {
  match: (to, { field, value }) => {
    LOAD[field](to);
    to.compare(CMP_EQ, matchedValue(field, value));
  },
  matchNot: (to, { field, value }) => {
    LOAD[field](to);
    to.compare(CMP_NEQ, matchedValue(field, value));
  },
  matchMasked: (to, { field, mask, value }) => {
    LOAD[field](to);
    to.bitwise(hostU32(mask), hostU32(0));
    to.compare(CMP_EQ, hostU32(value));
  },
  matchOriginalPorts: (to, { first, last }) => {
    LOAD.ctOriginalDestinationPort(to);
    if (first === last) to.compare(CMP_EQ, networkU16(first));
    else {
      to.compare(CMP_GTE, networkU16(first));
      to.compare(CMP_LTE, networkU16(last));
    }
  },
  matchSomeBits: (to, { field, mask }) => {
    LOAD[field](to);
    to.bitwise(hostU32(mask), hostU32(0));
    to.compare(CMP_NEQ, hostU32(0));
  },
  matchState: (to, { states }) => {
    to.ct(CT_STATE_KEY);
    to.bitwise(hostU32(states.reduce((bits, state) => bits | CT_STATE[state], 0)), hostU32(0));
    to.compare(CMP_NEQ, hostU32(0));
  },
  matchNotBareSyn: (to) => {
    to.transportByte(TCP_FLAGS_OFFSET);
    to.bitwise(Uint8Array.of(TCP_FIN_SYN_RST_ACK), Uint8Array.of(0));
    to.compare(CMP_NEQ, Uint8Array.of(TCP_SYN));
  },
  matchNoReversePath: (to) => {
    to.fib(FIB_RESULT_OIF, FIB_F_SADDR | FIB_F_MARK | FIB_F_IIF | FIB_F_PRESENT);
    to.compare(CMP_EQ, hostU32(0));
  },
  setMark: (to, { value }) => {
    to.immediate(hostU32(value));
    to.setMeta(META_MARK);
  },
  setMarkFromMap: (to, { field, map }) => {
    LOAD[field](to);
    to.lookup(map, REG_1);
    to.setMeta(META_MARK);
  },
  setMarkFromMarkIntervals: (to, { map }) => {
    to.meta(META_MARK);
    to.toNetworkOrder();
    to.lookup(map, REG_1);
    to.setMeta(META_MARK);
  },
  setPriority: (to, { value }) => {
    to.immediate(hostU32(value));
    to.setMeta(META_PRIORITY);
  },
  setPriorityFromMap: (to, { field, map }) => {
    LOAD[field](to);
    to.lookup(map, REG_1);
    to.setMeta(META_PRIORITY);
  },
  matchMaskedInSet: (to, { field, mask, set }) => {
    LOAD[field](to);
    to.bitwise(hostU32(mask), hostU32(0));
    to.lookup(set);
  },
  matchInSet: (to, { field, set }) => {
    LOAD[field](to);
    to.lookup(set);
  },
  matchNotInSet: (to, { field, set }) => {
    LOAD[field](to);
    to.lookupMissing(set);
  },
  matchOverRate: (to, { fields: [field, behindMark], set, perSecond, burstPackets }) => {
    LOAD[field](to);
    if (behindMark !== undefined) LOAD[behindMark](to, REG_BEHIND_MARK);
    to.updateLimit(set, perSecond, burstPackets);
  },
  orMark: (to, { value }) => {
    to.meta(META_MARK);
    to.maskAndOr(0xffffffff, value);
    to.setMeta(META_MARK);
  },
  maskMark: (to, { mask, value }) => {
    to.meta(META_MARK);
    to.maskAndOr(mask, value);
    to.setMeta(META_MARK);
  },
  setCtMark: (to, { value }) => {
    to.immediate(hostU32(value));
    to.setCt(CT_MARK);
  },
  setCtMarkFromMark: (to, { mask, value }) => {
    to.meta(META_MARK);
    to.maskAndOr(mask, value);
    to.setCt(CT_MARK);
  },
  verdictMap: (to, { field, map }) => {
    LOAD[field](to);
    to.lookup(map, REG_VERDICT);
  },
  counter: (to, { name }) => to.counter(name),
  counterFromMap: (to, { map }) => {
    LOAD.mark(to);
    to.objectFromMap(map);
  },
  limitFromMap: (to, { map }) => {
    LOAD.mark(to);
    to.objectFromMap(map);
  },
  limit: (to, { perSecond, burstPackets }) => to.limit(perSecond, burstPackets),
  log: (to, { prefix, group, snaplenBytes }) => to.log(prefix, group, snaplenBytes),
  rejectTcpReset: (to) => to.reject(REJECT_TCP_RST, 0),
  rejectAdminProhibited: (to) => to.reject(REJECT_ICMPX, ICMPX_ADMIN_PROHIBITED),
  masquerade: (to) => to.masquerade(),
  snat: (to, { to: address }) => {
    to.immediate(addressToBytes(address));
    to.snat(NFPROTO_OF_FAMILY[address.family]);
  },
  verdict: (to, { verdict }) => to.verdict(verdict),
};

/** Writes a rule's statements as kernel expressions, the content of `NFTA_RULE_EXPRESSIONS`. */
export function encodeRule(writer: MessageWriter, rule: Rule): void {
  const expressions = new Expressions(writer);
  for (const statement of rule) {
    (ENCODE[statement.kind] as (to: Expressions, statement: Statement) => void)(expressions, statement);
  }
}
