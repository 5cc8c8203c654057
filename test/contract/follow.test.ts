import { SendMessageCommand, SQSClient } from '@aws-sdk/client-sqs';
import { createClientPool } from 'sluice-controller-client/aws/clients.js';
import { Discovery } from 'sluice-controller-client/aws/discovery.js';
import { AwsFollower } from 'sluice-controller-client/aws/follow.js';
import { emptyInventory, type Inventory } from 'sluice-controller-client/inventory.js';
import { type Config, parseConfig } from 'sluice-gateway/config/config.js';
import { createLog } from 'sluice-gateway/log.js';
import t, { type Test } from 'tap';
import '../support/aws/environment.js';
import { eventOf } from '../support/aws/event.js';
import { type AwsEndpoint, startAwsEndpoint } from '../support/aws/server.js';
import type { AccountState, FunctionState, RegionState, State } from '../support/aws/state.js';
import { until } from '../support/wait.js';

const ACCOUNT = '111122223333';
const REGION = 'us-east-1';
const VPC = 'vpc-01';

process.env.AWS_MAX_ATTEMPTS = '1';
process.env.AWS_RETRY_MODE = 'standard';

const pay: FunctionState = { name: 'pay', subnetIds: ['subnet-0a'], tags: { team: 'pay' } };
const web: FunctionState = { name: 'web', subnetIds: ['subnet-0b'], tags: { team: 'web' } };

const KNOWN: RegionState = {
  functions: [pay, web],
  subnets: ['a', 'b', 'c'].map((letter, index) => ({
    id: `subnet-0${letter}`,
    vpcId: VPC,
    cidr: `10.0.${index}.0/24`,
  })),
  vpcs: [{ id: VPC, cidrs: ['10.0.0.0/16'] }],
  interfaces: [{ id: 'eni-01', subnetId: 'subnet-0a', vpcId: VPC, addresses4: ['10.0.0.9'] }],
  prefixLists: [{ id: 'pl-01', name: 'offices', cidrs: ['192.0.2.0/24'] }],
  queues: [{ name: 'events' }],
};

const stateOf = (known: RegionState, more: Partial<AccountState> = {}): State => ({
  accounts: [{ id: ACCOUNT, accessKeyIds: ['AKIAEXAMPLE'], regions: { [REGION]: known }, ...more }],
});

interface Scene {
  readonly endpoint: AwsEndpoint;
  readonly follower: AwsFollower;
  /** What the log says, a line each. */
  readonly said: readonly string[];
  /** How often all was read. */
  readonly fulls: () => number;
  readonly send: (body: string) => Promise<void>;
}

const event = (eventName: string, requestParameters: object, more: object = {}) =>
  eventOf({ account: ACCOUNT, region: REGION }, eventName, requestParameters, more);

async function start(t: Test, state: State, refreshSeconds: number): Promise<Scene> {
  const endpoint = await startAwsEndpoint({ state });
  process.env.AWS_ENDPOINT_URL = endpoint.url;
  const queueUrl = `${endpoint.url}/${ACCOUNT}/events`;
  const config: Config = parseConfig(
    `gateway: { name: g, lambdaInterfaces: [a], egressInterfaces: [b] }
policy: { path: p }
inventory: { aws: { accounts: [{ id: "${ACCOUNT}", regions: [${REGION}] }], refreshSeconds: ${refreshSeconds},
  events: { queueUrl: "${queueUrl}", region: ${REGION} } } }`,
    'sluice.yaml',
  );
  const said: string[] = [];
  const stopping = new AbortController();
  let fulls = 0;
  const follower = new AwsFollower(emptyInventory(), config.inventory!.aws, {
    log: createLog({ write: (line) => void said.push(line), level: 'debug' }),
    signal: stopping.signal,
    learnt: async (how) => {
      if (how === 'full') fulls++;
    },
  });
  const running = follower.run();
  const sqs = new SQSClient({ region: REGION, endpoint: endpoint.url });
  t.teardown(async () => {
    stopping.abort();
    await running;
    sqs.destroy();
    await endpoint.close();
  });
  await until('AWS is read', () => fulls > 0);
  const send = async (body: string) => {
    await sqs.send(new SendMessageCommand({ QueueUrl: queueUrl, MessageBody: body }));
  };
  return { endpoint, follower, said, fulls: () => fulls, send };
}

