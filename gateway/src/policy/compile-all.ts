import type { Family } from '../net/family.js';
import type { Chain, NftMap } from '../nft/program.js';
import { type Books, chainsOf, objectsOf } from './books.js';
import { FIXED_COUNTERS } from './fixed-chains.js';
import type { PolicyInForce } from './in-force.js';
import { POLICY_LIMITS, PolicyTooLargeError } from './limits.js';
import { type CompiledPolicy, ProgramContent } from './program-content.js';
import { SIDES, type SideName } from './shard-content.js';

/**
 * Compiles all of a policy, whose address space is cut already, and forgets what nothing leads to any more. Content
 * that is what it was keeps its name. Throws PolicyTooLargeError, where the policy is limited.
 *
 * Cost: pairs of classes, and the lists of rules that they have.
 */
export function compileAll(books: Books, policy: PolicyInForce, isLimited: boolean): void {
  const refuseOver = (limit: keyof typeof POLICY_LIMITS, found: number) => {
    if (isLimited && found > POLICY_LIMITS[limit]) throw new PolicyTooLargeError(limit, found);
  };
  for (const name of SIDES) {
    books.classes[name].assign(
      books.sides[name].liveAtoms(),
      (atom) => books.rulesOf(name, atom),
      (position) => books.rules.isBroad[name][position]!,
    );
    refuseOver('classesMax', books.classes[name].live.size);
  }
  const { src, dst } = books.classes;
  refuseOver('pairsMax', src.live.size * dst.live.size);
  const pairs = books.pairsOf(books.numbered('src'), books.numbered('dst'), policy);
  refuseOver('listsMax', pairs.lists.size);
  const rows = books.rows.make(pairs);
  books.keepLists(pairs.lists);
  const counting = [...policy.rules, policy.byDefault];
  const grown = books.grown(rows, pairs.lists, counting);
  const dispatch = (name: SideName, family: Family) => {
    const shards = books.sides[name].shards.filter((shard) => shard.family === family);
    return books.shards[name].dispatch(family, shards, (shard) => books.classesOf(name, shard));
  };
  const shards = {
    source4: dispatch('src', 4),
    source6: dispatch('src', 6),
    destination4: dispatch('dst', 4),
    destination6: dispatch('dst', 6),
  };
  for (const name of SIDES) books.shards[name].keep(books.sides[name].shards);
  const { counters, limits } = objectsOf(counting);
  books.content = new ProgramContent({
    top: {
      source4: shards.source4.map.name,
      source6: shards.source6.map.name,
      destination4: shards.destination4.map.name,
      destination6: shards.destination6.map.name,
      sources: grown.sources.name,
      lists: grown.lists.name,
      monitors: grown.monitors?.name,
      decided: grown.decided.name,
      logLimits: grown.logLimits.name,
      suppressed: grown.suppressed.name,
    },
    chains: byName<Chain>(
      chainsOf(pairs.lists),
      rows.map(({ chain }) => chain),
      ...Object.values(shards).map(({ chains }) => chains),
    ),
    // The kernel finds a map by going through all: those come first that many rules refer to, or that are edited.
    maps: byName<NftMap>(
      Object.values(grown).filter((map) => map !== undefined),
      [...pairs.lists].flatMap(({ maps }) => maps),
      rows.map(({ map }) => map),
      ...Object.values(shards).map(({ maps }) => maps),
    ),
    counters: [...FIXED_COUNTERS, ...counters].sort(),
    limits,
  });
}

/** What a gateway that knows no policy yet enforces: it drops everything it would forward. */
export const closedPolicy: CompiledPolicy = {
  top: undefined,
  chains: [],
  maps: [],
  counters: FIXED_COUNTERS,
  limits: [],
};

/** Each once: lists may share what they are made of. */
function byName<T extends { readonly name: string }>(...of: readonly (readonly T[])[]): readonly T[] {
  return [...new Map(of.flat().map((one) => [one.name, one])).values()];
}
