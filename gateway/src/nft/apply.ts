import { isBusy, UnknownOutcomeError } from '../netlink/error.js';
import { Batch } from './batch.js';
import type { NftKernel, TableContent } from './kernel.js';
import { generationChain, type NftMap, type Program } from './program.js';

/** A loading transaction is ended when it has grown to this: the kernel's lock is not held for a whole program. */
const LOAD_TRANSACTION_BYTES_MAX = 1 << 20;

/** Where an application failed. The old program is in force after `load`, and one of the two, whole, after `switch`. */
export type ApplyStage = 'load' | 'switch';

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

const GENERATION_CHAIN = /^generation_([1-9][0-9]*)$/;
const isGenerationChain = (name: string) => GENERATION_CHAIN.test(name);

/** The generation that a table is at; undefined where it has none. */
export function generationOf(content: TableContent): number | undefined {
  const name = [...content.chains].find(isGenerationChain);
  return name === undefined ? undefined : Number(GENERATION_CHAIN.exec(name)![1]);
}

function fixedNames(program: Program): Set<string> {
  return new Set([...program.fixed, generationChain(program.generation)].map(({ name }) => name));
}

function contentOf(program: Program): TableContent {
  return {
    chains: new Set([...fixedNames(program), ...program.chains.map((chain) => chain.name)]),
    maps: new Set(program.maps.map((map) => map.name)),
    counters: new Set(program.counters),
  };
}

/** Cuts the loading of new content into transactions. Nothing in force refers to it before the switch. */
function* loadBatches(program: Program, present: TableContent): Generator<Batch> {
  const chains = program.chains.filter((chain) => !present.chains.has(chain.name));
  const maps = program.maps.filter((map) => !present.maps.has(map.name));
  let batch = new Batch().addTable();
  const full = () => batch.bytes > LOAD_TRANSACTION_BYTES_MAX;
  for (const name of program.counters) if (!present.counters.has(name)) batch.addCounter(name);
  for (const chain of program.fixed) if (chain.base === undefined) batch.addChain(chain);
  for (const chain of chains) batch.addChain(chain);
  for (const map of maps) batch.addMap(map);
  for (const chain of chains) batch.addRules(chain);
  const elements = function* (map: NftMap) {
    for (let next = 0; next < map.elements.length; ) {
      next = batch.addElements(map, next);
      if (full()) {
        yield batch;
        batch = new Batch();
      }
    }
  };
  for (const map of maps) yield* elements(map);
  if (!batch.isEmpty) yield batch;
}

/** Rewrites the fixed chains in one transaction: every packet meets the old rules or the new, whole. */
function switchBatch(program: Program, present: TableContent): Batch {
  const batch = new Batch();
  for (const chain of program.fixed) batch.addChain(chain);
  for (const { name } of program.fixed) batch.flushChain(name);
  for (const chain of program.fixed) batch.addRules(chain);
  const previous = generationOf(present);
  if (previous !== undefined && previous !== program.generation)
    batch.deleteChain(generationChain(previous).name);
  return batch.addChain(generationChain(program.generation));
}

/**
 * Makes the kernel's table equal to a program: loads what is new beside the old, switches to it in one small
 * transaction, and collects the old when no packet can be on its way through it any more.
 */
export class Applier {
  readonly #kernel: NftKernel;
  /** What the table holds, as far as is known. */
  #present: TableContent = { chains: new Set(), maps: new Set(), counters: new Set() };
  /** What must stay. Undefined: not known, after a lost answer or at the start. */
  #inForce: TableContent | undefined;
  /** When content left force, by its name; names of different kinds differ. */
  readonly #retiredMs = new Map<string, number>();

  constructor(kernel: NftKernel) {
    this.#kernel = kernel;
  }

  /** Looks at what another process, or a change by hand, left behind. Gives the generation that was in force. */
  async takeOver(): Promise<number | undefined> {
    this.#inForce = undefined;
    this.#retiredMs.clear();
    this.#present = await this.#kernel.list();
    return generationOf(this.#present);
  }

  /**
   * Applies a program. Content names that are already in the table are taken to be right, so a program whose
   * application failed must come back under names of another epoch. Rejects with ApplyError.
   */
  async apply(program: Program): Promise<void> {
    const wanted = contentOf(program);
    try {
      for (const batch of loadBatches(program, this.#present)) await this.#kernel.commit(batch);
    } catch (cause) {
      this.#present = await this.#kernel.list();
      throw new ApplyError('load', cause);
    }
    try {
      await this.#kernel.commit(switchBatch(program, this.#present));
    } catch (cause) {
      this.#present = await this.#kernel.list();
      if (cause instanceof UnknownOutcomeError) this.#inForce = undefined;
      throw new ApplyError('switch', cause);
    }
    this.#inForce = wanted;
    const chains = new Set([...this.#present.chains].filter((name) => !isGenerationChain(name)));
    this.#present = {
      chains: chains.union(wanted.chains),
      maps: this.#present.maps.union(wanted.maps),
      counters: this.#present.counters.union(wanted.counters),
    };
    this.#retire(wanted);
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
    const garbage = (kind: keyof TableContent) => [...this.#present[kind].difference(this.#inForce![kind])];
    const chains = garbage('chains').filter(isDue);
    const maps = garbage('maps').filter(isDue);
    const counters = garbage('counters').filter(isDue);
    if (chains.length + maps.length + counters.length === 0) return this.#retiredMs.size > 0;
    const unbind = new Batch();
    for (const name of chains) unbind.flushChain(name);
    for (const name of maps) unbind.deleteMap(name);
    const remove = new Batch();
    for (const name of chains) remove.deleteChain(name);
    for (const name of counters) remove.deleteCounter(name);
    try {
      await this.#kernel.commit(unbind);
      await this.#kernel.commit(remove);
    } catch (error) {
      this.#present = await this.#kernel.list();
      if (isBusy(error)) return true;
      throw error;
    }
    this.#present = {
      chains: this.#present.chains.difference(new Set(chains)),
      maps: this.#present.maps.difference(new Set(maps)),
      counters: this.#present.counters.difference(new Set(counters)),
    };
    for (const name of [...chains, ...maps, ...counters]) this.#retiredMs.delete(name);
    return this.#retiredMs.size > 0;
  }

  /** Notes when content left force. */
  #retire(wanted: TableContent): void {
    const now = performance.now();
    for (const kind of ['chains', 'maps', 'counters'] as const) {
      for (const name of this.#present[kind]) {
        if (wanted[kind].has(name)) this.#retiredMs.delete(name);
        else if (!this.#retiredMs.has(name)) this.#retiredMs.set(name, now);
      }
    }
  }
}
