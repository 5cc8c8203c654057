import { readFileSync } from 'node:fs';
import t from 'tap';
import { changesOf } from './events.js';

const PATTERN = new URL('../../../deploy/iam/events-pattern.json', import.meta.url);
const ACCOUNT = '111122223333';
const REGION = 'us-east-1';

const message = (detail: object, more: object = {}) =>
  JSON.stringify({
    account: ACCOUNT,
    region: REGION,
    'detail-type': 'AWS API Call via CloudTrail',
    detail: { eventSource: 'lambda.amazonaws.com', ...detail },
    ...more,
  });

t.test('what events tell', async (t) => {
  const arn = `arn:aws:lambda:${REGION}:${ACCOUNT}:function:pay`;
  const fn = [{ accountId: ACCOUNT, region: REGION, list: 'functions', id: arn }];
  for (const [eventName, requestParameters] of [
    ['CreateFunction20150331', { functionName: 'pay' }],
    ['UpdateFunctionConfiguration20150331v2', { functionName: arn }],
    ['DeleteFunction20150331', { functionName: `${ACCOUNT}:function:pay` }],
    ['PublishVersion20150331', { functionName: 'pay:3' }],
    ['TagResource20170331v2', { resource: arn, tags: { resource: 'x' } }],
    ['UntagResource20170331v2', { resource: arn }],
  ] as const)
    t.strictSame(changesOf(message({ eventName, requestParameters, errorCode: null })), fn, eventName);
  t.strictSame(changesOf(message({ eventName: 'Invoke', requestParameters: { functionName: 'pay' } })), []);
  t.strictSame(
    changesOf(message({ eventName: 'DeleteFunction20150331', errorCode: 'AccessDenied' })),
    [],
    'a call that failed changed nothing',
  );
  const ec2 = (eventName: string, requestParameters: object, responseElements: unknown = null) =>
    changesOf(
      message({ eventSource: 'ec2.amazonaws.com', eventName, requestParameters, responseElements }),
    )!.map(({ list, id }) => `${list} ${id}`);
  t.strictSame(ec2('CreateSubnet', { vpcId: 'vpc-0a' }, { subnet: { subnetId: 'subnet-0b' } }).sort(), [
    'subnets subnet-0b',
    'vpcs vpc-0a',
  ]);
  t.strictSame(ec2('DeleteNetworkInterface', { networkInterfaceId: 'eni-0c' }), ['interfaces eni-0c']);
  t.strictSame(
    ec2('CreateTags', {
      resourcesSet: { items: [{ resourceId: 'i-01' }, { resourceId: 'vol-01' }] },
      tagSet: { items: [{ key: 'Name', value: 'pl 01' }] },
    }),
    ['instances i-01'],
  );
  t.strictSame(ec2('StopInstances', { instancesSet: { items: [{ instanceId: 'i-01' }] } }), []);
  const { detail } = JSON.parse(readFileSync(PATTERN, 'utf8')) as {
    detail: { eventName: readonly (string | { prefix: string })[] };
  };
  for (const name of detail.eventName)
    if (typeof name === 'string')
      t.strictSame(ec2(name, { x: 'vpc-0a' }), ['vpcs vpc-0a'], `${name} is understood`);
  for (const strange of [
    '',
    'null',
    '[]',
    '{"account":"111122223333"}',
    message({ eventName: 'x' }, { account: '<script>' }),
    message({ eventName: 'x' }, { 'detail-type': 'AWS Health Event' }),
    `${'['.repeat(400_000)}${']'.repeat(400_000)}`,
    ' '.repeat(2 << 20),
  ])
    t.equal(changesOf(strange), undefined, strange.slice(0, 40));
  const deep = `{"a":${'['.repeat(100_000)}"vpc-0d"${']'.repeat(100_000)}}`;
  const body = message({ eventSource: 'ec2.amazonaws.com', eventName: 'CreateVpc' }).replace(
    '"eventName"',
    `"requestParameters":${deep},"eventName"`,
  );
  t.strictSame(
    changesOf(body)!.map(({ id }) => id),
    ['vpc-0d'],
    'however deep it lies',
  );
});
