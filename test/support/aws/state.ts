import { readFileSync } from 'node:fs';

/** The operations that the endpoint answers. */
export const OPERATIONS = [
  'lambda:ListFunctions',
  'lambda:ListTags',
  'lambda:GetFunctionConfiguration',
  'lambda:ListVersionsByFunction',
  'tag:GetResources',
  'ec2:DescribeSubnets',
  'ec2:DescribeVpcs',
  'ec2:DescribeNetworkInterfaces',
  'ec2:DescribeInstances',
  'ec2:DescribeManagedPrefixLists',
  'ec2:GetManagedPrefixListEntries',
  'sqs:ReceiveMessage',
  'sqs:DeleteMessage',
  'sqs:SendMessage',
  'sts:AssumeRole',
] as const;

export type Operation = (typeof OPERATIONS)[number];

/** One Lambda function. Without `subnetIds` it is outside any VPC. */
export interface FunctionState {
  readonly name: string;
  readonly subnetIds?: readonly string[];
  readonly securityGroupIds?: readonly string[];
  readonly tags?: Readonly<Record<string, string>>;
  /** Taken from the first subnet when absent. The empty string: it once was in a VPC, as AWS says it. */
  readonly vpcId?: string;
  readonly dualStack?: boolean;
  /** Published versions that lie in other subnets than $LATEST, by their number. */
  readonly versions?: Readonly<Record<string, Pick<FunctionState, 'subnetIds' | 'securityGroupIds'>>>;
}

/** A block of addresses; AWS keeps those in the list that are being taken away, or never came. */
export type CidrState = string | { readonly cidr: string; readonly state: string };

/** Without `cidr`: an IPv6-only subnet. */
export interface SubnetState {
  readonly id: string;
  readonly vpcId: string;
  readonly cidr?: string;
  readonly ipv6Cidrs?: readonly CidrState[];
  readonly tags?: Readonly<Record<string, string>>;
  /** The account itself when absent; another one for a subnet that is shared with it. */
  readonly ownerId?: string;
}

/** The first of `cidrs` is the primary block. */
export interface VpcState {
  readonly id: string;
  readonly cidrs: readonly CidrState[];
  readonly ipv6Cidrs?: readonly CidrState[];
  readonly tags?: Readonly<Record<string, string>>;
}

export interface InterfaceState {
  readonly id: string;
  readonly subnetId: string;
  readonly vpcId: string;
  /** `lambda` when absent. */
  readonly interfaceType?: string;
  readonly description?: string;
  readonly status?: string;
  readonly securityGroupIds?: readonly string[];
  readonly addresses4?: readonly string[];
  readonly addresses6?: readonly string[];
  readonly tags?: Readonly<Record<string, string>>;
}

/** A virtual machine with one interface. */
export interface InstanceState {
  readonly id: string;
  readonly subnetId: string;
  readonly vpcId: string;
  /** `running` when absent. */
  readonly state?: string;
  readonly addresses4?: readonly string[];
  readonly addresses6?: readonly string[];
  readonly tags?: Readonly<Record<string, string>>;
}

/** A managed prefix list. */
export interface PrefixListState {
  readonly id: string;
  readonly name: string;
  readonly cidrs: readonly string[];
  readonly tags?: Readonly<Record<string, string>>;
}

export interface QueueState {
  readonly name: string;
  /** After which a message that was received and not deleted comes again. */
  readonly visibilityMs?: number;
}

/** A role of an account; who assumes it must be of an account that it trusts, and say the external id. */
export interface RoleState {
  readonly name: string;
  readonly trusts: readonly string[];
  readonly externalId?: string;
  /** Operations that it permits; absent: all. */
  readonly allow?: readonly Operation[];
}

export interface RegionState {
  readonly functions?: readonly FunctionState[];
  readonly subnets?: readonly SubnetState[];
  readonly vpcs?: readonly VpcState[];
  readonly interfaces?: readonly InterfaceState[];
  readonly instances?: readonly InstanceState[];
  readonly prefixLists?: readonly PrefixListState[];
  readonly queues?: readonly QueueState[];
}

export interface AccountState {
  readonly id: string;
  /** Who signs with one of these is this account. */
  readonly accessKeyIds: readonly string[];
  /** Operations that these keys permit; absent: all. */
  readonly allow?: readonly Operation[];
  readonly roles?: readonly RoleState[];
  readonly regions: Readonly<Record<string, RegionState>>;
}

/**
 * What goes wrong. `throttle`, `deny` and `fail` (5xx) answer with the service's own error; `cut` ends the
 * connection in the middle of the body; of the answer's continuation, `badMarker` breaks it, `loop` leads to
 * the same page again, and `empty` gives a page without items that continues, which AWS may do at any time.
 */
export type FaultKind = 'throttle' | 'deny' | 'fail' | 'cut' | 'badMarker' | 'loop' | 'empty';

export interface Fault {
  readonly operation: Operation;
  readonly kind: FaultKind;
  /** Only this page, the first being 1; absent: every page. */
  readonly page?: number;
  /** How many matching calls it strikes; absent: all of them. */
  readonly times?: number;
  readonly accountId?: string;
  readonly region?: string;
}

/** Everything that the endpoint knows: the content of a state file. */
export interface State {
  readonly accounts: readonly AccountState[];
  readonly faults?: readonly Fault[];
  /** Calls a second of each account and region, by service; absent: as many as are asked. */
  readonly rates?: Readonly<Partial<Record<Operation extends `${infer S}:${string}` ? S : never, RateState>>>;
}

export interface RateState {
  readonly perSecond: number;
  readonly burst: number;
}

/** As AWS documents them: Lambda's quotas, EC2's API throttling, the Tagging API's quotas. */
export const AWS_RATES = {
  lambda: { perSecond: 15, burst: 15 },
  ec2: { perSecond: 20, burst: 100 },
  tag: { perSecond: 15, burst: 15 },
} as const satisfies State['rates'];

/** Reads a state file; throws an Error that names the file when it is not one. */
export function readState(path: string): State {
  let state: State;
  try {
    state = JSON.parse(readFileSync(path, 'utf8')) as State;
  } catch (cause) {
    throw new Error(`Cannot read state: ${path} is not a JSON file`, { cause });
  }
  if (!Array.isArray(state.accounts)) throw new Error(`Cannot read state: ${path} has no list "accounts"`);
  return state;
}
