import { FAMILIES, type Family } from '../net/family.js';
import { type Prefix, sortPrefixes } from '../net/prefix.js';
import { valueOfWords } from '../net/words.js';
import { Intervals } from '../nft/intervals.js';
import { encodeMark, KIND, NUMBER_MAX, RULES_MAX } from '../nft/mark.js';
import type {
  AddressMap,
  Chain,
  KeySet,
  MapEdit,
  MapElement,
  NamedLimit,
  NftMap,
  NumberMap,
  ObjectMap,
  Program,
  VerdictMap,
} from '../nft/program.js';
import type { Verdict } from '../nft/statement.js';
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
import {
  DROP_COUNTERS,
  fixedChains,
  type GatewayInterfaces,
  judgedSet,
  type TopMaps,
} from './fixed-chains.js';
import type { NumberedRule, PolicyInForce, RuleInForce } from './in-force.js';
import { type GroupParts, Members, type MembersChange, touchedBlocks } from './members.js';
import { pairLists } from './pairs.js';
import {
  decisionMark,
  hash,
  ListBook,
  type ListContent,
  logsPackets,
  type RuleObjects,
  ruleObjects,
} from './rule-content.js';
import { OWN_ADDRESSES, type Shard, type ShardChange, Side } from './side.js';

/** What one compilation needs to know. */
export interface PolicyInput {
  readonly policy: PolicyInForce;
  readonly groups: GroupParts;
  /** The gateway's own addresses: members of no group. */
  readonly excluded: readonly Prefix[];
}

/**
 * Bounds on what one policy may make of the kernel; over them a change is refused by name, unless it gives no
 * connection anything that it had not.
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

/** Denied packets of one rule that are logged each second; the rest are counted as suppressed. */
export const LOG_LIMIT = { perSecond: 100, burstPackets: 100 } as const;

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
  counters: DROP_COUNTERS,
  limits: [],
};

/** What came of a compilation. */
export interface Compilation {
  readonly compiled: CompiledPolicy;
  /** Where given, these make the program of the compilation before into this one; none, if it is the same. */
  readonly edits: readonly MapEdit[] | undefined;
  readonly effect: Effect;
}

type SideName = 'src' | 'dst';
const SIDES: readonly SideName[] = ['src', 'dst'];
const SIDE_TEXT: Readonly<Record<SideName, 'source' | 'destination'>> = { src: 'source', dst: 'destination' };

/** A shard in the kernel: its map, and the chain with the one rule that looks it up. */
interface ShardContent {
  readonly map: AddressMap;
  readonly chain: Chain;
}

const jumpTo = (chain: string): Verdict => ({ kind: 'jump', chain });
const single = <Data>(key: number, data: Data): MapElement<Data> => ({
  first: BigInt(key),
  last: BigInt(key),
  data,
});

type GrowingKind = 'lists' | 'monitors' | 'decided' | 'log_limits' | 'suppressed';
type GrowingData = 'verdict' | 'counter' | 'limit';

/** A map that keeps its name while elements come and go; where a key is to mean something else, another takes over. */
class GrowingMap {
  readonly #kind: GrowingKind;
  readonly #epoch: string;
  #serial = 0;
  readonly #known = new Map<number, string>();

  constructor(kind: GrowingKind, epoch: string) {
    this.#kind = kind;
    this.#epoch = epoch;
  }

