import { FAMILIES, type Family } from '../net/family.js';
import type { LiveSet } from '../nft/program.js';
import { goto, type Rule, type Statement } from '../nft/statement.js';
import { SOURCES } from './fairness.js';

/** What of the packets that one rule refuses is logged: a second, and at once. The rest is counted as suppressed. */
export const LOG_LIMITS = {
  /** Of one source address, so that a noisy one leaves room for the records of others. */
  source: { perSecond: 20, burstPackets: 100 },
  /** Of all together, however many there are. */
  rule: { perSecond: 1_000, burstPackets: 1_000 },
} as const;

/** Pairs of a rule and a source address of one family: of further ones, only the limit of the rule holds. */
const PAIRS_MAX = 65_535;
/** Until a pair without refusals is forgotten: it has its whole allowance again before. */
const PAIR_IDLE_SECONDS = 10;
const pairSet = (family: Family) => `log_sources${family}`;

/** Which rule has refused how many packets of which source lately: one set for all rules, which no change touches. */
export const logSets: readonly LiveSet[] = FAMILIES.map((family) => ({
  name: pairSet(family),
  key: ['mark', SOURCES[family].key],
  elementsMax: PAIRS_MAX,
  idleSeconds: PAIR_IDLE_SECONDS,
}));

/**
 * Takes refused packets away, on to `unlogged`, whose source has had its share of the rule's records. `isLogged` is
 * true where the mark says which rule decided, and that it logs.
 */
export const noisySources = (isLogged: Statement, suppressed: string): Rule[] =>
  FAMILIES.map((family) => [
    isLogged,
    {
      ...{ kind: 'matchOverRate', fields: ['mark', SOURCES[family].field], set: pairSet(family) },
      ...LOG_LIMITS.source,
    },
    { kind: 'counterFromMap', map: suppressed },
    goto('unlogged'),
  ]);