const named = ({ functions }: Inventory, name: string) => functions.find((fn) => fn.name === name);
const deletes = ({ endpoint }: Scene) =>
  endpoint.calls.filter(({ operation, outcome }) => operation === 'sqs:DeleteMessage' && outcome === 'ok')
    .length;

t.test('what events tell of is read, and nothing else', async (t) => {
  const scene = await start(t, stateOf(KNOWN), 86_400);
  const { endpoint, follower, send } = scene;
  const follow = async (what: string, known: RegionState, body: string, holds: () => boolean) => {
    const before = deletes(scene);
    endpoint.setState(stateOf(known));
    await send(body);
    await until(what, holds);
    await until(`${what}: the message is deleted`, () => deletes(scene) === before + 1);
    t.ok(holds(), what);
  };
  endpoint.forgetCalls();
  await follow(
    'a tag',
    { ...KNOWN, functions: [{ ...pay, tags: { team: 'web' } }, web] },
    event('TagResource20170331v2', { resource: `arn:aws:lambda:${REGION}:${ACCOUNT}:function:pay` }),
    () => named(follower.inventory, 'pay')?.tags.team === 'web',
  );
  t.strictSame(
    new Set(endpoint.calls.map(({ operation }) => operation)),
    new Set([
      'sqs:SendMessage',
      'sqs:ReceiveMessage',
      'lambda:GetFunctionConfiguration',
      'lambda:ListTags',
      'sqs:DeleteMessage',
    ]),
  );
  await follow(
    'another subnet',
    { ...KNOWN, functions: [{ ...pay, subnetIds: ['subnet-0c'] }, web] },
    event('UpdateFunctionConfiguration20150331v2', { functionName: 'pay' }),
    () => named(follower.inventory, 'pay')?.subnetIds[0] === 'subnet-0c',
  );
  const card: FunctionState = { name: 'card', subnetIds: ['subnet-0b'] };
  const withCard = { ...KNOWN, functions: [pay, web, card] };
  await follow(
    'a new function',
    withCard,
    event('CreateFunction20150331', { functionName: 'card' }),
    () => named(follower.inventory, 'card') !== undefined,
  );
  t.strictSame(
    follower.inventory.functions.map(({ name }) => name),
    ['card', 'pay', 'web'],
    'in order',
  );
  await follow(
    'a function that is gone',
    { ...KNOWN, functions: [web, card] },
    event('DeleteFunction20150331', { functionName: 'pay' }),
    () => named(follower.inventory, 'pay') === undefined,
  );
  const subnets = [...KNOWN.subnets!.slice(1), { id: 'subnet-0d', vpcId: VPC, cidr: '10.0.9.0/24' }];
  await follow(
    'a new subnet',
    { ...KNOWN, subnets },
    event('CreateSubnet', { vpcId: VPC, x: { subnetId: 'subnet-0d' } }),
    () => follower.inventory.subnets.some(({ id }) => id === 'subnet-0d'),
  );
  await follow(
    'a subnet that is gone',
    { ...KNOWN, subnets },
    event('DeleteSubnet', { subnetId: 'subnet-0a' }),
    () => follower.inventory.subnets.every(({ id }) => id !== 'subnet-0a'),
  );
  await follow(
    'an interface that is gone',
    { ...KNOWN, interfaces: [] },
    event('DeleteNetworkInterface', { networkInterfaceId: 'eni-01' }),
    () => follower.inventory.interfaces.length === 0,
  );
  await follow(
    'a prefix list that changed',
    { ...KNOWN, prefixLists: [{ id: 'pl-01', name: 'offices', cidrs: ['198.51.100.0/24'] }] },
    event('ModifyManagedPrefixList', { prefixListId: 'pl-01' }),
    () => follower.inventory.prefixLists[0]?.cidrs[0] === '198.51.100.0/24',
  );
  t.equal(scene.fulls(), 1);
});

t.test('hostile and foreign messages are dropped, counted and told', async (t) => {
  const scene = await start(t, stateOf(KNOWN), 86_400);
  scene.endpoint.forgetCalls();
  const bodies = [
    'no JSON \u001b[2J',
    '{}',
    event('DeleteFunction20150331', { functionName: 'pay' }, { account: '999900001111' }),
    event('DeleteFunction20150331', { functionName: 'pay' }, { region: 'eu-west-1' }),
    event('DeleteFunction20150331', { functionName: '../../pay' }),
  ];
  for (const body of bodies) {
    const before = deletes(scene);
    await scene.send(body);
    await until('it is deleted', () => deletes(scene) > before);
  }
  t.strictSame(
    scene.endpoint.calls.filter(({ operation }) => !operation.startsWith('sqs:')),
    [],
    'AWS is asked nothing',
  );
  t.match(scene.said.join('\n'), /no events of ours and were dropped/);
  t.equal(scene.follower.inventory.functions.length, 2);
});

