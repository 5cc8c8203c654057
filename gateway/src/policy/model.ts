/** What a rule, or the default action, decides. REJECT answers with a TCP reset or ICMP admin-prohibited. */
export type Action = 'PERMIT' | 'DENY' | 'REJECT';

/** ICMP means ICMP and ICMPv6. ANY with port ranges means TCP and UDP; without, every protocol. */
export type Protocol = 'TCP' | 'UDP' | 'ICMP' | 'ANY';

/** MONITOR: logged as what it would have decided, evaluation goes on. DISABLE: as if absent. */
export type Enforcement = 'ENFORCE' | 'MONITOR' | 'DISABLE';

/** Destination ports from `lo` to `hi`, both included. */
export interface PortRange {
  readonly lo: number;
  readonly hi: number;
}

/** The user's line. `src` and `dst` name groups; a packet matches when any of each holds its address. */
export interface PolicyRule {
  readonly name: string;
  readonly priority: number;
  readonly action: Action;
  readonly src: readonly string[];
  readonly dst: readonly string[];
  readonly protocol: Protocol;
  /** Empty: all ports. Never given with ICMP. */
  readonly portRanges: readonly PortRange[];
  readonly logging: boolean;
  readonly enforcement: Enforcement;
  /** RFC 3339; from then on the rule is as if absent. */
  readonly expires?: string;
  readonly description?: string;
  readonly owner?: string;
  readonly ticket?: string;
}

export interface DefaultAction {
  readonly action: Action;
  readonly logging: boolean;
}

/** Rules in the order of evaluation (0 first), then the default action. */
export interface Policy {
  readonly rules: readonly PolicyRule[];
  readonly defaultAction: DefaultAction;
}

/** The name under which the default action appears in records and metrics. No rule may have it. */
export const DEFAULT_RULE_NAME = 'default';

/** Groups that every policy can name without defining them. */
export const SYSTEM_GROUPS = ['Anywhere', 'Public Internet'] as const;
export const isSystemGroup = (name: string) => (SYSTEM_GROUPS as readonly string[]).includes(name);
