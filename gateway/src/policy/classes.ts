import { NUMBER_MAX } from '../nft/mark.js';
import type { NumberSets } from './number-sets.js';

/** Positions of rules in the order of evaluation, ascending. */
export type RulePositions = Uint16Array;

/**
 * The classes of one side: addresses that the same rules can match. An atom keeps its class as long as it can: where
 * rules come to tell two atoms of one class apart, the second gets a new one; classes never merge.
 */
export class Classes {
  /** Of atoms that are gone too: the policy may have changed since. */
  readonly #ids = new Map<number, number>();
  /** Atoms whose class has their rules under the present policy. */
  readonly #present = new Set<number>();
  /** Class by what rules it has, in the present policy. */
  readonly #byRules = new Map<string, number>();
  readonly #rules = new Map<number, RulePositions>();
  #last = 0;

  /** Classes that some address was in when they were last assigned, or since, with their rules. */
  get live(): ReadonlyMap<number, RulePositions> {
    return this.#rules;
  }

  #next(): number {
    if (this.#last === NUMBER_MAX) throw new RangeError(`Cannot number classes: ${NUMBER_MAX} are used up`);
    return ++this.#last;
  }

  /** The class of an atom; undefined where it is not known under the present policy. */
  classOf(atom: number): number | undefined {
    return this.#present.has(atom) ? this.#ids.get(atom) : undefined;
  }

  /** Gives an atom that is new to the policy in force the class that has its rules, if there is one. */
  adopt(atom: number, rules: RulePositions): number | undefined {
    const id = this.#byRules.get(keyOf(rules));
    if (id !== undefined) {
      this.#ids.set(atom, id);
      this.#present.add(atom);
    }
    return id;
  }

  /** Gives an atom that is new to the policy in force, with rules that no class has, a class of its own. */
  add(atom: number, rules: RulePositions): number {
    const id = this.#next();
    this.#ids.set(atom, id);
    this.#present.add(atom);
    this.#byRules.set(keyOf(rules), id);
    this.#rules.set(id, rules);
    return id;
  }

  /**
   * Takes rules whose positions changed, for the same atoms: `isTouched` ones may have other rules too. Gives the classes
   * of those; undefined where atoms of one class come to have different rules. Classes that no atom has are no longer live.
   */
  follow(
    atoms: readonly number[],
    positions: Int32Array,
    isTouched: (atom: number) => boolean,
    rulesOf: (atom: number) => RulePositions,
  ): ReadonlySet<number> | undefined {
    const touched = new Set<number>();
    const taken = new Map<number, RulePositions>();
    const moved = new Set<number>();
    for (const atom of atoms) {
      const id = this.#ids.get(atom)!;
      const isOther = isTouched(atom);
      // Of atoms that are not touched one speaks for all of a class.
      if (!isOther && moved.has(id)) continue;
      const rules = isOther ? rulesOf(atom) : this.#rules.get(id)!.map((position) => positions[position]!);
      (isOther ? touched : moved).add(id);
      const others = taken.get(id);
      if (others !== undefined && compareRules(rules, others) !== 0) return undefined;
      taken.set(id, rules);
    }
    this.#byRules.clear();
    this.#rules.clear();
    this.#present.clear();
    for (const atom of atoms) this.#present.add(atom);
    for (const [id, rules] of taken) {
      this.#rules.set(id, rules);
      this.#byRules.set(keyOf(rules), id);
    }
    return touched;
  }

  /**
   * Assigns classes under a new policy or to a new set of atoms. Of new classes those get neighbouring numbers that have the same broad rules, which are alike for most of the other side.
   */
  assign(
    atoms: readonly number[],
    rulesOf: (atom: number) => RulePositions,
    isBroad: (position: number) => boolean,
  ): void {
    this.#byRules.clear();
    this.#rules.clear();
    this.#present.clear();
    const keys = new Map<number, string>();
    const split = new Map<string, number>();
    const take = (atom: number, id: number, key: string, rules: RulePositions) => {
      this.#ids.set(atom, id);
      this.#present.add(atom);
      keys.set(id, key);
      this.#rules.set(id, rules);
      if (!this.#byRules.has(key)) this.#byRules.set(key, id);
    };
    const added: [number, string, RulePositions][] = [];
    for (const atom of atoms) {
      const rules = rulesOf(atom);
      const key = keyOf(rules);
      const id = this.#ids.get(atom);
      if (id === undefined) added.push([atom, key, rules]);
      else if ((keys.get(id) ?? key) === key) take(atom, id, key, rules);
      else {
        const parted = `${id} ${key}`;
        if (!split.has(parted)) split.set(parted, this.#next());
        take(atom, split.get(parted)!, key, rules);
      }
    }
    added.sort(
      ([, , a], [, , b]) => compareRules(a.filter(isBroad), b.filter(isBroad)) || compareRules(a, b),
    );
    for (const [atom, key, rules] of added) take(atom, this.#byRules.get(key) ?? this.#next(), key, rules);
  }
}

function compareRules(a: RulePositions, b: RulePositions): number {
  const most = Math.min(a.length, b.length);
  for (let index = 0; index < most; index++) if (a[index] !== b[index]) return a[index]! - b[index]!;
  return a.length - b.length;
}

const keyOf = (rules: RulePositions) =>
  Buffer.from(rules.buffer, rules.byteOffset, rules.byteLength).toString('latin1');

/** The rules that an atom has through any of its groups. */
export function rulesOfAtom(
  atoms: NumberSets,
  atom: number,
  rulesOfGroup: ReadonlyMap<number, RulePositions>,
): RulePositions {
  const lists = atoms.membersOf(atom).flatMap((group) => rulesOfGroup.get(group) ?? []);
  if (lists.length === 1) return lists[0]!;
  const all = new Uint16Array(lists.reduce((sum, rules) => sum + rules.length, 0));
  let length = 0;
  for (const rules of lists) {
    all.set(rules, length);
    length += rules.length;
  }
  all.sort();
  let distinct = 0;
  for (let index = 0; index < length; index++) {
    if (distinct === 0 || all[index] !== all[distinct - 1]) all[distinct++] = all[index]!;
  }
  return all.slice(0, distinct);
}
