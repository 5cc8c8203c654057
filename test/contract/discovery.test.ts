import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createClientPool } from 'sluice-controller-client/aws/clients.js';
import { type AwsAccount, Discovery, type DiscoveryOptions } from 'sluice-controller-client/aws/discovery.js';
import { emptyInventory, type Inventory, missingSubnets } from 'sluice-controller-client/inventory.js';
import t from 'tap';
import { regionState } from '../support/aws/region.js';
import { type AwsEndpoint, startAwsEndpoint } from '../support/aws/server.js';
import type { Fault, Operation, RegionState, State } from '../support/aws/state.js';

const FIRST = '111122223333';
const SECOND = '444455556666';
const REGIONS = ['eu-central-1', 'us-east-1'];

const STATE: State = {
  accounts: [
    {
      id: FIRST,
      accessKeyIds: ['AKIAFIRST'],
      regions: { 'eu-central-1': regionState(1, 120), 'us-east-1': regionState(2, 11) },
    },
    {
      id: SECOND,
      accessKeyIds: ['AKIASECOND'],
      regions: { 'eu-central-1': regionState(3, 11), 'us-east-1': regionState(4, 11) },
    },
  ],
};

const learntAll = (at: string) => ({ tags: at, interfaces: at, instances: at, prefixLists: at });

/** What the state is as an inventory, by another way than through AWS. */
function expectedInventory(refreshedAt: string): Inventory {
  const scopes = STATE.accounts.flatMap(({ id: accountId, regions }) =>
    Object.entries(regions).map(([region, known]) => ({ accountId, region, known })),
  );
  const order = (a: string, b: string) => (a < b ? -1 : 1);
  return {
    ...emptyInventory(),
    scopes: scopes.map(({ accountId, region }) => ({
      accountId,
      region,
      refreshedAt,
      learntAt: learntAll(refreshedAt),
    })),
    functions: scopes
      .flatMap(({ accountId, region, known }) =>
        known.functions!.map(({ name, subnetIds = [], dualStack, tags }) => {
          const vpcId = `vpc-0${name.split('-')[1]}`;
          return {
            arn: `arn:aws:lambda:${region}:${accountId}:function:${name}`,
            name,
            accountId,
            region,
            seenAt: refreshedAt,
            ...(subnetIds.length === 0 ? {} : { vpcId }),
            subnetIds: [...subnetIds].sort(),
            securityGroupIds: subnetIds.length === 0 && !name.endsWith('-8') ? [] : ['sg-01', 'sg-02'],
            ipv6AllowedForDualStack: dualStack!,
            tags: tags!,
          };
        }),
      )
      .sort((a, b) => order(a.arn, b.arn)),
    subnets: scopes
      .flatMap(({ accountId, region, known }) =>
        known.subnets!.map(({ id, vpcId, cidr, tags = {} }) => {
          const number = vpcId.slice(5);
          const cidrs6 = id.endsWith('b')
            ? [`2001:db8:${number}:1::/64`, `2001:db8:${number}:2::/64`]
            : id.endsWith('c')
              ? [`2001:db8:${number}:4::/64`]
              : [];
          return {
            id,
            accountId,
            region,
            seenAt: refreshedAt,
            vpcId,
            zone: `${region}a`,
            cidrs: [...(cidr === undefined ? [] : [cidr]), ...cidrs6],
            tags,
          };
        }),
      )
      .sort((a, b) => order(a.id, b.id)),
    vpcs: scopes.map(({ accountId, region, known }) => {
      const { id } = known.vpcs![0]!;
      const number = id.slice(5);
      const cidrs = [`10.${number}.0.0/16`, `100.64.${number}.0/24`, `2001:db8:${number}::/56`];
      return { id, accountId, region, seenAt: refreshedAt, cidrs, tags: {} };
    }),
  };
}

const ACCOUNTS: readonly AwsAccount[] = [
  { id: SECOND, regions: REGIONS, profile: 'second' },
  { id: FIRST, regions: REGIONS.toReversed(), profile: 'first' },
];

const FOLDER = mkdtempSync(join(tmpdir(), 'sluice-discovery-'));
t.teardown(() => rmSync(FOLDER, { recursive: true }));
writeFileSync(
  join(FOLDER, 'credentials'),
  [
    ['first', 'AKIAFIRST', ''],
    ['second', 'AKIASECOND', ''],
    ['told', 'AKIASECOND', `aws_account_id = ${SECOND}\n`],
  ]
    .map(([name, id, more]) => `[${name}]\naws_access_key_id = ${id}\naws_secret_access_key = x\n${more}`)
    .join('\n'),
);
writeFileSync(join(FOLDER, 'config'), '');
for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name];
process.env.AWS_SHARED_CREDENTIALS_FILE = join(FOLDER, 'credentials');
process.env.AWS_CONFIG_FILE = join(FOLDER, 'config');
process.env.AWS_EC2_METADATA_DISABLED = 'true';
process.env.AWS_RETRY_MODE = 'standard';

