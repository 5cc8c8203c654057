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

/** The packet mark of what the gateway itself sends to have its kernel answer with a reset. */
export const RESET_MARK = 0x2000_0000;

/**
 * The packet mark while a packet is judged goes through numbers of these kinds. They lie apart, so that what a missed
 * lookup leaves in the mark is never a key of the next one. Source classes are kept in the priority meanwhile.
 *
 *     31          24 23         17  16  15    14 13            0
 *    +--------------+--------------+---+--------+--------------+
 *    |     kind     |              |log| action |     rule     |   a decision
 *    +--------------+--------------+---+--------+--------------+
 *    |     kind     |                  number                  |   the others
 *    +--------------+------------------------------------------+
 */
export const KIND = {
  destination: 0x0200_0000,
  list: 0x0300_0000,
  decision: 0x0400_0000,
  monitor: 0x0500_0000,
  /** Decided by port: the protocol's number. */
  ports: 0x0600_0000,
} as const;
export const KIND_MASK = 0xff00_0000;
/** Highest number of a class, list or monitor. */
export const NUMBER_MAX = 0x00ff_ffff;

export const ACTION_BITS = { PERMIT: 0x4000, DENY: 0x8000, REJECT: 0xc000 } as const;
export const ACTION_MASK = 0xc000;
export const LOG_BIT = 0x1_0000;

export interface Mark {
  readonly generation: number;
  readonly rule: number;
}

export function encodeMark({ generation, rule }: Mark): number {
  return ((generation << RULE_BITS) | rule) >>> 0;
}

/** Whether the mark of a connection, or of a logged packet, is one of ours: 0 is no generation. */
export const isJudged = (mark: number) => (mark & GENERATION_MASK) !== 0;

export function decodeMark(mark: number): Mark {
  return { generation: mark >>> RULE_BITS, rule: mark & RULE_MASK };
}
