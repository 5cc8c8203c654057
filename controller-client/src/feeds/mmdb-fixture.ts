import { BITS } from 'sluice-gateway/net/family.js';
import { parsePrefix } from 'sluice-gateway/net/prefix.js';

/* A writer of MaxMind DB 2.0 files for tests: what a country database holds, and no more. */

type Value = string | number | boolean | { readonly [key: string]: Value };

function sized(type: number, size: number): Buffer {
  const low = Math.min(size, 29);
  const extra = size < 29 ? [] : [size - 29];
  return Buffer.from(type > 7 ? [low, type - 7, ...extra] : [(type << 5) | low, ...extra]);
}

function encode(value: Value): Buffer {
  if (typeof value === 'string')
    return Buffer.concat([sized(2, Buffer.byteLength(value)), Buffer.from(value)]);
  if (typeof value === 'boolean') return sized(14, value ? 1 : 0);
  if (typeof value === 'number') {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(value);
    return Buffer.concat([sized(6, 4), bytes]);
  }
  const entries = Object.entries(value);
  return Buffer.concat([
    sized(7, entries.length),
    ...entries.flatMap(([key, part]) => [encode(key), encode(part)]),
  ]);
}

/** Records of a node of 24 or 28 bits each. */
function encodeNode([left, right]: readonly [number, number], recordSize: number): Buffer {
  const bytes = Buffer.alloc(recordSize / 4);
  if (recordSize === 32) {
    bytes.writeUInt32BE(left, 0);
    bytes.writeUInt32BE(right, 4);
  } else {
    bytes.writeUIntBE(left & 0xffffff, 0, 3);
    bytes.writeUIntBE(right & 0xffffff, recordSize / 4 - 3, 3);
    if (recordSize === 28) bytes[3] = ((left >>> 24) << 4) | (right >>> 24);
  }
  return bytes;
}

/** A file that has data for these prefixes, none inside another. IPv4 lies below ::/96, and 2002::/16 leads there. */
export function writeMmdb(entries: Readonly<Record<string, Value>>, recordSize: 24 | 28 | 32): Buffer {
  const data: Buffer[] = [];
  let dataBytes = 0;
  type Tree = { parts: [Tree | number | undefined, Tree | number | undefined] };
  const root: Tree = { parts: [undefined, undefined] };
  const walk = (value: bigint, length: number, leaf: Tree | number) => {
    let node = root;
    for (let bit = 0; bit < length; bit++) {
      const side = Number((value >> BigInt(127 - bit)) & 1n) as 0 | 1;
      if (bit === length - 1) node.parts[side] = leaf;
      else {
        const next = node.parts[side] ?? { parts: [undefined, undefined] };
        node.parts[side] = next;
        node = next as Tree;
      }
    }
  };
  for (const [text, value] of Object.entries(entries)) {
    const prefix = parsePrefix(text);
    const bytes = encode(value);
    walk(prefix.value, prefix.length + 128 - BITS[prefix.family], dataBytes + 16);
    data.push(bytes);
    dataBytes += bytes.length;
  }
  let start4: Tree = root;
  for (let bit = 0; bit < 96; bit++) start4 = start4.parts[0] as Tree;
  walk(0x2002n << 112n, 16, start4);
  const nodes: Tree[] = [];
  const numbers = new Map<Tree, number>();
  const visit = (tree: Tree): void => {
    if (numbers.has(tree)) return;
    numbers.set(tree, nodes.push(tree) - 1);
    for (const part of tree.parts) if (typeof part === 'object') visit(part);
  };
  visit(root);
  const record = (part: Tree | number | undefined) =>
    typeof part === 'object' ? numbers.get(part)! : part === undefined ? nodes.length : nodes.length + part;
  const tree = nodes.map(({ parts: [left, right] }) => encodeNode([record(left), record(right)], recordSize));
  const metadata = { node_count: nodes.length, record_size: recordSize, ip_version: 6 };
  const version = { binary_format_major_version: 2, binary_format_minor_version: 0, build_epoch: 1 };
  const marker = Buffer.from('abcdef4d61784d696e642e636f6d', 'hex');
  return Buffer.concat([...tree, Buffer.alloc(16), ...data, marker, encode({ ...metadata, ...version })]);
}
