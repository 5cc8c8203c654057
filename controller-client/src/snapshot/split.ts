import { BITS, FAMILIES, type Family } from 'sluice-gateway/net/family.js';
import type { Prefix } from 'sluice-gateway/net/prefix.js';
import { BODY_FUNCTIONS_MAX, BODY_PREFIXES_MAX } from 'sluice-gateway/snapshot/format.js';

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

/** One function in so many ends a body. */
const FUNCTIONS_A_BODY = 64;

/** FNV-1a: which functions end a body depends on their ARNs alone. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index++)
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193) >>> 0;
  return value;
}

/**
 * Splits functions, in their order, into bodies of at most BODY_FUNCTIONS_MAX: from the first to the one past the last of each. A
 * function that comes, goes or changes changes one body or two.
 */
export function splitFunctions(functions: readonly { readonly arn: string }[]): [number, number][] {
  const ranges: [number, number][] = [];
  let first = 0;
  for (const [index, { arn }] of functions.entries()) {
    const isEnd = hash(arn) % FUNCTIONS_A_BODY === 0 || index - first + 1 === BODY_FUNCTIONS_MAX;
    if (!isEnd && index < functions.length - 1) continue;
    ranges.push([first, index + 1]);
    first = index + 1;
  }
  return ranges;
}
