import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { createClientPool } from 'sluice-controller-client/aws/clients.js';
import { Discovery, type DiscoveryOptions } from 'sluice-controller-client/aws/discovery.js';
import { FEATURES, type Feature } from 'sluice-controller-client/aws/permissions.js';
import { emptyInventory, type Inventory } from 'sluice-controller-client/inventory.js';
import t from 'tap';
import '../support/aws/environment.js';
import { type AwsEndpoint, startAwsEndpoint } from '../support/aws/server.js';
import { AWS_RATES, type Operation, type RegionState, type State } from '../support/aws/state.js';

const ACCOUNT = '111122223333';
const OTHER = '444455556666';
const REGION = 'us-east-1';
const AT = '2026-01-01T00:00:00.000Z';

const VPC = 'vpc-01';
const KNOWN: RegionState = {
  functions: Array.from({ length: 40 }, (_, index) => ({
    name: `fn-${index}`,
    subnetIds: [`subnet-0${index % 4}`],
    securityGroupIds: ['sg-01'],
    tags: index % 2 === 0 ? { team: 'pay' } : {},
    ...(index === 3 && { versions: { 1: { subnetIds: ['subnet-02'] }, 2: { subnetIds: [] } } }),
    ...(index === 5 && { subnetIds: [], versions: { 1: { subnetIds: ['subnet-00'] } } }),
  })),
  subnets: Array.from({ length: 4 }, (_, index) => ({
    id: `subnet-0${index}`,
    vpcId: VPC,
    cidr: `10.0.${index}.0/24`,
  })),
  vpcs: [{ id: VPC, cidrs: ['10.0.0.0/16'] }],
  interfaces: [
    {
      id: 'eni-01',
      subnetId: 'subnet-01',
      vpcId: VPC,
      description: 'AWS Lambda VPC ENI-fn-1',
      securityGroupIds: ['sg-02', 'sg-01'],
      addresses4: ['10.0.1.30', '10.0.1.4'],
      addresses6: ['2001:DB8::10'],
    },
    { id: 'eni-02', subnetId: 'subnet-01', vpcId: VPC, interfaceType: 'interface', addresses4: ['10.0.1.9'] },
  ],
  instances: [
    { id: 'i-01', subnetId: 'subnet-03', vpcId: VPC, addresses4: ['10.0.3.7'], tags: { Name: 'bastion' } },
    { id: 'i-02', subnetId: 'subnet-03', vpcId: VPC, state: 'terminated' },
  ],
  prefixLists: [
    {
      id: 'pl-01',
      name: 'offices',
      cidrs: Array.from({ length: 130 }, (_, index) => `203.0.113.${index}/32`),
    },
  ],
};

type Allow = { readonly allow?: readonly Operation[] };

const stateOf = (known: RegionState = KNOWN, allow: Allow = {}): State => ({
  accounts: [{ id: ACCOUNT, accessKeyIds: ['AKIAEXAMPLE'], regions: { [REGION]: known }, ...allow }],
});

type Tap = Pick<typeof t, 'teardown'>;

async function start(t: Tap, state: State): Promise<{ endpoint: AwsEndpoint; made: Make }> {
  const endpoint = await startAwsEndpoint({ state });
  process.env.AWS_ENDPOINT_URL = endpoint.url;
  const clients = createClientPool();
  t.teardown(async () => {
    clients.close();
    await endpoint.close();
  });
  const made: Make = (more = {}, known = emptyInventory()) =>
    new Discovery(known, {
      accounts: [{ id: ACCOUNT, regions: [REGION] }],
      also: ['interfaces', 'instances', 'prefixLists'],
      publishedVersions: false,
      shrinkShareMax: 0.5,
      forget: [],
      now: () => new Date(AT),
      clients,
      ...more,
    });
  return { endpoint, made };
}

type Make = (more?: Partial<DiscoveryOptions>, known?: Inventory) => Discovery;

async function read(discovery: Discovery): Promise<Inventory> {
  await discovery.sync();
  return discovery.inventory;
}

const place = { accountId: ACCOUNT, region: REGION, seenAt: AT };

