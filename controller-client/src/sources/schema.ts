import { parsePrefix } from 'sluice-gateway/net/prefix.js';
import { DEFAULT_RULE_NAME, SYSTEM_GROUPS } from 'sluice-gateway/policy/model.js';
import { SNAPSHOT_LIMITS } from 'sluice-gateway/snapshot/format.js';
import { z } from 'zod';
import { RESOURCE_TYPES, type ResourceType } from './model.js';

export const POLICY_VERSION = 'sluice.policy/1';

const { nameLengthMax, portRangesMax } = SNAPSHOT_LIMITS;
const DESCRIPTION_LENGTH_MAX = 4_096;
const TAG_LENGTH_MAX = 256;

const name = z.string().min(1).max(nameLengthMax);
const glob = name.describe('May hold * (any characters) and ? (one character)');

/** What a resource can be selected by. */
const CONDITIONS = {
  id: name.describe('ARN of a function, id of any other resource'),
  name: glob,
  accountId: name,
  region: name,
  zone: name.describe('Availability zone, such as us-east-1a'),
  vpcId: name,
  securityGroup: name.describe('Id of one of its security groups'),
  tags: z
    .record(z.string().min(1).max(TAG_LENGTH_MAX), z.string().max(TAG_LENGTH_MAX))
    .describe('All of them must be there; values may hold * and ?'),
};

const conditionsOf = (...keys: readonly (keyof typeof CONDITIONS)[]): z.ZodObject =>
  z.strictObject(Object.fromEntries(keys.map((key) => [key, CONDITIONS[key].exactOptional()])));

const RESOURCES: Readonly<Record<ResourceType, z.ZodObject>> = {
  serverless: conditionsOf('id', 'name', 'vpcId', 'securityGroup', 'accountId', 'region', 'tags'),
  vm: conditionsOf('id', 'name', 'vpcId', 'zone', 'accountId', 'region', 'tags'),
  subnet: conditionsOf('id', 'name', 'vpcId', 'zone', 'accountId', 'region', 'tags'),
  vpc: conditionsOf('id', 'name', 'accountId', 'region', 'tags'),
};

/** A full name as DNS has it, of letters, digits, hyphens and underscores: no wildcard. */
const FQDN = /^(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9-]{2,63}$/i;

const cidr = z.strictObject({
  type: z.literal('cidr').exactOptional(),
  cidr: z
    .string()
    .superRefine((text, context) => {
      try {
        parsePrefix(text);
      } catch (error) {
        context.addIssue({ code: 'custom', message: (error as Error).message });
      }
    })
    .describe('A CIDR without host bits, or one address'),
});
const group = z.strictObject({
  type: z.literal('group').exactOptional(),
  group: name.describe('The members of another group; groups may not go round in a circle'),
});
const fqdn = z.strictObject({
  type: z.literal('fqdn').exactOptional(),
  fqdn: z
    .string()
    .refine((text) => FQDN.test(text), 'expected a full host name such as api.example.com, no wildcard')
    .describe('Resolved beside the gateway: a function may get other answers than the gateway'),
});
const prefixList = z.strictObject({
  type: z.literal('prefixList').exactOptional(),
  prefixList: glob.describe('Id of a managed prefix list, or its name, which may hold * and ?'),
  accountId: name.exactOptional(),
  region: name.exactOptional(),
});
const letters = z.string().refine((text) => /^[A-Z]{2}$/.test(text), 'expected two capital letters');
const FEEDS = {
  aws: z.strictObject({
    type: z.literal('external').exactOptional(),
    external: z.literal('aws').describe("AWS's published ranges, ip-ranges.json"),
    service: name.exactOptional().describe('Such as S3; absent: all services'),
    region: name.exactOptional().describe('Such as us-east-1 or GLOBAL; absent: all regions'),
  }),
  list: z.strictObject({
    type: z.literal('external').exactOptional(),
    external: z.literal('list').describe('A list of CIDRs that the configuration names under feeds.lists'),
    name,
  }),
  geo: z
    .strictObject({
      type: z.literal('external').exactOptional(),
      external: z
        .literal('geo')
        .describe('By the MMDB file of the configuration; all that is given must hold'),
      country_iso_code: letters.exactOptional(),
      continent_code: letters.exactOptional(),
      is_in_eu: z.boolean().exactOptional(),
    })
    .refine(({ type: _, external: __, ...given }) => Object.keys(given).length > 0, {
      error: 'give country_iso_code, continent_code or is_in_eu: without them, every address is meant',
    }),
};
export type FeedName = keyof typeof FEEDS;
export const FEED_NAMES = Object.keys(FEEDS) as readonly FeedName[];

const ADDRESSES = { cidr, group, fqdn, prefixList };
export type AddressKind = keyof typeof ADDRESSES | 'external';
/** Each of them is selected by a key of its own name. */
export const ADDRESS_KINDS: readonly AddressKind[] = ['cidr', 'group', 'fqdn', 'prefixList', 'external'];

