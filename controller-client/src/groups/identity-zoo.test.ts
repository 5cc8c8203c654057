import t from 'tap';
import { emptyInventory } from '../inventory.js';
import { identifyFunctions } from './identity.js';
import { resolveGroups } from './resolve.js';
import {
  ago,
  eni,
  fn,
  type Layout,
  LIMIT,
  one,
  read,
  S1,
  S2,
  S3,
  scope,
  subnet,
  tryLayouts,
  two,
  vm,
} from './zoo-fixture.js';

/* Who has which addresses, and how sure that is. */

const layouts: readonly Layout[] = [
  {
    what: 'a subnet of its own',
    aws: { functions: [fn('a', ['s1'])], subnets: [S1, S2] },
    groups: { g: '{ type: serverless, name: a }' },
    hold: { g: '10.0.1.0/24' },
    identity: { a: 'dedicated-subnet' },
  },
  {
    what: 'several subnets, one of them dual stack',
    aws: { functions: [fn('a', ['s1', 's3'])], subnets: [S1, S3] },
    groups: { g: '{ type: serverless }' },
    hold: { g: '10.0.1.0/24 10.0.3.0/24 2001:db8:3::/64' },
    identity: { a: 'dedicated-subnet' },
  },
  {
    what: 'a subnet shared, interfaces not read',
    aws: { functions: [fn('a', ['s1']), fn('b', ['s1'])], subnets: [S1] },
    groups: { g: '{ type: serverless, name: a }' },
    hold: { g: '10.0.1.0/24' },
    identity: { a: 'shared by s1 with b', b: 'shared by s1 with a' },
  },
  {
    what: 'versions with security groups of their own',
    aws: {
      functions: [
        fn('a', ['s1', 's2'], {
          securityGroupIds: ['sg-1', 'sg-2'],
          versions: [
            { subnetIds: ['s1'], securityGroupIds: ['sg-1'] },
            { subnetIds: ['s1', 's2'], securityGroupIds: ['sg-2'] },
            { subnetIds: ['s2'], securityGroupIds: ['sg-2'] },
          ],
        }),
        fn('b', ['s1'], { securityGroupIds: ['sg-1', 'sg-2'] }),
        fn('c', ['s2']),
      ],
      subnets: [S1, S2],
      interfaces: [
        eni('eni-1', 's1', '10.0.1.5'),
        eni('eni-2', 's1', '10.0.1.6', { securityGroupIds: ['sg-2'] }),
        eni('eni-3', 's2', '10.0.2.7', { securityGroupIds: ['sg-2'] }),
        eni('eni-b', 's1', '10.0.1.8', { securityGroupIds: ['sg-1', 'sg-2'] }),
        eni('eni-c', 's2', '10.0.2.9'),
      ],
    },
    groups: { narrow: 'eni { type: serverless, name: a }', other: 'eni { type: serverless, name: b }' },
    hold: { narrow: '10.0.1.5/32 10.0.1.6/32 10.0.2.7/32', other: '10.0.1.8/32' },
    identity: { a: 'dedicated-eni', b: 'dedicated-eni', c: 'dedicated-eni' },
  },
  {
    what: 'a subnet shared by functions of different security groups',
    aws: {
      functions: [fn('a', ['s1']), fn('b', ['s1'], { securityGroupIds: ['sg-2'] })],
      subnets: [S1],
      interfaces: [
        eni('eni-a', 's1', '10.0.1.5'),
        eni('eni-b', 's1', '10.0.1.6', { securityGroupIds: ['sg-2'] }),
      ],
    },
    groups: { narrow: 'eni { type: serverless, name: a }', wide: '{ type: serverless, name: a }' },
    hold: { narrow: '10.0.1.5/32', wide: '10.0.1.0/24' },
    identity: { a: 'dedicated-eni', b: 'dedicated-eni' },
  },
  {
    what: 'subnet and security groups shared',
    aws: {
      functions: [fn('a', ['s1']), fn('b', ['s1'])],
      subnets: [S1],
      interfaces: [eni('eni-1', 's1', '10.0.1.5')],
    },
    groups: { g: 'eni { type: serverless, name: a }' },
    hold: { g: '10.0.1.5/32' },
    identity: { a: 'shared by eni-1 with b', b: 'shared by eni-1 with a' },
    told: [
      'function "a" shares eni-1 with "b" outside of the group: a subnet or security group of its own would',
    ],
  },
  {
    what: 'both functions of a shared interface in the group',
    aws: {
      functions: [fn('a', ['s1']), fn('b', ['s1'])],
      subnets: [S1],
      interfaces: [eni('eni-1', 's1', '10.0.1.5')],
    },
    groups: { g: 'eni { type: serverless }' },
    hold: { g: '10.0.1.5/32' },
    told: [/^$/],
  },
  {
    what: 'a strict configuration refuses what is shared with a function outside',
    aws: { functions: [fn('a', ['s1']), fn('b', ['s1'])], subnets: [S1] },
    groups: { g: '{ type: serverless, name: a }' },
    told: [
      /^p\.yaml:3:5: group "g": function "a" shares s1 with "b" outside .* strictIdentity refuses that$/,
    ],
    options: { strictIdentity: true },
  },
  {
    what: 'a strict configuration takes what is shared inside the group',
    aws: { functions: [fn('a', ['s1']), fn('b', ['s1'])], subnets: [S1] },
    groups: { g: '{ type: serverless }' },
    hold: { g: '10.0.1.0/24' },
    options: { strictIdentity: true },
  },
  {
    what: 'security groups in another order are the same set',
    aws: {
      functions: [fn('a', ['s1'], { securityGroupIds: ['sg-2', 'sg-1'] }), fn('b', ['s1'])],
      subnets: [S1],
      interfaces: [
        eni('eni-a', 's1', '10.0.1.5', { securityGroupIds: ['sg-1', 'sg-2'] }),
        eni('eni-b', 's1', '10.0.1.6'),
      ],
    },
    groups: { g: 'eni { type: serverless, name: a }' },
    hold: { g: '10.0.1.5/32' },
    identity: { a: 'dedicated-eni', b: 'dedicated-eni' },
  },
  {
    what: 'an own interface in one shared subnet, none seen in the other',
    aws: {
      functions: [fn('a', ['s1', 's2']), fn('b', ['s1', 's2'], { securityGroupIds: ['sg-2'] })],
      subnets: [S1, S2],
      interfaces: [eni('eni-a', 's1', '10.0.1.5')],
    },
    identity: { a: 'shared by s2 with b', b: 'shared by s1 s2 with a' },
  },
  {
    what: 'a dual-stack interface',
    aws: {
      functions: [fn('a', ['s3'], { ipv6AllowedForDualStack: true })],
      subnets: [S3],
      interfaces: [eni('eni-a', 's3', '10.0.3.9 2001:db8:3::9')],
    },
    groups: { g: 'eni { type: serverless }' },
    hold: { g: '10.0.3.9/32 2001:db8:3::9/128' },
    identity: { a: 'dedicated-subnet' },
  },
  {
    what: 'a replaced interface: the old one was not seen lately',
    aws: {
      functions: [fn('a', ['s1'])],
      subnets: [S1],
      interfaces: [eni('eni-old', 's1', '10.0.1.5', { seenAt: ago(901) }), eni('eni-new', 's1', '10.0.1.7')],
    },
    groups: { g: 'eni { type: serverless }' },
    hold: { g: '10.0.1.7/32' },
  },
  {
    what: 'an interface at its age limit still counts',
    aws: {
      functions: [fn('a', ['s1'])],
      subnets: [S1],
      interfaces: [eni('eni-1', 's1', '10.0.1.5', { seenAt: ago(900) })],
    },
    groups: { g: 'eni { type: serverless }' },
    hold: { g: '10.0.1.5/32' },
  },
  {
    what: 'a function whose interfaces AWS took back',
    aws: { functions: [fn('a', ['s1'])], subnets: [S1] },
    groups: { g: 'eni { type: serverless }' },
    hold: { g: '' },
    told: ['function "a" has no network interface that AWS showed lately: the limit eniMaxAgeSeconds is 900'],
  },
  {
    what: 'interfaces last read too long ago: their addresses fall out, and the group is not all known',
    aws: {
      scopes: [scope(one, { learntAt: { interfaces: ago(1_000) } })],
      functions: [fn('a', ['s1'])],
      subnets: [S1],
      interfaces: [eni('eni-1', 's1', '10.0.1.5', { seenAt: ago(1_000) })],
    },
    groups: { g: 'eni { type: serverless }', wide: '{ type: serverless }' },
    hold: { g: '?', wide: '10.0.1.0/24' },
  },
  {
    what: 'interfaces never read',
    aws: { scopes: [scope(one, { learntAt: {} })], functions: [fn('a', ['s1'])], subnets: [S1] },
    groups: { g: 'eni { type: serverless }' },
    hold: { g: '?' },
  },
  {
    what: 'a function that AWS showed too long ago keeps its subnets, its identity is unknown',
    aws: { functions: [fn('a', ['s1'], { seenAt: ago(3_600) })], subnets: [S1] },
    groups: { g: '{ type: serverless }' },
    hold: { g: '10.0.1.0/24' },
    identity: { a: 'unknown' },
  },
  {
    what: 'outside of any VPC',
    aws: { functions: [fn('a', [])] },
    groups: { g: '{ type: serverless }' },
    hold: { g: '' },
    identity: { a: 'not-in-vpc' },
    told: ['function "a" is in no VPC'],
  },
  {
    what: 'moved to another VPC: what it was is gone',
    aws: {
      functions: [fn('a', ['s9'], { vpcId: 'vpc-2' }), fn('b', ['s1'])],
      subnets: [S1, subnet('s9', '10.9.0.0/24', { vpcId: 'vpc-2' })],
      interfaces: [eni('eni-1', 's1', '10.0.1.5'), eni('eni-9', 's9', '10.9.0.4', { vpcId: 'vpc-2' })],
    },
    groups: {
      old: '{ type: serverless, vpcId: vpc-1 }',
      new: 'eni { type: serverless, name: a, vpcId: vpc-2 }',
    },
    hold: { old: '10.0.1.0/24', new: '10.9.0.4/32' },
    identity: { a: 'dedicated-subnet', b: 'dedicated-subnet' },
  },
  {
    what: 'deleted while its interface is still there: the interface means nobody',
    aws: { functions: [fn('b', ['s2'])], subnets: [S1, S2], interfaces: [eni('eni-1', 's1', '10.0.1.5')] },
    groups: { g: 'eni { type: serverless }' },
    hold: { g: '' },
    identity: { b: 'dedicated-subnet' },
  },
  {
    what: 'a subnet deleted while a function names it',
    aws: { functions: [fn('a', ['s1', 's-gone'])], subnets: [S1] },
    groups: { g: '{ type: serverless }' },
    hold: { g: '10.0.1.0/24' },
    told: ['function "a" names subnet "s-gone", which AWS does not know'],
  },
  {
    what: 'the same name in two accounts',
    aws: {
      scopes: [scope(one), scope(two)],
      functions: [fn('a', ['s1']), fn('a', ['s8'], two)],
      subnets: [S1, subnet('s8', '10.8.0.0/24', two)],
    },
    groups: {
      both: '{ type: serverless, name: a }',
      first: '{ type: serverless, name: a, accountId: "111122223333" }',
      second: `{ type: serverless, id: "arn:aws:lambda:eu-west-1:444455556666:function:a" }`,
    },
    hold: { both: '10.0.1.0/24 10.8.0.0/24', first: '10.0.1.0/24', second: '10.8.0.0/24' },
    identity: { 'a@111122223333': 'dedicated-subnet', 'a@444455556666': 'dedicated-subnet' },
  },
  {
    what: 'a subnet shared between accounts by RAM',
    aws: {
      scopes: [scope(one), scope(two)],
      functions: [fn('a', ['s1']), fn('b', ['s1'], two)],
      subnets: [S1, { ...S1, ...two }],
    },
    groups: { g: '{ type: serverless, accountId: "444455556666" }' },
    hold: { g: '10.0.1.0/24' },
    identity: { a: 'shared by s1 with b', b: 'shared by s1 with a' },
  },
  {
    what: 'an instance in the subnet of a function',
    aws: { functions: [fn('a', ['s1'])], subnets: [S1], instances: [vm('i-1', 's1', '10.0.1.9')] },
    groups: { vms: '{ type: vm }', rest: '{ type: serverless, not: { group: vms } }' },
    hold: {
      vms: '10.0.1.9/32',
      rest: '10.0.1.0/29 10.0.1.8/32 10.0.1.10/31 10.0.1.12/30 10.0.1.16/28 10.0.1.32/27 10.0.1.64/26 10.0.1.128/25',
    },
    identity: { a: 'shared by s1 with i-1' },
  },
];

