import fc from 'fast-check';
import t from 'tap';
import { parseAddress } from '../net/address.js';
import { prefixContains, printPrefix } from '../net/prefix.js';
import { mergePrefixes, portRangesOf } from './learn.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);
t.comment(`TEST_SEED=${seed}`);

const merged = (countMax: number, ...texts: string[]) =>
  mergePrefixes(texts.map(parseAddress), countMax).map(printPrefix);

t.test('addresses become few prefixes', async (t) => {
  const four = ['10.0.0.0', '10.0.0.1', '10.0.0.2', '10.0.0.3'];
  t.strictSame(merged(32, ...four), ['10.0.0.0/30'], 'halves are joined where nothing is lost');
  t.strictSame(merged(32, '10.0.0.1', '10.0.0.2'), ['10.0.0.1/32', '10.0.0.2/32'], 'others are not');
  t.strictSame(merged(2, '10.0.0.1', '10.0.0.2', '192.0.2.1'), ['10.0.0.0/30', '192.0.2.1/32']);
  t.strictSame(merged(1, '10.0.0.1', 'fd00::1', 'fd00::2'), ['10.0.0.1/32', 'fd00::/126'], 'one a family');
  t.strictSame(merged(1, '10.0.0.1', '10.0.0.1'), ['10.0.0.1/32']);
  t.strictSame(merged(5), []);
});

t.test('whatever the addresses, all are held by no more prefixes than asked for', async () => {
  const address = fc.record({
    family: fc.constant(4 as const),
    value: fc.bigInt({ min: 0n, max: (1n << 32n) - 1n }),
  });
  const near = fc.record({ family: fc.constant(6 as const), value: fc.bigInt({ min: 0n, max: 4096n }) });
  const some = fc.array(fc.oneof(address, near), { maxLength: 60 });
  fc.assert(
    fc.property(some, fc.integer({ min: 2, max: 20 }), (addresses, countMax) => {
      const prefixes = mergePrefixes(addresses, countMax);
      const isHeld = addresses.every((one) => prefixes.some((prefix) => prefixContains(prefix, one)));
      return isHeld && prefixes.length <= countMax;
    }),
    { seed, numRuns: 500 },
  );
});

t.test('ports become ranges, at most as many as a rule has', async (t) => {
  t.strictSame(portRangesOf([443, 80, 81, 82, 443]), [
    { lo: 80, hi: 82 },
    { lo: 443, hi: 443 },
  ]);
  const ranges = portRangesOf(Array.from({ length: 200 }, (_, index) => 1 + index * 10));
  t.equal(ranges.length, 64);
  t.match([ranges[0], ranges.at(-1)], [{ lo: 1 }, { hi: 1991 }], 'all of them are in');
});
