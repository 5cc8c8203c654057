import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { ADDRESS_MAX, BITS, type Family } from './family.js';
import { prefixInterval, prefixOf } from './prefix.js';
import {
  bitAt,
  blockOf,
  compareWords,
  halvesOf,
  increment,
  lastOf,
  valueOfWords,
  wholeSpace,
  wordsOf,
} from './words.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

/** Words of all ones or zeros as often as others, so that carries run far. */
const address = fc
  .record({
    family: fc.constantFrom<Family>(4, 6),
    words: fc.array(
      fc.oneof(fc.constantFrom(0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff), fc.nat(0xffff_ffff)),
      {
        minLength: 4,
        maxLength: 4,
      },
    ),
  })
  .map(({ family, words }) => ({
    family,
    value: words.slice(0, family === 4 ? 1 : 4).reduce((value, word) => (value << 32n) | BigInt(word), 0n),
  }));
const prefix = fc
  .tuple(address, fc.nat(128))
  .map(([address, length]) => prefixOf(address, length % (BITS[address.family] + 1)));
const numRuns = 2_000;

t.test(`words do as numbers do (TEST_SEED=${seed})`, (t) => {
  fc.assert(
    fc.property(address, ({ family, value }) => {
      const words = wordsOf({ family, value });
      assert.equal(words.length * 32, BITS[family]);
      assert.equal(valueOfWords(words), value);
      for (let bit = 0; bit < BITS[family]; bit += 7) {
        assert.equal(BigInt(bitAt(words, bit)), (value >> BigInt(BITS[family] - 1 - bit)) & 1n);
      }
      const isMore = increment(words);
      assert.equal(isMore, value !== ADDRESS_MAX[family]);
      assert.equal(valueOfWords(words), isMore ? value + 1n : 0n);
    }),
    { seed, numRuns },
  );
  fc.assert(
    fc.property(address, address, address, (a, b, between) => {
      const family = a.family;
      const of = ({ value }: { value: bigint }) => wordsOf({ family, value: value & ADDRESS_MAX[family] });
      const list = Uint32Array.of(...of(between), ...of(b), ...of(a));
      const width = BITS[family] / 32;
      const sign = (value: bigint) => (value === 0n ? 0 : value < 0n ? -1 : 1);
      const expected = sign(valueOfWords(of(a)) - valueOfWords(of(b)));
      assert.equal(Math.sign(compareWords(of(a), list, width)), expected);
      assert.equal(compareWords(of(a), list, 2 * width), 0);
    }),
    { seed, numRuns },
  );
  t.pass('whole words of ones and zeros included');
  t.end();
});

t.test(`blocks are prefixes (TEST_SEED=${seed})`, (t) => {
  fc.assert(
    fc.property(prefix, (prefix) => {
      const block = blockOf(prefix);
      const { first, last } = prefixInterval(prefix);
      assert.equal(valueOfWords(block.words), first);
      assert.equal(valueOfWords(lastOf(block)), last);
      assert.equal(valueOfWords(block.words), first, 'left as it was');
      if (prefix.length === BITS[prefix.family]) return;
      const [lower, upper] = halvesOf(block);
      assert.deepEqual([lower.length, upper.length], [prefix.length + 1, prefix.length + 1]);
      assert.equal(valueOfWords(lower.words), first);
      assert.equal(valueOfWords(lastOf(lower)) + 1n, valueOfWords(upper.words));
      assert.equal(valueOfWords(lastOf(upper)), last);
      assert.equal(valueOfWords(block.words), first, 'left as it was');
    }),
    { seed, numRuns },
  );
  for (const family of [4, 6] as const) {
    const whole = wholeSpace(family);
    t.strictSame([valueOfWords(whole.words), valueOfWords(lastOf(whole))], [0n, ADDRESS_MAX[family]]);
  }
  t.end();
});