t.test('interfaces, instances and prefix lists', async (t) => {
  const { made } = await start(t, stateOf());
  const { interfaces, instances, prefixLists, scopes } = await read(made());
  t.strictSame(scopes[0]!.learntAt, { tags: AT, interfaces: AT, instances: AT, prefixLists: AT });
  t.strictSame(
    interfaces,
    [
      {
        ...place,
        id: 'eni-01',
        vpcId: VPC,
        subnetId: 'subnet-01',
        securityGroupIds: ['sg-01', 'sg-02'],
        interfaceType: 'lambda',
        description: 'AWS Lambda VPC ENI-fn-1',
        addresses: ['10.0.1.4', '10.0.1.30', '2001:db8::10'],
      },
    ],
    'those of Lambda',
  );
  t.strictSame(
    instances,
    [
      {
        ...place,
        id: 'i-01',
        vpcId: VPC,
        subnetId: 'subnet-03',
        addresses: ['10.0.3.7'],
        tags: { Name: 'bastion' },
      },
    ],
    'those that live',
  );
  t.equal(prefixLists[0]!.name, 'offices');
  t.equal(prefixLists[0]!.cidrs.length, 130);
  const bare = await read(made({ also: [] }));
  t.strictSame(bare.scopes[0]!.learntAt, { tags: AT });
  t.equal(bare.interfaces.length + bare.instances.length + bare.prefixLists.length, 0);
});

t.test('published versions count where they are asked for', async (t) => {
  const { made } = await start(t, stateOf());
  const named = (inventory: Inventory, name: string) => inventory.functions.find((fn) => fn.name === name)!;
  const latest = await read(made());
  t.strictSame(named(latest, 'fn-3').subnetIds, ['subnet-03']);
  t.equal(named(latest, 'fn-5').vpcId, undefined);
  const discovery = made({ publishedVersions: true });
  const all = await read(discovery);
  t.equal(all.functions.length, 40);
  t.strictSame(named(all, 'fn-3').subnetIds, ['subnet-02', 'subnet-03']);
  t.strictSame(named(all, 'fn-3').versions, [
    { subnetIds: ['subnet-02'], securityGroupIds: ['sg-01'] },
    { subnetIds: ['subnet-03'], securityGroupIds: ['sg-01'] },
  ]);
  t.equal('versions' in named(all, 'fn-4'), false, 'where they do not differ nothing is said');
  t.strictSame([named(all, 'fn-5').subnetIds, named(all, 'fn-5').vpcId], [['subnet-00'], VPC]);
  const change = { accountId: ACCOUNT, region: REGION, list: 'functions' } as const;
  t.strictSame(await discovery.refresh([{ ...change, id: named(all, 'fn-3').arn }]), []);
  t.strictSame(discovery.inventory, all, 'a targeted refresh knows them, too');
});

const folder = fileURLToPath(new URL('../../../deploy/iam/', import.meta.url));

interface Policy {
  readonly Statement: readonly { readonly Effect: string; readonly Action: string | readonly string[] }[];
}

function actionsOf(file: string): readonly Operation[] {
  const policy = JSON.parse(readFileSync(`${folder}${file}.json`, 'utf8')) as Policy;
  return policy.Statement.flatMap(({ Action }) => Action) as Operation[];
}

/** Everything that is asked of an account: a full refresh, and single functions. */
async function readAndRefresh(discovery: Discovery): Promise<readonly Error[]> {
  await discovery.sync();
  const { functions } = discovery.inventory;
  const id = functions[0]?.arn ?? '';
  return discovery.refresh([{ accountId: ACCOUNT, region: REGION, list: 'functions', id }]);
}

const OF_ACCOUNTS = [
  'discovery',
  'tags',
  'interfaces',
  'instances',
  'prefix-lists',
  'events-account',
] as const;

t.test('policies hold what is asked, and no more', async (t) => {
  for (const [feature, { operations }] of Object.entries(FEATURES))
    t.strictSame([...actionsOf(feature)].sort(), [...operations].sort(), feature);
  const policies = readdirSync(folder).filter((file) => file.endsWith('.json'));
  const others = ['trust.json', 'queue.json', 'events-pattern.json'];
  const files = Object.keys(FEATURES).map((feature) => `${feature}.json`);
  t.strictSame(policies.sort(), [...files, ...others].sort());

  const allow = OF_ACCOUNTS.flatMap(actionsOf);
  const { endpoint, made } = await start(t, stateOf(KNOWN, { allow }));
  const discovery = made();
  t.strictSame(await readAndRefresh(discovery), []);
  t.equal(discovery.inventory.scopes[0]!.error, undefined);
  t.ok(endpoint.calls.every(({ outcome }) => outcome === 'ok'));
  const asked = new Set(endpoint.calls.map(({ operation }) => operation));
  t.strictSame(asked, new Set(allow), 'every action of the policies is used');
});

