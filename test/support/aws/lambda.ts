import {
  GetFunctionConfiguration$,
  ListFunctions$,
  ListTags$,
  ListVersionsByFunction$,
} from '@aws-sdk/client-lambda';
import { invalid, ServiceError } from './errors.js';
import { FIRST, type Page, type Position, pageOf, readMarker } from './pages.js';
import type { OperationSchema } from './schema.js';
import type { Call, Handler } from './server.js';
import type { FunctionState } from './state.js';

/** ListFunctions gives 50 a page at most, whatever MaxItems says, when the answer holds the configuration. */
const LIST_ITEMS_MAX = 50;
const MAX_ITEMS_MAX = 10_000;
const ARN = /^arn:aws:lambda:([a-z0-9-]+):([0-9]{12}):function:([A-Za-z0-9_-]+)(?::[A-Za-z0-9$_-]+)?$/;

export function functionArn(call: Call, name: string): string {
  return `arn:aws:lambda:${call.region}:${call.accountId}:function:${name}`;
}

function vpcConfigOf(call: Call, state: FunctionState): object | undefined {
  const { subnetIds = [], securityGroupIds = [], dualStack = false } = state;
  if (subnetIds.length === 0 && state.vpcId === undefined) return undefined;
  const subnet = call.known.subnets?.find(({ id }) => id === subnetIds[0]);
  return {
    SubnetIds: subnetIds,
    SecurityGroupIds: securityGroupIds,
    VpcId: state.vpcId ?? subnet?.vpcId ?? '',
    Ipv6AllowedForDualStack: dualStack,
  };
}

function configurationOf(call: Call, state: FunctionState, version = '$LATEST'): object {
  const vpcConfig = vpcConfigOf(call, state);
  return {
    FunctionName: state.name,
    FunctionArn: functionArn(call, state.name) + (version === '$LATEST' ? '' : `:${version}`),
    Runtime: 'nodejs22.x',
    Role: `arn:aws:iam::${call.accountId}:role/${state.name}`,
    Handler: 'index.handler',
    CodeSize: 1024,
    Description: '',
    Timeout: 3,
    MemorySize: 128,
    LastModified: '2026-01-02T03:04:05.000+0000',
    Version: version,
    PackageType: 'Zip',
    Architectures: ['arm64'],
    ...(vpcConfig === undefined ? {} : { VpcConfig: vpcConfig }),
  };
}

function position(marker: string | undefined): Position {
  if (marker === undefined) return FIRST;
  const at = readMarker('lambda:ListFunctions', marker);
  if (at === undefined) throw invalid('InvalidParameterValueException', 'Invalid Marker');
  return at;
}

interface Version {
  readonly state: FunctionState;
  readonly version: string;
}

/** $LATEST, and the published versions, each with the subnets that it was published with. */
function versionsOf(state: FunctionState): Version[] {
  const published = Object.entries(state.versions ?? {}).map(([version, other]) => {
    const { vpcId: _, ...rest } = state;
    return { state: { ...rest, ...other }, version };
  });
  return [{ state, version: '$LATEST' }, ...published];
}

function listVersions(call: Call): object {
  const { FunctionName } = call.input as { FunctionName: string };
  const name = FunctionName.startsWith('arn:') ? nameOf(call, FunctionName) : FunctionName;
  return {
    Versions: versionsOf(find(call, name)).map(({ state, version }) => configurationOf(call, state, version)),
  };
}

function listFunctions(call: Call): object {
  const { MaxItems = LIST_ITEMS_MAX, FunctionVersion } = call.input as {
    MaxItems?: number;
    FunctionVersion?: string;
  };
  if (MaxItems < 1 || MaxItems > MAX_ITEMS_MAX) {
    const [word, bound] = MaxItems < 1 ? ['greater', 1] : ['less', MAX_ITEMS_MAX];
    throw invalid(
      'ValidationException',
      `1 validation error detected: Value '${MaxItems}' at 'maxItems' failed to satisfy constraint: ` +
        `Member must have value ${word} than or equal to ${bound}`,
    );
  }
  const itemsMax = Math.min(MaxItems, LIST_ITEMS_MAX);
  const latest = (state: FunctionState): Version[] => [{ state, version: '$LATEST' }];
  const page: Page<Version> = pageOf(
    'lambda:ListFunctions',
    (call.known.functions ?? []).flatMap(FunctionVersion === 'ALL' ? versionsOf : latest),
    ({ state, version }) => (version === '$LATEST' ? state.name : `${state.name}:${version}`),
    call.position,
    itemsMax,
    call.fault,
  );
  return {
    Functions: page.items.map(({ state, version }) => configurationOf(call, state, version)),
    ...(page.marker === undefined ? {} : { NextMarker: page.marker }),
  };
}

function find(call: Call, name: string): FunctionState {
  const state = call.known.functions?.find((candidate) => candidate.name === name);
  if (state === undefined) {
    throw new ServiceError(
      'ResourceNotFoundException',
      404,
      `Function not found: ${functionArn(call, name)}`,
    );
  }
  return state;
}

function nameOf(call: Call, arn: string): string {
  const match = ARN.exec(arn);
  if (match === null) throw invalid('InvalidParameterValueException', `Invalid function ARN: ${arn}`);
  const [, region, accountId, name] = match;
  if (region !== call.region || accountId !== call.accountId) {
    throw new ServiceError('AccessDeniedException', 403, `Not authorized to access ${arn}`);
  }
  return name!;
}

function listTags(call: Call): object {
  const { Resource } = call.input as { Resource: string };
  return { Tags: find(call, nameOf(call, Resource)).tags ?? {} };
}

function getFunctionConfiguration(call: Call): object {
  const { FunctionName } = call.input as { FunctionName: string };
  const name = FunctionName.startsWith('arn:') ? nameOf(call, FunctionName) : FunctionName;
  return { ...configurationOf(call, find(call, name)), State: 'Active', LastUpdateStatus: 'Successful' };
}

const FIRST_ONLY = () => FIRST;

export const LAMBDA: readonly Handler[] = [
  {
    operation: 'lambda:ListFunctions',
    schema: ListFunctions$ as unknown as OperationSchema,
    positionOf: (input) => position((input as { Marker?: string }).Marker),
    answer: listFunctions,
  },
  {
    operation: 'lambda:ListTags',
    schema: ListTags$ as unknown as OperationSchema,
    positionOf: FIRST_ONLY,
    answer: listTags,
  },
  {
    operation: 'lambda:GetFunctionConfiguration',
    schema: GetFunctionConfiguration$ as unknown as OperationSchema,
    positionOf: FIRST_ONLY,
    answer: getFunctionConfiguration,
  },
  {
    operation: 'lambda:ListVersionsByFunction',
    schema: ListVersionsByFunction$ as unknown as OperationSchema,
    positionOf: FIRST_ONLY,
    answer: listVersions,
  },
];
