import { FAMILIES } from '../net/family.js';
import { type Prefix, sortPrefixes } from '../net/prefix.js';
import { encodeMark } from '../nft/mark.js';
import type { Additions, KeySet, MapEdit, Program } from '../nft/program.js';
import { Books } from './books.js';
import {
  ANY_EFFECT,
  bothEffects,
  type Effect,
  effectOfMembers,
  effectOfPolicy,
  NO_EFFECT,
} from './change.js';
import { compileAll } from './compile-all.js';
import type { GroupPrefixes } from './evaluate.js';
import { liveSets } from './fairness.js';
import { fixedChains, type GatewayInterfaces, judgedSet } from './fixed-chains.js';
import { single } from './growing-map.js';
import type { PolicyInForce } from './in-force.js';
import { changeRules, type InPlace, moveAddresses } from './in-place.js';
import { POLICY_LIMITS, PolicyTooLargeError } from './limits.js';
import { logSets } from './log-limits.js';
import { type GroupParts, type MembersChange, touchedBlocks } from './members.js';
import type { CompiledPolicy } from './program-content.js';
import type { RulesChange } from './rule-index.js';
import type { SideName } from './shard-content.js';
import { OWN_ADDRESSES, type ShardChange } from './side.js';

/** What one compilation needs to know. */
export interface PolicyInput {
  readonly policy: PolicyInForce;
  readonly groups: GroupParts;
  /** The gateway's own addresses: members of no group. */
  readonly excluded: readonly Prefix[];
  /** It was in force before this compiler was made: it is not refused for its size. */
  readonly wasInForce?: boolean;
}

/** Changed prefixes up to which shards are cut anew one by one; of more, the whole side is. */
const TOUCHED_BLOCKS_MAX = 4_096;

/** What came of a compilation. */
export interface Compilation {
  readonly compiled: CompiledPolicy;
  /** Where given, these make the program of the compilation before into this one; none, if it is the same. */
  readonly edits: readonly MapEdit[] | undefined;
  /** What edits lead to: it comes before them. */
  readonly added: Additions | undefined;
  /** Of a compiler's first compilation: any. */
  readonly effect: Effect;
}

/** By side, the shards that were cut anew; undefined where the whole side was. */
type Cut = Readonly<Record<SideName, readonly ShardChange[] | undefined>>;

/**
 * Compiles policy again and again. It keeps the address space cut into classes, and what it made of it, so that a
 * change costs what it touches; equal content has equal names for as long as one compiler lives, and another's names
 * are others. After a failure of any kind a new compiler takes over: what a compilation changed it does not take back.
 */
export class Compiler {
  readonly #books: Books;
  #excluded = '';

  /** `epoch` is part of every content name: another compiler's leftovers are never taken for this one's. */
  constructor(epoch: string) {
    this.#books = new Books(epoch);
  }

  /** Throws PolicyTooLargeError. */
  compile({ policy, groups, excluded, wasInForce = false }: PolicyInput): Compilation {
    const books = this.#books;
    const before = books.rules.policy;
    const rules = books.rules.take(policy, groups);
    const isSame = rules !== undefined && rules.removed.length + rules.added.length === 0;
    const own = this.#takeExcluded(excluded);
    const src = this.#updateMembers('src', policy, groups);
    const dst = this.#updateMembers('dst', policy, groups);
    const effect = [
      src.effect,
      dst.effect,
      before === undefined ? ANY_EFFECT : isSame ? NO_EFFECT : effectOfPolicy(before, policy),
      own === undefined ? NO_EFFECT : ANY_EFFECT,
    ].reduce(bothEffects);
    if (policy.rules.length > POLICY_LIMITS.rulesMax) {
      throw new PolicyTooLargeError('rulesMax', policy.rules.length);
    }
    const ownChanges = (name: SideName) =>
      own === undefined ? [] : [books.sides[name].members.set(OWN_ADDRESSES, [own])];
    const cut = {
      src: this.#cut('src', [...src.changes, ...ownChanges('src')]),
      dst: this.#cut('dst', [...dst.changes, ...ownChanges('dst')]),
    };
    const inPlace = this.#changeInPlace(policy, rules, cut);
    if (inPlace === undefined) compileAll(books, policy, effect.grants && !wasInForce);
    return {
      compiled: books.content!.compiled,
      edits: inPlace?.edits,
      added: inPlace?.added,
      effect,
    };
  }

