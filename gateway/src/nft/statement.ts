import type { Address } from '../net/address.js';

/** What a rule can look at: one value of the packet or of its connection. */
export type Field =
  | 'iifname'
  | 'oifname'
  | 'mark'
  /** Scratch beside the mark while a packet is judged; set back to 0 behind it. */
  | 'priority'
  | 'ctMark'
  | 'ctOriginalSource4'
  | 'ctOriginalSource6'
  | 'ctOriginalDestination4'
  | 'ctOriginalDestination6'
  | 'ctOriginalProtocol'
  | 'ctOriginalDestinationPort'
  | 'l4proto'
  | 'icmpType'
  | 'icmpv6Type'
  /** Name of the interface through which the source address would be answered. */
  | 'fibSourceOifname';

/** Connection states, the bits of `ct state`. */
export const CT_STATE = { invalid: 1, established: 2, related: 4, new: 8, untracked: 64 } as const;
export type CtState = keyof typeof CT_STATE;

export type Verdict =
  | { readonly kind: 'accept' | 'drop' }
  | { readonly kind: 'jump' | 'goto'; readonly chain: string };

/** One part of a rule, in the words of nft. A rule goes on to its next statement only where this one matches. */
export type Statement =
  | { readonly kind: 'match'; readonly field: Field; readonly value: string | number }
  | { readonly kind: 'matchNot'; readonly field: Field; readonly value: string | number }
  /** `FIELD and MASK == VALUE`, on a mark. */
  | {
      readonly kind: 'matchMasked';
      readonly field: 'mark' | 'ctMark';
      readonly mask: number;
      readonly value: number;
    }
  /** `ct original proto-dst FIRST-LAST`, both included. */
  | { readonly kind: 'matchOriginalPorts'; readonly first: number; readonly last: number }
  /** `FIELD and MASK` is not 0. */
  | { readonly kind: 'matchSomeBits'; readonly field: 'mark' | 'ctMark'; readonly mask: number }
  | { readonly kind: 'matchState'; readonly states: readonly CtState[] }
  /** A TCP packet that is not SYN alone among FIN, SYN, RST and ACK. */
  | { readonly kind: 'matchNotBareSyn' }
  /**
   * No route back to the source address through the interface on which it came. The packet's mark takes part in the
   * lookup: in the forward hook the kernel makes it as if from the outgoing interface, where the guard applies.
   */
  | { readonly kind: 'matchNoReversePath' }
  | { readonly kind: 'setMark'; readonly value: number }
  /** `meta mark set FIELD map @MAP`; where the map has no such key the rule ends. */
  | { readonly kind: 'setMarkFromMap'; readonly field: Field; readonly map: string }
  /** `meta mark set meta mark map @MAP`, where the keys of the map are intervals. */
  | { readonly kind: 'setMarkFromMarkIntervals'; readonly map: string }
  | { readonly kind: 'setPriority'; readonly value: number }
  | { readonly kind: 'setPriorityFromMap'; readonly field: Field; readonly map: string }
  | { readonly kind: 'orMark'; readonly value: number }
  | { readonly kind: 'setCtMark'; readonly value: number }
  /** `ct mark set meta mark and MASK or VALUE`; the same of the mark itself. */
  | { readonly kind: 'setCtMarkFromMark' | 'maskMark'; readonly mask: number; readonly value: number }
  /** `FIELD and MASK` is a key of the set. */
  | {
      readonly kind: 'matchMaskedInSet';
      readonly field: 'mark' | 'ctMark';
      readonly mask: number;
      readonly set: string;
    }
  | { readonly kind: 'matchInSet'; readonly field: Field; readonly set: string }
  | { readonly kind: 'matchNotInSet'; readonly field: Field; readonly set: string }
  /**
   * Packets of these values of the field, or of the mark and the field, come faster than this. The set keeps an
   * allowance for each, as many as it holds; of further ones the rule ends.
   */
  | {
      readonly kind: 'matchOverRate';
      readonly fields: readonly [Field] | readonly ['mark', Field];
      readonly set: string;
      readonly perSecond: number;
      readonly burstPackets: number;
    }
  /** `FIELD vmap @MAP`; where the map has no such key the rule ends. */
  | { readonly kind: 'verdictMap'; readonly field: Field; readonly map: string }
  | { readonly kind: 'counter'; readonly name: string }
  /** The counter, or limit, that the map has for the mark; without one the rule ends. */
  | { readonly kind: 'counterFromMap' | 'limitFromMap'; readonly map: string }
  | { readonly kind: 'limit'; readonly perSecond: number; readonly burstPackets: number }
  | { readonly kind: 'log'; readonly prefix: string; readonly group: number; readonly snaplenBytes: number }
  | { readonly kind: 'rejectTcpReset' }
  | { readonly kind: 'rejectAdminProhibited' }
  | { readonly kind: 'masquerade' }
  | { readonly kind: 'snat'; readonly to: Address }
  | { readonly kind: 'verdict'; readonly verdict: Verdict };

export type StatementOf<Kind extends Statement['kind']> = Extract<Statement, { kind: Kind }>;

/** Statements in order; all must match for the last to act. */
export type Rule = readonly Statement[];

export const accept: Statement = { kind: 'verdict', verdict: { kind: 'accept' } };
export const drop: Statement = { kind: 'verdict', verdict: { kind: 'drop' } };
export const goto = (chain: string): Statement => ({ kind: 'verdict', verdict: { kind: 'goto', chain } });
export const jump = (chain: string): Statement => ({ kind: 'verdict', verdict: { kind: 'jump', chain } });
export const match = (field: Field, value: string | number): Statement => ({ kind: 'match', field, value });
export const counter = (name: string): Statement => ({ kind: 'counter', name });
