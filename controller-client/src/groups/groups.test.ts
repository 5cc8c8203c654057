import { BlockList } from 'node:net';
import fc from 'fast-check';
import { printAddress } from 'sluice-gateway/net/address.js';
import { ADDRESS_MAX } from 'sluice-gateway/net/family.js';
import { comparePrefixes, type Prefix, parsePrefix, printPrefix } from 'sluice-gateway/net/prefix.js';
import type { PolicyRule } from 'sluice-gateway/policy/model.js';
import t from 'tap';
import {
  emptyInventory,
  type Inventory,
  type LambdaFunction,
  type Scope,
  type Subnet,
  type Vpc,
} from '../inventory.js';
import type { Expression, GroupSpec } from '../sources/model.js';
import { matchesGlob } from './glob.js';
import { identifyFunctions } from './identity.js';
import { checkReferences } from './references.js';
import { resolveGroups } from './resolve.js';
import { SYSTEM_PREFIXES } from './system.js';

const seed = Number(process.env.TEST_SEED ?? Date.now() % 2 ** 31);
t.comment(`TEST_SEED=${seed}`);

const at = { file: 'p.yaml', line: 7, column: 16 };
const here = { accountId: '111122223333', region: 'us-east-1' };
const there = { accountId: '444455556666', region: 'eu-west-1' };
const SEEN_AT = '2026-11-21T10:00:00.000Z';
const learnt = (scope: Pick<Scope, 'accountId' | 'region'>): Scope => ({
  ...scope,
  refreshedAt: SEEN_AT,
  learntAt: { tags: SEEN_AT },
});

function lambda(
  name: string,
  subnetIds: readonly string[],
  rest: Partial<LambdaFunction> = {},
): LambdaFunction {
  const { accountId, region } = { ...here, ...rest };
  const arn = `arn:aws:lambda:${region}:${accountId}:function:${name}`;
  const base = {
    arn,
    name,
    ...here,
    seenAt: SEEN_AT,
    subnetIds,
    securityGroupIds: [],
    ipv6AllowedForDualStack: false,
    tags: {},
  };
  return { ...base, vpcId: 'vpc-1', ...rest };
}

function outsideVpc(name: string): LambdaFunction {
  const { vpcId: _, ...rest } = lambda(name, []);
  return rest;
}

const subnet = (id: string, cidrs: readonly string[], rest: Partial<Subnet> = {}): Subnet => ({
  id,
  ...here,
  seenAt: SEEN_AT,
  vpcId: 'vpc-1',
  zone: 'us-east-1a',
  cidrs,
  tags: {},
  ...rest,
});

const vpc = (id: string, cidrs: readonly string[], tags = {}): Vpc => ({
  id,
  ...here,
  seenAt: SEEN_AT,
  cidrs,
  tags,
});

const inventory: Inventory = {
  ...emptyInventory(),
  scopes: [learnt(here), learnt(there)],
  functions: [
    lambda('alone', ['subnet-a', 'subnet-b'], { tags: { team: 'pay', stage: 'prod' } }),
    lambda('pair-1', ['subnet-c'], { tags: { team: 'pay' } }),
    lambda('pair-2', ['subnet-c', 'subnet-d'], { vpcId: 'vpc-2' }),
    lambda('far', ['subnet-f'], there),
    lambda('gone', ['subnet-gone']),
    outsideVpc('outside'),
  ],
  subnets: [
    subnet('subnet-a', ['10.0.1.0/24', '2001:db8:1:1::/64'], { tags: { Name: 'lambda-a' } }),
    subnet('subnet-b', ['10.0.2.0/24'], { tags: { Name: 'lambda-b' } }),
    subnet('subnet-c', ['10.0.3.0/24']),
    subnet('subnet-d', ['10.0.4.0/24'], { vpcId: 'vpc-2', tags: { Name: 'other' } }),
    subnet('subnet-f', ['10.9.0.0/24'], there),
  ],
  vpcs: [vpc('vpc-1', ['10.0.0.0/16', '2001:db8:1::/56'], { Name: 'spoke' }), vpc('vpc-2', ['10.1.0.0/16'])],
};

function messageOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return (error as Error).message;
  }
  return 'accepted';
}

const typeOf = ({ family }: Prefix) => (family === 4 ? 'ipv4' : 'ipv6');

const NOW = new Date('2026-11-21T10:01:00.000Z');
const limit = { now: NOW, eniMaxAgeSeconds: 900 };

const spec = (...expressions: readonly Expression[]): GroupSpec => ({
  name: 'g',
  expressions,
  resolve: 'subnets',
  at,
});

