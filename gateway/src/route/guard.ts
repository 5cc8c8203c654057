import { NetlinkSocket } from 'nftables-napi';
import { FAMILIES } from '../net/family.js';
import { again } from '../netlink/again.js';
import { NETLINK_ROUTE, type NetlinkConnection } from '../netlink/connection.js';
import { MessageWriter } from '../netlink/writer.js';
import { GUARD_BIT } from '../nft/mark.js';
import {
  type BlackholeRule,
  decodeRule,
  encodeAddRule,
  encodeDeleteRule,
  encodeDumpRules,
  type RoutingRule,
  RTNLGRP_IPV4_RULE,
  RTNLGRP_IPV6_RULE,
} from './rule.js';

/** Right behind the rule for local addresses (0), before any table that could forward. */
export const GUARD_PRIORITY = 1;

function guardRules(interfaces: readonly string[]): BlackholeRule[] {
  return interfaces.flatMap((iifname) =>
    FAMILIES.map((family) => ({ family, priority: GUARD_PRIORITY, iifname, fwmark: 0, fwmask: GUARD_BIT })),
  );
}

/** A rule with the guard's priority and mask is the guard's, for whichever interface. */
function isOurs(rule: RoutingRule): rule is RoutingRule & BlackholeRule {
  return (
    rule.priority === GUARD_PRIORITY &&
    rule.action === 'blackhole' &&
    !rule.otherwiseSelects &&
    rule.iifname !== undefined &&
    rule.fwmark === 0 &&
    rule.fwmask === GUARD_BIT
  );
}

const isSame = (a: BlackholeRule, b: BlackholeRule) => a.family === b.family && a.iifname === b.iifname;

/**
 * The routing rules without which a router with an empty nf_tables forwards everything: what comes in by a guarded
 * interface and lacks the bit that our table sets before routing goes to a blackhole. They stay when we stop.
 */
export class Guard {
  readonly #connection: NetlinkConnection;
  readonly #wanted: readonly BlackholeRule[];
  #sequence = 0;

  constructor(connection: NetlinkConnection, interfaces: readonly string[]) {
    this.#connection = connection;
    this.#wanted = guardRules(interfaces);
  }

  async #request(operation: string, encode: (writer: MessageWriter, sequence: number) => void) {
    const sequence = ++this.#sequence;
    const writer = new MessageWriter();
    encode(writer, sequence);
    return this.#connection.request({
      bytes: writer.bytes(),
      lastSequence: sequence,
      operation: () => operation,
    });
  }

  async #present(): Promise<BlackholeRule[]> {
    const rules: BlackholeRule[] = [];
    for (const family of FAMILIES) {
      const messages = await again(() =>
        this.#request('list routing rules', (writer, sequence) => encodeDumpRules(writer, sequence, family)),
      );
      for (const message of messages) {
        const rule = decodeRule(message)?.rule;
        if (rule !== undefined && isOurs(rule)) rules.push(rule);
      }
    }
    return rules;
  }

  /** Adds the rules that are missing, then removes those for interfaces no longer guarded. Gives how many were missing. */
  async ensure(): Promise<number> {
    const present = await this.#present();
    const missing = this.#wanted.filter((rule) => !present.some((other) => isSame(rule, other)));
    for (const rule of missing) {
      await this.#request(`add routing rule for ${rule.iifname}`, (writer, sequence) =>
        encodeAddRule(writer, sequence, rule),
      );
    }
    for (const rule of present.filter((other) => !this.#wanted.some((wanted) => isSame(wanted, other)))) {
      await this.#request(`remove routing rule for ${rule.iifname}`, (writer, sequence) =>
        encodeDeleteRule(writer, sequence, rule),
      );
    }
    return missing.length;
  }

  /** Calls back when somebody else changed routing rules, or may have: events were lost. */
  watch(onChange: () => void): { close(): void } {
    const socket = new NetlinkSocket({ protocol: NETLINK_ROUTE, onReceive: () => onChange() });
    socket.ignore(this.#connection.portId);
    socket.join(RTNLGRP_IPV4_RULE);
    socket.join(RTNLGRP_IPV6_RULE);
    return socket;
  }
}
