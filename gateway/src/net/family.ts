/** Address family: IPv4 or IPv6. */
export type Family = 4 | 6;

export const FAMILIES: readonly Family[] = [4, 6];

/** Address width in bits. */
export const BITS: Readonly<Record<Family, number>> = { 4: 32, 6: 128 };

/** The highest address of a family. */
export const ADDRESS_MAX: Readonly<Record<Family, bigint>> = {
  4: (1n << 32n) - 1n,
  6: (1n << 128n) - 1n,
};
