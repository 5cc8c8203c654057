import { BlockList, isIP } from 'node:net';
import fc from 'fast-check';
import IPCIDR from 'ip-cidr';
import t from 'tap';
import {
  type Address,
  addressFromBytes,
  addressToBytes,
  parseAddress,
  printAddress,
  readAddress,
} from './address.js';
import { ADDRESS_MAX, BITS, FAMILIES, type Family } from './family.js';
import { ADDRESSES, NOT_ADDRESSES } from './fixture.js';
import {
  comparePrefixes,
  type Interval,
  type Prefix,
  parsePrefix,
  prefixContains,
  prefixesOfInterval,
  prefixInterval,
  prefixOf,
  printPrefix,
  sortPrefixes,
} from './prefix.js';

const seed = Number(process.env.TEST_SEED ?? Date.now() % 2 ** 31);
t.comment(`TEST_SEED=${seed}`);
const runs = { seed, numRuns: 1000 };

const familyName = (family: Family) => (family === 4 ? 'ipv4' : 'ipv6');
const anyValue = (family: Family) => {
  const max = ADDRESS_MAX[family];
  // Sparse values make runs of zero groups, which is where printing IPv6 is hard.
  const sparse = fc
    .tuple(fc.bigInt(0n, max), fc.bigInt(0n, max), fc.bigInt(0n, max))
    .map(([a, b, c]) => a & b & c);
  const groups = fc
    .array(fc.constantFrom(0n, 0n, 1n, 0xffffn, 0xabcn), {
      minLength: BITS[family] / 16,
      maxLength: BITS[family] / 16,
    })
    .map((list) => list.reduce<bigint>((value, group) => (value << 16n) | group, 0n));
  return fc.oneof(fc.bigInt(0n, max), sparse, groups, fc.constantFrom(0n, 1n, max));
};
const anyAddress: fc.Arbitrary<Address> = fc
  .constantFrom(...FAMILIES)
  .chain((family) => anyValue(family).map((value) => ({ family, value })));
const anyPrefix = anyAddress.chain((address) =>
  fc.integer({ min: 0, max: BITS[address.family] }).map((length) => prefixOf(address, length)),
);

t.test('addresses are read, and printed canonically', async (t) => {
  for (const [text, canonical] of Object.entries(ADDRESSES)) {
    t.equal(printAddress(parseAddress(text)), canonical, text);
    t.equal(parseAddress(text).family, isIP(text), `node agrees on ${text}`);
  }
});

t.test('what is not an address is refused', async (t) => {
  for (const text of NOT_ADDRESSES) {
    t.equal(readAddress(text), undefined, JSON.stringify(text));
    const judged = text.includes('%') ? 0 : isIP(text); // node takes zones, which we do not
    t.equal(judged, 0, `node agrees on ${JSON.stringify(text)}`);
    t.throws(() => parseAddress(text), {
      name: 'SyntaxError',
      message: `Cannot parse address: ${JSON.stringify(text)}`,
    });
  }
});

t.test('node and we accept the same texts', async (t) => {
  const piece = fc.constantFrom(
    ...'0123456789aAfFgx:.:.'.split(''),
    '::',
    '255',
    '256',
    '1.2.3.4',
    '00',
    'ffff',
    '0:',
  );
  const soup = fc.array(piece, { maxLength: 20 }).map((pieces) => pieces.join(''));
  const edited = fc
    .tuple(anyAddress.map(printAddress), fc.nat(40), fc.nat(2), fc.oneof(piece, fc.constant('')))
    .map(([text, at, cut, put]) => text.slice(0, at) + put + text.slice(at + cut));
  fc.assert(
    fc.property(fc.oneof(soup, edited), (text) => (readAddress(text)?.family ?? 0) === isIP(text)),
    { seed, numRuns: 20_000 },
  );
  t.pass('20000 texts');
});