t.test('trouble with the queue or with a call is told, and full refreshes go on', async (t) => {
  const { queues: _, ...withoutQueue } = KNOWN;
  const scene = await start(t, stateOf(withoutQueue), 1);
  await until('it is told', () => scene.said.some((line) => line.includes('QueueDoesNotExist')));
  const before = scene.fulls();
  await until('all is read again', () => scene.fulls() > before);
  t.equal(scene.said.filter((line) => line.includes('QueueDoesNotExist')).length, 1, 'once');
  scene.endpoint.setState(stateOf(KNOWN));
  await until('the queue is there', () => scene.said.some((line) => line.includes('followed again')));

  const denied = { ...KNOWN, functions: [{ ...pay, tags: { now: 'other' } }, web] };
  const allow = [
    'ec2:DescribeSubnets',
    'ec2:DescribeVpcs',
    'lambda:ListFunctions',
    'tag:GetResources',
  ] as const;
  scene.endpoint.setState(
    stateOf(denied, { allow: [...allow, 'sqs:ReceiveMessage', 'sqs:DeleteMessage', 'sqs:SendMessage'] }),
  );
  await scene.send(event('TagResource20170331v2', { resource: 'pay' }));
  await until('the reason is told', () =>
    scene.said.some((line) => /GetFunctionConfiguration failed.*events-account\.json/.test(line)),
  );
  await until('the full refresh knows', () => named(scene.follower.inventory, 'pay')?.tags.now === 'other');
  t.pass('and it knows');
});

for (const step of [1, -1])
  t.test(`a full refresh under way does not undo what an event brought, clock ${step}`, (t) =>
    overlap(t, step),
  );

/** Under a clock that makes such a step whenever it is looked at. */
async function overlap(t: Test, step: number): Promise<void> {
  // Its prefix lists take longer than EC2 allows at once.
  const prefixLists = Array.from({ length: 70 }, (_, index) => ({
    id: `pl-0${index}`,
    name: 'x',
    cidrs: [],
  }));
  const known = { ...KNOWN, prefixLists };
  const endpoint = await startAwsEndpoint({ state: stateOf(known) });
  process.env.AWS_ENDPOINT_URL = endpoint.url;
  const clients = createClientPool();
  t.teardown(async () => {
    clients.close();
    await endpoint.close();
  });
  let ms = 1_000_000;
  const discovery = new Discovery(emptyInventory(), {
    accounts: [{ id: ACCOUNT, regions: [REGION] }],
    also: ['prefixLists'],
    publishedVersions: false,
    shrinkShareMax: 0.5,
    forget: [],
    now: () => {
      ms += step;
      return new Date(ms);
    },
    clients,
  });
  const first = discovery.sync();
  const change = { accountId: ACCOUNT, region: REGION, list: 'functions' } as const;
  const id = (name: string) => `arn:aws:lambda:${REGION}:${ACCOUNT}:function:${name}`;
  const missed = await discovery.refresh([
    { ...change, id: id('pay') },
    { ...change, list: 'instances', id: 'i-01' },
  ]);
  t.equal(
    missed.map(({ message }) => message).join(),
    `${id('pay')} changed while all was read for the first time`,
  );
  await first;
  const listed = discovery.sync();
  t.strictSame(await discovery.refresh([{ ...change, list: 'instances', id: 'i-01' }]), []);
  await listed;
  endpoint.forgetCalls();
  const syncing = discovery.sync();
  await until('functions are read', () =>
    endpoint.calls.some(({ operation }) => operation === 'ec2:DescribeVpcs'),
  );
  endpoint.setState(stateOf({ ...known, functions: [{ ...pay, subnetIds: ['subnet-0c'] }] }));
  const both = [
    { ...change, id: id('pay') },
    { ...change, id: id('web') },
  ];
  t.strictSame(await discovery.refresh(both), []);
  const brought = discovery.inventory.functions;
  t.equal(brought.length, 1);
  await syncing;
  t.strictSame(discovery.inventory.functions, brought, 'a function that moved, one that is gone');
}
