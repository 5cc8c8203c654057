import { isDeepStrictEqual } from 'node:util';
import { Batch } from './batch.js';
import type { TableContent } from './kernel.js';
import { type Chain, generationChain, type KeySet, type NftMap, type Program } from './program.js';

const GENERATION_CHAIN = /^generation_([1-9][0-9]*)$/;
export const isGenerationChain = (name: string) => GENERATION_CHAIN.test(name);

/** The generation that a table is at; undefined where it has none. */
export function generationOf(content: TableContent): number | undefined {
  const name = [...content.chains].find(isGenerationChain);
  return name === undefined ? undefined : Number(GENERATION_CHAIN.exec(name)![1]);
}

export const isKeySet = (map: NftMap): map is KeySet => map.data === 'none';

/** What must stay in the table. */
export interface ContentInForce extends TableContent {
  readonly fixed: readonly Chain[];
}

/**
 * Rewrites in one transaction the fixed chains that are not as in force: every packet meets the old rules or the new,
 * whole. The set of judged marks comes with them: whoever misses its key while the kernel commits is judged, as by the
 * rules before.
 */
export function switchBatch(
  program: Program,
  present: TableContent,
  inForce: ContentInForce | undefined,
): Batch {
  const batch = new Batch();
  const before = new Map(inForce?.fixed.map((chain) => [chain.name, chain]));
  const fixed = program.fixed.filter((chain) => !isDeepStrictEqual(chain, before.get(chain.name)));
  for (const set of program.maps.filter(isKeySet)) {
    // It may be there and lack its key, which an edit took out.
    batch.addMap(set).addElements(set, 0);
  }
  for (const chain of fixed) batch.addChain(chain);
  for (const { name } of fixed) batch.flushChain(name);
  for (const chain of fixed) batch.addRules(chain);
  const previous = generationOf(present);
  if (previous !== undefined && previous !== program.generation)
    batch.deleteChain(generationChain(previous).name);
  return batch.addChain(generationChain(program.generation));
}