function resolveOne(group: GroupSpec, known = inventory) {
  const { groups, problems } = resolveGroups([group], known);
  const found = groups.find(({ name }) => name === group.name)!;
  return { ...found, prefixes: found.prefixes.map(printPrefix), problems };
}

t.test('expressions select; a group is their union', async (t) => {
  const cases: readonly (readonly [string, readonly Expression[], readonly string[]])[] = [
    [
      'a function brings every block of every subnet, IPv6 too',
      [{ type: 'serverless', name: 'alone', at }],
      ['10.0.1.0/24', '10.0.2.0/24', '2001:db8:1:1::/64'],
    ],
    ['globs', [{ type: 'serverless', name: 'pair-?', at }], ['10.0.3.0/24', '10.0.4.0/24']],
    ['all tags must match', [{ type: 'serverless', tags: { team: 'pay', stage: 'dev' }, at }], []],
    ['one tag', [{ type: 'serverless', tags: { team: 'pay' }, name: 'pair*', at }], ['10.0.3.0/24']],
    ['account', [{ type: 'serverless', accountId: there.accountId, at }], ['10.9.0.0/24']],
    ['region', [{ type: 'serverless', region: there.region, at }], ['10.9.0.0/24']],
    ['VPC', [{ type: 'serverless', vpcId: 'vpc-2', at }], ['10.0.3.0/24', '10.0.4.0/24']],
    ['no such function', [{ type: 'serverless', name: 'none', at }], []],
    ['a subnet by id', [{ type: 'subnet', id: 'subnet-a', at }], ['10.0.1.0/24', '2001:db8:1:1::/64']],
    [
      'subnets by Name',
      [{ type: 'subnet', name: 'lambda-*', region: 'us-east-1', at }],
      ['10.0.1.0/24', '10.0.2.0/24', '2001:db8:1:1::/64'],
    ],
    ['subnets by VPC', [{ type: 'subnet', vpcId: 'vpc-2', at }], ['10.0.4.0/24']],
    ['a VPC by Name', [{ type: 'vpc', name: 'spoke', at }], ['10.0.0.0/16', '2001:db8:1::/56']],
    ['a VPC by id', [{ type: 'vpc', id: 'vpc-2', at }], ['10.1.0.0/16']],
    [
      'union, sorted, once each',
      [
        { type: 'cidr', prefix: parsePrefix('192.0.2.0/24'), at },
        { type: 'serverless', name: 'pair-1', at },
        { type: 'subnet', id: 'subnet-c', at },
      ],
      ['10.0.3.0/24', '192.0.2.0/24'],
    ],
  ];
  for (const [name, expressions, expected] of cases) {
    const group = resolveOne(spec(...expressions));
    t.same(group.prefixes, expected, name);
    t.ok(group.resolved, `${name}: resolved`);
  }
});

t.test('members say why and since when', async (t) => {
  const { members } = resolveOne(
    spec(
      { type: 'serverless', name: 'pair-*', at },
      { type: 'cidr', prefix: parsePrefix('10.0.3.0/24'), at },
      { type: 'subnet', id: 'subnet-c', at },
    ),
  );
  const fn = (name: string) => `arn:aws:lambda:us-east-1:111122223333:function:${name}`;
  const seenAt = SEEN_AT;
  t.same(
    members.map(({ prefix, ...rest }) => ({ prefix: printPrefix(prefix), ...rest })),
    [
      { prefix: '10.0.3.0/24', via: fn('pair-1'), by: 'subnet-c', seenAt },
      { prefix: '10.0.3.0/24', via: fn('pair-2'), by: 'subnet-c', seenAt },
      { prefix: '10.0.3.0/24', via: 'cidr' },
      { prefix: '10.0.3.0/24', via: 'subnet-c', seenAt },
      { prefix: '10.0.4.0/24', via: fn('pair-2'), by: 'subnet-d', seenAt },
    ],
  );
});

t.test('functions that can bring nothing are told', async (t) => {
  const { problems, resolved } = resolveOne(spec({ type: 'serverless', at }));
  t.ok(resolved, 'what AWS does not know sends no packets');
  t.same(
    problems.map(({ message }) => message),
    [
      'function "gone" names subnet "subnet-gone", which AWS does not know',
      'function "outside" is in no VPC: its traffic does not pass the gateway',
    ],
  );
});

