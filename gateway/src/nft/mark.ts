/**
 * The conntrack mark of a judged connection, and the packet mark of a logged packet:
 *
 *     31              14 13            0
 *    +------------------+--------------+
 *    |    generation    |     rule     |
 *    +------------------+--------------+
 *
 * A rule number means something only together with its generation.
 */
export const RULE_BITS = 14;
export const RULE_MASK = (1 << RULE_BITS) - 1;
export const GENERATION_MASK = ~RULE_MASK >>> 0;

/** Number of the default action; policy rules count from 1. */
export const DEFAULT_RULE_NUMBER = 0;

/** Highest rule number: one policy has at most this many rules in force. */
export const RULES_MAX = RULE_MASK;

/** Highest generation; 0 is never valid, since a connection nobody judged has mark 0. */
export const GENERATION_MAX = GENERATION_MASK >>> RULE_BITS;

/** The bit of the packet mark without which the guard's routing rule lets nothing pass. */
export const GUARD_BIT = 0x8000_0000;

/** The bit of the packet mark that only a permit sets: without it the gate, a chain behind the others, drops. */
export const PASS_BIT = 0x4000_0000;

export interface Mark {
  readonly generation: number;
  readonly rule: number;
}

export function encodeMark({ generation, rule }: Mark): number {
  return ((generation << RULE_BITS) | rule) >>> 0;
}

export function decodeMark(mark: number): Mark {
  return { generation: mark >>> RULE_BITS, rule: mark & RULE_MASK };
}
