import {
  type Instance as AwsInstance,
  type NetworkInterface as AwsInterface,
  type ManagedPrefixList as AwsPrefixList,
  type Subnet as AwsSubnet,
  type Vpc as AwsVpc,
  DescribeInstancesCommand,
  DescribeManagedPrefixListsCommand,
  DescribeNetworkInterfacesCommand,
  DescribeSubnetsCommand,
  DescribeVpcsCommand,
  GetManagedPrefixListEntriesCommand,
} from '@aws-sdk/client-ec2';
import { parseAddress, printAddress } from 'sluice-gateway/net/address.js';
import { BITS } from 'sluice-gateway/net/family.js';
import { parsePrefix, prefixOf, printPrefix, sortPrefixes } from 'sluice-gateway/net/prefix.js';
import type { Instance, NetworkInterface, PrefixList, Subnet, Vpc } from '../inventory.js';
import { given, readPages, tagsOf } from './pages.js';
import type { ScopeRequest } from './scope.js';

const ec2PageItemsMax = 1000;
/** GetManagedPrefixListEntries gives fewer. */
const entriesPageItemsMax = 100;

/** In which an instance has addresses that it will keep. */
const LIVING_STATES = ['pending', 'running', 'stopping', 'stopped'];

function readable<T>(owner: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw new Error(`${owner}: ${(cause as Error).message}`, { cause });
  }
}

const canonicalCidrs = (owner: string, texts: readonly string[]) =>
  readable(owner, () => sortPrefixes(texts.map(parsePrefix)).map(printPrefix));

function canonicalAddresses(owner: string, texts: readonly (string | undefined)[]): string[] {
  const hosts = texts.flatMap((text) => {
    if (text === undefined) return [];
    const address = readable(owner, () => parseAddress(text));
    return [prefixOf(address, BITS[address.family])];
  });
  return sortPrefixes(hosts).map(({ family, value }) => printAddress({ family, value }));
}

const placeOf = ({ accountId, region, seenAt }: ScopeRequest) => ({ accountId, region, seenAt });

interface Block6 {
  readonly Ipv6CidrBlock?: string | undefined;
  readonly Ipv6CidrBlockState?: { readonly State?: string | undefined } | undefined;
}

const blocks6Of = (id: string, blocks: readonly Block6[] = []) =>
  blocks
    .filter(({ Ipv6CidrBlockState }) => Ipv6CidrBlockState?.State === 'associated')
    .map(({ Ipv6CidrBlock }) => given(Ipv6CidrBlock, `Ipv6CidrBlock of ${id}`));

function subnetOf(request: ScopeRequest, subnet: AwsSubnet): Subnet {
  const id = given(subnet.SubnetId, 'SubnetId');
  const blocks4 = subnet.CidrBlock === undefined || subnet.CidrBlock === '' ? [] : [subnet.CidrBlock];
  return {
    ...placeOf(request),
    id,
    vpcId: given(subnet.VpcId, `VpcId of ${id}`),
    zone: given(subnet.AvailabilityZone, `AvailabilityZone of ${id}`),
    cidrs: canonicalCidrs(id, [...blocks4, ...blocks6Of(id, subnet.Ipv6CidrBlockAssociationSet)]),
    tags: tagsOf(subnet.Tags),
  };
}

function vpcOf(request: ScopeRequest, vpc: AwsVpc): Vpc {
  const id = given(vpc.VpcId, 'VpcId');
  const blocks4 = (vpc.CidrBlockAssociationSet ?? [])
    .filter(({ CidrBlockState }) => CidrBlockState?.State === 'associated')
    .map(({ CidrBlock }) => given(CidrBlock, `CidrBlock of ${id}`));
  const cidrs = canonicalCidrs(id, [...blocks4, ...blocks6Of(id, vpc.Ipv6CidrBlockAssociationSet)]);
  return { ...placeOf(request), id, cidrs, tags: tagsOf(vpc.Tags) };
}

const addressesOf = (id: string, { PrivateIpAddresses, Ipv6Addresses }: AwsInterface) =>
  canonicalAddresses(id, [
    ...(PrivateIpAddresses ?? []).map(({ PrivateIpAddress }) => PrivateIpAddress),
    ...(Ipv6Addresses ?? []).map(({ Ipv6Address }) => Ipv6Address),
  ]);

function interfaceOf(request: ScopeRequest, eni: AwsInterface): NetworkInterface {
  const id = given(eni.NetworkInterfaceId, 'NetworkInterfaceId');
  return {
    ...placeOf(request),
    id,
    vpcId: given(eni.VpcId, `VpcId of ${id}`),
    subnetId: given(eni.SubnetId, `SubnetId of ${id}`),
    securityGroupIds: (eni.Groups ?? []).map(({ GroupId }) => given(GroupId, `GroupId of ${id}`)).sort(),
    interfaceType: eni.InterfaceType ?? '',
    description: eni.Description ?? '',
    addresses: addressesOf(id, eni),
  };
}

