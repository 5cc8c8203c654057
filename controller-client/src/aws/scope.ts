import {
  type Subnet as AwsSubnet,
  type Vpc as AwsVpc,
  DescribeSubnetsCommand,
  DescribeVpcsCommand,
  type Tag,
} from '@aws-sdk/client-ec2';
import {
  type FunctionConfiguration,
  ListFunctionsCommand,
  ListTagsCommand,
  ResourceNotFoundException,
} from '@aws-sdk/client-lambda';
import { parsePrefix, printPrefix, sortPrefixes } from 'sluice-gateway/net/prefix.js';
import type { LambdaFunction, Subnet, Vpc } from '../inventory.js';
import { mapBounded } from './bounded.js';
import type { Clients } from './clients.js';

/** Lambda gives 50 a page at most, so that this is 100,000 functions; EC2 gives up to 1000. */
const pagesMax = 2000;
const ec2PageItemsMax = 1000;
const listTagsRunningMax = 5;

const FUNCTION_ARN = /^arn:[a-z-]+:lambda:([a-z0-9-]+):([0-9]{12}):function:[A-Za-z0-9_-]+$/;

/** What one account holds in one region. */
export interface ScopeContent {
  readonly functions: readonly LambdaFunction[];
  readonly subnets: readonly Subnet[];
  readonly vpcs: readonly Vpc[];
}

/** What to read, and with what. */
export interface ScopeRequest {
  readonly accountId: string;
  readonly region: string;
  /** What is read is at least as new. */
  readonly seenAt: string;
  readonly clients: Clients;
  readonly signal: AbortSignal | undefined;
}

/** Calls AWS; a failure names the operation and AWS's error, which is its cause. */
async function call<T>(operation: string, send: () => Promise<T>): Promise<T> {
  try {
    return await send();
  } catch (cause) {
    const { name, message } = cause instanceof Error ? cause : new Error(String(cause));
    throw new Error(`${operation} failed with ${name}: ${message}`, { cause });
  }
}

/** Reads pages until one has no marker; a marker seen before would go round for ever. */
async function readPages<T>(
  operation: string,
  read: (
    marker: string | undefined,
  ) => Promise<{ items: readonly T[] | undefined; marker: string | undefined }>,
): Promise<T[]> {
  const all: T[] = [];
  const seen = new Set<string>();
  let marker: string | undefined;
  do {
    const page = await call(operation, () => read(marker));
    if (page.items === undefined) throw new Error(`${operation} gave a page without a list`);
    for (const item of page.items) all.push(item);
    // Lambda says the end by leaving the marker out, EC2 also by an empty one.
    marker = page.marker === '' ? undefined : page.marker;
    if (marker !== undefined) {
      if (seen.has(marker)) throw new Error(`${operation} gave the marker of a page that was read before`);
      if (seen.size === pagesMax) throw new Error(`${operation} gave more than ${pagesMax} pages`);
      seen.add(marker);
    }
  } while (marker !== undefined);
  return all;
}

/** The value of a member that AWS always gives. */
function given<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(`${what} is missing in AWS's answer`);
  return value;
}

function canonicalCidrs(owner: string, texts: readonly string[]): string[] {
  try {
    return sortPrefixes(texts.map(parsePrefix)).map(printPrefix);
  } catch (cause) {
    throw new Error(`${owner}: ${(cause as Error).message}`, { cause });
  }
}

const byKey = ([a]: readonly [string, string], [b]: readonly [string, string]) =>
  a < b ? -1 : a > b ? 1 : 0;

function sortedTags(tags: Iterable<readonly [string, string]>): Record<string, string> {
  return Object.fromEntries([...tags].sort(byKey));
}

function ec2Tags(tags: readonly Tag[] | undefined): Record<string, string> {
  return sortedTags((tags ?? []).map(({ Key, Value }) => [given(Key, 'a tag key'), Value ?? '']));
}

function subnetOf({ accountId, region, seenAt }: ScopeRequest, subnet: AwsSubnet): Subnet {
  const id = given(subnet.SubnetId, 'SubnetId');
  const blocks6 = (subnet.Ipv6CidrBlockAssociationSet ?? [])
    .filter(({ Ipv6CidrBlockState }) => Ipv6CidrBlockState?.State === 'associated')
    .map(({ Ipv6CidrBlock }) => given(Ipv6CidrBlock, `Ipv6CidrBlock of ${id}`));
  const blocks4 = subnet.CidrBlock === undefined || subnet.CidrBlock === '' ? [] : [subnet.CidrBlock];
  return {
    id,
    accountId,
    region,
    seenAt,
    vpcId: given(subnet.VpcId, `VpcId of ${id}`),
    zone: given(subnet.AvailabilityZone, `AvailabilityZone of ${id}`),
    cidrs: canonicalCidrs(id, [...blocks4, ...blocks6]),
    tags: ec2Tags(subnet.Tags),
  };
}

function vpcOf({ accountId, region, seenAt }: ScopeRequest, vpc: AwsVpc): Vpc {
  const id = given(vpc.VpcId, 'VpcId');
  const blocks4 = (vpc.CidrBlockAssociationSet ?? [])
    .filter(({ CidrBlockState }) => CidrBlockState?.State === 'associated')
    .map(({ CidrBlock }) => given(CidrBlock, `CidrBlock of ${id}`));
  const blocks6 = (vpc.Ipv6CidrBlockAssociationSet ?? [])
    .filter(({ Ipv6CidrBlockState }) => Ipv6CidrBlockState?.State === 'associated')
    .map(({ Ipv6CidrBlock }) => given(Ipv6CidrBlock, `Ipv6CidrBlock of ${id}`));
  return {
    id,
    accountId,
    region,
    seenAt,
    cidrs: canonicalCidrs(id, [...blocks4, ...blocks6]),
    tags: ec2Tags(vpc.Tags),
  };
}