const AT = ['2026-01-01T00:00:00.000Z', '2026-01-01T00:01:00.000Z', '2026-01-01T00:02:00.000Z'] as const;
const at = (index: number) => ({ now: () => new Date(AT[index]!) });

const DEFAULTS = {
  accounts: ACCOUNTS,
  also: ['interfaces', 'instances', 'prefixLists'],
  publishedVersions: false,
  shrinkShareMax: 0.5,
  forget: [],
} as const;

interface World {
  readonly endpoint: AwsEndpoint;
  readonly discover: (
    previous: Inventory | undefined,
    minute: number,
    more?: Partial<DiscoveryOptions>,
  ) => Promise<Inventory>;
}

async function world(t: Tap, attemptsMax: number): Promise<World> {
  const endpoint = await startAwsEndpoint({ state: STATE, ec2PageItemsMax: 5 });
  process.env.AWS_ENDPOINT_URL = endpoint.url;
  process.env.AWS_MAX_ATTEMPTS = String(attemptsMax);
  const clients = createClientPool();
  t.teardown(async () => {
    clients.close();
    await endpoint.close();
  });
  return {
    endpoint,
    discover: async (previous, minute, more = {}) => {
      const discovery = new Discovery(previous ?? emptyInventory(), {
        ...DEFAULTS,
        ...at(minute),
        clients,
        ...more,
      });
      await discovery.sync();
      return discovery.inventory;
    },
  };
}

type Tap = Pick<typeof t, 'teardown'>;

t.test('two accounts in two regions, every page and tag', async (t) => {
  const { endpoint, discover } = await world(t, 1);
  const inventory = await discover(undefined, 0);
  t.strictSame(inventory, expectedInventory(AT[0]));
  t.strictSame(Object.keys(inventory.functions[0]!.tags), ['<odd> & "key"', 'team'], 'sorted by key');
  t.strictSame(Object.keys(inventory.subnets.find(({ id }) => id === 'subnet-01b')!.tags), ['a', 'z']);
  t.equal(
    JSON.stringify(await discover(emptyInventory(), 0)),
    JSON.stringify(inventory),
    'the same, byte for byte',
  );
  const callsOf = (wanted: Operation) => endpoint.calls.filter(({ operation }) => operation === wanted);
  t.equal(callsOf('tag:GetResources').length, 2 * (2 + 1 + 1 + 1), 'tags of a hundred functions a call');
  t.equal(callsOf('lambda:ListTags').length, 0);
  t.strictSame(
    missingSubnets(inventory).map(({ functionArn, subnetId }) => [functionArn.split(':').at(-1), subnetId]),
    [
      ['fn-1-9', 'subnet-0dead'],
      ['fn-3-9', 'subnet-0dead'],
      ['fn-2-9', 'subnet-0dead'],
      ['fn-4-9', 'subnet-0dead'],
    ],
  );
});

const HERE = { accountId: FIRST, region: 'eu-central-1' };
/** Faults that spoil a refresh of one scope, and what is told of it. */
const SPOILERS: readonly { readonly fault: Fault; readonly error: RegExp }[] = [
  {
    fault: { operation: 'lambda:ListFunctions', kind: 'throttle', page: 2 },
    error: /^lambda:ListFunctions failed with TooManyRequestsException: Rate exceeded$/,
  },
  {
    fault: { operation: 'lambda:ListFunctions', kind: 'cut', page: 3 },
    error: /^lambda:ListFunctions failed with \w*Error: /,
  },
  {
    fault: { operation: 'lambda:ListFunctions', kind: 'badMarker', page: 1 },
    error: /^lambda:ListFunctions failed with InvalidParameterValueException: Invalid Marker$/,
  },
  {
    fault: { operation: 'lambda:ListFunctions', kind: 'loop', page: 2 },
    error: /^lambda:ListFunctions gave the marker of a page that was read before$/,
  },
  {
    fault: { operation: 'tag:GetResources', kind: 'throttle', page: 2 },
    error: /^tag:GetResources failed with ThrottledException: Rate exceeded$/,
  },
  {
    fault: { operation: 'tag:GetResources', kind: 'cut', page: 1 },
    error: /^tag:GetResources failed with \w*Error: /,
  },
  {
    fault: { operation: 'ec2:DescribeSubnets', kind: 'throttle', page: 2 },
    error: /^ec2:DescribeSubnets failed with RequestLimitExceeded: Request limit exceeded\.$/,
  },
  {
    fault: { operation: 'ec2:DescribeSubnets', kind: 'cut', page: 2 },
    error: /^ec2:DescribeSubnets failed with \w*Error: /,
  },
  {
    fault: { operation: 'ec2:DescribeSubnets', kind: 'badMarker', page: 1 },
    error: /^ec2:DescribeSubnets failed with InvalidNextToken: /,
  },
  {
    fault: { operation: 'ec2:DescribeVpcs', kind: 'deny' },
    error: /^ec2:DescribeVpcs failed with UnauthorizedOperation: .*; without it nothing new is learnt /,
  },
  {
    fault: { operation: 'ec2:DescribeVpcs', kind: 'fail' },
    error: /^ec2:DescribeVpcs failed with InternalError: /,
  },
];

