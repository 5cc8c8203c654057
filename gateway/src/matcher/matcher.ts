import type { Address } from '../net/address.js';
import type { Prefix } from '../net/prefix.js';
import { distinctPrefixes } from './sorted.js';
import { PrefixTrie } from './trie.js';

/** Answers that are kept ready, one a prefix; the oldest goes when there are more. */
const ANSWERS_MAX = 65_536;

export interface FunctionOwner {
  readonly arn: string;
  readonly accountId: string;
  readonly region: string;
  /** How sure it is that traffic from its addresses is this function's; the resolver's words. */
  readonly identity: string;
}

interface FunctionHolder extends FunctionOwner {
  readonly prefixes: readonly Prefix[];
  /** Of network interfaces that it uses: where one holds the address, a function that only has the subnet does not. */
  readonly addresses?: readonly Prefix[];
}

export interface MatcherInput {
  readonly groups: readonly { readonly name: string; readonly prefixes: readonly Prefix[] }[];
  readonly functions: readonly FunctionHolder[];
  /** The gateway's own addresses: members of nothing. */
  readonly excluded: readonly Prefix[];
}

interface Answer {
  readonly groups: readonly string[];
  readonly functions: readonly FunctionOwner[];
}

const NOTHING: Answer = Object.freeze({ groups: Object.freeze([]), functions: Object.freeze([]) });

/**
 * Which members list which prefix, as one array cut into stretches: prefix id -> member numbers, ascending.
 */
class Members {
  readonly #starts: Uint32Array;
  readonly #members: Uint32Array;

  /** `ids` are the prefix ids of all members one after the other, of which member m has `counts[m]`. */
  constructor(ids: Uint32Array, counts: readonly number[], idCount: number) {
    this.#starts = new Uint32Array(idCount + 1);
    this.#members = new Uint32Array(ids.length);
    for (const id of ids) this.#starts[id + 1]!++;
    for (let id = 0; id < idCount; id++) this.#starts[id + 1]! += this.#starts[id]!;
    const next = this.#starts.slice();
    let at = 0;
    for (const [member, count] of counts.entries()) {
      for (const id of ids.subarray(at, at + count)) this.#members[next[id]!++] = member;
      at += count;
    }
  }

  of(id: number): Uint32Array {
    return this.#members.subarray(this.#starts[id]!, this.#starts[id + 1]!);
  }
}

/**
 * Attribution: which groups an address is a member of and which functions own it. Immutable; built once a
 * snapshot, in time linear in the prefixes. An answer costs one trie lookup when another address under the
 * same longest prefix was asked for lately; else also the prefixes around it.
 */
export class Matcher {
  readonly #input: MatcherInput;
  readonly #trie: PrefixTrie;
  readonly #members: Members;
  readonly #excluded: PrefixTrie;
  readonly #answers = new Map<number, Answer>();

  private constructor(input: MatcherInput) {
    this.#input = input;
    const holders = [...input.groups, ...input.functions].map((holder) => holder.prefixes);
    const held = [...holders, ...input.functions.map(({ addresses = [] }) => addresses)];
    const { prefixes, ids } = distinctPrefixes(held.flat());
    const counts = held.map((list) => list.length);
    this.#trie = PrefixTrie.build(prefixes);
    this.#members = new Members(ids, counts, prefixes.length);
    this.#excluded = PrefixTrie.build(distinctPrefixes(input.excluded).prefixes);
  }

  /** Prefixes may stand in several groups and functions, and more than once in one. */
  static build(input: MatcherInput): Matcher {
    return new Matcher(input);
  }

  /** Names of the groups that hold the address, in the order they were given. */
  groupsOf(address: Address): readonly string[] {
    return this.#answer(address).groups;
  }

  /** The functions whose prefixes hold the address, in the order they were given. */
  functionsOf(address: Address): readonly FunctionOwner[] {
    return this.#answer(address).functions;
  }

  #answer(address: Address): Answer {
    const leaf = this.#trie.lookup(address);
    if (leaf < 0 || this.#excluded.lookup(address) >= 0) return NOTHING;
    const known = this.#answers.get(leaf);
    if (known !== undefined) return known;
    const answer = this.#collect(leaf);
    if (this.#answers.size >= ANSWERS_MAX) this.#answers.delete(this.#answers.keys().next().value!);
    this.#answers.set(leaf, answer);
    return answer;
  }

  #collect(leaf: number): Answer {
    const found = new Set<number>();
    for (let id = leaf; id >= 0; id = this.#trie.parent(id)) {
      for (const member of this.#members.of(id)) found.add(member);
    }
    const groupCount = this.#input.groups.length;
    const functionCount = this.#input.functions.length;
    const members = [...found].sort((a, b) => a - b);
    const groups = members.filter((member) => member < groupCount);
    const byInterface = members.filter((member) => member >= groupCount + functionCount);
    const bySubnet = members.filter((member) => member >= groupCount && member < groupCount + functionCount);
    const functions = byInterface.length > 0 ? byInterface.map((member) => member - functionCount) : bySubnet;
    return {
      groups: Object.freeze(groups.map((member) => this.#input.groups[member]!.name)),
      functions: Object.freeze(
        functions.map((member) => ownerOf(this.#input.functions[member - groupCount]!)),
      ),
    };
  }
}

function ownerOf({ arn, accountId, region, identity }: FunctionOwner): FunctionOwner {
  return Object.freeze({ arn, accountId, region, identity });
}
