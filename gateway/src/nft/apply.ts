import { isBusy, UnknownOutcomeError } from '../netlink/error.js';
import { Batch, TABLE_DORMANT, TABLE_OWNER, TABLE_PERSIST } from './batch.js';
import { EMPTY_TABLE, type NftKernel, type TableContent } from './kernel.js';
import {
  type Additions,
  type ElementData,
  generationChain,
  type KeySet,
  type MapEdit,
  type MapElement,
  type NftMap,
  type Program,
} from './program.js';
import { type ContentInForce, generationOf, isGenerationChain, isKeySet, switchBatch } from './switch.js';

/** A loading transaction is ended when it has grown to this: the kernel's lock is not held for a whole program. */
const ELEMENTS_TRANSACTION_BYTES_MAX = 1 << 20;
/** Behind each with rules the kernel checks all that are in force: 100 ms at 240,000. */
const RULES_TRANSACTION_BYTES_MAX = 8 << 20;

/**
 * Where an application failed. The old program is in force after `load`, and one of the two, whole, after `switch`
 * and `edit`.
 */
export type ApplyStage = 'load' | 'switch' | 'edit';

type OnStage = (stage: ApplyStage | 'collect', seconds: number) => void;

/** The kernel refused a program, or its answer was lost. */
export class ApplyError extends Error {
  override readonly name = 'ApplyError';

