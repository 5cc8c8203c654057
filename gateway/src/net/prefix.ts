import { type Address, printAddress, readAddress } from './address.js';
import { BITS, type Family } from './family.js';

/** A canonical CIDR: no host bits set. Equal prefixes have equal fields. */
export interface Prefix {
  readonly family: Family;
  readonly value: bigint;
  readonly length: number;
}

/** A closed range of addresses of one family. */
export interface Interval {
  readonly family: Family;
  readonly first: bigint;
  readonly last: bigint;
}

const LENGTH = /^(?:0|[1-9][0-9]{0,2})$/;

/**
 * Reads a CIDR such as `10.20.0.0/16`; a bare address means its /32 or /128. Throws SyntaxError, with what was
 * expected, for host bits, leading zeros, zones and anything else that is not canonical in meaning.
 */
export function parsePrefix(text: string): Prefix {
  const slash = text.indexOf('/');
  const address = readAddress(slash < 0 ? text : text.slice(0, slash));
  if (address === undefined) {
    throw new SyntaxError(
      `Cannot parse CIDR: ${JSON.stringify(text)} does not start with an IPv4 or IPv6 address (no leading zeros, no zone)`,
    );
  }
  const bits = BITS[address.family];
  const lengthText = slash < 0 ? String(bits) : text.slice(slash + 1);
  const length = LENGTH.test(lengthText) ? Number(lengthText) : Number.NaN;
  if (!(length <= bits)) {
    throw new SyntaxError(
      `Cannot parse CIDR: ${JSON.stringify(text)} has no prefix length from 0 to ${bits} after the slash`,
    );
  }
  const prefix = prefixOf(address, length);
  if (prefix.value !== address.value) {
    throw new SyntaxError(
      `Cannot parse CIDR: ${JSON.stringify(text)} has host bits set, the network is ${printPrefix(prefix)}`,
    );
  }
  return prefix;
}

/** The prefix of a given length that holds an address. */
export function prefixOf(address: Address, length: number): Prefix {
  const shift = BigInt(BITS[address.family] - length);
  return { family: address.family, value: (address.value >> shift) << shift, length };
}

/** Canonical text, always with a length. */
export function printPrefix(prefix: Prefix): string {
  return `${printAddress(prefix)}/${prefix.length}`;
}

/** First and last address of a prefix. */
export function prefixInterval(prefix: Prefix): Interval {
  const hosts = (1n << BigInt(BITS[prefix.family] - prefix.length)) - 1n;
  return { family: prefix.family, first: prefix.value, last: prefix.value | hosts };
}

/** Whether the prefix holds the address; false across families. */
export function prefixContains(prefix: Prefix, address: Address): boolean {
  if (prefix.family !== address.family) return false;
  const shift = BigInt(BITS[prefix.family] - prefix.length);
  return prefix.value >> shift === address.value >> shift;
}

/** Orders by family, then address, then the shorter (wider) prefix first. */
export function comparePrefixes(a: Prefix, b: Prefix): number {
  if (a.family !== b.family) return a.family - b.family;
  if (a.value !== b.value) return a.value < b.value ? -1 : 1;
  return a.length - b.length;
}

/** Sorted, without duplicates. */
export function sortPrefixes(prefixes: Iterable<Prefix>): Prefix[] {
  const sorted = [...prefixes].sort(comparePrefixes);
  return sorted.filter((prefix, index) => index === 0 || comparePrefixes(sorted[index - 1]!, prefix) !== 0);
}

/** The fewest prefixes that cover exactly the interval, ascending. */
export function prefixesOfInterval(interval: Interval): Prefix[] {
  const bits = BITS[interval.family];
  const prefixes: Prefix[] = [];
  let first = interval.first;
  while (first <= interval.last) {
    let hostBits = 0;
    while (hostBits < bits) {
      const size = 1n << BigInt(hostBits + 1);
      if (first % size !== 0n || first + size - 1n > interval.last) break;
      hostBits++;
    }
    prefixes.push({ family: interval.family, value: first, length: bits - hostBits });
    first += 1n << BigInt(hostBits);
  }
  return prefixes;
}
