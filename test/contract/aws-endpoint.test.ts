import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import {
  DescribeInstancesCommand,
  DescribeManagedPrefixListsCommand,
  DescribeNetworkInterfacesCommand,
  DescribeSubnetsCommand,
  DescribeVpcsCommand,
  EC2Client,
  GetManagedPrefixListEntriesCommand,
  paginateDescribeSubnets,
  ReplaceRoute$,
} from '@aws-sdk/client-ec2';
import {
  GetFunctionConfigurationCommand,
  LambdaClient,
  ListFunctionsCommand,
  ListTagsCommand,
  ListVersionsByFunctionCommand,
  paginateListFunctions,
} from '@aws-sdk/client-lambda';
import {
  GetResourcesCommand,
  paginateGetResources,
  ResourceGroupsTaggingAPIClient,
} from '@aws-sdk/client-resource-groups-tagging-api';
import { AssumeRoleCommand, STSClient } from '@aws-sdk/client-sts';
import t from 'tap';
import { ACCESS_KEY, READER, ROLE_ARN } from '../support/aws/boto3-reader.js';
import { EXPECTED_ERRORS, FAULTS, ODD_TAGS, REGION, STATE } from '../support/aws/example.js';
import { decodeQuery, type OperationSchema } from '../support/aws/schema.js';
import { type AwsEndpoint, startAwsEndpoint } from '../support/aws/server.js';

const PYTHON = '/usr/bin/python3';

const ROLE = { RoleArn: ROLE_ARN, RoleSessionName: 'reader' };

interface Reading {
  readonly functionPages: object[][];
  readonly tags: Readonly<Record<string, Record<string, string>>>;
  readonly configuration: object;
  readonly subnetPages: object[][];
  readonly chosen: object[];
  readonly filtered: object[];
  readonly vpcs: object[];
  readonly interfaces: object[];
  readonly taggedPages: object[][];
  readonly versions: object[];
  readonly instances: object[];
  readonly prefixLists: object[];
  readonly entries: object[];
  readonly role: object;
  readonly errors: Readonly<Record<string, unknown>>;
}

function clientsFor(endpoint: AwsEndpoint) {
  const config = {
    region: REGION,
    endpoint: endpoint.url,
    maxAttempts: 1,
    credentials: { accessKeyId: ACCESS_KEY, secretAccessKey: 'secret' },
  };
  return {
    lambda: new LambdaClient(config),
    ec2: new EC2Client(config),
    tagging: new ResourceGroupsTaggingAPIClient(config),
    sts: new STSClient(config),
  };
}

async function failureOf(answer: Promise<unknown>): Promise<unknown> {
  try {
    await answer;
    return null;
  } catch (error) {
    const { name, message, $metadata } = error as Error & { $metadata: { httpStatusCode: number } };
    return [name, $metadata.httpStatusCode, message];
  }
}

async function readErrors({
  lambda,
  ec2,
  tagging,
  sts,
}: ReturnType<typeof clientsFor>): Promise<Record<string, unknown>> {
  const errors: Record<string, unknown> = {};
  for (const name of ['lambdaThrottled', 'lambdaDenied', 'lambdaFailed']) {
    errors[name] = await failureOf(lambda.send(new ListFunctionsCommand()));
  }
  for (const name of ['ec2Throttled', 'ec2Denied', 'ec2Failed']) {
    errors[name] = await failureOf(ec2.send(new DescribeSubnetsCommand()));
  }
  const unknownFilter = { Filters: [{ Name: 'no-such', Values: ['x'] }] };
  const brokenToken = { NextToken: 'bm9uc2Vuc2U=', MaxResults: 5 };
  errors.subnetUnknown = await failureOf(
    ec2.send(new DescribeSubnetsCommand({ SubnetIds: ['subnet-0<&>'] })),
  );
  errors.vpcUnknown = await failureOf(ec2.send(new DescribeVpcsCommand({ VpcIds: ['vpc-0ff'] })));
  errors.filterUnknown = await failureOf(ec2.send(new DescribeSubnetsCommand(unknownFilter)));
  errors.tokenBroken = await failureOf(ec2.send(new DescribeSubnetsCommand(brokenToken)));
  errors.markerBroken = await failureOf(lambda.send(new ListFunctionsCommand({ Marker: 'bm9uc2Vuc2U=' })));
  errors.taggingThrottled = await failureOf(tagging.send(new GetResourcesCommand()));
  errors.paginationBroken = await failureOf(tagging.send(new GetResourcesCommand({ PaginationToken: 'x' })));
  errors.roleRefused = await failureOf(sts.send(new AssumeRoleCommand({ ...ROLE, ExternalId: 'no' })));
  errors.functionUnknown = await failureOf(
    lambda.send(new GetFunctionConfigurationCommand({ FunctionName: 'no-such' })),
  );
  return errors;
}

