import {
  type AccountState,
  AWS_RATES,
  type FunctionState,
  type State,
} from 'sluice-test/support/aws/state.js';

export const ACCOUNTS = 20;
export const FUNCTIONS = 10_000;
export const SUBNETS = 2_000;
export const REGION = 'us-east-1';
export const QUEUE = 'sluice-events';
const TEAMS = 50;
const FUNCTIONS_EACH = FUNCTIONS / ACCOUNTS;
const SUBNETS_EACH = SUBNETS / ACCOUNTS;

export const accountId = (account: number) => String(111_122_220_000 + account);
export const keyOf = (account: number) => `AKIABENCH${account}`;

/** The subnet whose number within its account a function is made with. */
export const cidrOf = (account: number, subnet: number) => `10.${account}.${subnet}.0/24`;

/** A function as it shall be from now on. */
export interface Probe {
  readonly account: string;
  readonly name: string;
  readonly tags: Readonly<Record<string, string>>;
}

export function functionOf(account: number, index: number): FunctionState {
  return {
    name: `service-${account}-handler-${index}`,
    subnetIds: [`subnet-${account}x${index % SUBNETS_EACH}`],
    securityGroupIds: [`sg-${index % 40}`],
    tags: {
      team: `team-${index % TEAMS}`,
      stage: index % 3 === 0 ? 'prod' : 'dev',
      'cost-center': `c${index % 7}`,
    },
  };
}

function accountOf(account: number): AccountState {
  const vpcId = `vpc-${account}`;
  return {
    id: accountId(account),
    accessKeyIds: [keyOf(account)],
    regions: {
      [REGION]: {
        functions: Array.from({ length: FUNCTIONS_EACH }, (_, index) => functionOf(account, index)),
        subnets: Array.from({ length: SUBNETS_EACH }, (_, index) => ({
          id: `subnet-${account}x${index}`,
          vpcId,
          cidr: cidrOf(account, index),
          tags: { Name: `lambda-${index}` },
        })),
        vpcs: [{ id: vpcId, cidrs: [`10.${account}.0.0/16`] }],
        interfaces: Array.from({ length: SUBNETS_EACH }, (_, index) => ({
          id: `eni-${account}x${index}`,
          subnetId: `subnet-${account}x${index}`,
          vpcId,
          description: `AWS Lambda VPC ENI-service-${account}-handler-${index}`,
          securityGroupIds: [`sg-${index % 40}`],
          addresses4: [`10.${account}.${index}.10`],
        })),
        ...(account === 0 && { queues: [{ name: QUEUE }] }),
      },
    },
  };
}

/** Twenty accounts of one company, within AWS's rates. */
export function cloud(): State {
  return { accounts: Array.from({ length: ACCOUNTS }, (_, account) => accountOf(account)), rates: AWS_RATES };
}

/** A group for each team, one for production, and one for whatever wears the probe's tag. */
export function policy(): string {
  const group = (name: string, tags: string) =>
    `  - { name: ${name}, selector: { any: [ { all: { type: serverless, tags: { ${tags} } } } ] } }`;
  const rule = (name: string, priority: number, port: number) =>
    `  - { name: ${name}-out, priority: ${priority}, action: PERMIT, src: [${name}], dst: [Anywhere], ` +
    `protocol: TCP, portRanges: [ { lo: ${port} } ] }`;
  const teams = Array.from({ length: TEAMS }, (_, index) => `team-${index}`);
  return [
    'version: sluice.policy/1',
    'smartGroups:',
    ...teams.map((team) => group(team, `team: ${team}`)),
    group('prod', 'stage: prod'),
    group('probe', 'probe: "1"'),
    'policies:',
    ...teams.map((team, index) => rule(team, index, 1000 + index)),
    rule('prod', 100, 443),
    rule('probe', 101, 8443),
    '',
  ].join('\n');
}
