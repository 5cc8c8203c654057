import fc from 'fast-check';
import { comparePrefixes, prefixOf, sortPrefixes } from 'sluice-gateway/net/prefix.js';
import { BODY_PREFIXES_MAX } from 'sluice-gateway/snapshot/format.js';
import t from 'tap';
import { splitPrefixes } from './split.js';

const seed = Number(process.env.TEST_SEED ?? Date.now() % 2 ** 31);
t.comment(`TEST_SEED=${seed}`);

t.test('parts cover the group in order and are small', async () => {
  const prefix = fc
    .tuple(fc.boolean(), fc.bigInt({ min: 0n, max: (1n << 128n) - 1n }), fc.nat(32))
    .map(([six, value, length]) =>
      prefixOf(six ? { family: 6, value } : { family: 4, value: value >> 96n }, length),
    );
  fc.assert(
    fc.property(fc.array(prefix, { maxLength: 200 }), fc.integer({ min: 0, max: 20_000 }), (some, run) => {
      const dense = Array.from({ length: run }, (_, index) =>
        prefixOf({ family: 4, value: BigInt(index) }, 32),
      );
      const prefixes = sortPrefixes([...some, ...dense]);
      const parts = splitPrefixes(prefixes);
      const joined = parts.flat();
      return (
        joined.length === prefixes.length &&
        joined.every((part, index) => comparePrefixes(part, prefixes[index]!) === 0) &&
        parts.every(({ length }) => length > 0 && length <= BODY_PREFIXES_MAX) &&
        parts.every((part) => new Set(part.map(({ family }) => family)).size === 1)
      );
    }),
    { seed, numRuns: 30 },
  );
});
