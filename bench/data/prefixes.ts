import { distinctPrefixes } from 'sluice-gateway/matcher/sorted.js';
import { BITS, type Family } from 'sluice-gateway/net/family.js';
import { type Prefix, parsePrefix, prefixOf } from 'sluice-gateway/net/prefix.js';
import { type Random, seededRandom } from './random.js';

/** How a set of prefixes is made; README.md tells what each stands for. */
export type Shape = 'realistic' | 'overlapping';

/** A random prefix of the given length inside another one. */
export function within(outer: Prefix, length: number, random: Random): Prefix {
  const hostBits = BITS[outer.family] - outer.length;
  return prefixOf({ family: outer.family, value: outer.value | random.bits(hostBits) }, length);
}

const everything: Readonly<Record<Family, Prefix>> = {
  4: parsePrefix('0.0.0.0/0'),
  6: parsePrefix('2000::/3'),
};

/** Private and shared space, from which VPCs are cut. */
const PRIVATE4 = ['10.0.0.0/8', '10.0.0.0/8', '172.16.0.0/12', '100.64.0.0/10'].map(parsePrefix);
/** Some of the blocks that cloud providers announce. */
const CLOUD4 = ['3.0.0.0/9', '13.32.0.0/11', '18.128.0.0/9', '34.64.0.0/10', '52.0.0.0/10', '20.32.0.0/11'];
const CLOUD6 = ['2600:1f00::/24', '2a05:d000::/25', '2406:da00::/24', '2603:1000::/24', '2620:107:3000::/44'];
export const CLOUDS: Readonly<Record<Family, readonly Prefix[]>> = {
  4: CLOUD4.map(parsePrefix),
  6: CLOUD6.map(parsePrefix),
};

/** Networks that send abuse, as a feed would know them: what it lists lies close together. */
export function neighbourhoods(family: Family, random: Random): Prefix[] {
  const length = family === 4 ? 16 : 32;
  return Array.from({ length: 6000 }, () => within(everything[family], length, random));
}

/** A host, a /24 or the like (IPv6: a /64), most of them `near` others. */
export function feedEntry(family: Family, near: readonly Prefix[], random: Random): Prefix {
  const inside = random.below(4) > 0 ? random.pick(near) : everything[family];
  const kind = random.below(10);
  if (family === 4) return within(inside, kind < 6 ? 32 : kind < 9 ? 24 : 20 + random.below(10), random);
  return within(inside, kind < 3 ? 128 : kind < 8 ? 64 : 40 + random.below(17), random);
}

function subnet(family: Family, random: Random): Prefix {
  if (family === 4) return within(random.pick(PRIVATE4), 20 + random.below(9), random);
  return within(CLOUDS[6][random.below(3)]!, random.below(3) > 0 ? 64 : 56, random);
}

/** A range inside one of the blocks of cloud providers. */
export function cloudRange(family: Family, random: Random): Prefix {
  return within(random.pick(CLOUDS[family]), (family === 4 ? 14 : 40) + random.below(12), random);
}

function realistic(family: Family, random: Random): () => Prefix {
  const near = neighbourhoods(family, random);
  return () => {
    const kind = random.below(20);
    if (kind < 16) return feedEntry(family, near, random);
    return kind < 18 ? subnet(family, random) : cloudRange(family, random);
  };
}

/** Any address, with any length that is not a short one. */
export function overlapping(family: Family, random: Random): () => Prefix {
  return () =>
    within(everything[family], (family === 4 ? 16 : 20) + random.below(family === 4 ? 17 : 109), random);
}

const SHAPES: Readonly<Record<Shape, (family: Family, random: Random) => () => Prefix>> = {
  realistic,
  overlapping,
};

/** So many unique prefixes of one family, sorted; the same for the same arguments. */
export function makePrefixes(shape: Shape, family: Family, count: number, seed: number): readonly Prefix[] {
  const random = seededRandom(seed);
  const make = SHAPES[shape](family, random);
  let prefixes: readonly Prefix[] = [];
  while (prefixes.length < count) {
    const more = Array.from({ length: Math.ceil((count - prefixes.length) * 1.1) }, make);
    prefixes = distinctPrefixes([...prefixes, ...more]).prefixes;
  }
  return dropRandom(prefixes, count, random);
}

/** Leaves `count` of the prefixes, in their order. */
function dropRandom(prefixes: readonly Prefix[], count: number, random: Random): readonly Prefix[] {
  let wanted = count;
  return prefixes.filter((_, index) => {
    const kept = random.below(prefixes.length - index) < wanted;
    if (kept) wanted--;
    return kept;
  });
}
