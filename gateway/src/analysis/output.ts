import { z } from 'zod';

/** What the commands that explain, simulate, lint and learn say as JSON: `deploy/commands.schema.json` is made of it. */
export type Output<Schema extends z.ZodType> = z.output<Schema>;

export const actionSchema = z.enum(['PERMIT', 'DENY', 'REJECT']);

export const ruleSchema = z.object({
  name: z.string(),
  priority: z.int().nonnegative().exactOptional().describe('Absent for the default action'),
  action: actionSchema,
});

/** Why a rule does not decide of a connection; in this order, the first that holds. */
export const PASSED_REASONS = [
  'source',
  'destination',
  'protocol',
  'port',
  'disabled',
  'expired',
  'monitor',
] as const;

const passedSchema = ruleSchema.extend({
  why: z
    .enum(PASSED_REASONS)
    .describe(
      'source, destination: no group of that side holds the address; protocol, port: it matches another ' +
        'service; disabled, expired, monitor: it matches, and is not enforced',
    ),
});

const sideSchema = z.object({
  ip: z.string(),
  groups: z.array(z.string()).describe('Groups that hold the address'),
  functions: z
    .array(z.object({ arn: z.string(), identity: z.string() }))
    .describe('Functions that the address may mean, and how sure that is'),
  memberships: z
    .array(
      z.object({
        group: z.string(),
        prefix: z.string(),
        via: z.string().describe('ARN of a function, id of a resource, or what else the group names'),
        since: z.string().exactOptional(),
      }),
    )
    .exactOptional()
    .describe('Why the address is in its groups; absent where that is not known'),
});

const kernelSchema = z
  .object({
    state: z.enum(['same', 'different', 'unknown']),
    verdict: actionSchema.exactOptional(),
    rule: z.string().exactOptional().describe('The rule that the kernel decides by; absent where none does'),
    why: z.string().exactOptional(),
  })
  .describe('What the rules and maps that stand in the kernel do with the first packet; of a live gateway');

const snatSchema = z
  .object({
    to: z.string().describe('masquerade, or an address'),
    interfaces: z.array(z.string()),
    egress: z.string().exactOptional().describe('Where it leaves by the routing table; of a live gateway'),
    ip: z.string().exactOptional().describe('The source address that it leaves with, where that is known'),
  })
  .describe('Source NAT of a connection that is permitted; absent where none is configured');

export const explanationSchema = z.object({
  verdict: actionSchema,
  reason: z.enum(['rule', 'default']),
  rule: ruleSchema,
  passed: z.array(passedSchema).describe('Rules before the one that decides, in order'),
  src: sideSchema,
  dst: sideSchema,
  snat: snatSchema.exactOptional(),
  kernel: kernelSchema.exactOptional(),
});

export const explainSchema = explanationSchema.extend({
  verdict: z.enum([...actionSchema.options, 'MIXED']).describe('MIXED: it depends on which address is meant'),
  alternatives: z
    .array(explanationSchema)
    .describe('With MIXED, one for each rule that decides; the fields beside are of the first of them'),
});

export type ExplainedRule = Readonly<Output<typeof ruleSchema>>;
export type PassedRule = Readonly<Output<typeof passedSchema>>;
export type ExplainedSide = Readonly<Output<typeof sideSchema>>;
export type KernelSays = Readonly<Output<typeof kernelSchema>>;
export type Snat = Readonly<Output<typeof snatSchema>>;
export type Explanation = Readonly<Output<typeof explanationSchema>>;
export type ExplainAnswer = Readonly<Output<typeof explainSchema>>;