t.test('a permission that is missing is named, and everything else goes on', async (t) => {
  const { endpoint, made } = await start(t, stateOf());
  const whole = await read(made());
  const without = async (feature: Feature, also: readonly Operation[] = []) => {
    const missing: readonly Operation[] = [...FEATURES[feature].operations, ...also];
    const allow = OF_ACCOUNTS.flatMap(actionsOf).filter((operation) => !missing.includes(operation));
    endpoint.setState(stateOf(KNOWN, { allow }));
    const discovery = made();
    const [failed] = await readAndRefresh(discovery);
    const { error = failed?.message, learntAt } = discovery.inventory.scopes[0]!;
    t.match(error, `; without it ${FEATURES[feature].without} (deploy/iam/${feature}.json permits it)`);
    return { inventory: discovery.inventory, learntAt };
  };
  for (const [feature, list] of [
    ['interfaces', 'interfaces'],
    ['instances', 'instances'],
    ['prefix-lists', 'prefixLists'],
  ] as const) {
    const { inventory, learntAt } = await without(feature);
    t.equal(learntAt[list], undefined, `${list} were never learnt`);
    t.strictSame({ ...inventory, scopes: [] }, { ...whole, scopes: [], [list]: [] });
    t.equal(inventory.scopes[0]!.refreshedAt, AT);
  }
  const untagged = await without('tags');
  t.equal(untagged.learntAt.tags, undefined);
  t.equal(untagged.inventory.functions.length, 40);
  const unknown = await without('discovery');
  t.equal(unknown.inventory.scopes[0]!.refreshedAt, undefined);
  const { inventory } = await without('events-account');
  t.strictSame(inventory, whole);

  endpoint.setState(
    stateOf(KNOWN, { allow: ['lambda:ListFunctions', 'ec2:DescribeSubnets', 'ec2:DescribeVpcs'] }),
  );
  const lost = await read(made({ also: [] }, whole));
  t.match(lost.scopes[0]!.error, /^lambda:ListTags failed with AccessDeniedException/);
  t.strictSame(lost.functions, whole.functions, 'tags that were known once are not forgotten');

  endpoint.setState(
    stateOf(KNOWN, {
      allow: ['lambda:ListFunctions', 'lambda:ListTags', 'ec2:DescribeSubnets', 'ec2:DescribeVpcs'],
    }),
  );
  endpoint.forgetCalls();
  const oneByOne = await read(made({ also: [] }));
  t.strictSame(oneByOne.functions, whole.functions, 'without tag:GetResources, tags come one by one');
  t.ok(endpoint.calls.filter(({ operation }) => operation === 'lambda:ListTags').length >= 40);
});

t.test('a role of another account, once for all clients', async (t) => {
  const role = { name: 'sluice-discovery', trusts: [ACCOUNT], externalId: 'abc' };
  const state = {
    accounts: [
      { id: ACCOUNT, accessKeyIds: ['AKIAEXAMPLE'], regions: {} },
      { id: OTHER, accessKeyIds: [], regions: { [REGION]: KNOWN, 'eu-west-1': KNOWN }, roles: [role] },
    ],
  };
  const { endpoint, made } = await start(t, state);
  const roleArn = `arn:aws:iam::${OTHER}:role/sluice-discovery`;
  const account = { id: OTHER, regions: [REGION, 'eu-west-1'], roleArn };
  const found = await read(made({ accounts: [{ ...account, externalId: 'abc' }] }));
  t.equal(found.functions.length, 80);
  t.strictSame(
    found.scopes.map(({ error }) => error),
    [undefined, undefined],
  );
  t.equal(endpoint.calls.filter(({ operation }) => operation === 'sts:AssumeRole').length, 1);
  const refused = await read(made({ accounts: [{ ...account, externalId: 'other' }] }));
  t.match(refused.scopes[0]!.error, /^sts:AssumeRole failed with AccessDenied: .*assume-role\.json/);
  const mixed = await read(made({ accounts: [{ ...account, id: ACCOUNT, externalId: 'abc' }] }));
  t.match(mixed.scopes[0]!.error, OTHER, 'keys of another account are noticed');
  t.equal(mixed.functions.length, 0);
  const known = JSON.parse(JSON.stringify(found).replaceAll(OTHER, ACCOUNT)) as Inventory;
  const theirs = made({ accounts: [{ ...account, id: ACCOUNT, externalId: 'abc' }] }, known);
  const change = { accountId: ACCOUNT, region: REGION, list: 'vpcs', id: 'vpc-0ours' } as const;
  const [error] = await theirs.refresh([change]);
  t.match(error, { message: 'vpc-0ours was not found, by credentials that have not read all yet' });
});

t.test('credentials that say whose they are', async (t) => {
  const { endpoint, made } = await start(t, stateOf());
  const known = await read(made());
  process.env.AWS_ACCOUNT_ID = OTHER;
  t.teardown(() => {
    delete process.env.AWS_ACCOUNT_ID;
  });
  const clients = createClientPool();
  t.teardown(() => clients.close());
  endpoint.forgetCalls();
  const change = { accountId: ACCOUNT, region: REGION, list: 'vpcs', id: VPC } as const;
  const [error] = await made({ clients }, known).refresh([change]);
  t.match(error, { message: `credentials are those of account ${OTHER}, not of ${ACCOUNT}` });
  t.strictSame(endpoint.calls, [], 'nothing is asked with them');
});

