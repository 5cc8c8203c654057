import {
  DescribeInstances$,
  DescribeManagedPrefixLists$,
  DescribeNetworkInterfaces$,
  DescribeSubnets$,
  DescribeVpcs$,
  GetManagedPrefixListEntries$,
} from '@aws-sdk/client-ec2';
import { invalid, ServiceError } from './errors.js';
import { FIRST, type Position, pageOf, readMarker } from './pages.js';
import type { Input, OperationSchema } from './schema.js';
import type { Call, Handler } from './server.js';
import type {
  CidrState,
  InstanceState,
  InterfaceState,
  Operation,
  PrefixListState,
  SubnetState,
  VpcState,
} from './state.js';

const MAX_RESULTS = [5, 1000] as const;
const PREFIX_LIST_MAX_RESULTS = [1, 100] as const;

/** How one kind of resource is listed: what a filter sees of it, and how it reads in an answer. */
interface Resource<T extends { readonly id: string }> {
  readonly operation: Operation;
  readonly schema: unknown;
  readonly all: (call: Call) => readonly T[];
  /** The member of the request that names ids, and the word for it in errors. */
  readonly idsMember: string;
  readonly idName: string;
  readonly outputMember: string;
  /** Bounds of MaxResults; 5 to 1000 when absent. */
  readonly maxResults?: readonly [number, number];
  readonly filters: Readonly<Record<string, (item: T, call: Call) => readonly string[]>>;
  readonly print: (item: T, call: Call) => object;
}

const tagSet = (tags: Readonly<Record<string, string>> = {}) =>
  Object.entries(tags).map(([Key, Value]) => ({ Key, Value }));

const blockOf = (block: CidrState) =>
  typeof block === 'string' ? { cidr: block, state: 'associated' } : block;

function ipv6Associations(prefix: string, id: string, blocks: readonly CidrState[] = []): object[] {
  return blocks.map(blockOf).map(({ cidr, state }, index) => ({
    AssociationId: `${prefix}-cidr-assoc-${id.replace(/^\w+-/, '')}6${index}`,
    Ipv6CidrBlock: cidr,
    Ipv6CidrBlockState: { State: state },
  }));
}

const SUBNETS: Resource<SubnetState> = {
  operation: 'ec2:DescribeSubnets',
  schema: DescribeSubnets$,
  all: (call) => call.known.subnets ?? [],
  idsMember: 'SubnetIds',
  idName: 'subnet ID',
  outputMember: 'Subnets',
  filters: {
    'subnet-id': (subnet) => [subnet.id],
    'vpc-id': (subnet) => [subnet.vpcId],
    'cidr-block': (subnet) => (subnet.cidr === undefined ? [] : [subnet.cidr]),
    'ipv6-cidr-block-association.ipv6-cidr-block': (subnet) =>
      (subnet.ipv6Cidrs ?? []).map((b) => blockOf(b).cidr),
    'owner-id': (subnet, call) => [subnet.ownerId ?? call.accountId],
  },
  print: (subnet, call) => ({
    SubnetId: subnet.id,
    SubnetArn: `arn:aws:ec2:${call.region}:${subnet.ownerId ?? call.accountId}:subnet/${subnet.id}`,
    OwnerId: subnet.ownerId ?? call.accountId,
    VpcId: subnet.vpcId,
    State: 'available',
    AvailabilityZone: `${call.region}a`,
    AvailableIpAddressCount: 200,
    DefaultForAz: false,
    MapPublicIpOnLaunch: false,
    Ipv6Native: subnet.cidr === undefined,
    ...(subnet.cidr === undefined ? {} : { CidrBlock: subnet.cidr }),
    Ipv6CidrBlockAssociationSet: ipv6Associations('subnet', subnet.id, subnet.ipv6Cidrs),
    Tags: tagSet(subnet.tags),
  }),
};

const VPCS: Resource<VpcState> = {
  operation: 'ec2:DescribeVpcs',
  schema: DescribeVpcs$,
  all: (call) => call.known.vpcs ?? [],
  idsMember: 'VpcIds',
  idName: 'vpc ID',
  outputMember: 'Vpcs',
  filters: {
    'vpc-id': (vpc) => [vpc.id],
    cidr: (vpc) => [blockOf(vpc.cidrs[0]!).cidr],
    'cidr-block-association.cidr-block': (vpc) => vpc.cidrs.map((block) => blockOf(block).cidr),
    'owner-id': (_, call) => [call.accountId],
  },
  print: (vpc, call) => ({
    VpcId: vpc.id,
    OwnerId: call.accountId,
    State: 'available',
    InstanceTenancy: 'default',
    IsDefault: false,
    DhcpOptionsId: 'dopt-0a1b2c3d',
    CidrBlock: blockOf(vpc.cidrs[0]!).cidr,
    CidrBlockAssociationSet: vpc.cidrs.map(blockOf).map(({ cidr, state }, index) => ({
      AssociationId: `vpc-cidr-assoc-${vpc.id.slice(4)}4${index}`,
      CidrBlock: cidr,
      CidrBlockState: { State: state },
    })),
    Ipv6CidrBlockAssociationSet: ipv6Associations('vpc', vpc.id, vpc.ipv6Cidrs),
    Tags: tagSet(vpc.tags),
  }),
};

