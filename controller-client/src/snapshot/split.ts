import { BITS, FAMILIES, type Family } from 'sluice-gateway/net/family.js';
import type { Prefix } from 'sluice-gateway/net/prefix.js';
import { BODY_PREFIXES_MAX } from 'sluice-gateway/snapshot/format.js';

/** Index of the first prefix from `start` to `end` whose address is not below `bound`. */
function lowerBound(prefixes: readonly Prefix[], start: number, end: number, bound: bigint): number {
  let low = start;
  let high = end;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (prefixes[middle]!.value < bound) low = middle + 1;
    else high = middle;
  }
  return low;
}

function halve(
  prefixes: readonly Prefix[],
  start: number,
  end: number,
  range: { readonly first: bigint; readonly bits: number },
): Prefix[][] {
  if (start === end) return [];
  if (end - start <= BODY_PREFIXES_MAX) return [prefixes.slice(start, end)];
  const bits = range.bits - 1;
  const middle = range.first + (1n << BigInt(bits));
  const cut = lowerBound(prefixes, start, end, middle);
  return [
    ...halve(prefixes, start, cut, { first: range.first, bits }),
    ...halve(prefixes, cut, end, { first: middle, bits }),
  ];
}

/**
 * Splits sorted prefixes into bodies of at most BODY_PREFIXES_MAX, by halving the address space until each
 * part is small enough; a prefix belongs to the part that its first address is in. Where the cuts lie depends
 * on the number of prefixes in each half only, so a prefix that comes or goes changes one part (two, when a
 * part becomes too large or two fit into one). It ends: one address starts at most 129 prefixes.
 */
export function splitPrefixes(prefixes: readonly Prefix[]): Prefix[][] {
  return FAMILIES.flatMap((family: Family) => {
    const own = prefixes.filter((prefix) => prefix.family === family);
    return halve(own, 0, own.length, { first: 0n, bits: BITS[family] });
  });
}
