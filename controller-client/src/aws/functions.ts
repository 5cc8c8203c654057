import {
  type FunctionConfiguration,
  GetFunctionConfigurationCommand,
  ListFunctionsCommand,
  ListTagsCommand,
  ListVersionsByFunctionCommand,
  ResourceNotFoundException,
} from '@aws-sdk/client-lambda';
import { GetResourcesCommand } from '@aws-sdk/client-resource-groups-tagging-api';
import type { LambdaFunction, VpcConfiguration } from '../inventory.js';
import { mapBounded } from './bounded.js';
import { call, given, readPages, sortedTags, tagsOf } from './pages.js';
import { isDenied } from './permissions.js';
import type { ScopeRequest } from './scope.js';

const listTagsRunningMax = 5;
/** The most that GetResources gives. */
const resourcesPerPage = 100;

/** Up to the name; a published version has its number behind it. */
const FUNCTION_ARN =
  /^(arn:[a-z-]+:lambda:([a-z0-9-]+):([0-9]{12}):function:[A-Za-z0-9_-]+)(?::[A-Za-z0-9$_-]+)?$/;

/** A function before its tags are known. */
type Untagged = Omit<LambdaFunction, 'tags'>;

/** ARN of a function; throws when it belongs elsewhere, since then the credentials are another account's. */
function ownArn({ accountId, region }: ScopeRequest, { FunctionArn }: FunctionConfiguration): string {
  const arn = given(FunctionArn, 'FunctionArn');
  const [, unqualified, arnRegion, arnAccountId] = FUNCTION_ARN.exec(arn) ?? [];
  if (unqualified === undefined || arnAccountId !== accountId || arnRegion !== region) {
    throw new Error(
      `lambda:ListFunctions gave ${arn}, which is not in account ${accountId}, region ${region}`,
    );
  }
  return unqualified;
}

function functionOf(request: ScopeRequest, configuration: FunctionConfiguration): Untagged {
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
  };
}

const union = (lists: readonly (readonly string[])[]) => [...new Set(lists.flat())].sort();

/** The VPC configurations of versions, each once, in an order that is theirs. */
function configurationsOf(versions: readonly Untagged[]): VpcConfiguration[] {
  const texts = versions
    .filter(({ subnetIds }) => subnetIds.length > 0)
    .map(({ subnetIds, securityGroupIds }) => JSON.stringify({ subnetIds, securityGroupIds }));
  return [...new Set(texts)].sort().map((text): VpcConfiguration => JSON.parse(text));
}

/** Versions of one function as one: whichever runs, its addresses are among these. */
function joinVersions(all: readonly Untagged[]): Untagged[] {
  return [...Map.groupBy(all, ({ arn }) => arn).values()].map((versions) => {
    const placed = versions.find(({ vpcId }) => vpcId !== undefined);
    const configurations = configurationsOf(versions);
    return {
      ...versions[0]!,
      ...(placed?.vpcId !== undefined && { vpcId: placed.vpcId }),
      subnetIds: union(versions.map(({ subnetIds }) => subnetIds)),
      securityGroupIds: union(versions.map(({ securityGroupIds }) => securityGroupIds)),
      ipv6AllowedForDualStack: versions.some((version) => version.ipv6AllowedForDualStack),
      ...(configurations.length > 1 && { versions: configurations }),
    };
  });
}

async function listFunctions(request: ScopeRequest): Promise<Untagged[]> {
  const { clients, options, publishedVersions } = request;
  const versions = await readPages(
    'lambda:ListFunctions',
    async (Marker) => {
      const input = { ...(publishedVersions && { FunctionVersion: 'ALL' as const }), Marker };
      const page = await clients.lambda.send(new ListFunctionsCommand(input), options);
      return { items: page.Functions, marker: page.NextMarker };
    },
    (configuration: FunctionConfiguration) => [
      given(configuration.FunctionArn, 'FunctionArn'),
      functionOf(request, configuration),
    ],
  );
  return joinVersions(versions);
}