t.test('addresses survive text and bytes', async (t) => {
  fc.assert(
    fc.property(anyAddress, (address) => {
      const text = printAddress(address);
      const judge = new URL(address.family === 4 ? `http://${text}` : `http://[${text}]`);
      const canonical = judge.hostname.replace(/[[\]]/g, '');
      if (text !== canonical) throw new Error(`printed ${text}, WHATWG URL says ${canonical}`);
      const back = [parseAddress(text), addressFromBytes(addressToBytes(address))];
      return back.every((one) => one.family === address.family && one.value === address.value);
    }),
    runs,
  );
  t.same([...addressToBytes(parseAddress('1.2.3.4'))], [1, 2, 3, 4]);
  t.same([...addressToBytes(parseAddress('102::ff'))], [1, 2, ...Array(13).fill(0), 255]);
  for (const length of [0, 3, 5, 15, 17]) {
    t.throws(() => addressFromBytes(new Uint8Array(length)), {
      name: 'RangeError',
      message: `has ${length} bytes`,
    });
  }
});

const PREFIXES: Readonly<Record<string, string>> = {
  '10.0.0.0/8': '10.0.0.0/8',
  '0.0.0.0/0': '0.0.0.0/0',
  '10.0.0.1': '10.0.0.1/32',
  '255.255.255.255/32': '255.255.255.255/32',
  '::/0': '::/0',
  '::1': '::1/128',
  'FE80::/10': 'fe80::/10',
  '::ffff:1.2.3.4/128': '::ffff:102:304/128',
  '::ffff:0.0.0.0/96': '::ffff:0:0/96',
};
const NO_ADDRESS = [
  '',
  '/',
  '/8',
  '1.2.3/8',
  '167772160/8',
  '010.0.0.1/32',
  '0x0a.0.0.1/8',
  '192..1.1/32',
  ' 10.0.0.0/8',
].concat([
  '10.0.0.0 /8',
  'fe80::1%eth0/64',
  'fe80::%eth0/64',
  '1::2::3/64',
  ':1/128',
  '1:/16',
  '::1.2.3/128',
  'Anywhere',
  '10/8',
]);
const NO_LENGTH = [
  '10.0.0.0/',
  '10.0.0.0/024',
  '10.0.0.0/08',
  '10.0.0.0/33',
  '10.0.0.0/-1',
  '10.0.0.0/+8',
  '10.0.0.0/8 ',
].concat(
  [
    '10.0.0.0/ 8',
    '10.0.0.0/8\n',
    '10.0.0.0/8/8',
    '10.0.0.0/0x8',
    '10.0.0.0/8.0',
    '10.0.0.0/1e1',
    '10.0.0.0/255.0.0.0',
  ],
  ['10.0.0.0/NaN', '10.0.0.0/８', '0.0.0.0/00', '::/129', '::/0128', '::/1000', '::/', '::/::'],
);
const HOST_BITS: Readonly<Record<string, string>> = {
  '10.0.0.1/24': '10.0.0.0/24',
  '10.0.0.1/31': '10.0.0.0/31',
  '255.255.255.255/0': '0.0.0.0/0',
  'fe80::1/64': 'fe80::/64',
  '::1/127': '::/127',
  '::ffff:1.2.3.4/96': '::ffff:0:0/96',
};

t.test('CIDRs are read strictly, and each refusal says what is wrong', async (t) => {
  for (const [text, canonical] of Object.entries(PREFIXES))
    t.equal(printPrefix(parsePrefix(text)), canonical, text);
  const refused = (text: string, message: string) =>
    t.throws(() => parsePrefix(text), { name: 'SyntaxError', message: `${JSON.stringify(text)} ${message}` });
  for (const text of NO_ADDRESS) refused(text, 'does not start with an IPv4 or IPv6 address');
  for (const text of NO_LENGTH) {
    refused(text, `has no prefix length from 0 to ${text.includes(':') ? 128 : 32} after the slash`);
  }
  for (const [text, network] of Object.entries(HOST_BITS)) {
    refused(text, `has host bits set, the network is ${network}`);
  }
});

t.test('prefixes survive text, and hold what node and ip-cidr say they hold', async (t) => {
  fc.assert(
    fc.property(anyPrefix, anyAddress, (prefix, other) => {
      const back = parsePrefix(printPrefix(prefix));
      if (comparePrefixes(back, prefix) !== 0) throw new Error(`read back as ${printPrefix(back)}`);
      const { family, first, last } = prefixInterval(prefix);
      const node = new BlockList();
      node.addSubnet(printAddress(prefix), prefix.length, familyName(family));
      const range = new IPCIDR(printPrefix(prefix)); // right here: canonical, never an IPv4-mapped address
      const near = [first - 1n, first, (first + last) / 2n, last, last + 1n]
        .filter((value) => value >= 0n && value <= ADDRESS_MAX[family])
        .map((value): Address => ({ family, value }));
      for (const address of [...near, ...(other.family === family ? [other] : [])]) {
        const text = printAddress(address);
        const held = prefixContains(prefix, address);
        const verdicts = [held, first <= address.value && address.value <= last, range.contains(text)];
        if (!isMapped(address) && !isMapped(prefix)) verdicts.push(node.check(text, familyName(family)));
        if (verdicts.some((verdict) => verdict !== held)) throw new Error(`${text}: ${verdicts}`);
      }
      return other.family === family || !prefixContains(prefix, other);
    }),
    runs,
  );
  t.pass('1000 runs');
});

