import fc from 'fast-check';
import type { Address } from 'sluice-gateway/net/address.js';
import { BITS } from 'sluice-gateway/net/family.js';
import { type Prefix, prefixContains, prefixOf } from 'sluice-gateway/net/prefix.js';
import t from 'tap';
import { Holes, mergePrefixes } from './members.js';
import {
  feeds,
  fn,
  type Layout,
  list,
  one,
  S1,
  S2,
  S3,
  scope,
  subnet,
  tryLayouts,
  two,
  vm,
  vpc,
} from './zoo-fixture.js';

/* What each kind of selector holds. */

const layouts: readonly Layout[] = [
  {
    what: 'tags of odd characters',
    aws: {
      functions: [
        fn('a', ['s1'], { tags: { 'team:α/β=γ+δ@x': 'a.b [c] (d) ^$', empty: '' } }),
        fn('b', ['s2'], { tags: { 'team:α/β=γ+δ@x': 'a-b [c] (d) ^$', constructor: 'x' } }),
      ],
      subnets: [S1, S2],
    },
    groups: {
      exact: '{ type: serverless, tags: { "team:α/β=γ+δ@x": "a.b [c] (d) ^$" } }',
      glob: '{ type: serverless, tags: { "team:α/β=γ+δ@x": "a?b*" } }',
      empty: '{ type: serverless, tags: { empty: "" } }',
      inherited: '{ type: serverless, tags: { toString: "*" } }',
      own: '{ type: serverless, tags: { constructor: "*" } }',
    },
    hold: {
      ...{ exact: '10.0.1.0/24', glob: '10.0.1.0/24 10.0.2.0/24', empty: '10.0.1.0/24' },
      ...{ inherited: '', own: '10.0.2.0/24' },
    },
  },
  {
    what: 'tags never read: a tag selector is not known, and under a not it may hold too much',
    aws: { scopes: [scope(one, { learntAt: {} })], functions: [fn('a', ['s1'])], subnets: [S1] },
    groups: {
      tagged: '{ type: serverless, tags: { a: b } }',
      untagged: '{ type: serverless, not: { tags: { a: b } } }',
      named: '{ type: serverless, name: a }',
    },
    hold: { tagged: '?', untagged: '? ! 10.0.1.0/24', named: '10.0.1.0/24' },
  },
  {
    what: 'a function taken away by its tag stays by the subnet of another',
    aws: {
      functions: [fn('a', ['s1']), fn('dev', ['s1', 's2'], { tags: { stage: 'dev' } })],
      subnets: [S1, S2],
    },
    groups: { g: '{ type: serverless, not: { tags: { stage: dev } } }' },
    hold: { g: '10.0.1.0/24' },
    told: [
      'function "a" shares s1 with "dev" outside of the group: a subnet of its own would tell them apart',
    ],
  },
  {
    what: 'not, with several conditions: what all hold for is taken away',
    aws: {
      functions: [
        fn('a', ['s1'], { tags: { stage: 'dev', team: 'x' } }),
        fn('b', ['s2'], { tags: { stage: 'dev', team: 'y' } }),
      ],
      subnets: [S1, S2],
    },
    groups: { g: '{ type: serverless, not: { name: "?", tags: { stage: dev, team: x } } }' },
    hold: { g: '10.0.2.0/24' },
  },
  {
    what: 'addresses taken away',
    aws: { functions: [fn('a', ['s1', 's3'])], subnets: [S1, S3] },
    groups: {
      half: '{ type: serverless, not: { cidr: 10.0.1.0/25 } }',
      none: '{ cidr: 10.0.0.0/8, not: { cidr: 0.0.0.0/0 } }',
      other: '{ cidr: 10.0.0.0/8, not: { cidr: "::/0" } }',
      internet: '{ cidr: 0.0.0.0/0, not: { group: Public Internet } }',
    },
    hold: {
      half: '10.0.1.128/25 10.0.3.0/24 2001:db8:3::/64',
      none: '',
      other: '10.0.0.0/8',
      internet:
        '0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 224.0.0.0/3',
    },
  },
  {
    what: 'groups of groups, in any order',
    aws: { functions: [fn('a', ['s1']), fn('b', ['s2'])], subnets: [S1, S2] },
    groups: {
      top: '{ group: middle } | { cidr: 192.0.2.0/24 }',
      middle: '{ group: leaf, not: { cidr: 10.0.2.0/25 } }',
      leaf: '{ type: serverless }',
    },
    hold: {
      top: '10.0.1.0/24 10.0.2.128/25 192.0.2.0/24',
      middle: '10.0.1.0/24 10.0.2.128/25',
      leaf: '10.0.1.0/24 10.0.2.0/24',
    },
  },
  {
    what: 'a group that is not all known, inside others',
    aws: { scopes: [scope(one), { ...two, learntAt: {} }], functions: [fn('a', ['s1'])], subnets: [S1] },
    groups: {
      leaf: '{ type: serverless }',
      holder: '{ group: leaf } | { cidr: 192.0.2.0/24 }',
      without: '{ cidr: 10.0.0.0/23, not: { group: leaf } }',
      back: '{ cidr: 10.0.0.0/23, not: { group: without } }',
    },
    hold: {
      ...{ leaf: '? 10.0.1.0/24', holder: '? 10.0.1.0/24 192.0.2.0/24' },
      ...{ without: '! 10.0.0.0/24', back: '? 10.0.1.0/24' },
    },
  },
  {
    what: 'instances, subnets and VPCs by each of their conditions',
    aws: {
      subnets: [S1, subnet('s4', '10.0.4.0/24', { zone: 'us-east-1b', tags: { Name: 'db-4' } })],
      vpcs: [vpc('vpc-1', '10.0.0.0/16 100.64.0.0/24', { tags: { Name: 'spoke' } })],
      instances: [
        vm('i-1', 's1', '10.0.1.9 10.0.1.10', { tags: { Name: 'web-1', role: 'web' } }),
        vm('i-4', 's4', '10.0.4.9', { tags: { Name: 'db-1' } }),
      ],
    },
    groups: {
      web: '{ type: vm, name: "web-*", tags: { role: "w*" }, vpcId: vpc-1 }',
      notWeb: '{ type: vm, not: { name: "web-*" } }',
      zone: '{ type: subnet, zone: us-east-1b, region: us-east-1 }',
      vpcs: '{ type: vpc, name: spoke, not: { cidr: 10.0.0.0/17 } }',
      id: '{ type: vm, id: i-4, accountId: "111122223333" }',
    },
    hold: {
      ...{ web: '10.0.1.9/32 10.0.1.10/32', notWeb: '10.0.4.9/32', zone: '10.0.4.0/24', id: '10.0.4.9/32' },
      vpcs: '10.0.128.0/17 100.64.0.0/24',
    },
  },
  {
    what: 'functions by security group',
    aws: {
      functions: [fn('a', ['s1']), fn('b', ['s2'], { securityGroupIds: ['sg-2', 'sg-3'] })],
      subnets: [S1, S2],
    },
    groups: {
      two: '{ type: serverless, securityGroup: sg-2 }',
      rest: '{ type: serverless, not: { securityGroup: sg-2 } }',
    },
    hold: { two: '10.0.2.0/24', rest: '10.0.1.0/24' },
  },
  {
    what: 'managed prefix lists by id and by name',
    aws: {
      prefixLists: [
        list('pl-1', 'com.amazonaws.us-east-1.s3', '3.5.0.0/19 2600:1fa0::/40'),
        list('pl-2', 'partners', '192.0.2.0/24'),
      ],
    },
    groups: {
      id: '{ prefixList: pl-2 }',
      name: '{ prefixList: "com.amazonaws.*.s3", region: us-east-1 }',
      without: '{ cidr: 192.0.2.0/23, not: { prefixList: partners } }',
    },
    hold: { id: '192.0.2.0/24', name: '3.5.0.0/19 2600:1fa0::/40', without: '192.0.3.0/24' },
  },
  {
    what: "AWS's own prefix list as two accounts know it, one of them from long ago",
    aws: {
      scopes: [scope(one), scope(two)],
      prefixLists: [list('pl-1', 's3', '3.5.0.0/19'), { ...list('pl-1', 's3', '3.5.0.0/20'), ...two }],
    },
    groups: { any: '{ prefixList: pl-1 }', theirs: `{ prefixList: pl-1, accountId: "${two.accountId}" }` },
    hold: { any: '3.5.0.0/19 3.5.0.0/20', theirs: '3.5.0.0/20' },
  },
  {
    what: 'a prefix list that AWS does not show',
    aws: {},
    groups: { g: '{ prefixList: pl-x }' },
    told: ['p.yaml:3:60: unknown prefix list "pl-x": AWS shows none of this id or name here'],
  },
  {
    what: 'names and feeds, known and not',
    aws: {},
    groups: {
      name: '{ fqdn: API.example.com }',
      never: '{ fqdn: new.example.com }',
      feed: '{ external: aws, service: S3, region: us-east-1 }',
      blocked: '{ cidr: 192.0.2.0/23, not: { external: list, name: blocked } }',
      unknown: '{ cidr: 192.0.2.0/24, not: { external: list, name: other } }',
      geo: '{ external: geo, country_iso_code: DE, is_in_eu: true }',
    },
    hold: {
      ...{ name: '198.51.100.7/32', never: '?', feed: '3.5.0.0/19', blocked: '192.0.2.0/24' },
      ...{ unknown: '! 192.0.2.0/24', geo: '203.0.113.0/24' },
    },
    options: feeds({
      'fqdn api.example.com': '198.51.100.7/32',
      'feed aws service=S3 region=us-east-1': '3.5.0.0/19',
      'feed list name=blocked': '192.0.3.0/24',
      'feed geo country_iso_code=DE is_in_eu=true': '203.0.113.0/24',
    }),
  },
  {
    what: 'subnets that overlap in two accounts',
    aws: {
      scopes: [scope(one), scope(two)],
      functions: [fn('a', ['s1']), fn('b', ['s7'], two)],
      subnets: [S1, subnet('s7', '10.0.0.0/16', two)],
    },
    groups: { g: '{ type: serverless }' },
    hold: { g: '10.0.0.0/16 10.0.1.0/24' },
    identity: { a: 'dedicated-subnet', b: 'dedicated-subnet' },
  },
];