/** A function's tags; undefined when it is gone, deleted since it was listed. */
async function listTags(
  { clients, options }: ScopeRequest,
  arn: string,
): Promise<Record<string, string> | undefined> {
  return call('lambda:ListTags', async () => {
    try {
      const { Tags } = await clients.lambda.send(new ListTagsCommand({ Resource: arn }), options);
      return sortedTags(Object.entries(Tags ?? {}));
    } catch (error) {
      if (error instanceof ResourceNotFoundException) return undefined;
      throw error;
    }
  });
}

/** Tags of all functions that have some. */
async function readTags({ clients, options }: ScopeRequest): Promise<Map<string, Record<string, string>>> {
  const tags = await readPages(
    'tag:GetResources',
    async (PaginationToken) => {
      const input = {
        ResourceTypeFilters: ['lambda:function'],
        ResourcesPerPage: resourcesPerPage,
        PaginationToken,
      };
      const page = await clients.tagging.send(new GetResourcesCommand(input), options);
      return { items: page.ResourceTagMappingList, marker: page.PaginationToken };
    },
    ({ ResourceARN, Tags }) => {
      const arn = given(ResourceARN, 'ResourceARN');
      return [arn, [arn, tagsOf(Tags)] as const];
    },
  );
  return new Map(tags);
}

async function tagAll(request: ScopeRequest, functions: readonly Untagged[]): Promise<LambdaFunction[]> {
  try {
    const tags = await readTags(request);
    return functions.map((fn) => ({ ...fn, tags: tags.get(fn.arn) ?? {} }));
  } catch (error) {
    if (!isDenied(error)) throw error;
  }
  const tagged = await mapBounded(functions, listTagsRunningMax, async (fn) => {
    const tags = await listTags(request, fn.arn);
    return tags === undefined ? [] : [{ ...fn, tags }];
  });
  return tagged.flat();
}

/** Functions of a scope, with tags if they may be read. */
export interface FoundFunctions {
  readonly functions: readonly LambdaFunction[];
  /** Why tags are not known. */
  readonly untagged?: Error;
}

/**
 * Reads all functions: a call for each 50 of them (of their published versions, if these are asked for), and for
 * each 100 with tags. Where GetResources is not permitted, tags are read one function at a time. Where that is
 * not either, functions come without tags; but if there were tags before, that is a failure like others.
 */
export async function readFunctions(request: ScopeRequest): Promise<FoundFunctions> {
  const functions = await listFunctions(request);
  try {
    return { functions: await tagAll(request, functions) };
  } catch (error) {
    if (!isDenied(error) || request.hasTags) throw error;
    return { functions: functions.map((fn) => ({ ...fn, tags: {} })), untagged: error };
  }
}

async function readConfigurations(request: ScopeRequest, name: string): Promise<Untagged[]> {
  const { clients, options } = request;
  if (request.publishedVersions) {
    const versions = await readPages(
      'lambda:ListVersionsByFunction',
      async (Marker) => {
        const input = { FunctionName: name, Marker };
        const page = await clients.lambda.send(new ListVersionsByFunctionCommand(input), options);
        return { items: page.Versions, marker: page.NextMarker };
      },
      (version: FunctionConfiguration) => [
        given(version.FunctionArn, 'FunctionArn'),
        functionOf(request, version),
      ],
    );
    return joinVersions(versions);
  }
  const configuration = await call('lambda:GetFunctionConfiguration', () =>
    clients.lambda.send(new GetFunctionConfigurationCommand({ FunctionName: name }), options),
  );
  return [functionOf(request, configuration)];
}

/** Reads one function and its tags, or nothing when it is gone. */
export async function readFunction(request: ScopeRequest, arn: string): Promise<LambdaFunction | undefined> {
  try {
    // Together: between the two, nobody knows a state that never was longer than AWS itself does.
    const [[fn], tags] = await Promise.all([
      readConfigurations(request, arn),
      request.hasTags ? listTags(request, arn) : {},
    ]);
    return fn === undefined || tags === undefined ? undefined : { ...fn, tags };
  } catch (error) {
    if ((error as Error).cause instanceof ResourceNotFoundException) return undefined;
    throw error;
  }
}