const INTERFACES: Resource<InterfaceState> = {
  operation: 'ec2:DescribeNetworkInterfaces',
  schema: DescribeNetworkInterfaces$,
  all: (call) => call.known.interfaces ?? [],
  idsMember: 'NetworkInterfaceIds',
  idName: 'networkInterface ID',
  outputMember: 'NetworkInterfaces',
  filters: {
    'network-interface-id': (eni) => [eni.id],
    'interface-type': (eni) => [eni.interfaceType ?? 'lambda'],
    'subnet-id': (eni) => [eni.subnetId],
    'vpc-id': (eni) => [eni.vpcId],
    'group-id': (eni) => eni.securityGroupIds ?? [],
    'addresses.private-ip-address': (eni) => eni.addresses4 ?? [],
    'ipv6-addresses.ipv6-address': (eni) => eni.addresses6 ?? [],
    description: (eni) => [eni.description ?? ''],
    status: (eni) => [eni.status ?? 'in-use'],
    'owner-id': (_, call) => [call.accountId],
  },
  print: (eni, call) => ({
    NetworkInterfaceId: eni.id,
    InterfaceType: eni.interfaceType ?? 'lambda',
    SubnetId: eni.subnetId,
    VpcId: eni.vpcId,
    OwnerId: call.accountId,
    Description: eni.description ?? '',
    Status: eni.status ?? 'in-use',
    SourceDestCheck: true,
    RequesterManaged: true,
    Groups: (eni.securityGroupIds ?? []).map((id) => ({ GroupId: id, GroupName: id })),
    ...(eni.addresses4?.[0] === undefined ? {} : { PrivateIpAddress: eni.addresses4[0] }),
    PrivateIpAddresses: (eni.addresses4 ?? []).map((address, index) => ({
      PrivateIpAddress: address,
      Primary: index === 0,
    })),
    Ipv6Addresses: (eni.addresses6 ?? []).map((address) => ({ Ipv6Address: address })),
    TagSet: tagSet(eni.tags),
  }),
};

const INSTANCES: Resource<InstanceState> = {
  operation: 'ec2:DescribeInstances',
  schema: DescribeInstances$,
  all: (call) => call.known.instances ?? [],
  idsMember: 'InstanceIds',
  idName: 'instance ID',
  outputMember: 'Reservations',
  filters: {
    'instance-id': (instance) => [instance.id],
    'instance-state-name': (instance) => [instance.state ?? 'running'],
    'subnet-id': (instance) => [instance.subnetId],
    'vpc-id': (instance) => [instance.vpcId],
  },
  print: (instance, call) => ({
    ReservationId: instance.id.replace(/^i-/, 'r-'),
    OwnerId: call.accountId,
    Instances: [
      {
        InstanceId: instance.id,
        InstanceType: 't4g.micro',
        State: { Name: instance.state ?? 'running' },
        SubnetId: instance.subnetId,
        VpcId: instance.vpcId,
        ...(instance.addresses4?.[0] === undefined ? {} : { PrivateIpAddress: instance.addresses4[0] }),
        NetworkInterfaces: [
          {
            NetworkInterfaceId: instance.id.replace(/^i-/, 'eni-'),
            SubnetId: instance.subnetId,
            PrivateIpAddresses: (instance.addresses4 ?? []).map((address) => ({ PrivateIpAddress: address })),
            Ipv6Addresses: (instance.addresses6 ?? []).map((address) => ({ Ipv6Address: address })),
          },
        ],
        Tags: tagSet(instance.tags),
      },
    ],
  }),
};

const PREFIX_LISTS: Resource<PrefixListState> = {
  operation: 'ec2:DescribeManagedPrefixLists',
  schema: DescribeManagedPrefixLists$,
  all: (call) => call.known.prefixLists ?? [],
  idsMember: 'PrefixListIds',
  idName: 'prefixList ID',
  outputMember: 'PrefixLists',
  maxResults: PREFIX_LIST_MAX_RESULTS,
  filters: { 'prefix-list-name': (list) => [list.name] },
  print: (list, call) => ({
    PrefixListId: list.id,
    PrefixListArn: `arn:aws:ec2:${call.region}:${call.accountId}:prefix-list/${list.id}`,
    PrefixListName: list.name,
    AddressFamily: list.cidrs[0]?.includes(':') === true ? 'IPv6' : 'IPv4',
    State: 'create-complete',
    MaxEntries: 60,
    Version: 1,
    OwnerId: call.accountId,
    Tags: tagSet(list.tags),
  }),
};

function getEntries(call: Call): object {
  const { PrefixListId, MaxResults = PREFIX_LIST_MAX_RESULTS[1] } = call.input as {
    PrefixListId: string;
    MaxResults?: number;
  };
  const [list] = chosen(PREFIX_LISTS, call, [PrefixListId]);
  const itemsMax = Math.min(MaxResults, call.ec2PageItemsMax);
  const page = pageOf(
    'ec2:GetManagedPrefixListEntries',
    list!.cidrs,
    (cidr) => cidr,
    call.position,
    itemsMax,
    call.fault,
  );
  return {
    Entries: page.items.map((Cidr) => ({ Cidr })),
    ...(page.marker === undefined ? {} : { NextToken: page.marker }),
  };
}