const inScope = <T extends { accountId: string; region: string }>(items: readonly T[], here = true): T[] =>
  items.filter(({ accountId, region }) => (accountId === HERE.accountId && region === HERE.region) === here);

/**
 * The state with one function, subnet and tag fewer or other in every region: a refresh must show it, a
 * failure not.
 */
function changed(): State {
  const accounts = STATE.accounts.map((account) => {
    const regions = Object.entries(account.regions).map(([name, known]) => {
      const functions = known.functions!.slice(1).map((state) => ({ ...state, tags: { now: 'other' } }));
      return [name, { functions, subnets: known.subnets!.slice(1), vpcs: [] }];
    });
    return { ...account, regions: Object.fromEntries(regions) };
  });
  return { accounts };
}

t.test('what fails keeps everything of its scope; the next run recovers', async (t) => {
  const { endpoint, discover } = await world(t, 1);
  const before = await discover(undefined, 0);
  endpoint.setState(changed());
  const after = await discover(before, 1);
  const later = await discover(before, 2);
  t.equal(after.functions.length, before.functions.length - 4, 'what is gone in AWS goes');
  t.equal(after.subnets.length, before.subnets.length - 4);
  t.equal(after.vpcs.length, 0);
  for (const { fault, error } of SPOILERS) {
    await t.test(`${fault.operation} ${fault.kind}`, async (t) => {
      endpoint.setState(changed());
      endpoint.inject({ ...HERE, ...fault });
      const spoiled = await discover(before, 1);
      t.strictSame(inScope(spoiled.functions), inScope(before.functions));
      t.strictSame(inScope(spoiled.subnets), inScope(before.subnets));
      t.strictSame(inScope(spoiled.vpcs), inScope(before.vpcs));
      const [scope] = inScope(spoiled.scopes);
      t.strictSame(
        { ...scope, error: '' },
        { ...HERE, refreshedAt: AT[0], learntAt: learntAll(AT[0]), error: '' },
      );
      t.match(scope?.error, error);
      t.strictSame(inScope(spoiled.functions, false), inScope(after.functions, false), 'other scopes go on');
      t.strictSame(inScope(spoiled.subnets, false), inScope(after.subnets, false));
      t.ok(
        inScope(spoiled.scopes, false).every(
          (other) => other.refreshedAt === AT[1] && other.error === undefined,
        ),
      );

      endpoint.clearFaults();
      t.strictSame(await discover(spoiled, 2), later);
    });
  }
});

t.test('what AWS may do at any time is no failure', async (t) => {
  const { endpoint, discover } = await world(t, 3);
  const faults: readonly Fault[] = [
    { operation: 'lambda:ListFunctions', kind: 'empty', page: 2 },
    { operation: 'ec2:DescribeSubnets', kind: 'empty', page: 1 },
    { operation: 'ec2:DescribeVpcs', kind: 'fail', times: 2 },
    { operation: 'lambda:ListFunctions', kind: 'fail', page: 3, times: 1 },
    { operation: 'ec2:DescribeSubnets', kind: 'throttle', page: 2, times: 1 },
  ];
  for (const fault of faults) endpoint.inject({ ...HERE, ...fault });
  t.strictSame(await discover(undefined, 0), expectedInventory(AT[0]));
  t.strictSame(
    endpoint.calls
      .filter((call) => call.outcome !== 'ok')
      .map(({ operation, outcome }) => `${operation} ${outcome}`),
    [
      'lambda:ListFunctions ServiceException',
      'ec2:DescribeSubnets RequestLimitExceeded',
      'ec2:DescribeVpcs InternalError',
      'ec2:DescribeVpcs InternalError',
    ],
    'retried',
  );
});

