import { FAMILIES, type Family } from '../net/family.js';
import { type Prefix, sortPrefixes } from '../net/prefix.js';
import { encodeMark, KIND, RULES_MAX } from '../nft/mark.js';
import type { Chain, KeySet, MapEdit, NamedLimit, NftMap, Program, VerdictMap } from '../nft/program.js';
import {
  ANY_EFFECT,
  bothEffects,
  type Effect,
  effectOfMembers,
  effectOfPolicy,
  NO_EFFECT,
} from './change.js';
import { Classes, type RulePositions, rulesOfAtom } from './classes.js';
import type { GroupPrefixes } from './evaluate.js';
import { liveSets } from './fairness.js';
import {
  FIXED_COUNTERS,
  fixedChains,
  type GatewayInterfaces,
  judgedSet,
  type TopMaps,
} from './fixed-chains.js';
import { type GrowingData, type GrowingKind, GrowingMap, single } from './growing-map.js';
import type { NumberedRule, PolicyInForce } from './in-force.js';
import { LOG_LIMITS, logSets } from './log-limits.js';
import { type GroupParts, type MembersChange, touchedBlocks } from './members.js';
import { RowBook } from './rows.js';
import { decisionMark, hash, ListBook, logsPackets, type RuleObjects, ruleObjects } from './rule-content.js';
import { RuleIndex } from './rule-index.js';
import { ShardBook, type ShardSuccession, SIDES, type SideName } from './shard-content.js';
import { OWN_ADDRESSES, type Shard, type ShardChange, Side } from './side.js';

/** What one compilation needs to know. */
export interface PolicyInput {
  readonly policy: PolicyInForce;
  readonly groups: GroupParts;
  /** The gateway's own addresses: members of no group. */
  readonly excluded: readonly Prefix[];
  /** It was in force before this compiler was made: it is not refused for its size. */
  readonly wasInForce?: boolean;
}

/**
 * Bounds on what one policy may make of the kernel; over them a change is refused by name, unless it gives no
 * connection anything that it had not. More rules have no numbers: that is refused always.
 */
export const POLICY_LIMITS = {
  rulesMax: RULES_MAX,
  classesMax: 65_536,
  pairsMax: 16_000_000,
  listsMax: 65_536,
} as const;

/** A policy needs more rules, classes, pairs or lists than the kernel program may hold. */
export class PolicyTooLargeError extends RangeError {
  override readonly name = 'PolicyTooLargeError';

  constructor(
    readonly limit: keyof typeof POLICY_LIMITS,
    readonly found: number,
  ) {
    super(`Cannot compile policy: it needs ${found} for ${limit}, the limit is ${POLICY_LIMITS[limit]}`);
  }
}

/** Changed prefixes up to which shards are cut anew one by one; of more, the whole side is. */
const TOUCHED_BLOCKS_MAX = 4_096;

/** What policy makes of a program, whatever the generation. */
export interface CompiledPolicy extends Pick<Program, 'chains' | 'maps' | 'counters' | 'limits'> {
  /** Undefined: everything is dropped. */
  readonly top: TopMaps | undefined;
}

/** What a gateway that knows no policy yet enforces: it drops everything it would forward. */
export const closedPolicy: CompiledPolicy = {
  top: undefined,
  chains: [],
  maps: [],
  counters: FIXED_COUNTERS,
  limits: [],
};

/** What came of a compilation. */
export interface Compilation {
  readonly compiled: CompiledPolicy;
  /** Where given, these make the program of the compilation before into this one; none, if it is the same. */
  readonly edits: readonly MapEdit[] | undefined;
  /** Of a compiler's first compilation: any. */
  readonly effect: Effect;
}

/**
 * Compiles policy again and again. It keeps the address space cut into classes, and what it made of it, so that a
 * change costs what it touches; equal content has equal names for as long as one compiler lives, and another's names
 * are others. After a failure of any kind a new compiler takes over: what a compilation changed it does not take back.
 */
export class Compiler {
  readonly #epoch: string;
  readonly #rules = new RuleIndex();
  readonly #sides: Readonly<Record<SideName, Side>> = { src: new Side(), dst: new Side() };
  readonly #classes: Readonly<Record<SideName, Classes>> = { src: new Classes(), dst: new Classes() };
  readonly #lists: ListBook;
  readonly #grown: Readonly<Record<GrowingKind, GrowingMap>>;
  readonly #rows: RowBook;
  readonly #shards: Readonly<Record<SideName, ShardBook>>;
  #excluded = '';
  #compiled: CompiledPolicy | undefined;
  /** Those of the program, kept up to date with edits. */
  #maps: NftMap[] = [];
  #mapIndexes: ReadonlyMap<string, number> = new Map();