/** ARN of a function; throws when it belongs elsewhere, since then the credentials are another account's. */
function ownArn({ accountId, region }: ScopeRequest, configuration: FunctionConfiguration): string {
  const arn = given(configuration.FunctionArn, 'FunctionArn');
  const [, arnRegion, arnAccountId] = FUNCTION_ARN.exec(arn) ?? [];
  if (arnAccountId !== accountId || arnRegion !== region) {
    throw new Error(
      `lambda:ListFunctions gave ${arn}, which is not in account ${accountId}, region ${region}`,
    );
  }
  return arn;
}

function functionOf(
  request: ScopeRequest,
  configuration: FunctionConfiguration,
  tags: Readonly<Record<string, string>>,
): LambdaFunction {
  const {
    SubnetIds = [],
    SecurityGroupIds = [],
    VpcId = '',
    Ipv6AllowedForDualStack = false,
  } = configuration.VpcConfig ?? {};
  return {
    arn: ownArn(request, configuration),
    name: given(configuration.FunctionName, 'FunctionName'),
    accountId: request.accountId,
    region: request.region,
    seenAt: request.seenAt,
    // A function that was taken out of its VPC keeps an empty configuration.
    ...(VpcId === '' ? {} : { vpcId: VpcId }),
    subnetIds: [...SubnetIds].sort(),
    securityGroupIds: [...SecurityGroupIds].sort(),
    ipv6AllowedForDualStack: Ipv6AllowedForDualStack,
    tags,
  };
}

/** A function's tags; undefined when it is gone, deleted since it was listed. */
async function tagsOf(
  { clients, signal }: ScopeRequest,
  arn: string,
): Promise<Record<string, string> | undefined> {
  return call('lambda:ListTags', async () => {
    try {
      const { Tags } = await clients.lambda.send(new ListTagsCommand({ Resource: arn }), options(signal));
      return sortedTags(Object.entries(Tags ?? {}));
    } catch (error) {
      if (error instanceof ResourceNotFoundException) return undefined;
      throw error;
    }
  });
}

const options = (signal: AbortSignal | undefined) => (signal === undefined ? {} : { abortSignal: signal });

async function readFunctions(request: ScopeRequest): Promise<LambdaFunction[]> {
  const { clients, signal } = request;
  const listed = await readPages('lambda:ListFunctions', async (marker) => {
    const page = await clients.lambda.send(
      new ListFunctionsCommand(marker === undefined ? {} : { Marker: marker }),
      options(signal),
    );
    return { items: page.Functions, marker: page.NextMarker };
  });
  // While functions come and go, one may be on two pages.
  const configurations = new Map(
    listed.map((configuration) => [ownArn(request, configuration), configuration]),
  );
  const functions = await mapBounded(
    [...configurations],
    listTagsRunningMax,
    async ([arn, configuration]) => {
      const tags = await tagsOf(request, arn);
      return tags === undefined ? [] : [functionOf(request, configuration, tags)];
    },
  );
  return functions.flat();
}

async function readSubnets(request: ScopeRequest): Promise<Subnet[]> {
  const { clients, signal } = request;
  const subnets = await readPages('ec2:DescribeSubnets', async (marker) => {
    const input = { MaxResults: ec2PageItemsMax, ...(marker === undefined ? {} : { NextToken: marker }) };
    const page = await clients.ec2.send(new DescribeSubnetsCommand(input), options(signal));
    return { items: page.Subnets, marker: page.NextToken };
  });
  return [...new Map(subnets.map((subnet) => [subnet.SubnetId, subnetOf(request, subnet)])).values()];
}

async function readVpcs(request: ScopeRequest): Promise<Vpc[]> {
  const { clients, signal } = request;
  const vpcs = await readPages('ec2:DescribeVpcs', async (marker) => {
    const input = { MaxResults: ec2PageItemsMax, ...(marker === undefined ? {} : { NextToken: marker }) };
    const page = await clients.ec2.send(new DescribeVpcsCommand(input), options(signal));
    return { items: page.Vpcs, marker: page.NextToken };
  });
  return [...new Map(vpcs.map((vpc) => [vpc.VpcId, vpcOf(request, vpc)])).values()];
}

/** Credentials often say whose they are; then no call with another account's is needed to notice. */
async function checkCredentials({ accountId, clients }: ScopeRequest): Promise<void> {
  const credentials = await call('credentials', () => clients.lambda.config.credentials());
  if (credentials.accountId !== undefined && credentials.accountId !== accountId) {
    throw new Error(`credentials are those of account ${credentials.accountId}, not of ${accountId}`);
  }
}

/**
 * Reads everything of one account and region, or throws an Error whose message has the operation and AWS's
 * error name. One call for every 50 functions, one for each function's tags, and one for every 1000 subnets
 * or VPCs.
 */
export async function readScope(request: ScopeRequest): Promise<ScopeContent> {
  await checkCredentials(request);
  // Functions first: then a subnet that one of them names can only be missing because it is gone.
  const functions = await readFunctions(request);
  const subnets = await readSubnets(request);
  const vpcs = await readVpcs(request);
  return { functions, subnets, vpcs };
}