t.test('a subnet or VPC that AWS does not know is an error, once AWS was asked', async (t) => {
  const expressions: readonly Expression[] = [
    { type: 'subnet', id: 'subnet-x', at },
    { type: 'vpc', id: 'vpc-x', at: { ...at, line: 8 } },
  ];
  t.equal(
    messageOf(() => resolveOne(spec(...expressions))),
    [
      'p.yaml:7:16: unknown subnet "subnet-x": AWS knows none of this id here',
      'p.yaml:8:16: unknown vpc "vpc-x": AWS knows none of this id here',
    ].join('\n'),
  );
  const partly = { ...inventory, scopes: [learnt(here), { ...there, learntAt: {} }] };
  t.notOk(resolveOne(spec(...expressions), partly).resolved, 'not known yet is something else');
  t.same(
    resolveOne(spec({ type: 'subnet', id: 'subnet-a', vpcId: 'vpc-2', at })).prefixes,
    [],
    'known, not selected',
  );
});

t.test('unresolved is not empty', async (t) => {
  const never = { ...inventory, scopes: [learnt(here), { ...there, learntAt: {}, error: 'AccessDenied' }] };
  const all: Expression = { type: 'serverless', name: 'pair-1', at };
  const cidr: Expression = { type: 'cidr', prefix: parsePrefix('192.0.2.0/24'), at };
  const unread = 'an account or region it selects from was never read';
  const foreign = 'no account and region of the configuration is what it selects from';
  const cases: readonly (readonly [string, GroupSpec, Inventory, lacks: string | undefined])[] = [
    ['an account was never read', spec(all), never, unread],
    [
      'only what was read is selected: account',
      spec({ ...all, accountId: here.accountId }),
      never,
      undefined,
    ],
    ['only what was read is selected: region', spec({ ...all, region: here.region }), never, undefined],
    ['the one that was not', spec({ ...all, region: there.region }), never, unread],
    ['an account that is not configured', spec({ ...all, accountId: '999999999999' }), inventory, foreign],
    ['no AWS at all', spec(all), emptyInventory(), 'nothing is known of AWS'],
    ['CIDRs need no AWS', spec(cidr), emptyInventory(), undefined],
    ['one part is enough', spec(cidr, all), never, unread],
    [
      'read once, failing now',
      spec(all),
      { ...inventory, scopes: [{ ...learnt(here), error: 'throttled' }] },
      undefined,
    ],
    [
      'a subnet may lie in the account that was not read',
      spec({ type: 'serverless', ...here, name: 'gone', at }),
      never,
      'function "gone" names subnet "subnet-gone", which may lie where nothing was read',
    ],
  ];
  for (const [name, group, known, expected] of cases) {
    const { resolved, lacks } = resolveOne(group, known);
    t.strictSame([resolved, lacks], [expected === undefined, expected], name);
  }
  t.same(
    resolveOne(spec(cidr, all), never).prefixes,
    ['10.0.3.0/24', '192.0.2.0/24'],
    'what is known counts',
  );
});

t.test('a DENY on an unresolved group is refused', async (t) => {
  const rule = (name: string, rest: Partial<PolicyRule>): PolicyRule => ({
    ...{
      name,
      priority: 1,
      action: 'DENY',
      src: ['Anywhere'],
      dst: ['Anywhere'],
      protocol: 'ANY',
      portRanges: [],
    },
    ...{ logging: false, enforcement: 'ENFORCE' },
    ...rest,
  });
  const rules = [
    rule('permits', { action: 'PERMIT', src: ['g'] }),
    rule('watches', { enforcement: 'MONITOR', src: ['g'] }),
    rule('off', { enforcement: 'DISABLE', src: ['g'] }),
    rule('denies', { src: ['Anywhere', 'g'], dst: ['g'] }),
    rule('rejects', { action: 'REJECT', dst: ['g'] }),
    rule('harmless', {}),
  ];
  const places = new Map(
    rules.map(({ name }, index) => [name, { file: 'p.yaml', line: index + 1, column: 5 }]),
  );
  const policy = { rules, defaultAction: { action: 'DENY', logging: false } } as const;
  const specs = [spec({ type: 'serverless', at })];
  const unknown = { ...inventory, scopes: [{ ...there, learntAt: {} }] };
  const why = 'whose members are not all known: an account or region it selects from was never read';
  t.equal(
    messageOf(() => checkReferences({ policy, places }, resolveGroups(specs, unknown).groups)),
    [
      `p.yaml:4:5: rule "denies" is a DENY on group "g", ${why}`,
      `p.yaml:5:5: rule "rejects" is a REJECT on group "g", ${why}`,
    ].join('\n'),
  );
  t.doesNotThrow(() => checkReferences({ policy, places }, resolveGroups(specs, inventory).groups));
});

