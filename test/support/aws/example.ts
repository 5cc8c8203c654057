import { ACCESS_KEY, ROLE_ARN } from './boto3-reader.js';
import type { Fault, State } from './state.js';

/** An account with something odd of each kind, and what goes wrong with the first calls to it. */
const ACCOUNT = '111122223333';
export const REGION = 'eu-central-1';

export const ODD_TAGS = {
  'a&b<c>"d\'e': '<x y="1">&amp;</x>',
  'sluice:team/pay=1+1': 'ä ö 漢字 🙂',
  spaced: '  two  spaces  ',
  empty: '',
  percent: '%2F;?#',
};

export const STATE: State = {
  accounts: [
    {
      id: ACCOUNT,
      accessKeyIds: [ACCESS_KEY],
      roles: [{ name: 'reader', trusts: [ACCOUNT], externalId: 'yes' }],
      regions: {
        [REGION]: {
          functions: Array.from({ length: 137 }, (_, index) => ({
            name: `fn-${index}`,
            ...(index % 10 === 9 ? {} : { subnetIds: [`subnet-0${index % 7}`, 'subnet-0a'] }),
            ...(index === 19 ? { vpcId: '' } : {}),
            securityGroupIds: index % 10 === 9 ? [] : ['sg-01'],
            tags: index === 3 ? ODD_TAGS : { index: String(index) },
            dualStack: index % 2 === 0,
            ...(index === 7 && { versions: { 1: { subnetIds: ['subnet-0b'] } } }),
          })),
          subnets: [
            ...Array.from({ length: 23 }, (_, index) => ({
              id: `subnet-0${index}`,
              vpcId: 'vpc-01',
              cidr: `10.0.${index}.0/24`,
              tags: { Name: `net ${index}`, tier: index < 12 ? 'front' : 'back' },
            })),
            {
              id: 'subnet-0a',
              vpcId: 'vpc-01',
              cidr: '10.1.0.0/20',
              ipv6Cidrs: ['2001:db8:0:1::/64', { cidr: '2001:db8:0:2::/64', state: 'disassociated' }],
              tags: ODD_TAGS,
              ownerId: '999900001111',
            },
            { id: 'subnet-0b', vpcId: 'vpc-01', ipv6Cidrs: ['2001:db8:0:3::/64'] },
          ],
          vpcs: [
            {
              id: 'vpc-01',
              cidrs: ['10.0.0.0/16', '10.1.0.0/16', { cidr: '10.2.0.0/16', state: 'failed' }],
              ipv6Cidrs: ['2001:db8::/56'],
              tags: ODD_TAGS,
            },
          ],
          instances: [
            {
              id: 'i-01',
              subnetId: 'subnet-01',
              vpcId: 'vpc-01',
              addresses4: ['10.0.1.20'],
              addresses6: ['2001:db8:0:1::20'],
              tags: ODD_TAGS,
            },
          ],
          prefixLists: [{ id: 'pl-01', name: 'offices', cidrs: ['192.0.2.0/24'], tags: ODD_TAGS }],
          interfaces: [
            {
              id: 'eni-01',
              subnetId: 'subnet-01',
              vpcId: 'vpc-01',
              description: 'AWS Lambda VPC ENI-fn-1 <&>',
              securityGroupIds: ['sg-01', 'sg-02'],
              addresses4: ['10.0.1.10', '10.0.1.11'],
              addresses6: ['2001:db8:0:1::10'],
              tags: { a: 'b' },
            },
            {
              id: 'eni-02',
              subnetId: 'subnet-02',
              vpcId: 'vpc-01',
              interfaceType: 'interface',
              addresses4: ['10.0.2.9'],
            },
          ],
        },
      },
    },
  ],
};

/** They strike in this order, one call each, before anything else is read. */
export const FAULTS: readonly Fault[] = [
  ...(['lambda:ListFunctions', 'ec2:DescribeSubnets'] as const).flatMap((operation) =>
    (['throttle', 'deny', 'fail'] as const).map((kind) => ({ operation, kind, times: 1 })),
  ),
  { operation: 'tag:GetResources', kind: 'throttle', times: 1 },
];

export const EXPECTED_ERRORS = {
  lambdaThrottled: ['TooManyRequestsException', 429, 'Rate exceeded'],
  lambdaDenied: [
    'AccessDeniedException',
    403,
    `User: arn:aws:iam::${ACCOUNT}:user/test is not authorized to perform: lambda:ListFunctions ` +
      'on resource: *',
  ],
  lambdaFailed: ['ServiceException', 500, 'An error occurred and the request cannot be processed.'],
  ec2Throttled: ['RequestLimitExceeded', 503, 'Request limit exceeded.'],
  ec2Denied: ['UnauthorizedOperation', 403, 'You are not authorized to perform this operation.'],
  ec2Failed: ['InternalError', 500, 'An internal error has occurred'],
  subnetUnknown: ['InvalidSubnetID.NotFound', 400, "The subnet ID 'subnet-0<&>' does not exist"],
  vpcUnknown: ['InvalidVpcID.NotFound', 400, "The vpc ID 'vpc-0ff' does not exist"],
  filterUnknown: ['InvalidParameterValue', 400, "The filter 'no-such' is invalid"],
  tokenBroken: ['InvalidNextToken', 400, 'The specified NextToken is not valid.'],
  markerBroken: ['InvalidParameterValueException', 400, 'Invalid Marker'],
  taggingThrottled: ['ThrottledException', 400, 'Rate exceeded'],
  paginationBroken: ['InvalidParameterException', 400, 'The PaginationToken is not valid'],
  roleRefused: [
    'AccessDenied',
    403,
    `User: arn:aws:iam::${ACCOUNT}:user/test is not authorized to perform: sts:AssumeRole on resource: ${ROLE_ARN}`,
  ],
  functionUnknown: [
    'ResourceNotFoundException',
    404,
    `Function not found: arn:aws:lambda:${REGION}:${ACCOUNT}:function:no-such`,
  ],
};
