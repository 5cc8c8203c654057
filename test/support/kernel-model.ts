import assert from 'node:assert/strict';
import { printChain } from 'sluice-gateway/nft/print.js';
import type {
  Additions,
  Chain,
  ElementData,
  MapEdit,
  MapElement,
  NftMap,
  Program,
} from 'sluice-gateway/nft/program.js';
import { type Compilation, programOf } from 'sluice-gateway/policy/compile.js';
import type { Connection } from 'sluice-gateway/policy/evaluate.js';
import type { CompiledPolicy } from 'sluice-gateway/policy/program-content.js';
import { labInterfaces } from './load.js';
import { type Walked, walk } from './walk.js';

type Elements = readonly MapElement<ElementData>[];

const elementsOf = (map: NftMap): Elements => [...(map.elements as Iterable<MapElement<ElementData>>)];
const sideOf = (name: string) => /^(source|destination)[46]_classes_/.exec(name)?.[1];

/**
 * What the kernel holds, as the applier makes it: content whose name is known is not written again, elements of
 * maps that grow are added, and edits take away what is there and add what is not. Nothing is collected, so that a
 * name that ever meant something else is found out.
 */
export class Kernel {
  readonly #maps = new Map<string, { readonly map: NftMap; readonly elements: Elements }>();
  readonly #chains = new Map<string, string>();
  #compiled: CompiledPolicy | undefined;

  /**
   * `areStretchesSame`: no group that rules name, and none of these, changed. `onStage` hears of each step that a packet
   * may come upon: after what was added, where `isOld`, and between edits, which a packet may meet in any order.
   */
  take(
    { compiled, edits, added }: Compilation,
    areStretchesSame = false,
    onStage: (isOld: boolean) => void = () => {},
  ): void {
    if (edits === undefined) this.#load(compiled);
    else {
      if (added !== undefined) {
        this.#add(added, compiled);
        onStage(true);
      }
      for (const edit of edits) {
        this.#edit(edit);
        onStage(false);
      }
      this.#checkEdits(edits, added, compiled);
    }
    this.#checkEqual(compiled);
    if (this.#compiled !== undefined) checkNames(this.#compiled, compiled, areStretchesSame);
    this.#compiled = compiled;
  }

  /** The present program never looks up what is added. */
  #add(added: Additions, compiled: CompiledPolicy): void {
    const classes = new Set<number>();
    for (const { name } of this.#compiled!.maps) {
      if (sideOf(name) !== 'destination') continue;
      for (const { data } of this.#maps.get(name)!.elements) classes.add(data as number);
    }
    const listsOf = (name: string) => {
      const { elements } = this.#maps.get(name)!;
      return [...classes].map((key) => elements.find(({ first, last }) => first <= key && key <= last)?.data);
    };
    for (const edit of added.prepared) {
      const before = listsOf(edit.map.name);
      this.#edit(edit);
      assert.deepEqual(listsOf(edit.map.name), before, 'no class that an address has gets another list');
    }
    this.#load(added);
    const { top, ...before } = this.#compiled!;
    this.#compiled = { top, ...before, chains: compiled.chains, maps: compiled.maps };
  }

  #load({ chains, maps }: Pick<CompiledPolicy, 'chains' | 'maps'>): void {
    for (const chain of chains) this.#loadChain(chain);
    for (const map of maps) {
      const known = this.#maps.get(map.name)?.elements;
      const elements = elementsOf(map);
      if (known === undefined) this.#maps.set(map.name, { map, elements });
      else if ('grows' in map && map.grows === true) {
        const added = elements.filter(({ first }) => !known.some((one) => one.first === first));
        this.#maps.set(map.name, { map, elements: [...known, ...added] });
      }
    }
  }

  #loadChain(chain: Chain): void {
    const text = printChain(chain);
    assert.equal(this.#chains.get(chain.name) ?? text, text, 'a chain that is there is not written again');
    this.#chains.set(chain.name, text);
  }

  #checkEdits(edits: readonly MapEdit[], added: Additions | undefined, compiled: CompiledPolicy): void {
    const before = this.#compiled!;
    assert.ok(new Set(edits.map(({ map }) => sideOf(map.name))).size <= 1, 'one kind of map at a time');
    const names = new Set(edits.map(({ map }) => map.name));
    assert.equal(names.size, edits.length, 'each map once');
    assert.deepEqual(compiled.top, before.top, 'the fixed chains stay');
    if (added !== undefined) return;
    assert.deepEqual(compiled.chains, before.chains, 'nothing but maps');
    assert.deepEqual(
      compiled.maps.filter(({ name }) => !names.has(name)),
      before.maps.filter(({ name }) => !names.has(name)),
      'no other map',
    );
  }

  #edit({ map, remove, add }: MapEdit): void {
    let { elements } = this.#maps.get(map.name)!;
    for (const element of remove) {
      const kept = elements.filter((one) => !isSame(one, element));
      assert.equal(kept.length, elements.length - 1, 'what is removed is there');
      elements = kept;
    }
    for (const element of add) {
      assert.ok(
        elements.every((one) => one.last < element.first || element.last < one.first),
        'no overlap',
      );
      assert.ok(!remove.some((one) => isSame(one, element)), 'what stays is not touched');
      elements = [...elements, element];
    }
    elements = elements.toSorted((a, b) => (a.first < b.first ? -1 : 1));
    this.#maps.set(map.name, { map, elements });
  }

  /** What the program says a map holds is what is there. */
  #checkEqual({ maps }: CompiledPolicy): void {
    for (const map of maps) {
      const { elements } = this.#maps.get(map.name)!;
      if ('grows' in map && map.grows === true) {
        for (const element of elementsOf(map)) {
          assert.deepEqual(
            elements.find(({ first }) => first === element.first),
            element,
            map.name,
          );
        }
      } else assert.deepEqual(elements, elementsOf(map), `${map.name} holds what it is to hold`);
    }
  }

  /** The program in force, with the elements that are in the kernel. */
  program(): Program {
    const { maps, ...rest } = this.#compiled!;
    const held = maps.map((map) => ({ ...map, elements: this.#maps.get(map.name)!.elements }) as NftMap);
    return programOf({ ...rest, maps: held }, labInterfaces, 1);
  }

  walk(program: Program, connection: Connection): Walked {
    return walk(program, connection);
  }
}

const isSame = (a: MapElement<ElementData>, b: MapElement<ElementData>) =>
  a.first === b.first && a.last === b.last && a.data === b.data;

/** Content that did not change keeps its name: it is not written again. */
function checkNames(before: CompiledPolicy, after: CompiledPolicy, areStretchesSame: boolean): void {
  const kindOf = (name: string) => name.replace(/_[0-9a-f]{16}$/, '');
  const keyOf = (map: NftMap) =>
    `${kindOf(map.name)} ${elementsOf(map)
      .map(({ first, last, data }) => `${first} ${last} ${JSON.stringify(data)}`)
      .join()}`;
  const names = Map.groupBy(before.maps, keyOf);
  for (const map of after.maps) {
    // A class that comes has a row of its own, whatever others have.
    if (map.name.startsWith('to_') || (sideOf(map.name) !== undefined && !areStretchesSame)) continue;
    const known = names.get(keyOf(map));
    if (known !== undefined)
      assert.ok(
        known.some(({ name }) => name === map.name),
        'the same content under the same name',
      );
  }
}
