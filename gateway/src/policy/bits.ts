/** A set of small numbers, one bit each. */
export type Bits = Uint32Array;

export function emptyBits(size: number): Bits {
  return new Uint32Array((size + 31) >>> 5);
}

export function setBit(bits: Bits, index: number): void {
  bits[index >>> 5]! |= 1 << (index & 31);
}

export function clearBit(bits: Bits, index: number): void {
  bits[index >>> 5]! &= ~(1 << (index & 31));
}

export function equalBits(a: Bits, b: Bits): boolean {
  for (let word = 0; word < a.length; word++) if (a[word] !== b[word]) return false;
  return true;
}

/** Indexes set in both, ascending. */
export function* commonBits(a: Bits, b: Bits): Generator<number> {
  for (let word = 0; word < a.length; word++) {
    let rest = (a[word]! & b[word]!) >>> 0;
    while (rest !== 0) {
      const bit = 31 - Math.clz32(rest & -rest);
      yield word * 32 + bit;
      rest = (rest & (rest - 1)) >>> 0;
    }
  }
}