/** Filter values may hold `*` and `?`, and a backslash before one that is meant literally. */
function globOf(value: string): RegExp {
  const source = value.replace(/\\([*?\\])|[*?]|[.+^${}()|[\]\\]/g, (match, escaped: string | undefined) => {
    if (escaped !== undefined) return `\\${escaped}`;
    return match === '*' ? '.*' : match === '?' ? '.' : `\\${match}`;
  });
  return new RegExp(`^${source}$`, 's');
}

function matches<T extends { readonly id: string }>(
  resource: Resource<T>,
  item: T & { readonly tags?: Readonly<Record<string, string>> },
  filter: { Name?: string; Values?: readonly string[] },
  call: Call,
): boolean {
  const { Name = 'null', Values = [] } = filter;
  const tags = item.tags ?? {};
  const seen = Name.startsWith('tag:')
    ? Object.entries(tags).flatMap(([key, value]) => (key === Name.slice(4) ? [value] : []))
    : Name === 'tag-key'
      ? Object.keys(tags)
      : resource.filters[Name]?.(item, call);
  if (seen === undefined) throw invalid('InvalidParameterValue', `The filter '${Name}' is invalid`);
  const globs = Values.map(globOf);
  return seen.some((value) => globs.some((glob) => glob.test(value)));
}

function chosen<T extends { readonly id: string }>(
  resource: Resource<T>,
  call: Call,
  ids: readonly string[],
): T[] {
  const all = resource.all(call);
  const word = resource.idName.replace(' ', '').replace(/^\w/, (letter) => letter.toUpperCase());
  for (const id of ids) {
    if (!all.some((item) => item.id === id)) {
      throw invalid(`Invalid${word}.NotFound`, `The ${resource.idName} '${id}' does not exist`);
    }
  }
  return all.filter(({ id }) => ids.length === 0 || ids.includes(id));
}

function describe<T extends { readonly id: string }>(resource: Resource<T>, call: Call): object {
  const {
    MaxResults,
    DryRun,
    Filters = [],
  } = call.input as {
    MaxResults?: number;
    DryRun?: boolean;
    Filters?: readonly { Name?: string; Values?: readonly string[] }[];
  };
  const ids = (call.input[resource.idsMember] ?? []) as readonly string[];
  if (DryRun === true) {
    throw new ServiceError('DryRunOperation', 412, 'Request would have succeeded, but DryRun flag is set.');
  }
  if (MaxResults !== undefined && ids.length > 0) {
    const member = resource.idsMember[0]!.toLowerCase() + resource.idsMember.slice(1);
    throw invalid(
      'InvalidParameterCombination',
      `The parameter ${member} cannot be used with the parameter maxResults`,
    );
  }
  const [lowest, highest] = resource.maxResults ?? MAX_RESULTS;
  if (MaxResults !== undefined && (MaxResults < lowest || MaxResults > highest)) {
    throw invalid(
      'InvalidParameterValue',
      `Value ( ${MaxResults} ) for parameter maxResults is invalid. ` +
        `Expecting a value from ${lowest} to ${highest}.`,
    );
  }
  const found = chosen(resource, call, ids).filter((item) =>
    Filters.every((filter) => matches(resource, item, filter, call)),
  );
  // An answer without MaxResults holds everything; with it, AWS may give fewer than asked for.
  const itemsMax = MaxResults === undefined ? Infinity : Math.min(MaxResults, call.ec2PageItemsMax);
  const page = pageOf(resource.operation, found, ({ id }) => id, call.position, itemsMax, call.fault);
  return {
    [resource.outputMember]: page.items.map((item) => resource.print(item, call)),
    ...(page.marker === undefined ? {} : { NextToken: page.marker }),
  };
}

function positionOf(operation: Operation): (input: Input) => Position {
  return (input) => {
    const { NextToken } = input as { NextToken?: string };
    if (NextToken === undefined) return FIRST;
    const at = readMarker(operation, NextToken);
    if (at === undefined) throw invalid('InvalidNextToken', 'The specified NextToken is not valid.');
    return at;
  };
}

function handlerOf<T extends { readonly id: string }>(resource: Resource<T>): Handler {
  return {
    operation: resource.operation,
    schema: resource.schema as OperationSchema,
    positionOf: positionOf(resource.operation),
    answer: (call) => describe(resource, call),
  };
}

export const EC2: readonly Handler[] = [
  handlerOf(SUBNETS),
  handlerOf(VPCS),
  handlerOf(INTERFACES),
  handlerOf(INSTANCES),
  handlerOf(PREFIX_LISTS),
  {
    operation: 'ec2:GetManagedPrefixListEntries',
    schema: GetManagedPrefixListEntries$ as unknown as OperationSchema,
    positionOf: positionOf('ec2:GetManagedPrefixListEntries'),
    answer: getEntries,
  },
];
