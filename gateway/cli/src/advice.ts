import type { InventoryBody } from 'sluice-gateway/snapshot/format.js';

/** What several functions share, so that an address does not say which of them it is. */
export interface Advice {
  /** Subnet or network interface. */
  readonly by: string;
  /** Names of the functions, and ids of instances. */
  readonly shared: readonly string[];
  readonly advice: string;
}

/** So many of those that share one thing are named. */
const NAMED_MAX = 5;

function listed(names: readonly string[]): string {
  const named = names.slice(0, NAMED_MAX).map((name) => `\`${name}\``);
  const more = names.length - named.length;
  const words = more > 0 ? [...named, `${more} more`] : named;
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`;
}

/** Says for each shared subnet and interface who shares it, and what would tell them apart. */
export function adviceOn({ functions }: InventoryBody): Advice[] {
  const names = new Map(functions.map(({ arn, name }) => [arn, name]));
  const users = new Map<string, Set<string>>();
  for (const { name, identity, sharedBy = [], sharedWith } of functions) {
    if (identity !== 'shared') continue;
    // By one thing alone, it is shared with all of them; by several, each of them says so itself.
    const others = sharedBy.length === 1 ? sharedWith.map((other) => names.get(other) ?? other) : [];
    for (const by of sharedBy) {
      const known = users.get(by) ?? new Set();
      users.set(by, known);
      for (const user of [name, ...others]) known.add(user);
    }
  }
  return [...users].sort().map(([by, known]) => {
    const shared = [...known].sort();
    const remedy = 'a dedicated subnet or security group would tell them apart';
    return { by, shared, advice: `${listed(shared)} share ${by}; ${remedy}` };
  });
}
