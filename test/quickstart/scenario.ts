import type { State } from '../support/aws/state.js';
import type { StageServer, Zone } from '../support/stage.js';

/** A function of the example, and an address that its traffic comes from. */
export interface ExampleFunction {
  readonly name: string;
  readonly address: string;
  readonly zone: Zone;
  readonly subnet: string;
  readonly tags: Readonly<Record<string, string>>;
}

export const ACCOUNT = '111122223333';
export const REGION = 'us-east-1';
const VPC = 'vpc-0a1b2c3d';
const application = { app: 'security-video' };

/** The four functions of the chain, and a fifth that nobody asked for. Each has a subnet of its own. */
export const FUNCTIONS: readonly ExampleFunction[] = [
  {
    name: 'camera-query',
    address: '10.0.1.10',
    zone: 'a',
    subnet: '10.0.1.0/28',
    tags: { ...application, step: 'query' },
  },
  {
    name: 'footage-fetch',
    address: '10.0.1.20',
    zone: 'a',
    subnet: '10.0.1.16/28',
    tags: { ...application, step: 'fetch' },
  },
  {
    name: 'frame-analyze',
    address: '10.0.1.40',
    zone: 'a',
    subnet: '10.0.1.32/28',
    tags: { ...application, step: 'analyze' },
  },
  {
    name: 'alert-writeback',
    address: '10.0.2.10',
    zone: 'b',
    subnet: '10.0.2.0/28',
    tags: { ...application, step: 'alert' },
  },
  { name: 'rogue', address: '10.0.2.20', zone: 'b', subnet: '10.0.2.16/28', tags: {} },
];

/** A server that functions may want to reach. */
export interface ExampleServer extends StageServer {
  readonly label: string;
}

export const SERVERS: readonly ExampleServer[] = [
  { label: 'camera database', to: '10.20.0.5', port: 5432, protocol: 'tcp', at: 'dataCentre' },
  { label: 'footage server', to: '10.20.0.5', port: 8554, protocol: 'tcp', at: 'dataCentre' },
  { label: 'alert collector', to: '10.20.0.5', port: 5514, protocol: 'udp', at: 'dataCentre' },
  { label: 'object storage', to: '203.0.113.10', port: 443, protocol: 'tcp', at: 'internet' },
  { label: 'some time server', to: '203.0.113.20', port: 123, protocol: 'udp', at: 'internet' },
];

/** What the policy of the example is meant to permit: function, server, rule. Everything else is denied by default. */
export const PERMITTED: readonly (readonly [name: string, server: string, rule: string])[] = [
  ['camera-query', 'camera database', 'query-cameras'],
  ['footage-fetch', 'footage server', 'fetch-footage'],
  ['footage-fetch', 'object storage', 'store-footage'],
  ['frame-analyze', 'object storage', 'analyze-frames'],
  ['alert-writeback', 'alert collector', 'write-back-alerts'],
];

/** What AWS knows: the functions, and one outside any VPC that no gateway can see. */
export function awsState(): State {
  const subnetId = (name: string) => `subnet-${name}`;
  return {
    accounts: [
      {
        id: ACCOUNT,
        accessKeyIds: ['AKIAEXAMPLE'],
        regions: {
          [REGION]: {
            functions: [
              ...FUNCTIONS.map(({ name, tags }) => ({
                name,
                tags,
                subnetIds: [subnetId(name)],
                securityGroupIds: ['sg-1'],
              })),
              { name: 'thumbnailer', tags: application },
            ],
            subnets: FUNCTIONS.map(({ name, subnet }) => ({ id: subnetId(name), vpcId: VPC, cidr: subnet })),
            vpcs: [{ id: VPC, cidrs: ['10.0.0.0/16'] }],
          },
        },
      },
    ],
  };
}

/** The gateway's configuration, as a network team would write it. */
export const CONFIG = `gateway:
  name: gw-a
  lambdaInterfaces: [lam0, lam1]
  egressInterfaces: [wan0, dc0]
  snat: { interfaces: [wan0], to: masquerade }
policy: { path: policy/ }
inventory: { aws: { accounts: [{ id: "${ACCOUNT}", regions: [${REGION}] }], refreshSeconds: 2 } }
snapshot: { path: snapshot/ }
flows: { sinks: [{ type: file, path: flows.jsonl }] }
metrics: { listen: 127.0.0.1:9464 }
admin: { socket: admin.sock }
state: { path: state/ }
`;