  /** `entries` are keys, and names of chains to jump to or of objects. */
  mapOf(data: GrowingData, entries: readonly (readonly [number, string])[]): VerdictMap | ObjectMap {
    if (entries.some(([key, name]) => (this.#known.get(key) ?? name) !== name)) {
      this.#serial++;
      this.#known.clear();
    }
    for (const [key, name] of entries) this.#known.set(key, name);
    const shape = {
      name: `${this.#kind}_${hash(`${this.#epoch} ${this.#serial}`)}`,
      key: 'mark',
      interval: false,
      grows: true,
    } as const;
    return data === 'verdict'
      ? { ...shape, data, elements: entries.map(([key, chain]) => single(key, jumpTo(chain))) }
      : { ...shape, data, elements: entries.map(([key, name]) => single(key, name)) };
  }
}

/** All that a rule says to the kernel. */
const textOf = ({ number, action, logging, enforced, rule }: RuleInForce) =>
  JSON.stringify([number, action, logging, enforced, rule.name, rule.protocol, rule.portRanges]);

/**
 * Compiles policy again and again. It keeps the address space cut into classes, and what it made of it, so that a
 * change costs what it touches; equal content has equal names for as long as one compiler lives, and another's names
 * are others. After a failure of any kind a new compiler takes over: what a compilation changed it does not take back.
 */
export class Compiler {
  readonly #epoch: string;
  readonly #members = new Members();
  readonly #groupNumbers = new Map<string, number>();
  readonly #sides: Readonly<Record<SideName, Side>>;
  readonly #classes: Readonly<Record<SideName, Classes>> = { src: new Classes(), dst: new Classes() };
  readonly #lists: ListBook;
  readonly #grown: Readonly<Record<GrowingKind, GrowingMap>>;
  readonly #shards = new Map<Shard, ShardContent>();
  #shardCount = 0;
  #policy: PolicyInForce | undefined;
  #policyText = '';
  #texts: readonly string[] = [];
  #universalText = '';
  /** By rule position: whether the rule matches every address of the other side. */
  #isBroad: Readonly<Record<SideName, readonly boolean[]>> = { src: [], dst: [] };
  /** By rule position: whether no rule behind it can be reached, where it matches at all. */
  #endsList: readonly boolean[] = [];
  #rulesOfGroup: Readonly<Record<SideName, ReadonlyMap<number, RulePositions>>> = {
    src: new Map(),
    dst: new Map(),
  };
  #excluded = '';
  #compiled: CompiledPolicy | undefined;
  /** Those of the program, kept up to date with edits. */
  #maps: NftMap[] = [];
  #mapIndexes: ReadonlyMap<string, number> = new Map();

  /** `epoch` is part of every content name: another compiler's leftovers are never taken for this one's. */
  constructor(epoch: string) {
    this.#epoch = epoch;
    this.#lists = new ListBook(epoch);
    const growing = (kind: GrowingKind) => new GrowingMap(kind, epoch);
    this.#grown = {
      lists: growing('lists'),
      monitors: growing('monitors'),
      decided: growing('decided'),
      log_limits: growing('log_limits'),
      suppressed: growing('suppressed'),
    };
    this.#sides = {
      src: new Side(this.#members.tags, new Set()),
      dst: new Side(this.#members.tags, new Set()),
    };
  }

  /** Throws PolicyTooLargeError. */
  compile({ policy, groups, excluded }: PolicyInput): Compilation {
    const before = this.#policy;
    const isSamePolicy = this.#takePolicy(policy, groups);
    const members = this.#updateMembers(policy, groups, excluded);
    const effect = bothEffects(
      members.effect,
      isSamePolicy ? NO_EFFECT : before === undefined ? ANY_EFFECT : effectOfPolicy(before, policy),
    );
    if (effect.grants && policy.rules.length > POLICY_LIMITS.rulesMax) {
      throw new PolicyTooLargeError('rulesMax', policy.rules.length);
    }
    const changes = this.#cutSides(members.changes, isSamePolicy);
    const edits = isSamePolicy ? this.#editsOf(changes) : undefined;
    if (edits !== undefined) return { compiled: this.#compiled!, edits, effect };
    this.#compiled = this.#compileAll(policy, effect);
    return { compiled: this.#compiled, edits: undefined, effect };
  }

  /** Whether it is the same policy as before: the same objects, or with the same content. */
  #takePolicy(policy: PolicyInForce, groups: GroupParts): boolean {
    const universal = [...this.#groupNumbers.keys()].filter((name) => isUniversal(groups.get(name)));
    const universalText = universal.join('\n');
    const isSameUniversal = universalText === this.#universalText;
    this.#universalText = universalText;
    if (this.#compiled !== undefined && policy === this.#policy && isSameUniversal) return true;
    this.#policy = policy;
    const texts = policy.rules.map(textOf);
    const sides = policy.rules.map(({ rule }) => [rule.src, rule.dst]);
    const text = JSON.stringify([texts, sides, policy.byDefault]);
    if (this.#compiled !== undefined && text === this.#policyText && isSameUniversal) return true;
    this.#texts = texts;
    this.#policyText = text;
    this.#rulesOfGroup = this.#rulesByGroup(policy);
    const isBroad = (names: readonly string[]) => names.some((name) => isUniversal(groups.get(name)));
    this.#isBroad = {
      src: policy.rules.map(({ rule }) => isBroad(rule.dst)),
      dst: policy.rules.map(({ rule }) => isBroad(rule.src)),
    };
    this.#endsList = policy.rules.map(
      ({ enforced, rule }) => enforced && rule.protocol === 'ANY' && rule.portRanges.length === 0,
    );
    return false;
  }

  #groupNumber(name: string): number {
    let number = this.#groupNumbers.get(name);
    if (number === undefined) {
      number = OWN_ADDRESSES + 1 + this.#groupNumbers.size;
      this.#groupNumbers.set(name, number);
    }
    return number;
  }

  #rulesByGroup(policy: PolicyInForce): Readonly<Record<SideName, ReadonlyMap<number, RulePositions>>> {
    const byGroup = { src: new Map<number, number[]>(), dst: new Map<number, number[]>() };
    for (const [position, { rule }] of policy.rules.entries()) {
      for (const side of SIDES) {
        for (const name of new Set(rule[side])) {
          const group = this.#groupNumber(name);
          const positions = byGroup[side].get(group);
          if (positions === undefined) byGroup[side].set(group, [position]);
          else positions.push(position);
        }
      }
    }
    const packed = (map: ReadonlyMap<number, number[]>) =>
      new Map([...map].map(([group, positions]) => [group, Uint16Array.from(positions)]));
    return { src: packed(byGroup.src), dst: packed(byGroup.dst) };
  }

  /** Brings the trees up to date, for groups that policy names and those it named before. */
  #updateMembers(policy: PolicyInForce, groups: GroupParts, excluded: readonly Prefix[]) {
    const changes: MembersChange[] = [];
    let effect = NO_EFFECT;
    for (const [name, group] of this.#groupNumbers) {
      const change = this.#members.set(group, groups.get(name) ?? []);
      if (change.added.length + change.removed.length === 0) continue;
      changes.push(change);
      for (const side of SIDES) {
        const rules = [...(this.#rulesOfGroup[side].get(group) ?? [])].map(
          (position) => policy.rules[position]!,
        );
        effect = bothEffects(
          effect,
          effectOfMembers(rules, change.added.length > 0, change.removed.length > 0),
        );
      }
    }
    const own = sortPrefixes(excluded);
    const text = own.map(({ family, value, length }) => `${family} ${value} ${length}`).join();
    if (text !== this.#excluded) {
      this.#excluded = text;
      changes.push(this.#members.set(OWN_ADDRESSES, [own]));
      effect = ANY_EFFECT;
    }
    return { changes, effect };
  }

  /** Cuts what changed anew. Undefined for a side that was cut wholly. */
  #cutSides(
    changes: readonly MembersChange[],
    isSamePolicy: boolean,
  ): Record<SideName, readonly ShardChange[] | undefined> {
    const blocks = touchedBlocks(changes);
    const touched = blocks[4].length + blocks[6].length;
    const cutSide = (name: SideName): readonly ShardChange[] | undefined => {
      const side = this.#sides[name];
      const used = isSamePolicy ? side.usedGroups : new Set(this.#rulesOfGroup[name].keys());
      const isSameUse =
        isSamePolicy ||
        (this.#compiled !== undefined && used.symmetricDifference(side.usedGroups).size === 0);
      if (isSameUse && touched <= TOUCHED_BLOCKS_MAX) {
        return FAMILIES.flatMap((family) => side.sweepBlocks(this.#members.trees[family], blocks[family]));
      }
      side.sweepAll(this.#members.trees, used);
      return undefined;
    };
    return { src: cutSide('src'), dst: cutSide('dst') };
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
    const numbers: Uint32Array[] = [];
    for (const { after } of changed) {
      if (after.length > 1) return undefined;
      const classed = this.#classedAs(name, after[0]!);
      if (classed === undefined) return undefined;
      numbers.push(classed);
    }
    const edits: MapEdit[] = [];
    for (const [index, { before, after }] of changed.entries()) {
      const content = this.#shards.get(before)!;
      const shard = after[0]!;
      const elements = intervalsOf(shard, numbers[index]!);
      const { remove, add } = content.map.elements.changesTo(elements);
      const map: AddressMap = { ...content.map, elements };
      if (remove.some(reachesTop(shard.family)) || add.some(reachesTop(shard.family))) return undefined;
      if (remove.length + add.length > 0) edits.push({ map, remove, add });
      this.#shards.delete(before);
      this.#shards.set(shard, { ...content, map });
    }
    for (const { map } of edits) this.#maps[this.#mapIndexes.get(map.name)!] = map;
    return edits;
  }

  /** The class of each stretch; undefined where the program in force has no class for one. */
  #classedAs(name: SideName, { atoms }: Shard): Uint32Array | undefined {
    const classes = this.#classes[name];
    const numbers = new Uint32Array(atoms.length);
    for (const [index, atom] of atoms.entries()) {
      const number = classes.classOf(atom) ?? classes.adopt(atom, this.#rulesOf(name, atom));
      if (number === undefined || !classes.live.has(number)) return undefined;
      numbers[index] = baseOf(name) + number;
    }
    return numbers;
  }

  #rulesOf(name: SideName, atom: number): RulePositions {
    const rules = rulesOfAtom(this.#sides[name].atoms, atom, this.#rulesOfGroup[name]);
    // Behind a rule that decides everything for every address of the other side, nothing tells classes apart.
    const end = rules.findIndex(
      (position) => this.#endsList[position] === true && this.#isBroad[name][position] === true,
    );
    return end < 0 ? rules : rules.subarray(0, end + 1);
  }

  #compileAll(policy: PolicyInForce, effect: Effect): CompiledPolicy {
    const refuseOver = (limit: keyof typeof POLICY_LIMITS, found: number) => {
      if (effect.grants && found > POLICY_LIMITS[limit]) throw new PolicyTooLargeError(limit, found);
    };
    for (const name of SIDES) {
      this.#classes[name].assign(
        this.#sides[name].liveAtoms(),
        (atom) => this.#rulesOf(name, atom),
        (position) => this.#isBroad[name][position]!,
      );
      refuseOver('classesMax', this.#classes[name].live.size);
    }
    const { src, dst } = this.#classes;
    refuseOver('pairsMax', src.live.size * dst.live.size);

    const chains = new Map<string, Chain>();
    const maps = new Map<string, NftMap>();
    const rows = this.#rows(policy);
    const lists = new Set(rows.flatMap(({ lists }) => lists));
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
    const sourceElements = rows.map(({ source, chain }) => single(source, jumpTo(chain.name)));
    const sources: VerdictMap = {
      name: `sources_${hash(this.#epoch + JSON.stringify(rows.map(({ source, chain }) => [source, chain.name])))}`,
      key: 'classid',
      interval: false,
      data: 'verdict',
      elements: sourceElements,
    };
    maps.set(sources.name, sources);
    const counting: NumberedRule[] = [...policy.rules, policy.byDefault];
    const logging = counting.filter(logsPackets);
    const marked = (rules: readonly NumberedRule[], object: keyof RuleObjects) =>
      rules.map((rule) => [decisionMark(rule), ruleObjects(rule)[object]] as const);
    const top: TopMaps = {
      ...this.#dispatch(add),
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
    this.#maps = [...maps.values()];
    this.#mapIndexes = new Map(this.#maps.map(({ name }, index) => [name, index]));
    return {
      top,
      chains: [...chains.values()],
      maps: this.#maps,
      counters: [
        ...DROP_COUNTERS,
        ...counting.map((rule) => ruleObjects(rule).decided),
        ...logging.map((rule) => ruleObjects(rule).suppressed),
      ].sort(),
      limits: logging.map((rule): NamedLimit => ({ name: ruleObjects(rule).logLimit, ...LOG_LIMIT })),
    };
  }

  /** Source class by source class, the lists of all destination classes. */
  #rows(policy: PolicyInForce) {
    const sources = [...this.#classes.src.live].sort(([a], [b]) => a - b);
    const destinations = [...this.#classes.dst.live].sort(([a], [b]) => a - b);
    const { lists, listOf } = pairLists(
      sources.map(([, rules]) => rules),
      destinations.map(([, rules]) => rules),
      this.#endsList,
    );
    const byDefault = JSON.stringify(policy.byDefault);
    const contents = new Map<number, ListContent>();
    const contentOf = (list: number): ListContent => {
      let content = contents.get(list);
      if (content === undefined) {
        const positions = lists.positionsOf(list);
        const key = `${positions.map((position) => this.#texts[position]).join('\n')}\n${byDefault}`;
        content = this.#lists.contentOf(
          key,
          positions.map((position) => policy.rules[position]!),
          policy,
        );
        contents.set(list, content);
      }
      return content;
    };
    const destinationNumbers = destinations.map(([number]) => number);
    return sources.map(([source], row) => {
      const of = listOf.subarray(row * destinations.length, (row + 1) * destinations.length);
      return { source, ...this.#row(of, destinationNumbers, contentOf) };
    });
  }

  /** The map from destination classes to lists of one source class. It covers all numbers a class can have. */
  #row(listOf: Uint32Array, destinations: readonly number[], contentOf: (list: number) => ListContent) {
    const elements: MapElement<number>[] = [];
    const used = new Set<ListContent>();
    let first = 0;
    let data = -1;
    const end = (next: number) => {
      if (data < 0) return;
      const element = {
        first: BigInt(KIND.destination + first),
        last: BigInt(KIND.destination + next - 1),
        data,
      };
      elements.push(element);
      first = next;
    };
    for (const [index, list] of listOf.entries()) {
      const content = contentOf(list);
      used.add(content);
      const number = KIND.list | content.number;
      if (number === data) continue;
      end(destinations[index]!);
      data = number;
    }
    end(NUMBER_MAX + 1);
    const text = elements.map(({ first, data }) => `${first} ${data}`).join('\n');
    const name = hash(`${this.#epoch}\0${text}`);
    const map: NumberMap = { name: `to_${name}`, key: 'mark', data: 'mark', interval: true, elements };
    const chain: Chain = {
      name: `from_${name}`,
      rules: [[{ kind: 'setMarkFromMarkIntervals', map: map.name }]],
    };
    return { map, chain, lists: [...used] };
  }

  /** The maps from addresses to shards, of which those that are as they were keep their names. */
  #dispatch(add: (content: { readonly chains: readonly Chain[]; readonly maps: readonly NftMap[] }) => void) {
    const live = new Set<Shard>();
    const dispatchOf = (name: SideName, family: Family): string => {
      const elements: MapElement<Verdict>[] = [];
      for (const shard of this.#sides[name].shards) {
        if (shard.family !== family) continue;
        live.add(shard);
        const { map, chain } = this.#shardContent(name, shard);
        add({ chains: [chain], maps: [map] });
        const bounds = { first: valueOfWords(shard.block.words), last: valueOfWords(shard.last) };
        elements.push({ ...bounds, data: jumpTo(chain.name) });
      }
      const text = elements.map(({ first, data }) => `${first} ${'chain' in data && data.chain}`).join('\n');
      const map: VerdictMap = {
        name: `${SIDE_TEXT[name]}${family}_${hash(`${this.#epoch}\0${text}`)}`,
        key: family === 4 ? 'ipv4_addr' : 'ipv6_addr',
        interval: true,
        data: 'verdict',
        elements,
      };
      add({ chains: [], maps: [map] });
      return map.name;
    };
    const dispatch = {
      source4: dispatchOf('src', 4),
      source6: dispatchOf('src', 6),
      destination4: dispatchOf('dst', 4),
      destination6: dispatchOf('dst', 6),
    };
    for (const shard of this.#shards.keys()) if (!live.has(shard)) this.#shards.delete(shard);
    return dispatch;
  }

  #shardContent(name: SideName, shard: Shard): ShardContent {
    const numbers = this.#classedAs(name, shard)!;
    const elements = intervalsOf(shard, numbers);
    const known = this.#shards.get(shard);
    if (known !== undefined) {
      const { remove, add } = known.map.elements.changesTo(elements);
      if (remove.length + add.length === 0) return known;
    }
    const kind = `${SIDE_TEXT[name]}${shard.family}`;
    const id = `${hash(`${this.#epoch} shard ${this.#shardCount++}`)}`;
    const field = name === 'src' ? 'ctOriginalSource' : 'ctOriginalDestination';
    const map: AddressMap = {
      name: `${kind}_classes_${id}`,
      key: shard.family === 4 ? 'ipv4_addr' : 'ipv6_addr',
      data: name === 'src' ? 'classid' : 'mark',
      interval: true,
      elements,
    };
    const chain: Chain = {
      name: `${kind}_shard_${id}`,
      rules: [
        [
          {
            kind: name === 'src' ? 'setPriorityFromMap' : 'setMarkFromMap',
            field: `${field}${shard.family}`,
            map: map.name,
          },
        ],
      ],
    };
    const content = { map, chain };
    this.#shards.set(shard, content);
    return content;
  }
}

/** Whether a group holds every address but the gateway's own. Prefixes ascend, the shortest of an address first. */
function isUniversal(parts: readonly (readonly Prefix[])[] | undefined): boolean {
  const holds = (family: Family) =>
    parts?.some((part) => part.find((prefix) => prefix.family === family)?.length === 0) === true;
  return holds(4) && holds(6);
}

/** Source classes are kept in the priority, where they need no kind. */
const baseOf = (name: SideName) => (name === 'src' ? 0 : KIND.destination);

/** The kernel's intervals of a shard: neighbours of one class are one. */
function intervalsOf({ family, starts, last }: Shard, numbers: Uint32Array): Intervals {
  const words = last.length;
  const kept: number[] = [];
  for (let index = 0; index < numbers.length; index++) {
    if (index === 0 || numbers[index] !== numbers[index - 1]) kept.push(index);
  }
  if (kept.length === numbers.length) return new Intervals(family, starts, numbers, last);
  const packed = new Uint32Array(kept.length * words);
  for (const [to, from] of kept.entries())
    packed.set(starts.subarray(from * words, (from + 1) * words), to * words);
  return new Intervals(
    family,
    packed,
    Uint32Array.from(kept, (index) => numbers[index]!),
    last,
  );
}

/** An interval that ends with the address space has no end in the kernel: it is not changed in place. */
const reachesTop = (family: Family) => {
  const top = family === 4 ? 0xffffffffn : (1n << 128n) - 1n;
  return ({ last }: MapElement<number>) => last === top;
};

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
  return { generation, fixed, maps: [...maps, judged(generation)], ...content };
}