tryLayouts(t, layouts);

t.test('what is taken away, and the fewest prefixes, as address by address', async (t) => {
  const seed = Number(process.env.TEST_SEED ?? Date.now() % 2 ** 31);
  t.comment(`TEST_SEED=${seed}`);
  // Six bits of freedom at the top of each address space, so that prefixes nest, touch and end it.
  const hosts = [
    ...Array.from({ length: 64 }, (_, host) => ({ family: 4 as const, value: 0xffffffc0n + BigInt(host) })),
    ...Array.from({ length: 64 }, (_, host) => ({
      family: 6 as const,
      value: (1n << 128n) - 64n + BigInt(host),
    })),
  ];
  const anyPrefix = fc
    .tuple(fc.constantFrom(...hosts), fc.integer({ min: 0, max: 6 }))
    .map(([address, up]) => prefixOf(address, BITS[address.family] - up));
  const anyList = fc.array(anyPrefix, { maxLength: 8 });
  const holds = (prefixes: readonly Prefix[], address: Address) =>
    prefixes.some((prefix) => prefixContains(prefix, address));
  fc.assert(
    fc.property(anyList, anyList, (prefixes, taken) => {
      const merged = mergePrefixes(prefixes);
      const left = new Holes(taken)
        .take(prefixes.map((prefix) => ({ prefix, via: 'cidr' })))
        .map((one) => one.prefix);
      return hosts.every(
        (address) =>
          holds(merged, address) === holds(prefixes, address) &&
          holds(left, address) === (holds(prefixes, address) && !holds(taken, address)),
      );
    }),
    { seed },
  );
  t.pass();
});