  /** `epoch` is part of every content name: another compiler's leftovers are never taken for this one's. */
  constructor(epoch: string) {
    this.#epoch = epoch;
    this.#lists = new ListBook(epoch);
    this.#rows = new RowBook(epoch);
    this.#shards = { src: new ShardBook('src', epoch), dst: new ShardBook('dst', epoch) };
    const growing = (kind: GrowingKind) => new GrowingMap(kind, epoch);
    this.#grown = {
      lists: growing('lists'),
      monitors: growing('monitors'),
      decided: growing('decided'),
      log_limits: growing('log_limits'),
      suppressed: growing('suppressed'),
    };
  }

  /** Throws PolicyTooLargeError. */
  compile({ policy, groups, excluded, wasInForce = false }: PolicyInput): Compilation {
    const before = this.#rules.policy;
    const isSamePolicy = this.#rules.take(policy, groups) && this.#compiled !== undefined;
    const own = this.#takeExcluded(excluded);
    const src = this.#updateMembers('src', policy, groups);
    const dst = this.#updateMembers('dst', policy, groups);
    const ofPolicy = () => (before === undefined ? ANY_EFFECT : effectOfPolicy(before, policy));
    const effect = [
      src.effect,
      dst.effect,
      isSamePolicy ? NO_EFFECT : ofPolicy(),
      own === undefined ? NO_EFFECT : ANY_EFFECT,
    ].reduce(bothEffects);
    if (policy.rules.length > POLICY_LIMITS.rulesMax) {
      throw new PolicyTooLargeError('rulesMax', policy.rules.length);
    }
    const ownChanges = (name: SideName) =>
      own === undefined ? [] : [this.#sides[name].members.set(OWN_ADDRESSES, [own])];
    const changes = {
      src: this.#cut('src', [...src.changes, ...ownChanges('src')]),
      dst: this.#cut('dst', [...dst.changes, ...ownChanges('dst')]),
    };
    const edits = isSamePolicy ? this.#editsOf(changes) : undefined;
    if (edits !== undefined) return { compiled: this.#compiled!, edits, effect };
    this.#compiled = this.#compileAll(policy, effect.grants && !wasInForce);
    return { compiled: this.#compiled, edits: undefined, effect };
  }

  /** Brings the members of one side's groups up to date. Gives what changed, and what that may do. */
  #updateMembers(
    name: SideName,
    policy: PolicyInForce,
    groups: GroupParts,
  ): { readonly changes: readonly MembersChange[]; readonly effect: Effect } {
    const changes: MembersChange[] = [];
    let effect = NO_EFFECT;
    for (const [groupName, group] of this.#rules.groups) {
      const positions = this.#rules.ofGroup[name].get(group);
      const parts = positions === undefined ? [] : (groups.get(groupName) ?? []);
      const change = this.#sides[name].members.set(group, parts);
      if (change.added.length + change.removed.length === 0) continue;
      changes.push(change);
      const rules = [...(positions ?? [])].map((position) => policy.rules[position]!);
      const ofChange = effectOfMembers(rules, change.added.length > 0, change.removed.length > 0);
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

  /** Cuts what changed anew. Undefined where the whole side was cut. */
  #cut(name: SideName, changes: readonly MembersChange[]): readonly ShardChange[] | undefined {
    const side = this.#sides[name];
    const blocks = touchedBlocks(changes);
    if (this.#compiled !== undefined && blocks[4].length + blocks[6].length <= TOUCHED_BLOCKS_MAX) {
      return FAMILIES.flatMap((family) => side.sweepBlocks(family, blocks[family]));
    }
    side.sweepAll();
    return undefined;
  }

  /**
   * The change as edits in place, if it can be one: addresses of one side move between classes that the program has.
   * Where both sides change, a packet could meet the old of one and the new of the other.
   */
  #editsOf(changes: Record<SideName, readonly ShardChange[] | undefined>): readonly MapEdit[] | undefined {
    const { src, dst } = changes;
    if (src === undefined || dst === undefined || (src.length > 0 && dst.length > 0)) return undefined;
    const name = src.length > 0 ? 'src' : 'dst';
    const changed = changes[name]!;
    const successions: ShardSuccession[] = [];
    for (const { before, after } of changed) {
      const [shard, ...more] = after;
      const classes = more.length === 0 ? this.#classesOf(name, shard!) : undefined;
      if (classes === undefined) return undefined;
      successions.push({ before, after: shard!, classes });
    }
    const edits = this.#shards[name].succeed(successions);
    for (const { map } of edits ?? []) this.#maps[this.#mapIndexes.get(map.name)!] = map;
    return edits;
  }

  /** The class of each stretch; undefined where the program in force has no class for one. */
  #classesOf(name: SideName, { atoms }: Shard): Uint32Array | undefined {
    const classes = this.#classes[name];
    const numbers = new Uint32Array(atoms.length);
    for (const [index, atom] of atoms.entries()) {
      const number = classes.classOf(atom) ?? classes.adopt(atom, this.#rulesOf(name, atom));
      if (number === undefined || !classes.live.has(number)) return undefined;
      numbers[index] = number;
    }
    return numbers;
  }

  #rulesOf(name: SideName, atom: number): RulePositions {
    const rules = rulesOfAtom(this.#sides[name].atoms, atom, this.#rules.ofGroup[name]);
    // Behind a rule that decides everything for every address of the other side, nothing tells classes apart.
    const end = rules.findIndex(
      (position) => this.#rules.endsList[position] === true && this.#rules.isBroad[name][position] === true,
    );
    return end < 0 ? rules : rules.subarray(0, end + 1);
  }

  #compileAll(policy: PolicyInForce, isLimited: boolean): CompiledPolicy {
    const refuseOver = (limit: keyof typeof POLICY_LIMITS, found: number) => {
      if (isLimited && found > POLICY_LIMITS[limit]) throw new PolicyTooLargeError(limit, found);
    };
    for (const name of SIDES) {
      this.#classes[name].assign(
        this.#sides[name].liveAtoms(),
        (atom) => this.#rulesOf(name, atom),
        (position) => this.#rules.isBroad[name][position]!,
      );
      refuseOver('classesMax', this.#classes[name].live.size);
    }
    const { src, dst } = this.#classes;
    refuseOver('pairsMax', src.live.size * dst.live.size);

    const chains = new Map<string, Chain>();
    const maps = new Map<string, NftMap>();
    const numbered = (name: SideName) => [...this.#classes[name].live].sort(([a], [b]) => a - b);
    const byDefault = JSON.stringify(policy.byDefault);
    const { rows, lists } = this.#rows.make(
      numbered('src'),
      numbered('dst'),
      this.#rules.endsList,
      (positions) =>
        this.#lists.contentOf(
          [...positions.map((position) => this.#rules.texts[position]), byDefault].join('\n'),
          positions.map((position) => policy.rules[position]!),
          policy,
        ),
    );
    refuseOver('listsMax', lists.size);
    this.#lists.keep(lists);
    const add = (of: { readonly chains: readonly Chain[]; readonly maps: readonly NftMap[] }) => {
      for (const chain of of.chains) chains.set(chain.name, chain);
      for (const map of of.maps) maps.set(map.name, map);
    };
    for (const list of lists) add(list);
    for (const row of rows) add({ chains: [row.chain], maps: [row.map] });
    const monitors = new Set([...lists].flatMap((list) => list.monitors));
    add({ chains: [...monitors].map(({ chain }) => chain), maps: [] });

    const grown = (kind: GrowingKind, data: GrowingData, entries: readonly (readonly [number, string])[]) => {
      const map = this.#grown[kind].mapOf(data, entries);
      maps.set(map.name, map);
      return map.name;
    };
    const sources: VerdictMap = {
      name: `sources_${hash(`${this.#epoch} ${rows.map(({ source, chain }) => `${source} ${chain.name}`).join()}`)}`,
      key: 'classid',
      interval: false,
      data: 'verdict',
      elements: rows.map(({ source, chain }) => single(source, { kind: 'jump', chain: chain.name })),
    };
    maps.set(sources.name, sources);
    const counting: NumberedRule[] = [...policy.rules, policy.byDefault];
    const logging = counting.filter(logsPackets);
    const marked = (rules: readonly NumberedRule[], object: keyof RuleObjects) =>
      rules.map((rule) => [decisionMark(rule), ruleObjects(rule)[object]] as const);
    const dispatch = (name: SideName, family: Family): string => {
      const shards = this.#sides[name].shards.filter((shard) => shard.family === family);
      const content = this.#shards[name].dispatch(family, shards, (shard) => this.#classesOf(name, shard)!);
      add(content);
      return content.map.name;
    };
    const top: TopMaps = {
      source4: dispatch('src', 4),
      source6: dispatch('src', 6),
      destination4: dispatch('dst', 4),
      destination6: dispatch('dst', 6),
      sources: sources.name,
      lists: grown(
        'lists',
        'verdict',
        [...lists].map(({ number, chain }) => [KIND.list | number, chain]),
      ),
      monitors:
        monitors.size === 0
          ? undefined
          : grown(
              'monitors',
              'verdict',
              [...monitors].map(({ number, chain }) => [KIND.monitor | number, chain.name]),
            ),
      decided: grown(
        'decided',
        'counter',
        marked(
          counting.filter(({ enforced }) => enforced),
          'decided',
        ),
      ),
      logLimits: grown('log_limits', 'limit', marked(logging, 'logLimit')),
      suppressed: grown('suppressed', 'counter', marked(logging, 'suppressed')),
    };
    for (const name of SIDES) this.#shards[name].keep(this.#sides[name].shards);
    this.#maps = [...maps.values()];
    this.#mapIndexes = new Map(this.#maps.map(({ name }, index) => [name, index]));
    return {
      top,
      chains: [...chains.values()],
      maps: this.#maps,
      counters: [
        ...FIXED_COUNTERS,
        ...counting.map((rule) => ruleObjects(rule).decided),
        ...logging.map((rule) => ruleObjects(rule).suppressed),
      ].sort(),
      limits: logging.map((rule): NamedLimit => ({ name: ruleObjects(rule).logLimit, ...LOG_LIMITS.rule })),
    };
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
    maps: [...maps, judged(generation)],
    liveSets: [...liveSets(interfaces), ...logSets],
    ...content,
  };
}
