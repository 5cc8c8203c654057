import { DescribeVpcsCommand } from '@aws-sdk/client-ec2';
import { ListQueuesCommand } from '@aws-sdk/client-sqs';
import { createClientPool } from 'sluice-controller-client/aws/clients.js';
import t from 'tap';
import '../support/aws/environment.js';
import { startAwsEndpoint } from '../support/aws/server.js';

t.test('calls have time limits', async (t) => {
  const endpoint = await startAwsEndpoint({ state: { accounts: [] } });
  process.env.AWS_ENDPOINT_URL = endpoint.url;
  process.env.AWS_MAX_ATTEMPTS = '1';
  const clients = createClientPool();
  t.teardown(async () => {
    clients.close();
    await endpoint.close();
  });
  const region = 'us-east-1';
  const { lambda, ec2, tagging } = clients.of({ accountId: '111122223333', region });
  const queue = clients.queue({ region });
  // A handler has its options from its first call on.
  await t.rejects(ec2.send(new DescribeVpcsCommand({})));
  await t.rejects(queue.send(new ListQueuesCommand({})));
  const optionsOf = ({ config }: { config: { requestHandler: unknown } }) =>
    (config.requestHandler as { httpHandlerConfigs(): object }).httpHandlerConfigs();
  const limits = { connectionTimeout: 5_000, throwOnRequestTimeout: true };
  t.match(optionsOf(ec2), { ...limits, requestTimeout: 30_000 });
  t.match(optionsOf(queue), { ...limits, requestTimeout: 40_000 });
  for (const { config } of [lambda, tagging])
    t.equal(config.requestHandler, ec2.config.requestHandler, 'connections are shared');
});
