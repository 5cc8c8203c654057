import { mkdirSync, writeFileSync } from 'node:fs';
import type { Test } from 'tap';
import type { Fault, FunctionState, RegionState, State, SubnetState } from './aws/state.js';
import { Stage } from './stage.js';

/**
 * A small scene for tests of the whole product: functions tagged `team: pay` may reach the ledger in the data centre,
 * `rogue` may reach nothing.
 */
export const ACCOUNT = '111122223333';
export const REGION = 'us-east-1';
const VPC = 'vpc-0a1b2c3d';

/** Its subnet holds the gateway's own address, which is a member of no group. */
export const WORKER = { name: 'worker', address: '10.0.1.10', zone: 'a', subnet: '10.0.1.0/28' } as const;
export const ROGUE = { name: 'rogue', address: '10.0.2.20', zone: 'b', subnet: '10.0.2.16/28' } as const;
export const LEDGER = { to: '10.20.0.5', port: 5000 } as const;

export const CONFIG = `gateway:
  name: gw-a
  lambdaInterfaces: [lam0, lam1]
  egressInterfaces: [wan0, dc0]
policy: { path: policy/ }
inventory: { aws: { accounts: [{ id: "${ACCOUNT}", regions: [${REGION}] }], refreshSeconds: 2 } }
snapshot: { path: snapshot/ }
flows: { sinks: [{ type: file, path: flows.jsonl }] }
metrics: { listen: 127.0.0.1:9464 }
admin: { socket: admin.sock }
state: { path: state/ }
`;

export const POLICY = `version: sluice.policy/1
smartGroups:
  - name: workers
    selector: { any: [{ all: { type: serverless, tags: { team: pay } } }] }
  - name: data-centre
    selector: { any: [{ all: { cidr: 10.20.0.0/16 } }] }
policies:
  - name: workers-to-ledger
    priority: 10
    action: PERMIT
    src: [workers]
    dst: [data-centre]
    protocol: ANY
    portRanges: [{ lo: ${LEDGER.port} }]
    logging: true
defaultAction: { action: DENY }
`;

/** A function in a subnet of its own. */
export interface OwnFunction extends Omit<FunctionState, 'subnetIds'> {
  readonly subnet: string;
  readonly subnet6?: string;
}

/** What AWS knows when it holds these functions. */
export function awsState(functions: readonly OwnFunction[], faults: readonly Fault[] = []): State {
  const idOf = (name: string) => `subnet-${name}`;
  const region: RegionState = {
    functions: functions.map(
      ({ subnet: _, subnet6, ...fn }): FunctionState => ({
        ...fn,
        dualStack: subnet6 !== undefined,
        subnetIds: [idOf(fn.name)],
        securityGroupIds: ['sg-1'],
      }),
    ),
    subnets: functions.map(
      ({ name, subnet, subnet6 }): SubnetState => ({
        ...{ id: idOf(name), vpcId: VPC, cidr: subnet },
        ipv6Cidrs: subnet6 === undefined ? [] : [subnet6],
      }),
    ),
    vpcs: [{ id: VPC, cidrs: ['10.0.0.0/16'] }],
  };
  return {
    accounts: [{ id: ACCOUNT, accessKeyIds: ['AKIAEXAMPLE'], regions: { [REGION]: region } }],
    faults,
  };
}

export const FUNCTIONS: readonly OwnFunction[] = [
  { name: WORKER.name, subnet: WORKER.subnet, tags: { team: 'pay' } },
  { name: ROGUE.name, subnet: ROGUE.subnet },
];

/** Writes the policy that the configuration names; the running product takes it up. */
export function writePolicy(stage: Stage, text: string): void {
  mkdirSync(stage.path('policy'), { recursive: true });
  writeFileSync(stage.path('policy/policy.yaml'), text);
}

/** The scene of a test, with its server and AWS running and the product not yet. A test that fails shows the log. */
export async function setUpWorkers(
  t: Test,
  state: State = awsState(FUNCTIONS),
  first?: ConstructorParameters<typeof Stage>[0],
): Promise<Stage> {
  const stage = new Stage(first);
  t.teardown(async () => {
    if (!t.passing()) t.comment(stage.product?.log);
    await stage.remove();
  });
  stage.addAddresses([WORKER, ROGUE]);
  writeFileSync(stage.path('sluice.yaml'), CONFIG);
  writePolicy(stage, POLICY);
  await stage.startServers([
    { ...LEDGER, protocol: 'tcp', at: 'dataCentre' },
    { ...LEDGER, protocol: 'udp', at: 'dataCentre' },
  ]);
  await stage.startAws(state);
  return stage;
}

/** What arrived at the data centre of a traffic that never stops. */
export interface Arrived {
  /** From the worker to the ledger. */
  readonly permitted: number;
  /** From the rogue to the ledger, and from the worker to another port. */
  readonly denied: number;
}

const RULES = `table inet seen {
  counter permitted {}
  counter denied {}
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    ip saddr ${WORKER.address} udp dport ${LEDGER.port} counter name permitted
    ip saddr ${WORKER.address} udp dport != ${LEDGER.port} counter name denied
    ip saddr ${ROGUE.address} counter name denied
  }
}
`;

interface NftCounter {
  readonly counter?: { readonly name: keyof Arrived; readonly packets: number };
}

/** Sends datagrams that policy permits and such that it denies without a pause; gives what arrived until now. */
export function startTraffic(stage: Stage): () => Arrived {
  const { namespace } = stage.lab.dataCentre;
  namespace.run('nft', ['-f', '-'], { input: RULES });
  stage.flood('a', [
    { from: WORKER.address, ...LEDGER },
    { from: WORKER.address, to: LEDGER.to, port: LEDGER.port + 1 },
  ]);
  stage.flood('b', [{ from: ROGUE.address, ...LEDGER }]);
  return () => {
    const { nftables } = JSON.parse(namespace.run('nft', ['-j', 'list', 'counters'])) as {
      nftables: NftCounter[];
    };
    const packets = (name: keyof Arrived) =>
      nftables.find(({ counter }) => counter?.name === name)?.counter?.packets ?? Number.NaN;
    return { permitted: packets('permitted'), denied: packets('denied') };
  };
}
