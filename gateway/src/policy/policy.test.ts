import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { parseAddress } from '../net/address.js';
import { KIND, NUMBER_MAX } from '../nft/mark.js';
import type { NumberMap } from '../nft/program.js';
import { compilePolicy } from './compile.js';
import { type Connection, evaluate } from './evaluate.js';
import { inForce, NOW, prefixes, rule } from './fixture.js';
import { nextExpiry, policyInForce } from './in-force.js';
import type { Policy, PolicyRule } from './model.js';
import { ruleObjects } from './rule-content.js';
import { RuleIndex } from './rule-index.js';
import { serviceTable } from './services.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);
const groupNames = ['a', 'b', 'c', 'd'];

t.test('only rules that count are in force, numbered from 1', (t) => {
  const policy: Policy = {
    rules: [
      rule('off', 'a', 'b', { enforcement: 'DISABLE', expires: '2026-11-01T00:00:01Z' }),
      rule('over', 'a', 'b', { expires: '2026-11-01T00:00:00Z' }),
      rule('first', 'a', 'b', { priority: 3, expires: '2026-11-01T02:00:00+01:00', logging: false }),
      rule('watch', 'a', 'b', { priority: 7, enforcement: 'MONITOR', action: 'REJECT' }),
    ],
    defaultAction: { action: 'REJECT', logging: false },
  };
  const { rules, byDefault } = policyInForce(policy, NOW);
  t.match(rules, [
    { number: 1, name: 'first', priority: 3, action: 'PERMIT', logging: false, enforced: true },
    { number: 2, name: 'watch', priority: 7, action: 'REJECT', logging: true, enforced: false },
  ]);
  t.equal(rules.length, 2);
  t.strictSame(byDefault, {
    number: 0,
    name: 'default',
    priority: undefined,
    action: 'REJECT',
    logging: false,
    enforced: true,
  });
  const expiry = (text: string) => nextExpiry(policy, new Date(text))?.toISOString();
  t.equal(expiry('2026-10-31T00:00:00Z'), '2026-11-01T00:00:00.000Z');
  t.equal(expiry('2026-11-01T00:00:00Z'), '2026-11-01T01:00:00.000Z', 'not the one that is disabled');
  t.equal(expiry('2026-11-01T01:00:00Z'), undefined);
  t.equal(policyInForce(policy, new Date('2026-10-31T23:59:59.999Z')).rules[0]?.name, 'over');
  t.end();
});

t.test('services', (t) => {
  const portRanges = [{ lo: 100, hi: 200 }];
  const policy = inForce(
    rule('tcp', 'a', 'b', { protocol: 'TCP', portRanges }),
    rule('watch', 'a', 'b', {
      protocol: 'TCP',
      portRanges: [{ lo: 150, hi: 65_535 }],
      enforcement: 'MONITOR',
    }),
    rule('any', 'a', 'b', {
      portRanges: [
        { lo: 1, hi: 1 },
        { lo: 53, hi: 53 },
        { lo: 54, hi: 54 },
      ],
    }),
    rule('icmp', 'a', 'b', { protocol: 'ICMP' }),
  );
  const { protocols } = serviceTable(policy.rules, policy.byDefault);
  const words = protocols.flatMap(({ first, last, to }): string[] => {
    const decision = (to: { decided: { name: string }; monitored: readonly { name: string }[] }) =>
      [...to.monitored, to.decided].map(({ name }) => name).join('+');
    if ('decided' in to) return [`${first}-${last} ${decision(to)}`];
    return to.ports.map((port) => `${first}:${port.first}-${port.last} ${decision(port.to)}`);
  });
  t.strictSame(words, [
    '0-0 default',
    '1-1 icmp',
    '2-5 default',
    '6:0-0 default',
    '6:1-1 any',
    '6:2-52 default',
    '6:53-54 any',
    '6:55-99 default',
    '6:100-200 tcp',
    '6:201-65535 watch+default',
    '7-16 default',
    '17:0-0 default',
    '17:1-1 any',
    '17:2-52 default',
    '17:53-54 any',
    '17:55-65535 default',
    '18-57 default',
    '58-58 icmp',
    '59-255 default',
  ]);
  const all = inForce(rule('all', 'a', 'b'));
  t.match(serviceTable(all.rules, all.byDefault).protocols, [
    { first: 0, last: 255, to: { decided: { name: 'all' } } },
  ]);
  t.end();
});

t.test(`services decide as evaluate does (TEST_SEED=${seed})`, (t) => {
  const port = fc.integer({ min: 1, max: 65_535 });
  const rules = fc.array(
    fc
      .record({
        protocol: fc.constantFrom('ANY' as const, 'TCP' as const, 'UDP' as const, 'ICMP' as const),
        portRanges: fc.array(
          fc.tuple(port, port).map(([a, b]) => ({ lo: Math.min(a, b), hi: Math.max(a, b) })),
          { maxLength: 3 },
        ),
        enforcement: fc.constantFrom('ENFORCE' as const, 'MONITOR' as const),
      })
      .map((drawn) => rule('', 'a', 'b', drawn.protocol === 'ICMP' ? { ...drawn, portRanges: [] } : drawn)),
    { maxLength: 6 },
  );
  const groups = new Map([
    ['a', prefixes('10.0.0.0/8')],
    ['b', prefixes('20.0.0.0/8')],
  ]);
  const ends = { src: parseAddress('10.0.0.1'), dst: parseAddress('20.0.0.1') };
  fc.assert(
    fc.property(rules, fc.nat(255), (rules, someProtocol) => {
      const policy = inForce(...rules);
      const { protocols } = serviceTable(policy.rules, policy.byDefault);
      const ports = rules.flatMap(({ portRanges }) =>
        portRanges.flatMap(({ lo, hi }) => [lo - 1, lo, hi, hi + 1]),
      );
      for (const protocol of [1, 6, 17, 58, someProtocol]) {
        for (const dstPort of [0, 65_535, ...ports.filter((port) => port <= 65_535)]) {
          const connection: Connection = { ...ends, protocol, dstPort };
          const { to } = protocols.find(({ first, last }) => first <= protocol && protocol <= last)!;
          const found =
            'decided' in to
              ? to
              : to.ports.find(({ first, last }) => first <= dstPort && dstPort <= last)!.to;
          const expected = evaluate(policy, groups, [], connection);
          assert.equal(found.decided, expected.decided);
          assert.deepEqual(found.monitored, expected.monitored);
        }
      }
    }),
    { seed, numRuns: 500 },
  );
  t.pass('for random rules, at the edges of their ranges');
  t.end();
});

