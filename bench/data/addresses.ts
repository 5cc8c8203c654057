import { type Address, addressToBytes } from 'sluice-gateway/net/address.js';
import { BITS, type Family } from 'sluice-gateway/net/family.js';
import type { Prefix } from 'sluice-gateway/net/prefix.js';
import type { Random } from './random.js';

/** So many addresses, each inside a prefix of the list; every prefix is as likely as any other. */
export function hits(prefixes: readonly Prefix[], count: number, random: Random): Address[] {
  return Array.from({ length: count }, () => {
    const { family, value, length } = random.pick(prefixes);
    return { family, value: value | random.bits(BITS[family] - length) };
  });
}

/**
 * So many addresses that no prefix holds, `isHeld` being the judge. Near misses first: an address that is
 * held, with one bit of it flipped; where that finds too few, any address.
 */
export function misses(
  prefixes: readonly Prefix[],
  count: number,
  random: Random,
  isHeld: (address: Address) => boolean,
): Address[] {
  const family: Family = prefixes[0]!.family;
  const bits = BITS[family];
  const found: Address[] = [];
  for (let tries = 0; found.length < count; tries++) {
    if (tries > 1000 * count)
      throw new Error(`Cannot make misses: ${tries} addresses tried, nearly all are held`);
    const held = hits(prefixes, 1, random)[0]!;
    const value = tries < 4 * count ? held.value ^ (1n << BigInt(random.below(bits))) : random.bits(bits);
    const address: Address = { family, value };
    if (!isHeld(address)) found.push(address);
  }
  return found;
}

/** One word an IPv4 address, four an IPv6 address, the most significant first; all addresses are of one family. */
export function wordsOf(addresses: readonly Address[]): Uint32Array {
  const width = addresses[0]?.family === 6 ? 4 : 1;
  const words = new Uint32Array(width * addresses.length);
  for (const [index, address] of addresses.entries()) {
    const bytes = new DataView(addressToBytes(address).buffer);
    for (let word = 0; word < width; word++) words[index * width + word] = bytes.getUint32(4 * word);
  }
  return words;
}