  /** Brings the members of one side's groups up to date. Gives what changed, and what that may do. */
  #updateMembers(
    name: SideName,
    policy: PolicyInForce,
    groups: GroupParts,
  ): { readonly changes: readonly MembersChange[]; readonly effect: Effect } {
    const { rules, sides } = this.#books;
    const changes: MembersChange[] = [];
    let effect = NO_EFFECT;
    for (const [groupName, group] of rules.groups) {
      const positions = rules.ofGroup[name].get(group);
      const parts = positions === undefined ? [] : (groups.get(groupName) ?? []);
      const change = sides[name].members.set(group, parts);
      if (change.added.length + change.removed.length === 0) continue;
      changes.push(change);
      const naming = [...(positions ?? [])].map((position) => policy.rules[position]!);
      const ofChange = effectOfMembers(naming, change.added.length > 0, change.removed.length > 0);
      effect = bothEffects(effect, ofChange);
    }
    return { changes, effect };
  }

  /** Whether the gateway's own addresses are others than before. */
  #takeExcluded(excluded: readonly Prefix[]): readonly Prefix[] | undefined {
    const own = sortPrefixes(excluded);
    const text = own.map(({ family, value, length }) => `${family} ${value} ${length}`).join();
    if (text === this.#excluded) return undefined;
    this.#excluded = text;
    return own;
  }

  #cut(name: SideName, changes: readonly MembersChange[]): readonly ShardChange[] | undefined {
    const side = this.#books.sides[name];
    const blocks = touchedBlocks(changes);
    const isCut = this.#books.content !== undefined;
    if (isCut && blocks[4].length + blocks[6].length <= TOUCHED_BLOCKS_MAX) {
      return FAMILIES.flatMap((family) => side.sweepBlocks(family, blocks[family]));
    }
    side.sweepAll();
    return undefined;
  }

  /**
   * The change as one in place, if it can be that: addresses of one side move, or rules come, go or change. Where more
   * than one of these changes, a packet could meet the old of one and the new of the other.
   */
  #changeInPlace(
    policy: PolicyInForce,
    rules: RulesChange | undefined,
    { src, dst }: Cut,
  ): InPlace | undefined {
    if (this.#books.content === undefined || rules === undefined) return undefined;
    if (src === undefined || dst === undefined) return undefined;
    const changed = [...rules.removed, ...rules.added];
    const kinds = [src, dst, changed].filter(({ length }) => length > 0);
    if (kinds.length > 1) return undefined;
    if (changed.length > 0) return changeRules(this.#books, policy, rules);
    return src.length > 0
      ? moveAddresses(this.#books, policy, 'src', src)
      : moveAddresses(this.#books, policy, 'dst', dst);
  }
}

export interface CompileOnceInput extends Omit<PolicyInput, 'groups'> {
  /** In any order. */
  readonly groups: GroupPrefixes;
  readonly epoch: string;
}

/** Compiles policy once. Equal input gives equal content. Throws PolicyTooLargeError. */
export function compilePolicy(input: CompileOnceInput): CompiledPolicy {
  const groups = new Map([...input.groups].map(([name, prefixes]) => [name, [sortPrefixes(prefixes)]]));
  return new Compiler(input.epoch).compile({ ...input, groups }).compiled;
}

/** The set of the generation whose marks count. */
export const judged = (generation: number): KeySet => ({
  name: judgedSet(generation),
  key: 'mark',
  data: 'none',
  interval: false,
  elements: [single(encodeMark({ generation, rule: 0 }), undefined)],
});

/** The whole program: compiled policy under the fixed chains of one gateway and generation. */
export function programOf(
  { top, maps, ...content }: CompiledPolicy,
  interfaces: GatewayInterfaces,
  generation: number,
): Program {
  const fixed = fixedChains({ interfaces, generation, top });
  return {
    generation,
    fixed,
    maps: [judged(generation), ...maps],
    liveSets: [...liveSets(interfaces), ...logSets],
    ...content,
  };
}