t.test('every number that a map leads to is a key of the next', (t) => {
  const groups = new Map(groupNames.map((name, index) => [name, prefixes(`10.${index}.0.0/16`)]));
  const policy = inForce(
    ...groupNames.flatMap((src) => groupNames.map((dst) => rule(`${src} ${dst}`, src, dst))),
    rule('watched', 'a', 'b', { enforcement: 'MONITOR', protocol: 'TCP' }),
  );
  const { maps, chains } = compilePolicy({ policy, groups, excluded: [], epoch: 'x' });
  const numbers = (kind: RegExp, of: 'keys' | 'data') => {
    const found = new Set<number>();
    for (const { name, elements } of maps.filter(({ name }) => kind.test(name))) {
      t.match(name, /^[a-z0-9_]+_[0-9a-f]{16}$/);
      for (const { first, data } of elements) {
        if (of === 'keys') found.add(Number(first));
        else if (typeof data === 'number') found.add(data);
      }
    }
    return [...found].sort((a, b) => a - b);
  };
  t.strictSame(numbers(/^source[46]_classes/, 'data'), numbers(/^sources/, 'keys'));
  t.strictSame(numbers(/^source[46]_classes/, 'data'), [1, 2, 3, 4, 5]);
  t.strictSame(
    numbers(/^destination[46]_classes/, 'data'),
    [1, 2, 3, 4, 5].map((number) => KIND.destination | number),
  );
  t.strictSame(numbers(/^to/, 'data'), numbers(/^lists/, 'keys'));
  t.equal(numbers(/^lists/, 'keys').length, 17);
  for (const map of maps.filter(({ name }) => name.startsWith('to_'))) {
    const elements = [...(map as NumberMap).elements];
    t.strictSame(
      [Number(elements[0]!.first), Number(elements.at(-1)!.last)],
      [KIND.destination, KIND.destination | NUMBER_MAX],
    );
    t.ok(elements.every(({ first }, index) => index === 0 || elements[index - 1]!.last + 1n === first));
  }
  const decisions = chains
    .filter(({ name }) => name.startsWith('list_'))
    .flatMap(({ rules }) => rules.flat().flatMap((one) => (one.kind === 'setMark' ? [one.value] : [])));
  t.strictSame(new Set(decisions).symmetricDifference(new Set(numbers(/^decided/, 'keys'))).size, 0);
  t.end();
});

t.test('content is named after itself, and counters after their rule', (t) => {
  const groups = new Map([['a', prefixes('10.0.0.0/8')]]);
  const names = (epoch: string, ...rules: PolicyRule[]) => {
    const { chains, maps } = compilePolicy({ policy: inForce(...rules), groups, excluded: [], epoch });
    return [...chains, ...maps].map(({ name }) => name);
  };
  const [first, other] = [rule('one', 'a', 'a'), rule('one', 'a', 'a', { action: 'DENY' })];
  t.strictSame(names('x', first), names('x', first));
  const shared = (a: string[], b: string[]) => a.filter((name) => b.includes(name));
  t.strictSame(shared(names('x', first), names('y', first)), [], 'another epoch has other names');
  t.notSame(names('x', first), names('x', other));
  for (const name of [...names('x', rule('"; flush ruleset #'.repeat(20), 'a', 'a'))]) {
    t.match(name, /^[A-Za-z][A-Za-z0-9_]{0,100}$/);
  }
  const counters = (line: PolicyRule) => ruleObjects(inForce(line).rules[0]!).decided;
  const apart = [
    first,
    other,
    rule('one', 'a', 'a', { enforcement: 'MONITOR' }),
    rule('One', 'a', 'a'),
    rule('o.ne', 'a', 'a'),
    rule('o-ne', 'a', 'a'),
  ];
  t.equal(new Set(apart.map(counters)).size, apart.length);
  t.end();
});

t.test('a group that holds every address no more is noticed at once', (t) => {
  const index = new RuleIndex();
  const policy = inForce(rule('one', 'a', 'b'));
  const groupsWith = (...b: string[]) =>
    new Map([
      ['a', [prefixes('10.0.0.0/8')]],
      ['b', [prefixes(...b)]],
    ]);
  const everywhere = ['0.0.0.0/0', '::/0'];
  const taken = [everywhere, ['9.0.0.0/8'], ['8.0.0.0/8'], everywhere].map((b) => [
    index.take(policy, groupsWith(...b)) !== undefined,
    index.isBroad.src[0],
  ]);
  t.strictSame(taken, [
    [false, true],
    [false, false],
    [true, false],
    [false, true],
  ]);
  t.end();
});
