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
import { startAwsEndpoint } from '../support/aws/server.js';
import type { State } from '../support/aws/state.js';
import { until } from '../support/wait.js';

const ACCOUNT = '111122223333';
const REGION = 'us-east-1';

for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name];
process.env.AWS_ACCESS_KEY_ID = 'AKIAEXAMPLE';
process.env.AWS_SECRET_ACCESS_KEY = 'x';
process.env.AWS_EC2_METADATA_DISABLED = 'true';
process.env.AWS_CONFIG_FILE = '/dev/null';
process.env.AWS_SHARED_CREDENTIALS_FILE = '/dev/null';
process.env.AWS_MAX_ATTEMPTS = '1';

const stateOf = (tags: Readonly<Record<string, string>>, subnetIds = ['subnet-0a']): State => ({
  accounts: [
    {
      id: ACCOUNT,
      accessKeyIds: ['AKIAEXAMPLE'],
      regions: {
        [REGION]: {
          functions: [{ name: 'pay', subnetIds, tags }],
          subnets: [
            { id: 'subnet-0a', vpcId: 'vpc-01', cidr: '10.0.0.0/24' },
            { id: 'subnet-0b', vpcId: 'vpc-01', cidr: '10.0.1.0/24' },
          ],
          vpcs: [{ id: 'vpc-01', cidrs: ['10.0.0.0/16'] }],
          queues: [{ name: 'events' }],
        },
      },
    },
  ],
});

const POLICY = `version: sluice.policy/1
smartGroups: [ { name: paying, selector: { any: [ { all: { type: serverless, tags: { team: pay } } } ] } } ]
policies: [ { name: p, priority: 1, action: PERMIT, src: [paying], dst: [Anywhere], protocol: ANY } ]
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
  const paying = async () => {
    const { groups } = await readSnapshot(join(folder, 'snapshot'));
    return groups
      .find(({ name }) => name === 'paying')!
      .parts.flat()
      .map(printPrefix)
      .join();
  };
  return { stop, paying };
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
  await until('the group', async () => (await client.paying().catch(() => '')) === '10.0.0.0/24');
  endpoint.setState(stateOf({}));
  const sqs = new SQSClient({ region: REGION, endpoint: endpoint.url });
  t.teardown(() => sqs.destroy());
  const event = {
    ...{ account: ACCOUNT, region: REGION, 'detail-type': 'AWS API Call via CloudTrail' },
    detail: {
      eventSource: 'lambda.amazonaws.com',
      eventName: 'UntagResource20170331v2',
      requestParameters: { resource: `arn:aws:lambda:${REGION}:${ACCOUNT}:function:pay` },
    },
  };
  await sqs.send(new SendMessageCommand({ QueueUrl, MessageBody: JSON.stringify(event) }));
  await until('what the event tells', async () => (await client.paying()) === '');
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
  t.equal(await next.paying(), '');
});

t.test('after one that was killed nothing is published before AWS is asked', async (t) => {
  const { endpoint, folder, client } = await scene(t);
  const killed = `${folder}-killed`;
  cpSync(folder, killed, { recursive: true });
  await client.stop();
  endpoint.setState(stateOf({ team: 'pay' }, ['subnet-0b']));
  const revision = revisionIn(killed);
  const next = begin(t, killed);
  await until('the group', async () => (await next.paying()) === '10.0.1.0/24');
  t.equal(revisionIn(killed), revision + 1, 'never what was known before the event');
  await endpoint.close();
});