  constructor(
    readonly stage: ApplyStage,
    override readonly cause: unknown,
  ) {
    super(`Cannot ${stage} program: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
}

/** What is loaded of a program, before it is switched to. */
type Loaded = Pick<Program, 'fixed' | 'chains' | 'maps' | 'liveSets' | 'counters' | 'limits'>;

type Kind = keyof TableContent;
const KINDS: readonly Kind[] = ['chains', 'maps', 'counters', 'limits'];

const names = (of: Iterable<{ readonly name: string }>) => new Set([...of].map(({ name }) => name));

const contentOf = ({ fixed, chains, maps, liveSets, counters, limits }: Loaded): TableContent => ({
  chains: names([...fixed, ...chains]),
  maps: names([...maps, ...liveSets]),
  counters: new Set(counters),
  limits: names(limits),
});

function union(a: TableContent, b: TableContent): TableContent {
  const of = (kind: Kind) => (b[kind].size === 0 ? a[kind] : a[kind].union(b[kind]));
  return { chains: of('chains'), maps: of('maps'), counters: of('counters'), limits: of('limits') };
}

const grows = (map: NftMap): map is GrowingMap => 'grows' in map && map.grows === true;
type GrowingMap = Extract<NftMap, { grows?: boolean }>;
type Grown = Map<bigint, MapElement<ElementData>>;

/** Elements of one map that are in no program any more, and since when. */
interface Withered {
  readonly map: GrowingMap;
  readonly elements: Map<bigint, { readonly element: MapElement<ElementData>; readonly sinceMs: number }>;
}

/** Deletes of all maps first. */
function addEdits(batch: Batch, edits: readonly MapEdit[]): Batch {
  for (const { map, remove } of edits) batch.deleteElements(map, remove);
  for (const { map, add } of edits) batch.addSomeElements(map, add);
  return batch;
}

/**
 * Makes the kernel's table equal to a program: loads what is new beside the old, switches to it in one small
 * transaction, and collects the old when no packet can be on its way through it any more.
 */
export class Applier {
  readonly #kernel: NftKernel;
  readonly #owns: () => boolean;
  readonly #onStage: OnStage;
  /** What the table has, or gets when it is made, left behind by a process that owned it, or was put to sleep. */
  #tableFlags: number | undefined;
  /** What the table holds, as far as is known. */
  #present: TableContent = EMPTY_TABLE;
  /** Undefined: not known, after a lost answer or at the start. */
  #inForce: ContentInForce | undefined;
  /** Elements of the maps that change in place, by map and key: those that are in the table. */
  #grown = new Map<string, Grown>();
  /** When content left force, by its name; names of different kinds differ. */
  readonly #retiredMs = new Map<string, number>();
  /** Elements that left force, by map. */
  readonly #withered = new Map<string, Withered>();
  /** Chains that are in the table, but maybe without their rules: their collection was begun. */
  readonly #emptied = new Set<string>();

  /**
   * `owns`: others may not change the table while this process lives, and it stays behind. From Linux 6.9. `onStage`:
   * how long what succeeded took.
   */
  constructor(kernel: NftKernel, owns = () => false, onStage: OnStage = () => {}) {
    this.#kernel = kernel;
    this.#owns = owns;
    this.#onStage = onStage;
  }

  /** Looks at what another process, or a change by hand, left behind. Gives the generation that was in force. */
  async takeOver(): Promise<number | undefined> {
    this.#inForce = undefined;
    this.#retiredMs.clear();
    this.#grown.clear();
    this.#withered.clear();
    this.#emptied.clear();
    const flags = await this.#kernel.tableFlags();
    const isFree = flags === undefined || (flags & (TABLE_OWNER | TABLE_PERSIST)) === TABLE_PERSIST;
    const asIs = flags === undefined ? undefined : flags & ~TABLE_DORMANT;
    this.#tableFlags = isFree && this.#owns() ? TABLE_OWNER | TABLE_PERSIST : asIs;
    if (flags !== undefined && flags !== this.#tableFlags)
      await this.#kernel.commit(new Batch().addTable(this.#tableFlags));
    this.#present = await this.#kernel.list();
    return generationOf(this.#present);
  }

  /**
   * Applies a program. Content names that are already in the table are taken to be right, so a program whose
   * application failed must come back under names of another epoch. Rejects with ApplyError.
   */
  async apply(program: Program): Promise<void> {
    const fixed = [...program.fixed, generationChain(program.generation)];
    const wanted = contentOf({ ...program, fixed });
    const grown = new Map(
      program.maps
        .filter(grows)
        .map((map) => [map.name, new Map(map.elements.map((element) => [element.first, element]))]),
    );
    await this.#stage('load', async () => {
      for (const batch of this.#loadBatches(program)) await this.#kernel.commit(batch);
    });
    await this.#stage('switch', () =>
      this.#kernel.commit(switchBatch(program, this.#present, this.#inForce)),
    );
    this.#inForce = { ...wanted, fixed: program.fixed };
    for (const name of wanted.chains) this.#emptied.delete(name);
    const chains = new Set([...this.#present.chains].filter((name) => !isGenerationChain(name)));
    this.#present = union({ ...this.#present, chains }, wanted);
    this.#retire(wanted);
    this.#wither(program, grown);
  }

  /** Cuts the loading of new content into transactions. Nothing in force refers to it before the switch, or the edits. */
  *#loadBatches(program: Loaded): Generator<Batch> {
    const chains = program.chains.filter(
      ({ name }) => !this.#present.chains.has(name) || this.#emptied.has(name),
    );
    const maps = program.maps.filter((map) => !this.#present.maps.has(map.name) && !isKeySet(map));
    let batch = new Batch();
    function* cut(bytesMax: number): Generator<Batch> {
      if (batch.bytes <= bytesMax) return;
      yield batch;
      batch = new Batch();
    }
    if (this.#present.chains.size === 0) batch.addTable(this.#tableFlags);
    for (const name of program.counters) if (!this.#present.counters.has(name)) batch.addCounter(name);
    for (const limit of program.limits) if (!this.#present.limits.has(limit.name)) batch.addLimit(limit);
    for (const chain of program.fixed)
      if (chain.base === undefined && !this.#present.chains.has(chain.name)) batch.addChain(chain);
    for (const chain of chains) batch.addChain(chain);
    for (const map of maps) batch.addMap(map);
    for (const set of program.liveSets) if (!this.#present.maps.has(set.name)) batch.addLiveSet(set);
    for (const chain of chains) {
      if (this.#emptied.has(chain.name)) batch.flushChain(chain.name);
      batch.addRules(chain);
      yield* cut(RULES_TRANSACTION_BYTES_MAX);
    }
    for (const map of program.maps) {
      if (!grows(map) || !this.#present.maps.has(map.name)) continue;
      const known = this.#grown.get(map.name);
      if (known === undefined) {
        throw new Error(
          `map "${map.name}" is there with elements unknown, a map of another name was expected`,
        );
      }
      // What left force may have been deleted by a collection whose answer was lost.
      const leaving = this.#withered.get(map.name)?.elements;
      const added = (map.elements as readonly MapElement<ElementData>[]).filter(
        ({ first }) => !known.has(first) || leaving?.has(first),
      );
      batch.addSomeElements(map, added);
    }
    for (const map of maps) {
      for (let next = 0; next < map.elements.length; ) {
        next = batch.addElements(map, next);
        yield* cut(ELEMENTS_TRANSACTION_BYTES_MAX);
      }
    }
    if (!batch.isEmpty) yield batch;
  }

  /**
   * Changes elements of maps in place, in one transaction, after what they lead to was added. Where a connection may
   * lose what it had, the same transaction takes the generation out of force: until the next program each packet is
   * judged. Rejects with ApplyError.
   *
   * Cost: the size of the maps that are touched, and of the edits; with chains added, of all rules in the table.
   */
  async edit(edits: readonly MapEdit[], revoked: KeySet | undefined, added?: Additions): Promise<void> {
    if (added !== undefined) await this.#add(added);
    if (edits.length === 0) return;
    const batch = new Batch();
    if (revoked !== undefined) batch.deleteElements(revoked, revoked.elements);
    addEdits(batch, edits);
    await this.#stage('edit', () => this.#kernel.commit(batch));
  }

  async #add(added: Additions): Promise<void> {
    if (this.#inForce === undefined)
      throw new Error('nothing is known to be in force, a program was expected');
    const loaded: Loaded = { fixed: [], liveSets: [], ...added };
    const content = contentOf(loaded);
    await this.#stage('load', async () => {
      let batch = new Batch();
      for (const next of this.#loadBatches(loaded)) {
        if (!batch.isEmpty) await this.#kernel.commit(batch);
        batch = next;
      }
      await this.#kernel.commit(addEdits(batch, added.prepared));
    });
    this.#present = union(this.#present, content);
    this.#inForce = { ...union(this.#inForce, content), fixed: this.#inForce.fixed };
    for (const kind of KINDS) for (const name of content[kind]) this.#retiredMs.delete(name);
    for (const name of content.chains) this.#emptied.delete(name);
    for (const { name, elements } of added.maps.filter(grows)) {
      const withered = this.#withered.get(name)?.elements;
      for (const element of elements) {
        this.#grown.get(name)?.set(element.first, element);
        withered?.delete(element.first);
      }
      if (withered?.size === 0) this.#withered.delete(name);
    }
  }

  async #stage(stage: ApplyStage, commit: () => Promise<void>): Promise<void> {
    const startMs = performance.now();
    try {
      await commit();
      this.#onStage(stage, (performance.now() - startMs) / 1000);
    } catch (cause) {
      if (stage !== 'load' && cause instanceof UnknownOutcomeError) this.#inForce = undefined;
      this.#grown.clear();
      this.#present = await this.#kernel.list();
      throw new ApplyError(stage, cause);
    }
  }

  /**
   * Deletes what left force at least so long ago. A second or more is needed under traffic: before Linux 6.2 a
   * deleted map lets go of its chains late, and packets may still be on their way through the old content. Gives
   * whether anything is left for a later call.
   */
  async collect(ageMs = 0): Promise<boolean> {
    if (this.#inForce === undefined) return false;
    const now = performance.now();
    const isDue = (name: string) => now - (this.#retiredMs.get(name) ?? 0) >= ageMs;
    const garbage = (kind: Kind) => [...this.#present[kind].difference(this.#inForce![kind])].filter(isDue);
    const chains = garbage('chains');
    const maps = garbage('maps');
    const counters = garbage('counters');
    const limits = garbage('limits');
    const withered = [...this.#withered.values()]
      .filter(({ map }) => this.#inForce!.maps.has(map.name))
      .map(({ map, elements }) => ({
        map,
        due: [...elements.values()].filter(({ sinceMs }) => now - sinceMs >= ageMs),
      }))
      .filter(({ due }) => due.length > 0);
    const gone = [...chains, ...maps, ...counters, ...limits];
    if (gone.length + withered.length === 0) return this.#hasGarbage;
    const unbind = new Batch();
    for (const { map, due } of withered) {
      const elements = due.map(({ element }) => element);
      // What is not there can't be deleted: an earlier collection may have been carried out and its answer lost.
      unbind.addSomeElements(map, elements).deleteElements(map, elements);
    }
    for (const name of chains) {
      unbind.flushChain(name);
      this.#emptied.add(name);
    }
    for (const name of maps) unbind.deleteMap(name);
    const remove = new Batch();
    for (const name of chains) remove.deleteChain(name);
    for (const name of counters) remove.deleteCounter(name);
    for (const name of limits) remove.deleteLimit(name);
    try {
      await this.#kernel.commit(unbind);
      for (const { map, due } of withered) this.#forget(map.name, due);
      for (const name of maps) {
        this.#grown.delete(name);
        this.#withered.delete(name);
      }
      await this.#kernel.commit(remove);
    } catch (error) {
      this.#present = await this.#kernel.list();
      this.#forgetGone();
      if (isBusy(error)) return true;
      throw error;
    }
    this.#present = {
      chains: this.#present.chains.difference(new Set(chains)),
      maps: this.#present.maps.difference(new Set(maps)),
      counters: this.#present.counters.difference(new Set(counters)),
      limits: this.#present.limits.difference(new Set(limits)),
    };
    for (const name of gone) this.#retiredMs.delete(name);
    for (const name of chains) this.#emptied.delete(name);
    this.#onStage('collect', (performance.now() - now) / 1000);
    return this.#hasGarbage;
  }

  get #hasGarbage(): boolean {
    return this.#retiredMs.size + this.#withered.size > 0;
  }

  /** What is not there needs no collection, whoever deleted it. */
  #forgetGone(): void {
    const names = new Set(KINDS.flatMap((kind) => [...this.#present[kind]]));
    for (const name of this.#retiredMs.keys()) if (!names.has(name)) this.#retiredMs.delete(name);
    for (const map of this.#withered.keys()) if (!names.has(map)) this.#withered.delete(map);
    for (const name of this.#emptied) if (!names.has(name)) this.#emptied.delete(name);
  }

  #forget(map: string, due: readonly { readonly element: MapElement<ElementData> }[]): void {
    const elements = this.#withered.get(map)!.elements;
    for (const { element } of due) {
      elements.delete(element.first);
      this.#grown.get(map)?.delete(element.first);
    }
    if (elements.size === 0) this.#withered.delete(map);
  }

  /** Notes when content left force. */
  #retire(wanted: TableContent): void {
    const now = performance.now();
    for (const kind of KINDS) {
      for (const name of this.#present[kind]) {
        if (wanted[kind].has(name)) this.#retiredMs.delete(name);
        else if (!this.#retiredMs.has(name)) this.#retiredMs.set(name, now);
      }
    }
  }

  /** Notes which elements came into force, and when others left it. */
  #wither(program: Program, wanted: ReadonlyMap<string, Grown>): void {
    const now = performance.now();
    for (const map of program.maps.filter(grows)) {
      const present: Grown = this.#grown.get(map.name) ?? new Map();
      const elements = wanted.get(map.name)!;
      const before = this.#withered.get(map.name)?.elements;
      const withered: Withered['elements'] = new Map();
      for (const [key, element] of present) {
        if (!elements.has(key)) withered.set(key, before?.get(key) ?? { element, sinceMs: now });
      }
      for (const [key, element] of elements) present.set(key, element);
      this.#grown.set(map.name, present);
      if (withered.size === 0) this.#withered.delete(map.name);
      else this.#withered.set(map.name, { map, elements: withered });
    }
  }
}
