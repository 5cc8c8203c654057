import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseAddress } from 'sluice-gateway/net/address.js';
import { parsePrefix } from 'sluice-gateway/net/prefix.js';
import type { Manifest } from 'sluice-gateway/snapshot/format.js';
import { originsOf, readOrigins } from 'sluice-gateway/snapshot/provenance.js';
import { readSnapshot } from 'sluice-gateway/snapshot/read.js';
import t from 'tap';
import { type Member, sortMembers } from '../groups/members.js';
import type { ResolvedGroup } from '../groups/resolve.js';
import { Ledger, REASONS_MAX } from './provenance.js';
import { writeSnapshot } from './write.js';

const FIRST = new Date('2026-11-21T12:00:00.000Z');
const LATER = new Date('2026-11-21T13:00:00.000Z');

const member = (prefix: string, via: string, rest: Partial<Member> = {}): Member => ({
  ...{ prefix: parsePrefix(prefix), via, seenAt: '2026-11-21T11:59:00.000Z' },
  ...rest,
});

function group(name: string, members: readonly Member[]): ResolvedGroup {
  const sorted = sortMembers(members);
  const distinct = new Map(
    sorted.map(({ prefix }) => [JSON.stringify([`${prefix.value}`, prefix.length]), prefix]),
  );
  return { name, resolved: true, prefixes: [...distinct.values()], members: sorted };
}

const content = (groups: readonly ResolvedGroup[]) => ({
  policy: { rules: [], defaultAction: { action: 'DENY' as const, logging: false } },
  groups,
  inventory: { functions: [], scopes: [] },
});

const manifestOf = (folder: string) =>
  JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8')) as Manifest;

async function write(folder: string, groups: readonly ResolvedGroup[], ledger: Ledger, now: Date) {
  const provenance = ledger.stamp(groups, now);
  await writeSnapshot(folder, { ...content(groups), provenance }, { now });
}

const origins = async (folder: string, name = 'g') => readOrigins(folder, await readSnapshot(folder), name);

const fn = 'arn:aws:lambda:us-east-1:111122223333:function:a';
const members = [
  member('10.0.1.0/24', fn, { by: 'subnet-1' }),
  member('10.0.1.0/24', 'cidr'),
  member('2001:db8::1/128', fn, { by: 'eni-1', group: 'inner' }),
];

t.test(
  'says for each prefix what it came from, in bodies that change nothing that is enforced',
  async (t) => {
    const [plain, told] = [t.testdir({ a: {}, b: {} })].flatMap((folder) => [
      join(folder, 'a'),
      join(folder, 'b'),
    ]);
    const groups = [group('g', members), group('empty', [])];
    await writeSnapshot(plain!, content(groups), { now: FIRST });
    await write(told!, groups, new Ledger(), FIRST);
    const enforced = ({ policy, groups }: Manifest) => ({
      policy,
      groups: groups.map(({ provenance: _, ...rest }) => rest),
    });
    t.same(enforced(manifestOf(told!)), enforced(manifestOf(plain!)));
    const since = FIRST.toISOString();
    const expected = [
      { prefix: '10.0.1.0/24', via: fn, by: 'subnet-1', since },
      { prefix: '10.0.1.0/24', via: 'cidr', since },
      { prefix: '2001:db8::1/128', via: fn, by: 'eni-1', group: 'inner', since },
    ];
    const found = (await origins(told!))!;
    t.same(found, expected);
    t.same(originsOf(found, parseAddress('10.0.1.77')), expected.slice(0, 2));
    t.same(originsOf(found, parseAddress('10.0.2.1')), []);
    t.same(await origins(told!, 'empty'), []);
    t.equal(await origins(plain!), undefined, 'not there is not nothing');
    t.equal(await origins(told!, 'none'), undefined);
  },
);

t.test('since when: kept while the reason is the same, over restarts too', async (t) => {
  const folder = t.testdir();
  const ledger = new Ledger();
  await write(folder, [group('g', members)], ledger, FIRST);
  const fresh: Member[] = members.map((one) => ({ ...one, seenAt: LATER.toISOString() }));
  await write(folder, [group('g', fresh)], ledger, LATER);
  t.equal(manifestOf(folder).revision, 1, 'seen again is nothing new');
  const stamped = (list: readonly Member[]) => ledger.stamp([group('g', list)], LATER).get('g');
  t.equal(stamped(fresh), stamped([...fresh]), 'and the same list');
  t.match(stamped(fresh.with(0, member('10.0.0.0/24', 'other')))!, [
    { via: 'other', since: LATER.toISOString() },
  ]);
  const moved = [
    fresh[1]!,
    fresh[2]!,
    member('10.0.1.0/24', fn, { by: 'subnet-2' }),
    member('10.0.0.0/24', 'cidr'),
  ];
  await write(folder, [group('g', moved)], await Ledger.open(folder), LATER);
  const [first, later] = [FIRST, LATER].map((date) => date.toISOString());
  t.match(await origins(folder), [
    { prefix: '10.0.0.0/24', via: 'cidr', since: later },
    { prefix: '10.0.1.0/24', via: fn, by: 'subnet-2', since: later },
    { prefix: '10.0.1.0/24', via: 'cidr', since: first },
    { prefix: '2001:db8::1/128', since: first },
  ]);
});

t.test('a provenance body that is missing or spoiled harms nobody', async (t) => {
  for (const spoil of [
    (file: string) => rmSync(file),
    (file: string) => writeFileSync(file, '{"members":[],"sources":[]}'),
  ]) {
    const folder = t.testdir();
    await write(folder, [group('g', members)], new Ledger(), FIRST);
    const { provenance } = manifestOf(folder).groups[0]!;
    spoil(join(folder, 'bodies', provenance![0]!));
    t.equal((await readSnapshot(folder)).groups[0]!.parts.flat().length, 2);
    t.equal(await origins(folder), undefined);
    t.doesNotThrow(() => Ledger.open(folder));
  }
});

t.test(
  'a large group is cut where its prefixes are; of many reasons for one prefix some are told',
  async (t) => {
    const folder = t.testdir();
    const many = Array.from({ length: 20_000 }, (_, index) =>
      member(`10.${index >> 8}.${index & 255}.0/24`, 'cidr'),
    );
    const crowd = Array.from({ length: 100 }, (_, index) => member('192.0.2.0/24', `arn-${index}`));
    await write(folder, [group('g', [...many, ...crowd])], new Ledger(), FIRST);
    const { bodies, provenance } = manifestOf(folder).groups[0]!;
    t.equal(provenance!.length, bodies.length);
    t.ok(bodies.length > 4);
    const found = (await origins(folder))!;
    t.equal(found.length, 20_000 + REASONS_MAX);
    t.equal(found.at(-1)!.prefix, '192.0.2.0/24');
  },
);
