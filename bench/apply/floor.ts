import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import type { CProgram } from '../program.js';
import type { ElementMap } from './ours.js';

export const FLOOR: CProgram = { name: 'apply/floor', library: 'libmnl', debianPackage: 'libmnl-dev' };

/** Of one transaction. */
const TRANSACTION_BYTES = 8 << 20;
const NAME_BYTES = 64;
const HEAD_BYTES = NAME_BYTES + 24;
const NETWORK_ORDER = 2;
const HOST_ORDER = 1;

/** As nft numbers them. */
const KEY_TYPES: Readonly<
  Record<string, { readonly id: number; readonly words: number; readonly order: number }>
> = {
  ipv4_addr: { id: 7, words: 1, order: NETWORK_ORDER },
  ipv6_addr: { id: 8, words: 4, order: NETWORK_ORDER },
  mark: { id: 19, words: 1, order: HOST_ORDER },
};
const DATA_TYPES = { mark: 19, classid: 23 } as const;

function mapBytes({ name, key, data, interval, elements }: ElementMap): Uint8Array {
  const type = KEY_TYPES[key];
  if (type === undefined || name.length >= NAME_BYTES)
    throw new Error(`Cannot write map "${name}" for the floor: its key is of type ${key}`);
  const { id, words, order } = type;
  const bytes = new Uint8Array(HEAD_BYTES + elements.length * (8 * words + 4));
  const view = new DataView(bytes.buffer);
  new TextEncoder().encodeInto(name, bytes);
  const head = [id, 4 * words, order, DATA_TYPES[data], Number(interval), elements.length];
  for (const [index, number] of head.entries()) view.setUint32(NAME_BYTES + 4 * index, number, true);
  let at = HEAD_BYTES;
  const put = (value: bigint) => {
    for (let word = words - 1; word >= 0; word--, at += 4)
      view.setUint32(
        at,
        Number((value >> BigInt(32 * word)) & 0xffffffffn),
        order === HOST_ORDER && !interval,
      );
  };
  for (const { first, last, data } of elements) {
    put(first);
    put(last);
    view.setUint32(at, data, true);
    at += 4;
  }
  return bytes;
}

/** Writes the maps as `floor` reads them; floor.c has the format. */
export function writeFloorFile(path: string, maps: readonly ElementMap[]): void {
  const count = new Uint8Array(Uint32Array.of(maps.length).buffer);
  writeFileSync(path, Buffer.concat([count, ...maps.map(mapBytes)]));
}

/** Loads the maps of a file into the table in this network namespace; gives the seconds that the kernel took. */
export function runFloor(program: string, path: string): number {
  const { status, stdout, stderr } = spawnSync(program, [path, String(TRANSACTION_BYTES)]);
  if (status !== 0) throw new Error(`Cannot run floor: ${stderr.toString()}`);
  return Number(stdout.toString());
}