/** node:net's BlockList treats ::ffff:0:0/96 as IPv4, so it is no judge there. */
function isMapped({ family, value }: Address): boolean {
  return family === 6 && value >> 32n === 0xffffn;
}

t.test('prefixes sort by family, address, length, each once', async (t) => {
  const sorted = [
    '0.0.0.0/0',
    '9.0.0.0/8',
    '10.0.0.0/8',
    '10.0.0.0/9',
    '255.255.255.255/32',
    '::/0',
    '::/1',
    '::1/128',
  ];
  const list = sorted.map(parsePrefix);
  t.same(sortPrefixes([...list.toReversed(), ...list]).map(printPrefix), sorted);
  fc.assert(
    fc.property(fc.array(anyPrefix), (some) => {
      const texts = sortPrefixes([...some, ...some]).map(printPrefix);
      return texts.length === new Set(some.map(printPrefix)).size;
    }),
    runs,
  );
});

/** Obvious: of all prefixes inside the interval, those not inside a wider one of them. */
function prefixesSlowly(interval: Interval, depth: number, base: bigint): Prefix[] {
  const bits = BITS[interval.family];
  const all: Prefix[] = [];
  for (let length = bits - depth; length <= bits; length++) {
    for (let offset = 0n; offset < 1n << BigInt(depth); offset += 1n << BigInt(bits - length)) {
      all.push({ family: interval.family, value: base + offset, length });
    }
  }
  const inside = all.filter((prefix) => {
    const { first, last } = prefixInterval(prefix);
    return first >= interval.first && last <= interval.last;
  });
  const widest = inside.filter(
    (one) => !inside.some((two) => two.length < one.length && prefixContains(two, one)),
  );
  return sortPrefixes(widest);
}

t.test('the fewest prefixes of an interval', async (t) => {
  const texts = (family: Family, first: bigint, last: bigint) =>
    prefixesOfInterval({ family, first, last }).map(printPrefix);
  for (const family of FAMILIES) {
    const zero = family === 4 ? '0.0.0.0' : '::';
    const max = ADDRESS_MAX[family];
    t.same(texts(family, 0n, max), [`${zero}/0`]);
    t.same(texts(family, 0n, 0n), [`${zero}/${BITS[family]}`]);
    t.same(texts(family, max, max), [`${printAddress({ family, value: max })}/${BITS[family]}`]);
    t.equal(texts(family, 1n, max).length, BITS[family]);
    t.equal(texts(family, 1n, max - 1n).length, 2 * (BITS[family] - 1));
  }
  const places = fc.constantFrom(...FAMILIES).chain((family) => {
    const depth = 6;
    const base = fc.constantFrom(0n, ADDRESS_MAX[family] - 63n, 1n << BigInt(BITS[family] - 1));
    return fc.tuple(base, fc.nat(63), fc.nat(63)).map(([start, a, b]) => ({
      interval: { family, first: start + BigInt(Math.min(a, b)), last: start + BigInt(Math.max(a, b)) },
      depth,
      base: start,
    }));
  });
  fc.assert(
    fc.property(places, ({ interval, depth, base }) => {
      const found = prefixesOfInterval(interval).map(printPrefix).join(' ');
      const expected = prefixesSlowly(interval, depth, base).map(printPrefix).join(' ');
      if (found !== expected) throw new Error(`${found}, slowly ${expected}`);
    }),
    runs,
  );
  fc.assert(
    fc.property(anyPrefix, (prefix) => {
      const found = prefixesOfInterval(prefixInterval(prefix));
      return found.length === 1 && comparePrefixes(found[0]!, prefix) === 0;
    }),
    runs,
  );
});