t.test('system groups', async (t) => {
  t.same(SYSTEM_PREFIXES.Anywhere.map(printPrefix), ['0.0.0.0/0', '::/0']);
  const publicInternet = SYSTEM_PREFIXES['Public Internet'];
  t.same([...publicInternet].sort(comparePrefixes), publicInternet, 'sorted');
  const ours = new BlockList();
  for (const prefix of publicInternet) ours.addSubnet(printAddress(prefix), prefix.length, typeOf(prefix));
  const inside = ['1.1.1.1', '9.255.255.255', '11.0.0.0', '100.63.255.255', '100.128.0.0', '172.15.255.255'];
  inside.push(
    '172.32.0.0',
    '192.167.255.255',
    '192.169.0.0',
    '223.255.255.255',
    '203.0.113.9',
    '169.253.255.255',
  );
  const inside6 = [
    '2000::',
    '2600:1f00::1',
    '2001:200::',
    '2001:db7:ffff::',
    '2001:db9::',
    '2003::',
    '3ffe::',
    '3fff:1000::',
  ];
  const outside = ['0.0.0.0', '0.255.255.255', '10.0.0.0', '10.255.255.255', '100.64.0.0', '100.127.255.255'];
  outside.push('127.0.0.1', '169.254.169.254', '172.16.0.0', '172.31.255.255', '192.168.1.1', '224.0.0.1');
  outside.push('239.255.255.255', '240.0.0.0', '255.255.255.255');
  const outside6 = ['::', '::1', '64:ff9b::1', 'fc00::1', 'fd00:ec2::254', 'fe80::1', 'ff02::1'];
  outside6.push(
    '1fff:ffff::',
    '4000::',
    '2001::1',
    '2001:1ff:ffff::',
    '2001:db8::1',
    '2002:a00::1',
    '3fff:fff::',
  );
  for (const address of inside) t.ok(ours.check(address), address);
  for (const address of inside6) t.ok(ours.check(address, 'ipv6'), address);
  for (const address of outside) t.notOk(ours.check(address), address);
  for (const address of outside6) t.notOk(ours.check(address, 'ipv6'), address);
  const halves = publicInternet.filter(
    (prefix, index) =>
      publicInternet[index + 1]?.length === prefix.length &&
      publicInternet[index + 1]!.family === prefix.family &&
      (prefix.value ^ publicInternet[index + 1]!.value) ===
        1n << BigInt((prefix.family === 4 ? 32 : 128) - prefix.length),
  );
  t.same(halves, [], 'no two prefixes could be one');
  t.ok(publicInternet.every(({ family, value }) => value <= ADDRESS_MAX[family]));
});

t.test('identity', async (t) => {
  const found = identifyFunctions(inventory, limit).map(({ name, identity, sharedWith, prefixes }) => [
    name,
    identity,
    sharedWith.map((arn) => arn.split(':').at(-1)),
    prefixes.map(printPrefix),
  ]);
  t.same(found, [
    ['alone', 'dedicated-subnet', [], ['10.0.1.0/24', '10.0.2.0/24', '2001:db8:1:1::/64']],
    ['pair-1', 'shared', ['pair-2'], ['10.0.3.0/24']],
    ['pair-2', 'shared', ['pair-1'], ['10.0.3.0/24', '10.0.4.0/24']],
    ['far', 'dedicated-subnet', [], ['10.9.0.0/24']],
    ['gone', 'unknown', [], []],
    ['outside', 'not-in-vpc', [], []],
  ]);
  const crowd = Array.from({ length: 30 }, (_, index) => lambda(`f${index}`, ['subnet-a']));
  const [first, ...rest] = identifyFunctions({ ...inventory, functions: crowd }, limit);
  t.equal(first!.sharedWith.length, 16, 'a bounded part of whom it shares with');
  t.ok([first!, ...rest].every(({ arn, sharedWith }) => !sharedWith.includes(arn)));
});

t.test('globs match as the equal regular expression does', async () => {
  const some = (letters: string, maxLength: number) =>
    fc.string({ unit: fc.constantFrom(...letters), maxLength });
  fc.assert(
    fc.property(some('ab*?.', 6), some('ab.\n', 6), (pattern, text) => {
      const source = pattern.replaceAll('.', '\\.').replaceAll('*', '.*').replaceAll('?', '.');
      return matchesGlob(pattern, text) === new RegExp(`^${source}$`, 's').test(text);
    }),
    { seed, numRuns: 5_000 },
  );
});

t.test('a block that is no CIDR names its subnet', async (t) => {
  const broken = { ...inventory, subnets: [subnet('subnet-a', ['10.0.1.1/24'])] };
  t.throws(() => resolveOne(spec({ type: 'subnet', id: 'subnet-a', at }), broken), {
    message: /^Cannot read the blocks of subnet-a: .*host bits/,
  });
});