/** What Python's READER reads, by the JavaScript SDK. */
async function readAll(endpoint: AwsEndpoint): Promise<Reading> {
  const clients = clientsFor(endpoint);
  const { lambda, ec2, tagging, sts } = clients;
  const errors = await readErrors(clients);
  const functionPages = [];
  for await (const page of paginateListFunctions({ client: lambda, pageSize: 100 }, {})) {
    functionPages.push(page.Functions!);
  }
  const tags: Record<string, Record<string, string>> = {};
  for (const { FunctionName, FunctionArn } of functionPages.flat()) {
    const { Tags } = await lambda.send(new ListTagsCommand({ Resource: FunctionArn }));
    tags[FunctionName!] = Tags!;
  }
  const FunctionName = functionPages[0]![0]!.FunctionArn!;
  const { $metadata: _, ...configuration } = await lambda.send(
    new GetFunctionConfigurationCommand({ FunctionName }),
  );
  const subnetPages = [];
  for await (const page of paginateDescribeSubnets({ client: ec2, pageSize: 10 }, {})) {
    subnetPages.push(page.Subnets!);
  }
  const Filters = [
    { Name: 'tag:Name', Values: ['net 1*', 'net ?'] },
    { Name: 'tag:tier', Values: ['front'] },
  ];
  const ResourceTypeFilters = ['lambda:function'];
  const taggedPages = [];
  for await (const page of paginateGetResources({ client: tagging }, { ResourceTypeFilters })) {
    taggedPages.push(page.ResourceTagMappingList!);
  }
  const versions = await lambda.send(new ListVersionsByFunctionCommand({ FunctionName: 'fn-7' }));
  const instances = await ec2.send(new DescribeInstancesCommand());
  const prefixLists = await ec2.send(new DescribeManagedPrefixListsCommand());
  const entries = await ec2.send(new GetManagedPrefixListEntriesCommand({ PrefixListId: 'pl-01' }));
  const role = await sts.send(new AssumeRoleCommand({ ...ROLE, ExternalId: 'yes' }));
  const onlyLambda = { Filters: [{ Name: 'interface-type', Values: ['lambda'] }] };
  const chosen = await ec2.send(new DescribeSubnetsCommand({ SubnetIds: ['subnet-0a', 'subnet-03'] }));
  const filtered = await ec2.send(new DescribeSubnetsCommand({ Filters }));
  const vpcs = await ec2.send(new DescribeVpcsCommand());
  const interfaces = await ec2.send(new DescribeNetworkInterfacesCommand(onlyLambda));
  return {
    functionPages,
    tags,
    configuration,
    subnetPages,
    chosen: chosen.Subnets!,
    filtered: filtered.Subnets!,
    vpcs: vpcs.Vpcs!,
    interfaces: interfaces.NetworkInterfaces!,
    taggedPages,
    versions: versions.Versions!,
    instances: instances.Reservations!,
    prefixLists: prefixLists.PrefixLists!,
    entries: entries.Entries!,
    role: role.AssumedRoleUser!,
    errors,
  };
}

/** Debian's botocore is older than this member and passes over it. */
function withoutDualStack(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value), (key, member) =>
    key === 'Ipv6AllowedForDualStack' ? undefined : member,
  );
}

async function readByPython(url: string): Promise<Reading> {
  const child = spawn(PYTHON, ['-c', READER, url, REGION], { stdio: ['ignore', 'pipe', 'inherit'] });
  return JSON.parse(await text(child.stdout)) as Reading;
}

t.test('the JavaScript SDK and botocore read the same', async (t) => {
  const endpoint = await startAwsEndpoint({ state: { ...STATE, faults: FAULTS } });
  t.teardown(() => endpoint.close());
  const ours = await readAll(endpoint);
  t.same(
    ours.functionPages.map((page) => page.length),
    [50, 50, 37],
    '50 functions a page at most, whatever MaxItems says',
  );
  t.same(
    ours.subnetPages.map((page) => page.length),
    [10, 10, 5],
  );
  t.same(ours.tags['fn-3'], ODD_TAGS);
  t.equal(ours.filtered.length, 12);
  t.match(
    ours.functionPages.flat().find((item) => (item as { FunctionName: string }).FunctionName === 'fn-4'),
    { VpcConfig: { VpcId: 'vpc-01', SubnetIds: ['subnet-04', 'subnet-0a'], Ipv6AllowedForDualStack: true } },
  );
  t.strictSame(ours.errors, EXPECTED_ERRORS);
  t.equal(endpoint.calls.filter(({ outcome }) => outcome === 'ok').length, 3 + 137 + 1 + 3 + 4 + 2 + 5);

  const absent = spawnSync(PYTHON, ['-c', 'import boto3']).status !== 0;
  const skip = absent && `${PYTHON} has no boto3 (Debian: python3-boto3)`;
  t.test('botocore', { skip }, async (t) => {
    endpoint.setState({ ...STATE, faults: FAULTS });
    const theirs = await readByPython(endpoint.url);
    t.strictSame(theirs, withoutDualStack(ours));
  });
});

