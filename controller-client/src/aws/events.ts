import { z } from 'zod';
import type { ListName } from './merge.js';
import type { Change } from './target.js';

const bodyCharactersMax = 1 << 20;
/** RunInstances starts a thousand at most. */
const idsMax = 2_000;

/** A CloudTrail event as EventBridge hands it over; the rest of it is of no interest. */
const messageSchema = z.object({
  account: z.string().regex(/^[0-9]{12}$/),
  region: z.string().regex(/^[a-z0-9-]{1,32}$/),
  'detail-type': z.literal('AWS API Call via CloudTrail'),
  detail: z.object({
    eventSource: z.string(),
    eventName: z.string(),
    errorCode: z.string().nullish(),
    requestParameters: z.unknown().optional(),
    responseElements: z.unknown().optional(),
  }),
});

/** Lambda puts its API's version behind a call's name: UpdateFunctionConfiguration20150331v2. */
const LAMBDA_EVENTS =
  /^(?:CreateFunction|UpdateFunctionConfiguration|UpdateFunctionCode|DeleteFunction|PublishVersion|TagResource|UntagResource)(?:[0-9]{8}(?:v[0-9]+)?)?$/;

/** Every call of EC2 after which a thing that we list is another: all name it by its id. */
const EC2_EVENTS =
  /^(?:CreateTags|DeleteTags|RunInstances|TerminateInstances|(?:Create|Delete|Modify)(?:Default)?(?:Subnet|Vpc|NetworkInterface|ManagedPrefixList)(?:Attribute)?|(?:Associate|Disassociate)(?:Subnet|Vpc)CidrBlock|(?:Assign|Unassign)(?:PrivateIp|Ipv6)Addresses|(?:Attach|Detach)NetworkInterface)$/;

const FUNCTION =
  /^(?:arn:[a-z-]+:lambda:[a-z0-9-]+:[0-9]{12}:function:|[0-9]{12}:function:|function:)?([A-Za-z0-9_-]{1,140})(?::[A-Za-z0-9$_-]+)?$/;

const LISTS: Readonly<Record<string, ListName>> = {
  subnet: 'subnets',
  vpc: 'vpcs',
  eni: 'interfaces',
  i: 'instances',
  pl: 'prefixLists',
};
const RESOURCE = /^(subnet|vpc|eni|i|pl)-[0-9a-z]{1,64}$/;

/** AWS's partition of a region: China's and the US government's are their own. */
function partitionOf(region: string): 'aws' | 'aws-cn' | 'aws-us-gov' {
  if (region.startsWith('cn-')) return 'aws-cn';
  return region.startsWith('us-gov-') ? 'aws-us-gov' : 'aws';
}

/** Every string in a value, however deep: without recursion, since the value may be nested to break it. */
function stringsIn(value: unknown): string[] {
  const strings: string[] = [];
  const rest = [value];
  while (rest.length > 0) {
    const next = rest.pop();
    if (typeof next === 'string') strings.push(next);
    else if (next !== null && typeof next === 'object')
      for (const part of Object.values(next)) rest.push(part);
  }
  return strings;
}

function member(value: unknown, name: string): unknown {
  return value !== null && typeof value === 'object' && Object.hasOwn(value, name)
    ? (value as Record<string, unknown>)[name]
    : undefined;
}

function functionNames(request: unknown, response: unknown): string[] {
  const texts = [
    member(request, 'functionName'),
    member(request, 'resource'),
    member(response, 'functionArn'),
  ];
  return texts.flatMap((text) => (typeof text === 'string' ? (FUNCTION.exec(text)?.[1] ?? []) : []));
}

/**
 * What may have changed by what a message of the queue tells: nothing when the call failed or is about something that
 * we don't follow. Undefined when it is no such message: whoever may write to the queue wrote something else.
 */
export function changesOf(body: string): readonly Change[] | undefined {
  if (body.length > bodyCharactersMax) return undefined;
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch {
    return undefined;
  }
  const parsed = messageSchema.safeParse(json);
  if (!parsed.success) return undefined;
  const { account: accountId, region, detail } = parsed.data;
  const { eventSource, eventName, errorCode, requestParameters, responseElements } = detail;
  if (typeof errorCode === 'string') return [];
  const place = { accountId, region };
  if (eventSource === 'lambda.amazonaws.com') {
    if (!LAMBDA_EVENTS.test(eventName)) return [];
    const names = new Set(functionNames(requestParameters, responseElements));
    const arn = `arn:${partitionOf(region)}:lambda:${region}:${accountId}:function:`;
    return [...names].map((name) => ({ ...place, list: 'functions', id: `${arn}${name}` }));
  }
  if (eventSource !== 'ec2.amazonaws.com' || !EC2_EVENTS.test(eventName)) return [];
  const ids = new Set<string>();
  for (const text of stringsIn([requestParameters, responseElements]))
    if (ids.size < idsMax && RESOURCE.test(text)) ids.add(text);
  return [...ids].map((id) => ({ ...place, list: LISTS[RESOURCE.exec(id)![1]!]!, id }));
}