tryLayouts(t, layouts);

t.test('10,000 functions in 2,000 subnets', async (t) => {
  const subnets = Array.from({ length: 2_000 }, (_, index) =>
    subnet(`s${index}`, `10.${index >> 8}.${index & 255}.0/24`),
  );
  const functions = Array.from({ length: 10_000 }, (_, index) =>
    fn(`f${index}`, [`s${index % 2_000}`], {
      securityGroupIds: [`sg-${Math.floor(index / 2_000)}`],
      tags: { team: `t${index % 10}` },
    }),
  );
  const interfaces = functions.map(({ subnetIds, securityGroupIds }, index) =>
    eni(`eni-${index}`, subnetIds[0]!, `10.${(index % 2_000) >> 8}.${index & 255}.${5 + (index % 5)}`, {
      securityGroupIds,
    }),
  );
  const inventory = { ...emptyInventory(), scopes: [scope(one)], functions, subnets, interfaces };
  t.same(
    new Set(identifyFunctions(inventory, LIMIT).map(({ identity }) => identity)),
    new Set(['dedicated-eni']),
  );
  const specs = read({ team: 'eni { type: serverless, tags: { team: t3 } }', all: '{ type: serverless }' });
  const { groups, problems } = resolveGroups(specs, inventory, LIMIT);
  const [team, all] = groups.slice(-2);
  t.equal(new Set(team!.members.map(({ via }) => via)).size, 1_000);
  t.equal(all!.prefixes.length, 2_000);
  t.same(problems, []);
  const crowd = functions.map((each) => ({ ...each, subnetIds: ['s0'], securityGroupIds: ['sg-1'] }));
  const [first] = identifyFunctions({ ...inventory, functions: crowd }, LIMIT);
  t.match(first, { identity: 'shared', sharedBy: ['eni-2000'] });
  t.equal(first!.sharedWith.length, 16);
});
