// A client that begins again knows what events told the one before.
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SendMessageCommand, SQSClient } from '@aws-sdk/client-sqs';
import { ControllerClient } from 'sluice-controller-client/client.js';
import { readConfig } from 'sluice-gateway/config/config.js';
import { createLog } from 'sluice-gateway/log.js';
import { printPrefix } from 'sluice-gateway/net/prefix.js';
import { readSnapshot } from 'sluice-gateway/snapshot/read.js';
import t, { type Test } from 'tap';
import '../support/aws/environment.js';
import { eventOf } from '../support/aws/event.js';
import { startAwsEndpoint } from '../support/aws/server.js';
import type { State } from '../support/aws/state.js';
import { until } from '../support/wait.js';

const ACCOUNT = '111122223333';
const REGION = 'us-east-1';

process.env.AWS_MAX_ATTEMPTS = '1';

const SUBNETS = [
  { id: 'subnet-0a', vpcId: 'vpc-01', cidr: '10.0.0.0/24' },
  { id: 'subnet-0b', vpcId: 'vpc-01', cidr: '10.0.1.0/24' },
];

const stateOf = (tags: Readonly<Record<string, string>>, subnetIds = ['subnet-0a'], gone = ''): State => ({
  accounts: [
    {
      id: ACCOUNT,
      accessKeyIds: ['AKIAEXAMPLE'],
      regions: {
        [REGION]: {
          functions: [{ name: 'pay', subnetIds, tags }],
          subnets: SUBNETS.filter(({ id }) => id !== gone),
          vpcs: [{ id: 'vpc-01', cidrs: ['10.0.0.0/16'] }],
          queues: [{ name: 'events' }],
        },
      },
    },
  ],
});

const POLICY = `version: sluice.policy/1
smartGroups:
  - { name: paying, selector: { any: [ { all: { type: serverless, tags: { team: pay } } } ] } }
  - { name: named, selector: { any: [ { all: { type: subnet, id: subnet-0b } } ] } }
policies: [ { name: p, priority: 1, action: PERMIT, src: [paying], dst: [named], protocol: ANY } ]
`;

/** A client at work in a folder. */
function begin(t: Test, folder: string) {
  const log = createLog({ write: () => {} });
  const client = new ControllerClient(readConfig(join(folder, 'sluice.yaml')), log);
  const running = client.run();
  const stop = async () => {
    client.stop();
    await running;
  };
  t.teardown(stop);
  const held = async (group: string) => {
    const { groups } = await readSnapshot(join(folder, 'snapshot'));
    const { parts } = groups.find(({ name }) => name === group)!;
    return parts.flat().map(printPrefix).join();
  };
  return { stop, held };
}

async function scene(t: Test) {
  const endpoint = await startAwsEndpoint({ state: stateOf({ team: 'pay' }) });
  process.env.AWS_ENDPOINT_URL = endpoint.url;
  const QueueUrl = `${endpoint.url}/${ACCOUNT}/events`;
  const folder = join(t.testdir({ site: {} }), 'site');
  writeFileSync(join(folder, 'policy.yaml'), POLICY);
  writeFileSync(
    join(folder, 'sluice.yaml'),
    `gateway: { name: g, lambdaInterfaces: [a], egressInterfaces: [b] }
policy: { path: policy.yaml }
snapshot: { path: snapshot }
inventory: { aws: { accounts: [{ id: "${ACCOUNT}", regions: [${REGION}] }], refreshSeconds: 86400,
  events: { queueUrl: "${QueueUrl}", region: ${REGION} } } }
`,
  );
  const client = begin(t, folder);
  await until('the group', async () => (await client.held('paying').catch(() => '')) === '10.0.0.0/24');
  endpoint.setState(stateOf({}));
  const sqs = new SQSClient({ region: REGION, endpoint: endpoint.url });
  t.teardown(() => sqs.destroy());
  const event = eventOf({ account: ACCOUNT, region: REGION }, 'UntagResource20170331v2', { resource: 'pay' });
  await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: event }));
  await until('what the event tells', async () => (await client.held('paying')) === '');
  return { endpoint, folder, client };
}

const revisionIn = (folder: string) =>
  (JSON.parse(readFileSync(join(folder, 'snapshot/manifest.json'), 'utf8')) as { revision: number }).revision;

t.test('one that was stopped has kept them', async (t) => {
  const { endpoint, folder, client } = await scene(t);
  await client.stop();
  await endpoint.close();
  const revision = revisionIn(folder);
  const next = begin(t, folder);
  await until('that AWS does not answer', () => revisionIn(folder) > revision);
  t.equal(await next.held('paying'), '');
});

t.test('after one that was killed nothing is published before AWS is asked', async (t) => {
  const { endpoint, folder, client } = await scene(t);
  const killed = `${folder}-killed`;
  cpSync(folder, killed, { recursive: true });
  await client.stop();
  endpoint.setState(stateOf({ team: 'pay' }, ['subnet-0b']));
  const revision = revisionIn(killed);
  const next = begin(t, killed);
  await until('the group', async () => (await next.held('paying')) === '10.0.1.0/24');
  t.equal(revisionIn(killed), revision + 1, 'never what was known before the event');
  await endpoint.close();
});

t.test('what is named by its id and gone meanwhile keeps nothing from being published', async (t) => {
  const { endpoint, folder, client } = await scene(t);
  t.equal(await client.held('named'), '10.0.1.0/24');
  await client.stop();
  endpoint.setState(stateOf({ team: 'pay' }, ['subnet-0a'], 'subnet-0b'));
  const next = begin(t, folder);
  await until('the group', async () => (await next.held('paying')) === '10.0.0.0/24');
  t.equal(await next.held('named'), '');
  await next.stop();
  await endpoint.close();
});
