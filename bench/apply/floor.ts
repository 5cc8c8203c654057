import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { KEY_TYPES, keyBytes, NUMBER_BYTES } from 'sluice-gateway/nft/set.js';
import type { CProgram } from '../program.js';
import type { ElementMap } from './ours.js';

export const FLOOR: CProgram = { name: 'apply/floor', library: 'libmnl', debianPackage: 'libmnl-dev' };

/** Of one transaction. */
const TRANSACTION_BYTES = 8 << 20;
const NAME_BYTES = 64;
const HEAD_BYTES = NAME_BYTES + 24;

function mapBytes({ name, key, data, interval, elements }: ElementMap): Uint8Array {
  if (name.length >= NAME_BYTES)
    throw new Error(`Cannot write map "${name}" for the floor: its name is too long`);
  const { id, bytes: keyLength, order } = KEY_TYPES[key];
  const bytes = new Uint8Array(HEAD_BYTES + elements.length * (2 * keyLength + NUMBER_BYTES));
  const view = new DataView(bytes.buffer);
  new TextEncoder().encodeInto(name, bytes);
  const head = [id, keyLength, order, KEY_TYPES[data].id, Number(interval), elements.length];
  for (const [index, number] of head.entries()) view.setUint32(NAME_BYTES + 4 * index, number, true);
  let at = HEAD_BYTES;
  for (const { first, last, data } of elements) {
    bytes.set(keyBytes(key, interval, first), at);
    bytes.set(keyBytes(key, interval, last), at + keyLength);
    view.setUint32(at + 2 * keyLength, data, true);
    at += 2 * keyLength + NUMBER_BYTES;
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
