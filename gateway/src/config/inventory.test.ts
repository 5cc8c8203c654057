import t from 'tap';
import { parseConfig } from './config.js';

const configOf = (aws: string) =>
  parseConfig(
    `gateway: { name: g, lambdaInterfaces: [a], egressInterfaces: [b] }\npolicy: { path: p }\ninventory: { aws: ${aws} }\n`,
    'c.yaml',
  );
const ROLE = 'arn:aws-cn:iam::111122223333:role/sluice';
const account = (more = '') => `{ id: "111122223333", regions: [cn-north-1]${more} }`;

t.test('accounts by role, with defaults for the rest', async (t) => {
  const { inventory } = configOf(`{ accounts: [${account(`, roleArn: "${ROLE}", externalId: a-b`)}] }`);
  t.strictSame(inventory!.aws, {
    accounts: [{ id: '111122223333', regions: ['cn-north-1'], roleArn: ROLE, externalId: 'a-b' }],
    refreshSeconds: 60,
    also: ['interfaces', 'instances', 'prefixLists'],
    publishedVersions: false,
    shrinkShareMax: 0.5,
    forget: [],
  });
});

t.test('what is wrong is said with its place', async (t) => {
  for (const [aws, message] of [
    [
      `{ accounts: [${account(', externalId: ab')}] }`,
      'c.yaml:3:32: externalId without roleArn: it belongs to a role',
    ],
    [
      `{ accounts: [${account(`, roleArn: "${ROLE.replace('1111', '9999')}"`)}] }`,
      'c.yaml:3:86: the role is not of account 111122223333',
    ],
    [
      `{ accounts: [${account()}, ${account()}] }`,
      'account and region 111122223333 cn-north-1 are given twice',
    ],
    [
      `{ accounts: [${account(', roleArn: admin')}] }`,
      'expected a role such as arn:aws:iam::111122223333:role/sluice',
    ],
    [`{ accounts: [${account()}], also: [tags] }`, 'inventory.aws.also.0 is "tags"'],
    [
      `{ accounts: [${account()}], shrinkShareMax: 2 }`,
      'inventory.aws.shrinkShareMax is 2: the highest allowed is 1',
    ],
    [
      `{ accounts: [${account()}], events: { queueUrl: "file:///x", region: r } }`,
      'inventory.aws.events.queueUrl',
    ],
  ] as const)
    t.throws(() => configOf(aws), { message: new RegExp(message.replace(/[.?]/g, '\\$&')) }, message);
});
