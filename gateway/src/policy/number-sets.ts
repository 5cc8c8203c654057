/** Sets of numbers, each under one id: 0 is the empty set. Adding and removing a member are remembered by id. */
export class NumberSets {
  readonly #members: number[][] = [[]];
  readonly #ids = new Map<string, number>([['', 0]]);
  readonly #steps = new Map<number, number>();

  get size(): number {
    return this.#members.length;
  }

  membersOf(id: number): readonly number[] {
    return this.#members[id]!;
  }

  /** The id of a set, given by its members in ascending order. */
  idOf(members: number[]): number {
    const key = members.join();
    const known = this.#ids.get(key);
    if (known !== undefined) return known;
    const id = this.#members.push(members) - 1;
    this.#ids.set(key, id);
    return id;
  }

  /** The set with one member more. */
  with(id: number, member: number): number {
    return this.#step(id * MEMBER_STEPS + member * 2, () => {
      const members = this.#members[id]!;
      return members.includes(member) ? id : this.idOf([...members, member].sort((a, b) => a - b));
    });
  }

  /** The set with one member less. */
  without(id: number, member: number): number {
    return this.#step(id * MEMBER_STEPS + member * 2 + 1, () =>
      this.idOf(this.#members[id]!.filter((one) => one !== member)),
    );
  }

  #step(step: number, make: () => number): number {
    let id = this.#steps.get(step);
    if (id === undefined) {
      id = make();
      this.#steps.set(step, id);
    }
    return id;
  }
}

/** Members are below half of this. Two steps of a set and the highest id fit a double exactly. */
const MEMBER_STEPS = 2 ** 22;
