/** A seeded source of randomness: the same seed gives the same numbers on every machine. */
export interface Random {
  /** A whole number from 0 up to, not including, `limit` (at most 2^32). */
  below(limit: number): number;
  /** A whole number of so many random bits. */
  bits(count: number): bigint;
  /** One of the items, each as likely. */
  pick<Item>(items: readonly Item[]): Item;
}

/** Makes a source from a seed: the 32-bit generator "sfc32" (Doty-Humphrey, PractRand), public domain. */
export function seededRandom(seed: number): Random {
  let [a, b, c, counter] = [seed | 0, 0x9e3779b9 | 0, 0x243f6a88 | 0, 1];
  const next = () => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  };
  for (let warmUp = 0; warmUp < 16; warmUp++) next();
  const below = (limit: number) => Math.floor((next() / 2 ** 32) * limit);
  const bits = (count: number) => {
    let value = 0n;
    for (let have = 0; have < count; have += 32) value = (value << 32n) | BigInt(next());
    return BigInt.asUintN(count, value);
  };
  return { below, bits, pick: (items) => items[below(items.length)]! };
}