async function ask(endpoint: AwsEndpoint, service: 'lambda' | 'ec2', path: string, body?: string) {
  const credential = `${ACCESS_KEY}/20260101/${REGION}/${service}/aws4_request`;
  const authorization = `AWS4-HMAC-SHA256 Credential=${credential}, Signature=0`;
  const request = body === undefined ? {} : { method: 'POST', body };
  const response = await fetch(`${endpoint.url}${path}`, { ...request, headers: { authorization } });
  return { status: response.status, body: await response.text() };
}

t.test('requests are checked against the schemas', async (t) => {
  const endpoint = await startAwsEndpoint({ state: STATE });
  t.teardown(() => endpoint.close());
  const ec2 = (body: string) =>
    ask(endpoint, 'ec2', '/', `Action=DescribeSubnets&Version=2016-11-15&${body}`);
  for (const [parameters, code] of [
    ['Subnets.1=subnet-01', 'UnknownParameter'],
    ['Filter.1.Values.1=x', 'UnknownParameter'],
    ['SubnetId.x=subnet-01', 'UnknownParameter'],
    ['SubnetId.1.Deep=x', 'UnknownParameter'],
    ['MaxResults=ten', 'InvalidParameterValue'],
    ['MaxResults=4', 'InvalidParameterValue'],
    ['MaxResults=10&SubnetId.1=subnet-01', 'InvalidParameterCombination'],
    ['DryRun=true', 'DryRunOperation'],
  ] as const) {
    t.match((await ec2(parameters)).body, `<Code>${code}</Code>`, parameters);
  }
  t.match(await ec2('SubnetId.1=subnet-01'), { status: 200, body: '<subnetId>subnet-01</subnetId>' });
  const { NextToken } = await clientsFor(endpoint).ec2.send(new DescribeSubnetsCommand({ MaxResults: 5 }));
  await t.rejects(clientsFor(endpoint).ec2.send(new DescribeVpcsCommand({ NextToken })), {
    name: 'InvalidNextToken',
  });
  t.match(await ask(endpoint, 'ec2', '/', 'Action=RunInstances&Version=2016-11-15'), {
    body: 'InvalidAction',
  });
  t.match(await ask(endpoint, 'lambda', '/2015-03-31/functions?Page=1'), { status: 400, body: 'Page' });
  t.match(await ask(endpoint, 'lambda', '/2015-03-31/functions?MaxItems=0'), {
    status: 400,
    body: 'maxItems',
  });
  t.match(await ask(endpoint, 'lambda', '/2015-03-31/layers'), { status: 404 });
  t.throws(() => decodeQuery(ReplaceRoute$ as unknown as OperationSchema, []), {
    code: 'MissingParameter',
    message: 'The request must contain the parameter RouteTableId',
  });
  const other = new EC2Client({
    region: REGION,
    endpoint: endpoint.url,
    credentials: { accessKeyId: 'AKIAUNKNOWN', secretAccessKey: 'x' },
  });
  await t.rejects(other.send(new DescribeVpcsCommand()), { name: 'AuthFailure' });
});

t.test('as a process: one line when ready, the state again at SIGHUP', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-aws-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'state.json');
  writeFileSync(file, JSON.stringify({ accounts: [] }));
  const main = fileURLToPath(new URL('../support/aws/main.js', import.meta.url));
  const child = spawn(process.execPath, [main, '--listen', '127.0.0.1:0', '--state', file], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.teardown(() => child.kill());
  const [line] = (await once(createInterface(child.stdout), 'line')) as [string];
  const { url } = JSON.parse(line) as { url: string };
  const { ec2 } = clientsFor({ url } as AwsEndpoint);
  await t.rejects(ec2.send(new DescribeVpcsCommand()), { name: 'AuthFailure' });

  writeFileSync(file, JSON.stringify(STATE));
  child.kill('SIGHUP');
  let vpcs: number | undefined;
  while (vpcs === undefined) {
    vpcs = await ec2.send(new DescribeVpcsCommand()).then(
      (answer) => answer.Vpcs?.length,
      () => undefined,
    );
  }
  t.equal(vpcs, 1);

  writeFileSync(file, '{"acc');
  child.kill('SIGHUP');
  t.match((await once(createInterface(child.stderr), 'line'))[0], /^Cannot read state: .*not a JSON file/);
  t.equal((await ec2.send(new DescribeVpcsCommand())).Vpcs?.length, 1, 'a broken file changes nothing');
});
