import {
  AF_INET,
  AF_INET6,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_REQUEST,
} from '../conntrack/constants.js';
import type { Family } from '../net/family.js';
import { Attributes, type Message } from '../netlink/reader.js';
import type { MessageWriter } from '../netlink/writer.js';

/** linux/rtnetlink.h. */
export const RTM_NEWRULE = 32;
export const RTM_DELRULE = 33;
export const RTM_GETRULE = 34;

/** `enum rtnetlink_groups`: the events of routing rules. */
export const RTNLGRP_IPV4_RULE = 8;
export const RTNLGRP_IPV6_RULE = 19;

const NLM_F_EXCL = 0x200;

/**
 * linux/fib_rules.h. `struct fib_rule_hdr`: family, dst_len, src_len, tos, table, res1, res2, action, flags.
 */
const FIB_RULE_HDR_BYTES = 12;
const FIB_RULE_INVERT = 0x2;
const FR_ACT_BLACKHOLE = 6;
const FRA_IIFNAME = 3;
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_SUPPRESS_PREFIXLEN = 14;
const FRA_TABLE = 15;
const FRA_FWMASK = 16;
const FRA_PROTOCOL = 21;

/** Says nothing about which packets a rule takes: where a table is, and who made the rule. */
const NOT_SELECTORS: readonly number[] = [FRA_SUPPRESS_PREFIXLEN, FRA_TABLE, FRA_PROTOCOL];
const SELECTORS: readonly number[] = [FRA_IIFNAME, FRA_PRIORITY, FRA_FWMARK, FRA_FWMASK];

/** `IFNAMSIZ` of linux/if.h, without the zero byte. */
const INTERFACE_NAME_BYTES_MAX = 15;

/**
 * A routing rule that drops what comes in by an interface with certain mark bits: as `ip rule add pref
 * PRIORITY iif IIFNAME fwmark FWMARK/FWMASK blackhole`.
 */
export interface BlackholeRule {
  readonly family: Family;
  readonly priority: number;
  readonly iifname: string;
  readonly fwmark: number;
  readonly fwmask: number;
}

/** Any routing rule, as far as this module reads it. */
export interface RoutingRule {
  readonly family: Family;
  readonly priority: number;
  readonly iifname: string | undefined;
  readonly fwmark: number;
  readonly fwmask: number;
  /** `other` looks up a table, jumps, refuses, … */
  readonly action: 'blackhole' | 'other';
  /**
   * Whether it selects by something else too (addresses, ports, `not`, …), so that it takes other packets.
   */
  readonly otherwiseSelects: boolean;
}

/** An event: the rule was added or removed. In the answer to a dump all are `added`. */
export interface RoutingRuleEvent {
  readonly kind: 'added' | 'removed';
  readonly rule: RoutingRule;
}

const AF: Readonly<Record<Family, number>> = { 4: AF_INET, 6: AF_INET6 };

function header(family: Family, action: number): Uint8Array {
  const bytes = new Uint8Array(FIB_RULE_HDR_BYTES);
  bytes[0] = AF[family];
  bytes[7] = action;
  return bytes;
}

function encodeRule(
  writer: MessageWriter,
  type: number,
  flags: number,
  sequence: number,
  rule: BlackholeRule,
): void {
  if (rule.iifname === '' || Buffer.byteLength(rule.iifname) > INTERFACE_NAME_BYTES_MAX) {
    throw new RangeError(
      `Cannot encode routing rule: interface name ${JSON.stringify(rule.iifname)} does not have from 1 to ` +
        `${INTERFACE_NAME_BYTES_MAX} bytes`,
    );
  }
  writer.beginMessage({ type, flags: flags | NLM_F_REQUEST | NLM_F_ACK, sequence });
  writer.raw(header(rule.family, FR_ACT_BLACKHOLE));
  writer.attributeU32(FRA_PRIORITY, rule.priority);
  writer.attributeString(FRA_IIFNAME, rule.iifname);
  writer.attributeU32(FRA_FWMARK, rule.fwmark);
  writer.attributeU32(FRA_FWMASK, rule.fwmask);
  writer.endMessage();
}

/** Appends the addition of a rule, acknowledged; EEXIST where the same one exists. */
export function encodeAddRule(writer: MessageWriter, sequence: number, rule: BlackholeRule): void {
  encodeRule(writer, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, sequence, rule);
}

/** Appends the removal of a rule, acknowledged; ENOENT where there is none. */
export function encodeDeleteRule(writer: MessageWriter, sequence: number, rule: BlackholeRule): void {
  encodeRule(writer, RTM_DELRULE, 0, sequence, rule);
}

/** Appends a request for all rules of a family. Answered by RTM_NEWRULE messages, then NLMSG_DONE. */
export function encodeDumpRules(writer: MessageWriter, sequence: number, family: Family): void {
  writer.beginMessage({ type: RTM_GETRULE, flags: NLM_F_REQUEST | NLM_F_DUMP, sequence });
  writer.raw(header(family, 0));
  writer.endMessage();
}

/**
 * An event of the two groups, or one rule of a dump; undefined for another message, and for rules of neither
 * IPv4 nor IPv6. Throws RangeError for malformed bytes.
 */
export function decodeRule(message: Message): RoutingRuleEvent | undefined {
  if (message.type !== RTM_NEWRULE && message.type !== RTM_DELRULE) return undefined;
  const { payload } = message;
  if (payload.length < FIB_RULE_HDR_BYTES) {
    throw new RangeError(
      `Cannot decode routing rule: it has ${payload.length} bytes, at least ${FIB_RULE_HDR_BYTES} are needed`,
    );
  }
  const [af, dstLength, srcLength, tos] = payload;
  if (af !== AF_INET && af !== AF_INET6) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
  const attributes = new Attributes(payload, FIB_RULE_HDR_BYTES);
  const unread = attributes
    .types()
    .some((type) => !SELECTORS.includes(type) && !NOT_SELECTORS.includes(type));
  const isInverted = (view.getUint32(8, true) & FIB_RULE_INVERT) !== 0;
  const rule: RoutingRule = {
    family: af === AF_INET ? 4 : 6,
    priority: attributes.u32(FRA_PRIORITY) ?? 0,
    iifname: attributes.string(FRA_IIFNAME),
    fwmark: attributes.u32(FRA_FWMARK) ?? 0,
    fwmask: attributes.u32(FRA_FWMASK) ?? 0,
    action: payload[7] === FR_ACT_BLACKHOLE ? 'blackhole' : 'other',
    otherwiseSelects: isInverted || unread || dstLength !== 0 || srcLength !== 0 || tos !== 0,
  };
  return { kind: message.type === RTM_NEWRULE ? 'added' : 'removed', rule };
}
