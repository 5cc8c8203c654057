import { FAMILIES, type Family } from '../net/family.js';
import type { Chain, KeySet, LiveSet } from '../nft/program.js';
import { counter, goto, type Rule } from '../nft/statement.js';

/** What one source address may open of connections, so that one function can't take the table from all. */
export interface Fairness {
  /** A second, and at once; absent: as many as it likes. */
  readonly newConnectionsPerSecondMax?: number;
}

/** New connections that passed unlimited, since more sources are active than SOURCES_MAX. */
export const UNLIMITED_COUNTER = 'unlimited';

/** Source addresses of one family whose rate is kept, or which are held back, at once. */
export const SOURCES_MAX = 65_535;
/** Until a source that opens no connections is forgotten: it has its whole allowance again long before. */
const SOURCE_IDLE_SECONDS = 60;
/** Where the gateway puts sources that have too many connections. */
const CROWDED_SETS: Readonly<Record<Family, string>> = { 4: 'crowded4', 6: 'crowded6' };
/** A set for each rate: a source that is there keeps the rate that it came with for as long as it is active. */
const rateSet = (family: Family, perSecond: number) => `rate${family}_${perSecond}`;
/** Where rules find the source of a connection, and what sets of sources are keyed by. */
export const SOURCES = {
  4: { field: 'ctOriginalSource4', key: 'ipv4_addr' },
  6: { field: 'ctOriginalSource6', key: 'ipv6_addr' },
} as const;

/** Who has how many connections, and how fast: a change of policy leaves them as they are. */
export const liveSets = ({ newConnectionsPerSecondMax }: Fairness): LiveSet[] =>
  FAMILIES.flatMap((family) => {
    const of = { key: [SOURCES[family].key], elementsMax: SOURCES_MAX } as const;
    const crowded = { ...of, name: CROWDED_SETS[family] };
    if (newConnectionsPerSecondMax === undefined) return [crowded];
    const name = rateSet(family, newConnectionsPerSecondMax);
    return [crowded, { ...of, name, idleSeconds: SOURCE_IDLE_SECONDS }];
  });

/** The sets of sources that are to be held back, with what is to be in them: at most SOURCES_MAX of a family. */
export const crowdedSets = (sources: Readonly<Record<Family, readonly bigint[]>>): KeySet[] =>
  FAMILIES.map((family) => ({
    ...{ name: CROWDED_SETS[family], key: SOURCES[family].key, interval: false },
    data: 'none',
    elements: sources[family].map((value) => ({ first: value, last: value, data: undefined })),
  }));

/**
 * Where new connections that policy permits end if their source has its share already, so that one function can't
 * fill the connection table for all. What is not permitted has no entry there, and counts for nothing.
 */
export function fairChain({ newConnectionsPerSecondMax: perSecond }: Fairness): Chain {
  const isOver = (family: Family): Rule[] =>
    perSecond === undefined
      ? []
      : [
          [
            {
              ...{ kind: 'matchOverRate', fields: [SOURCES[family].field], set: rateSet(family, perSecond) },
              ...{ perSecond, burstPackets: perSecond },
            },
            goto('limited'),
          ],
          [
            { kind: 'matchNotInSet', field: SOURCES[family].field, set: rateSet(family, perSecond) },
            counter(UNLIMITED_COUNTER),
          ],
        ];
  return {
    name: 'fair',
    rules: FAMILIES.flatMap((family) => [
      [
        { kind: 'matchInSet', field: SOURCES[family].field, set: CROWDED_SETS[family] } as const,
        goto('limited'),
      ],
      ...isOver(family),
    ]),
  };
}
