import { parsePrefix } from 'sluice-gateway/net/prefix.js';
import { DEFAULT_RULE_NAME, SYSTEM_GROUPS } from 'sluice-gateway/policy/model.js';
import { SNAPSHOT_LIMITS } from 'sluice-gateway/snapshot/format.js';
import { z } from 'zod';

export const POLICY_VERSION = 'sluice.policy/1';

const { nameLengthMax, portRangesMax } = SNAPSHOT_LIMITS;
const DESCRIPTION_LENGTH_MAX = 4_096;
const TAG_LENGTH_MAX = 256;

const name = z.string().min(1).max(nameLengthMax);
const glob = name.describe('May hold * (any characters) and ? (one character)');
const tags = z
  .record(z.string().min(1).max(TAG_LENGTH_MAX), z.string().max(TAG_LENGTH_MAX))
  .describe('All of them must be there, with exactly these values');
const place = { accountId: name.exactOptional(), region: name.exactOptional(), tags: tags.exactOptional() };

const serverless = z.strictObject({
  type: z.literal('serverless'),
  name: glob.exactOptional(),
  vpcId: name.exactOptional(),
  ...place,
});
const subnet = z.strictObject({
  type: z.literal('subnet'),
  id: name.exactOptional(),
  name: glob.exactOptional(),
  vpcId: name.exactOptional(),
  ...place,
});
const vpc = z.strictObject({
  type: z.literal('vpc'),
  id: name.exactOptional(),
  name: glob.exactOptional(),
  ...place,
});
const cidr = z.strictObject({
  type: z.literal('cidr').optional(),
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

/** One AND of conditions; the member `type` says which resources it selects. */
export const expressionSchema = z.discriminatedUnion('type', [serverless, subnet, vpc, cidr]);
export type ExpressionInput = z.infer<typeof expressionSchema>;

/** Which conditions each type takes, for messages. */
export const EXPRESSION_KEYS: Readonly<Record<NonNullable<ExpressionInput['type']>, readonly string[]>> = {
  serverless: Object.keys(serverless.shape),
  subnet: Object.keys(subnet.shape),
  vpc: Object.keys(vpc.shape),
  cidr: Object.keys(cidr.shape),
};

export const groupSchema = z.strictObject({
  name: name.describe(`Unique over all files; not ${SYSTEM_GROUPS.join(' or ')}`),
  selector: z.strictObject({
    any: z.array(z.strictObject({ all: expressionSchema })).min(1),
  }),
  resolve: z.literal('subnets').exactOptional(),
});
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
export const documentSchema = z.strictObject({
  version: z.literal(POLICY_VERSION),
  smartGroups: z.array(groupSchema).exactOptional(),
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
