import fc from 'fast-check';
import t from 'tap';
import { type Address, parseAddress, printAddress } from '../net/address.js';
import { type Prefix, parsePrefix, prefixContains, prefixOf } from '../net/prefix.js';
import { Matcher, type MatcherInput } from './matcher.js';

const seed = Number(process.env.TEST_SEED ?? Date.now() % 2 ** 31);
t.comment(`TEST_SEED=${seed}`);

const prefixes = (...texts: string[]) => texts.map(parsePrefix);
const fn = (arn: string, list: readonly Prefix[]) => ({
  arn,
  accountId: '111122223333',
  region: 'us-east-1',
  identity: 'dedicated-subnet',
  prefixes: list,
});

t.test('groups and functions of an address, through all prefixes around it', async (t) => {
  const matcher = Matcher.build({
    groups: [
      { name: 'all', prefixes: prefixes('0.0.0.0/0', '::/0') },
      { name: 'pay', prefixes: prefixes('10.20.0.0/16', '10.20.1.0/24', '10.20.0.0/16') },
      { name: 'host', prefixes: prefixes('10.20.1.5/32', '2600::1') },
      { name: 'nobody', prefixes: [] },
    ],
    functions: [fn('a', prefixes('10.20.1.0/24')), fn('b', prefixes('10.20.1.0/24', '2600::/64'))],
    excluded: prefixes('10.20.1.1'),
  });
  const owner = (arn: string) => ({
    arn,
    accountId: '111122223333',
    region: 'us-east-1',
    identity: 'dedicated-subnet',
  });
  const check = (text: string, groups: string[], functions: string[]) => {
    t.same(matcher.groupsOf(parseAddress(text)), groups, `groups of ${text}`);
    t.same(matcher.functionsOf(parseAddress(text)), functions.map(owner), `functions of ${text}`);
  };
  for (const round of ['first', 'kept']) {
    t.comment(round);
    check('10.20.1.5', ['all', 'pay', 'host'], ['a', 'b']);
    check('10.20.1.6', ['all', 'pay'], ['a', 'b']);
    check('10.20.2.6', ['all', 'pay'], []);
    check('8.8.8.8', ['all'], []);
    check('2600::1', ['all', 'host'], ['b']);
    check('2600::2', ['all'], ['b']);
    check('10.20.1.1', [], []);
  }
});

t.test('nothing known, nothing found', async (t) => {
  const matcher = Matcher.build({ groups: [], functions: [], excluded: [] });
  t.same(matcher.groupsOf(parseAddress('10.0.0.1')), []);
  t.same(matcher.functionsOf(parseAddress('::1')), []);
});

t.test('more prefixes are asked for than answers are kept', async (t) => {
  const hosts = Array.from({ length: 70_000 }, (_, host) => prefixOf({ family: 4, value: BigInt(host) }, 32));
  const half = hosts.filter(({ value }) => value % 2n === 0n);
  const matcher = Matcher.build({
    groups: [
      { name: 'hosts', prefixes: hosts },
      { name: 'even', prefixes: half },
    ],
    functions: [],
    excluded: [],
  });
  for (const { value } of [...hosts, ...hosts.slice(0, 1000)]) {
    const groups = matcher.groupsOf({ family: 4, value });
    if (groups.length !== (value % 2n === 0n ? 2 : 1)) t.fail(`${value} is in ${groups}`);
  }
  t.pass('all as expected');
});

/** The slow twin: asks every prefix of every group and function. */
function slowly(input: MatcherInput, address: Address) {
  const holds = (list: readonly Prefix[]) => list.some((prefix) => prefixContains(prefix, address));
  if (holds(input.excluded)) return { groups: [], functions: [] };
  const byInterface = input.functions.filter(({ addresses = [] }) => holds(addresses));
  const functions =
    byInterface.length > 0 ? byInterface : input.functions.filter((one) => holds(one.prefixes));
  return {
    groups: input.groups.filter((group) => holds(group.prefixes)).map(({ name }) => name),
    functions: functions.map(({ arn }) => arn),
  };
}

t.test('agrees with its slow twin', async (t) => {
  // Six bits of freedom in each family, so that random lists overlap, nest and repeat.
  const anyAddress: fc.Arbitrary<Address> = fc.oneof(
    fc
      .integer({ min: 0, max: 63 })
      .map((host) => ({ family: 4 as const, value: 0x0a0000c0n + BigInt(host) })),
    fc.integer({ min: 0, max: 63 }).map((net) => ({ family: 6 as const, value: BigInt(net) << 61n })),
  );
  const anyPrefix = fc
    .tuple(anyAddress, fc.integer({ min: 0, max: 7 }))
    .map(([address, up]) => prefixOf(address, (address.family === 4 ? 32 : 67) - up));
  const anyList = fc.array(anyPrefix, { maxLength: 8 });
  const anyInput = fc
    .tuple(fc.array(anyList), fc.array(fc.tuple(anyList, anyList)), anyList)
    .map(([groups, functions, excluded]) => ({
      groups: groups.map((list, index) => ({ name: `g${index}`, prefixes: list })),
      functions: functions.map(([list, own], index) => ({
        ...fn(`f${index}`, list),
        ...(index % 2 === 0 && { addresses: own.filter(({ length }) => length === 32 || length === 67) }),
      })),
      excluded: excluded.slice(0, 2).filter(({ length }) => length > 28),
    }));
  fc.assert(
    fc.property(anyInput, fc.array(anyAddress, { minLength: 20, maxLength: 60 }), (input, addresses) => {
      const matcher = Matcher.build(input);
      for (const address of addresses) {
        const functions = matcher.functionsOf(address).map(({ arn }) => arn);
        const found = JSON.stringify({ groups: matcher.groupsOf(address), functions });
        const expected = JSON.stringify(slowly(input, address));
        if (found !== expected) throw new Error(`${printAddress(address)}: ${found}, slowly ${expected}`);
      }
    }),
    { seed, numRuns: 300 },
  );
  t.pass('300 runs');
});
