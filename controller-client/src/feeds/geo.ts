import type { CountryResponse } from 'mmdb-lib';
import { printAddress } from 'sluice-gateway/net/address.js';
import type { Prefix } from 'sluice-gateway/net/prefix.js';
import type { FeedQuery } from '../sources/model.js';
import type { FeedContent } from './content.js';

/** The two records of a node in the search tree, by the size of a record in bits (MaxMind DB 2.0, "Node Layout"). */
const RECORDS: Readonly<Record<number, (bytes: Buffer, at: number) => readonly [number, number]>> = {
  24: (bytes, at) => [bytes.readUIntBE(at, 3), bytes.readUIntBE(at + 3, 3)],
  28: (bytes, at) => {
    const middle = bytes[at + 3]!;
    return [
      ((middle & 0xf0) << 20) | bytes.readUIntBE(at, 3),
      ((middle & 0x0f) << 24) | bytes.readUIntBE(at + 4, 3),
    ];
  },
  32: (bytes, at) => [bytes.readUInt32BE(at), bytes.readUInt32BE(at + 4)],
};

const V4_DEPTH = 96;

interface Leaf {
  readonly prefix: Prefix;
  /** Equal for equal data. */
  readonly pointer: number;
}

/** Every prefix that the tree has data for; IPv4 is the part below ::/96, and other ways to it are aliases. */
function* leavesOf(bytes: Buffer, tree: { nodeCount: number; recordSize: number; ipVersion: number }) {
  const { nodeCount, recordSize, ipVersion } = tree;
  const read = RECORDS[recordSize];
  if (read === undefined)
    throw new Error(`Cannot read feed: its records have ${recordSize} bits, not 24, 28 or 32`);
  const bits = ipVersion === 4 ? 32 : 128;
  const nodeBytes = recordSize / 4;
  let start4: number | undefined = 0;
  for (let depth = 0; bits === 128 && depth < V4_DEPTH && start4 < nodeCount; depth++)
    start4 = read(bytes, start4 * nodeBytes)[0];
  const open = [{ node: 0, value: 0n, depth: 0 }];
  for (let step = open.pop(); step !== undefined; step = open.pop()) {
    const { node, value, depth } = step;
    if (node === nodeCount) continue;
    const isV4 = bits === 32 || (depth >= V4_DEPTH && value >> 32n === 0n);
    if (node > nodeCount) {
      const prefix: Prefix = isV4
        ? { family: 4, value, length: bits === 32 ? depth : depth - V4_DEPTH }
        : { family: 6, value, length: depth };
      yield { prefix, pointer: node } satisfies Leaf;
    } else if (depth < bits && (bits === 32 || node !== start4 || isV4)) {
      const [left, right] = read(bytes, node * nodeBytes);
      const half = 1n << BigInt(bits - depth - 1);
      open.push(
        { node: right, value: value | half, depth: depth + 1 },
        { node: left, value, depth: depth + 1 },
      );
    }
  }
}

/** A MaxMind DB with countries, such as GeoLite2-Country.mmdb. */
export async function readGeo(bytes: Buffer): Promise<FeedContent> {
  const { Reader } = await import('mmdb-lib');
  const reader = new Reader<CountryResponse>(bytes);
  return (query) => {
    const { country_iso_code, continent_code, is_in_eu } = query as FeedQuery & { external: 'geo' };
    const known = new Map<number, boolean>();
    const holds = ({ prefix, pointer }: Leaf): boolean => {
      const data = reader.get(printAddress(prefix));
      const matches =
        (country_iso_code ?? data?.country?.iso_code) === data?.country?.iso_code &&
        (continent_code ?? data?.continent?.code) === data?.continent?.code &&
        (is_in_eu === undefined || is_in_eu === (data?.country?.is_in_european_union ?? false));
      known.set(pointer, matches);
      return matches;
    };
    const prefixes: Prefix[] = [];
    for (const leaf of leavesOf(bytes, reader.metadata))
      if (known.get(leaf.pointer) ?? holds(leaf)) prefixes.push(leaf.prefix);
    return prefixes;
  };
}
