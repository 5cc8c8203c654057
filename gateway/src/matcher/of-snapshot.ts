import { networkInterfaces } from 'node:os';
import { readAddress } from '../net/address.js';
import { BITS } from '../net/family.js';
import { type Prefix, parsePrefix } from '../net/prefix.js';
import type { Snapshot } from '../snapshot/read.js';
import { Matcher } from './matcher.js';

/** The addresses of this machine, which no group has as members. */
export function ownAddresses(): Prefix[] {
  return Object.values(networkInterfaces()).flatMap((addresses = []) =>
    addresses.flatMap(({ address }) => {
      const own = readAddress(address);
      return own === undefined ? [] : [{ ...own, length: BITS[own.family] }];
    }),
  );
}

type SnapshotFunction = Snapshot['inventory']['functions'][number];

const parseFunction = (one: SnapshotFunction) => ({
  ...one,
  prefixes: one.prefixes.map(parsePrefix),
  addresses: (one.addresses ?? []).map(parsePrefix),
});
/** Most functions of a snapshot are those of the one before. */
const parsed = new WeakMap<SnapshotFunction, ReturnType<typeof parseFunction>>();

/** The matcher of a snapshot's groups and functions; of none it knows nothing. Cost: linear in the prefixes. */
export function matcherOf(snapshot: Snapshot | undefined, excluded: readonly Prefix[]): Matcher {
  const functions = (snapshot?.inventory.functions ?? []).map((one) => {
    const known = parsed.get(one) ?? parseFunction(one);
    parsed.set(one, known);
    return known;
  });
  const groups = (snapshot?.groups ?? []).map(({ name, parts }) => ({ name, prefixes: parts.flat() }));
  return Matcher.build({ groups, functions, excluded });
}