t.test('a function deleted between its page and its tags is gone', async (t) => {
  const { endpoint, discover } = await world(t, 1);
  const accounts = [{ id: FIRST, regions: ['us-east-1'], profile: 'first' }];
  const allow: readonly Operation[] = [
    'lambda:ListFunctions',
    'lambda:ListTags',
    'ec2:DescribeSubnets',
    'ec2:DescribeVpcs',
  ];
  endpoint.setState({ accounts: STATE.accounts.map((account) => ({ ...account, allow })) });
  const asking = discover(undefined, 0, { accounts, also: [] });
  while (endpoint.calls.length === 0) await new Promise((resolve) => setImmediate(resolve));
  const [first, ...others] = STATE.accounts;
  const { functions = [], ...rest } = first!.regions['us-east-1']!;
  const fewer = { ...rest, functions: functions.slice(0, -1) };
  endpoint.setState({ accounts: [{ ...first!, allow, regions: { 'us-east-1': fewer } }, ...others] });
  const { scopes, functions: found } = await asking;
  t.strictSame(scopes, [
    { accountId: FIRST, region: 'us-east-1', refreshedAt: AT[0], learntAt: { tags: AT[0] } },
  ]);
  t.equal(found.length, functions.length - 1);
});

t.test('credentials of another account', async (t) => {
  const { endpoint, discover } = await world(t, 1);
  const regions = ['us-east-1'];
  const right = await discover(undefined, 0, { accounts: [{ id: FIRST, regions, profile: 'first' }] });
  const wrong = await discover(right, 1, { accounts: [{ id: FIRST, regions, profile: 'second' }] });
  const arn = `arn:aws:lambda:us-east-1:${SECOND}:function:`;
  t.match(wrong.scopes[0]?.error, `lambda:ListFunctions gave ${arn}`);
  t.strictSame({ ...wrong, scopes: [] }, { ...right, scopes: [] });
  t.equal(wrong.scopes[0]?.refreshedAt, AT[0]);

  endpoint.forgetCalls();
  const told = await discover(undefined, 1, { accounts: [{ id: FIRST, regions, profile: 'told' }] });
  const error = `credentials are those of account ${SECOND}, not of ${FIRST}`;
  t.strictSame(told, {
    ...emptyInventory(),
    scopes: [{ accountId: FIRST, region: 'us-east-1', learntAt: {}, error }],
  });
  t.equal(endpoint.calls.length, 0);

  const none = await discover(undefined, 1, { accounts: [{ id: FIRST, regions, profile: 'no-such' }] });
  t.match(none.scopes[0]?.error, /^credentials failed with CredentialsProviderError: /);
});

t.test('a CIDR that is none, and an ARN that is none', async (t) => {
  const { endpoint, discover } = await world(t, 1);
  const accounts = [{ id: FIRST, regions: ['us-east-1'], profile: 'first' }];
  const [first] = STATE.accounts;
  const known = first!.regions['us-east-1']!;
  const spoil = async (more: RegionState) => {
    endpoint.setState({ accounts: [{ ...first!, regions: { 'us-east-1': { ...known, ...more } } }] });
    const { scopes, functions } = await discover(undefined, 0, { accounts });
    t.equal(functions.length, 0);
    t.equal(scopes[0]?.refreshedAt, undefined);
    return scopes[0]?.error;
  };
  t.match(
    await spoil({ subnets: [{ id: 'subnet-0e', vpcId: 'vpc-01', cidr: '10.0.0.1/24' }] }),
    'subnet-0e: Cannot parse CIDR: "10.0.0.1/24" has host bits set',
  );
  t.match(await spoil({ vpcs: [{ id: 'vpc-0e', cidrs: ['10.0.0.0/33'] }] }), 'vpc-0e: Cannot parse CIDR');
  t.match(
    await spoil({ functions: [{ name: `a b\n\x1b[2J${'c'.repeat(700)}` }] }),
    /^lambda:ListFunctions gave arn:.*:a b \[2Jc{150,}…$/,
  );
});

t.test('an abort rejects and is no failure of AWS', async (t) => {
  const { endpoint, discover } = await world(t, 3);
  const abort = new AbortController();
  endpoint.inject({ operation: 'ec2:DescribeVpcs', kind: 'fail' });
  const asking = discover(undefined, 0, { signal: abort.signal });
  while (endpoint.calls.length === 0) await new Promise((resolve) => setImmediate(resolve));
  abort.abort(new Error('shutting down'));
  await t.rejects(asking, { message: 'shutting down' });
  await t.rejects(discover(undefined, 0, { signal: abort.signal }), { message: 'shutting down' });
});