t.test('much that is gone at once waits for a second look', async (t) => {
  const { endpoint, made } = await start(t, stateOf());
  const fewer = (count: number): State => stateOf({ ...KNOWN, functions: KNOWN.functions!.slice(0, count) });
  const discovery = made();
  await discovery.sync();
  endpoint.setState(fewer(20));
  t.equal((await read(discovery)).functions.length, 20, 'half may go');
  endpoint.setState(fewer(8));
  const held = await read(discovery);
  t.equal(held.functions.length, 20);
  t.match(held.scopes[0]!.error, /^AWS no longer lists 12 of 20 functions: held until the next full refresh/);
  endpoint.setState(fewer(20));
  const back = await read(discovery);
  t.equal(back.scopes[0]!.error, undefined, 'it was a mistake');
  endpoint.setState(fewer(8));
  t.equal((await read(discovery)).functions.length, 20, 'which does not count later');
  endpoint.setState(fewer(1));
  t.equal((await read(discovery)).functions.length, 1, 'gone twice, and some more');
  endpoint.setState(stateOf());
  await discovery.sync();
  endpoint.setState(fewer(0));
  t.equal(
    (await read(made({ shrinkShareMax: 1 }, discovery.inventory))).functions.length,
    0,
    'by configuration',
  );
  endpoint.setState(fewer(4));
  const few = made();
  await few.sync();
  endpoint.setState(fewer(0));
  t.equal((await read(few)).functions.length, 0, 'a handful may go at once');
});

t.test('things that lose what they hold wait for a second look, too', async (t) => {
  const { endpoint, made } = await start(t, stateOf());
  const discovery = made();
  await discovery.sync();
  const functions = KNOWN.functions!.map((fn) => ({ ...fn, tags: {} }));
  const prefixLists = KNOWN.prefixLists!.map((list) => ({ ...list, cidrs: list.cidrs.slice(0, 10) }));
  for (const [less, what] of [
    [{ functions }, '20 of 20 functions with tags'],
    [{ prefixLists }, '120 of 130 entries of prefixLists'],
  ] as const) {
    endpoint.setState(stateOf({ ...KNOWN, ...less }));
    const { scopes, ...held } = await read(discovery);
    t.match(scopes[0]!.error, `AWS no longer lists ${what}: held`);
    t.equal(held.functions.filter(({ tags }) => tags.team === 'pay').length, 20);
    t.equal(held.prefixLists[0]!.cidrs.length, 130);
    t.equal((await read(discovery)).scopes[0]!.error, undefined, 'twice');
    endpoint.setState(stateOf());
    await discovery.sync();
  }
});

t.test('what is no longer configured stays until it is to be forgotten', async (t) => {
  const regions = { [REGION]: KNOWN, 'eu-west-1': KNOWN };
  const state = { accounts: [{ id: ACCOUNT, accessKeyIds: ['AKIAEXAMPLE'], regions }] };
  const { made } = await start(t, state);
  const both = await read(made({ accounts: [{ id: ACCOUNT, regions: Object.keys(regions) }] }));
  const now = () => new Date('2026-01-02T00:00:00.000Z');
  const left = await read(made({ now }, both));
  const error = 'is no longer configured: what was known stays until inventory.aws.forget names the account';
  t.match(left.scopes, [
    { region: 'eu-west-1', refreshedAt: AT, error },
    { region: REGION, refreshedAt: now().toISOString() },
  ]);
  t.equal(left.functions.length, 80, 'its functions stay');
  const forgotten = await read(made({ now, forget: [ACCOUNT] }, left));
  t.strictSame(
    forgotten.scopes.map(({ region }) => region),
    [REGION],
    'what is still configured is not',
  );
  t.equal(forgotten.functions.length, 40);
});

t.test("within AWS's rates nothing is refused", async (t) => {
  const functions = Array.from({ length: 1_500 }, (_, index) => ({ name: `fn-${index}`, tags: { a: 'b' } }));
  const { endpoint, made } = await start(t, { ...stateOf({ functions }), rates: AWS_RATES });
  t.equal((await read(made())).functions.length, 1_500);
  t.equal(endpoint.calls.filter(({ operation }) => operation === 'lambda:ListFunctions').length, 30);
  t.strictSame(
    endpoint.calls.filter(({ outcome }) => outcome !== 'ok'),
    [],
  );
});
