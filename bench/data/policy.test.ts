import { createHash } from 'node:crypto';
import { prefixOf } from 'sluice-gateway/net/prefix.js';
import t from 'tap';
import { type PackedPrefixes, type PolicyAtScale, packedSize, policyAtScale, unpack } from './policy.js';

const SCALE = { groups: 100, rules: 1000, prefixes: 40_000, seed: 7 } as const;
const OVERLAPS = ['realistic', 'adversarial'] as const;

const digest = ({ groups, policy }: PolicyAtScale) =>
  createHash('sha256')
    .update(JSON.stringify([...groups].map(([name, packed]) => [name, ...Object.values(packed).map(String)])))
    .update(JSON.stringify(policy))
    .digest('hex');

/** Prefixes as text that sorts as they do, IPv4 and IPv6 apart. */
const keysOf = (packed: PackedPrefixes) =>
  unpack(packed).map(
    ({ family, value, length }) =>
      `${family} ${value.toString(16).padStart(32, '0')} ${String(length).padStart(3, '0')}`,
  );

for (const overlap of OVERLAPS) {
  t.test(`${overlap}: the seed decides, and nothing else`, async (t) => {
    const made = digest(policyAtScale({ ...SCALE, overlap }));
    t.equal(digest(policyAtScale({ ...SCALE, overlap })), made);
    t.not(digest(policyAtScale({ ...SCALE, overlap, seed: 8 })), made);
  });

  t.test(
    `${overlap}: members are canonical, ascending and unique; the distinct ones are as many as asked`,
    async (t) => {
      const { groups } = policyAtScale({ ...SCALE, overlap });
      t.equal(groups.size, SCALE.groups);
      const distinct = new Set<string>();
      let members = 0;
      for (const [name, packed] of groups) {
        const keys = keysOf(packed);
        t.ok(keys.length > 0 && keys.every((key, at) => at === 0 || keys[at - 1]! < key), `${name} ascends`);
        t.ok(unpack(packed).every((prefix) => prefixOf(prefix, prefix.length).value === prefix.value));
        t.equal(packed.values6.length, 4 * packed.lengths6.length);
        t.equal(packedSize(packed), keys.length);
        members += keys.length;
        for (const key of keys) distinct.add(key);
      }
      t.equal(distinct.size, SCALE.prefixes);
      const shared = (members - distinct.size) / distinct.size;
      if (overlap === 'realistic') t.ok(shared > 0.01 && shared < 0.04, `${shared} shared`);
      else t.ok(shared > 0.1 && shared < 0.25, `${shared} shared`);
      const share6 = [...distinct].filter((key) => key.startsWith('6')).length / distinct.size;
      t.ok(share6 > 0.08 && share6 < 0.11, `${share6} are IPv6`);
      for (const key of ['4 '.padEnd(34, '0'), '6 '.padEnd(34, '0')])
        t.ok(distinct.has(`${key} 000`), 'everything');
      for (const key of [`4 ${'f'.repeat(8).padStart(32, '0')} 032`, `6 ${'f'.repeat(32)} 128`])
        t.ok(distinct.has(key), 'the top of the space');
    },
  );

  t.test(`${overlap}: rules are valid`, async (t) => {
    const { groups, policy } = policyAtScale({ ...SCALE, overlap });
    t.equal(policy.rules.length, SCALE.rules);
    t.equal(new Set(policy.rules.map(({ name }) => name)).size, SCALE.rules);
    t.ok(policy.rules.every(({ priority }, index) => priority === index));
    t.ok(policy.rules.every(({ src, dst }) => [...src, ...dst].every((name) => groups.has(name))));
    t.ok(policy.rules.every(({ protocol, portRanges }) => protocol !== 'ICMP' || portRanges.length === 0));
    const part = (is: (rule: (typeof policy.rules)[number]) => boolean) =>
      policy.rules.filter(is).length / SCALE.rules;
    t.ok(part(({ protocol }) => protocol === 'TCP') > 0.75);
    for (const protocol of ['UDP', 'ICMP', 'ANY']) t.ok(part((rule) => rule.protocol === protocol) > 0.01);
    for (const state of ['MONITOR', 'DISABLE']) t.ok(part((rule) => rule.enforcement === state) > 0.01);
    for (const action of ['DENY', 'REJECT']) t.ok(part((rule) => rule.action === action) > 0.02);
    t.same([policy.rules[0]!.src, policy.rules[0]!.action], [['Anywhere'], 'DENY'], 'feeds are denied first');
  });
}

t.test('realistic: a few feeds hold most', async (t) => {
  const { groups } = policyAtScale({ ...SCALE, overlap: 'realistic' });
  const sizes = [...groups.values()].map(packedSize).sort((a, b) => b - a);
  t.ok(sizes.slice(0, 5).reduce((a, b) => a + b) > 0.8 * SCALE.prefixes);
  t.ok(sizes[50]! < 100, 'half of all groups are small');
});

t.test('too few prefixes are refused', async (t) => {
  t.throws(() => policyAtScale({ ...SCALE, prefixes: 999, overlap: 'realistic' }), RangeError);
});