function instanceOf(request: ScopeRequest, instance: AwsInstance): Instance {
  const id = given(instance.InstanceId, 'InstanceId');
  const addresses = (instance.NetworkInterfaces ?? []).flatMap((eni) => addressesOf(id, eni as AwsInterface));
  return {
    ...placeOf(request),
    id,
    vpcId: given(instance.VpcId, `VpcId of ${id}`),
    subnetId: given(instance.SubnetId, `SubnetId of ${id}`),
    addresses: canonicalAddresses(id, addresses),
    tags: tagsOf(instance.Tags),
  };
}

/** EC2 takes no page size where ids are named. */
const chosen = <K extends string>(
  member: K,
  ids: readonly string[] | undefined,
  marker: string | undefined,
) =>
  ids === undefined
    ? { MaxResults: ec2PageItemsMax, NextToken: marker }
    : { [member]: ids, NextToken: marker };

/** Reads all subnets, or those named; throws where one of these is unknown. */
export function readSubnets(request: ScopeRequest, ids?: readonly string[]): Promise<Subnet[]> {
  return readPages(
    'ec2:DescribeSubnets',
    async (marker) => {
      const command = new DescribeSubnetsCommand(chosen('SubnetIds', ids, marker));
      const page = await request.clients.ec2.send(command, request.options);
      return { items: page.Subnets, marker: page.NextToken };
    },
    (subnet) => [given(subnet.SubnetId, 'SubnetId'), subnetOf(request, subnet)],
  );
}

/** Reads all VPCs, or those named. */
export function readVpcs(request: ScopeRequest, ids?: readonly string[]): Promise<Vpc[]> {
  return readPages(
    'ec2:DescribeVpcs',
    async (marker) => {
      const command = new DescribeVpcsCommand(chosen('VpcIds', ids, marker));
      const page = await request.clients.ec2.send(command, request.options);
      return { items: page.Vpcs, marker: page.NextToken };
    },
    (vpc) => [given(vpc.VpcId, 'VpcId'), vpcOf(request, vpc)],
  );
}

/** Reads all interfaces of Lambda's, or those of them that are named. */
export function readInterfaces(request: ScopeRequest, ids?: readonly string[]): Promise<NetworkInterface[]> {
  const Filters = [{ Name: 'interface-type', Values: ['lambda'] }];
  return readPages(
    'ec2:DescribeNetworkInterfaces',
    async (marker) => {
      const input = { ...chosen('NetworkInterfaceIds', ids, marker), Filters };
      const page = await request.clients.ec2.send(
        new DescribeNetworkInterfacesCommand(input),
        request.options,
      );
      return { items: page.NetworkInterfaces, marker: page.NextToken };
    },
    (eni) => [given(eni.NetworkInterfaceId, 'NetworkInterfaceId'), interfaceOf(request, eni)],
  );
}

/** Reads all instances that are not ending, or those of them that are named. */
export function readInstances(request: ScopeRequest, ids?: readonly string[]): Promise<Instance[]> {
  const Filters = [{ Name: 'instance-state-name', Values: LIVING_STATES }];
  return readPages(
    'ec2:DescribeInstances',
    async (marker) => {
      const input = { ...chosen('InstanceIds', ids, marker), Filters };
      const page = await request.clients.ec2.send(new DescribeInstancesCommand(input), request.options);
      return {
        items: page.Reservations?.flatMap(({ Instances }) => Instances ?? []),
        marker: page.NextToken,
      };
    },
    (instance) => [given(instance.InstanceId, 'InstanceId'), instanceOf(request, instance)],
  );
}

async function readEntries(request: ScopeRequest, id: string): Promise<string[]> {
  return readPages(
    'ec2:GetManagedPrefixListEntries',
    async (NextToken) => {
      const input = { PrefixListId: id, MaxResults: entriesPageItemsMax, NextToken };
      const page = await request.clients.ec2.send(
        new GetManagedPrefixListEntriesCommand(input),
        request.options,
      );
      return { items: page.Entries, marker: page.NextToken };
    },
    ({ Cidr }) => {
      const cidr = given(Cidr, `Cidr of ${id}`);
      return [cidr, cidr];
    },
  );
}

/** Reads all managed prefix lists, or those named, each with its entries by calls of its own. */
export async function readPrefixLists(request: ScopeRequest, ids?: readonly string[]): Promise<PrefixList[]> {
  const { clients, options } = request;
  const lists = await readPages(
    'ec2:DescribeManagedPrefixLists',
    async (NextToken) => {
      const input = {
        ...(ids === undefined ? { MaxResults: entriesPageItemsMax } : { PrefixListIds: [...ids] }),
        NextToken,
      };
      const page = await clients.ec2.send(new DescribeManagedPrefixListsCommand(input), options);
      return { items: page.PrefixLists, marker: page.NextToken };
    },
    (list: AwsPrefixList) => [given(list.PrefixListId, 'PrefixListId'), list],
  );
  const read: PrefixList[] = [];
  for (const { PrefixListId, PrefixListName, Tags } of lists) {
    const id = PrefixListId!;
    const cidrs = canonicalCidrs(id, await readEntries(request, id));
    read.push({ ...placeOf(request), id, name: PrefixListName ?? '', cidrs, tags: tagsOf(Tags) });
  }
  return read;
}
