import type { Address } from '../net/address.js';
import { type Prefix, printPrefix } from '../net/prefix.js';

/**
 * Longest-prefix match over a fixed list of unique prefixes of both families. A prefix is named by its index
 * in that list; -1 means none. Words are unsigned 32 bits, the most significant first.
 */
export interface PrefixTable {
  /** How many prefixes the table holds. */
  readonly size: number;
  /** The longest prefix that holds an IPv4 address. */
  lookup4(address: number): number;
  /** The longest prefix that holds an IPv6 address. */
  lookup6(w0: number, w1: number, w2: number, w3: number): number;
  /** As `lookup4` and `lookup6`, for an address as a value. */
  lookup(address: Address): number;
  /** The longest other prefix of the table that covers this one. Throws RangeError for no such index. */
  parent(index: number): number;
}

/** What every table throws when the same prefix stands twice in its list. */
export function duplicateError(prefix: Prefix, first: number, second: number): RangeError {
  const places = `stands at ${first} and at ${second}`;
  return new RangeError(
    `Cannot build prefix table: ${printPrefix(prefix)} ${places}, prefixes must be unique`,
  );
}

/** What `parent` throws for an index outside the table. */
export function indexError(index: number, size: number): RangeError {
  return new RangeError(`Cannot look up parent: index ${index} is not from 0 to ${size - 1}`);
}