const address = z.union([...Object.values(ADDRESSES), ...Object.values(FEEDS)]);
const withNot = <Schema extends z.ZodObject>(schema: Schema, not: z.ZodType) =>
  schema.safeExtend({ not: not.exactOptional() });
const NOT_ADDRESSES = 'Addresses that are taken away';
const NOT_RESOURCES =
  'Resources of the type, or addresses, that are taken away. A subnet of a resource that is taken away stays ' +
  'where another one brings it';

/** The schema of an expression; `not` is any value: it is checked by itself, with `notSchema`. */
export function addressSchema(kind: AddressKind, feed: FeedName): z.ZodObject {
  return kind === 'external' ? FEEDS[feed] : ADDRESSES[kind];
}
export const resourceSchema = (type: ResourceType): z.ZodObject =>
  RESOURCES[type].extend({ type: z.literal(type) });
export const conditionSchema = (type: ResourceType): z.ZodObject => RESOURCES[type];
/** The same with a `not` that is checked by itself. */
export const negatable = (schema: z.ZodObject): z.ZodObject => withNot(schema, z.unknown());

/** One AND of conditions; the member `type`, or the key that it has, says what it selects. */
const expressionSchema = z.union([
  ...RESOURCE_TYPES.map((type) =>
    withNot(resourceSchema(type), z.union([RESOURCES[type], address]).describe(NOT_RESOURCES)),
  ),
  ...[...Object.values(ADDRESSES), ...Object.values(FEEDS)].map((schema) =>
    withNot(schema, address.describe(NOT_ADDRESSES)),
  ),
]);

const groupWith = (all: z.ZodType) =>
  z.strictObject({
    name: name.describe(`Unique over all files; not ${SYSTEM_GROUPS.join(' or ')}`),
    selector: z.strictObject({ any: z.array(z.strictObject({ all })).min(1) }),
    resolve: z
      .enum(['subnets', 'eni'])
      .exactOptional()
      .describe(
        'What a function brings. subnets: every block of its subnets. eni: the addresses of the network ' +
          'interfaces of its subnets and security groups, as long as they were seen lately',
      ),
  });
/** A group with its expressions unchecked: what is wrong with one hides nothing of another. */
export const groupSchema = groupWith(z.unknown());
export type GroupInput = z.infer<typeof groupSchema>;

const port = z.int().min(1).max(65_535);
const action = z.enum(['PERMIT', 'DENY', 'REJECT']);
const groupNames = z.array(name).min(1);

export const ruleSchema = z.strictObject({
  name: name.describe(`Unique over all files; not ${DEFAULT_RULE_NAME}`),
  priority: z.int().min(0).describe('0 is tried first'),
  action,
  src: groupNames,
  dst: groupNames,
  protocol: z.enum(['TCP', 'UDP', 'ICMP', 'ANY']),
  portRanges: z
    .array(z.strictObject({ lo: port, hi: port.exactOptional() }))
    .max(portRangesMax)
    .exactOptional()
    .describe('Destination ports; none: all ports. With ANY: TCP and UDP. Not with ICMP'),
  logging: z.boolean().exactOptional(),
  enforcement: z.enum(['ENFORCE', 'MONITOR', 'DISABLE']).exactOptional(),
  expires: z.iso
    .datetime({ offset: true })
    .regex(/T\d\d:\d\d:\d\d/)
    .exactOptional()
    .describe('RFC 3339, such as 2027-01-31T00:00:00Z'),
  description: z.string().max(DESCRIPTION_LENGTH_MAX).exactOptional(),
  owner: name.exactOptional(),
  ticket: name.exactOptional(),
});
export type RuleInput = z.infer<typeof ruleSchema>;

export const defaultActionSchema = z.strictObject({ action, logging: z.boolean().exactOptional() });

/** The YAML and JSON form of a policy file; what `deploy/policy.schema.json` is made of. */
const documentSchema = z.strictObject({
  version: z.literal(POLICY_VERSION),
  smartGroups: z.array(groupWith(expressionSchema)).exactOptional(),
  policies: z.array(ruleSchema).exactOptional(),
  defaultAction: defaultActionSchema.exactOptional(),
});

/**
 * The document with its parts unchecked: each is checked on its own, so that one mistake does not hide
 * others.
 */
export const envelopeSchema = documentSchema.extend({
  smartGroups: z.array(z.unknown()).exactOptional(),
  policies: z.array(z.unknown()).exactOptional(),
  defaultAction: z.unknown().exactOptional(),
});

/** JSON Schema (2020-12) of a policy file, for editors. */
export function policyJsonSchema(): Record<string, unknown> {
  return { title: 'Sluice policy', ...z.toJSONSchema(documentSchema, { io: 'input' }) };
}
