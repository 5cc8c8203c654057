import { z } from 'zod';
import { ADMIN_SCHEMAS } from '../admin/output.js';
import { SKIP_REASONS } from './recorded.js';

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
        by: z.string().exactOptional().describe('The subnet or network interface by which a function has it'),
        through: z.string().exactOptional().describe('The group inside the group that brought it'),
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
export type Membership = Readonly<NonNullable<Output<typeof sideSchema>['memberships']>[number]>;
export type ExplainedSide = Readonly<Output<typeof sideSchema>>;
export type KernelSays = Readonly<Output<typeof kernelSchema>>;
export type Snat = Readonly<Output<typeof snatSchema>>;
export type Explanation = Readonly<Output<typeof explanationSchema>>;
export type ExplainAnswer = Readonly<Output<typeof explainSchema>>;

const count = z.int().nonnegative();
const sums = {
  records: count,
  connections: count.describe('Records that begin one: later records of it add bytes'),
  bytesOut: count,
  bytesIn: count,
};

const changeSchema = z.object({
  source: z.string().describe('Functions by ARN, else groups, else the address'),
  destination: z.string().describe('Groups that hold the destination'),
  before: z.object({
    verdict: actionSchema,
    rule: z.string().exactOptional().describe('Absent where the log does not say'),
  }),
  after: z.object({ verdict: actionSchema, rule: z.string() }),
  ...sums,
  example: z.object({
    time: z.string(),
    src: z.string(),
    dst: z.string(),
    protocol: z.int().describe('IP protocol number'),
    port: z.int().describe('0 where there is none'),
  }),
});

export const simulateSchema = z.object({
  records: count.describe('All that were read; judged, monitored and skipped come to as many'),
  judged: count,
  monitored: count.describe('What MONITOR rules would have decided: other records tell what became of these'),
  skipped: z
    .record(z.enum(SKIP_REASONS), count)
    .describe(
      'anomaly: dropped before any rule; loss: events are missing; reply: the way back, in VPC Flow Logs; ' +
        'empty: an interval without data; unreadable: no record of a known form',
    ),
  changed: z.object(sums),
  breaks: z
    .object({ ...sums, sources: count })
    .describe('Permitted as recorded, and no longer by the candidate'),
  opens: z.object(sums).describe('Refused as recorded, and permitted by the candidate'),
  changes: z.array(changeSchema),
  recordsOmitted: count.describe('Records of changes beyond the most that are told apart'),
});

export type Change = Readonly<Output<typeof changeSchema>>;
export type SimulateAnswer = Readonly<Output<typeof simulateSchema>>;

export const FINDING_KINDS = [
  'shadowed',
  'contradictory',
  'unreachable',
  'redundant',
  'overlap',
  'empty-group',
  'unresolved-group',
  'never-hit',
  'over-broad',
  'dns-forgotten',
  'ntp-forgotten',
  'limit',
] as const;

const findingSchema = z.object({
  id: z.string().describe('Stable: the kind, and the names that it is about'),
  kind: z.enum(FINDING_KINDS),
  level: z.enum(['warning', 'info']),
  message: z.string(),
  rules: z.array(z.string()),
  groups: z.array(z.string()),
  at: z.string().exactOptional().describe('file:line:column of the first rule or group'),
  proof: z
    .object({
      src: z.string(),
      dst: z.string(),
      protocol: z.int().describe('IP protocol number'),
      port: z.int().describe('0 where there is none'),
    })
    .exactOptional()
    .describe('A connection that shows it'),
});

export const checkSchema = z.object({
  warnings: z.array(z.string()),
  findings: z.array(findingSchema),
  rules: count,
  groups: count,
  functions: count,
});

export type Finding = Readonly<Output<typeof findingSchema>>;

export const learnSchema = z.object({
  group: z.string(),
  records: count.describe('All that were read'),
  learnt: count.describe('Flows of the group that no rule in force decides: the proposal permits them'),
  permitted: count.describe('Flows of the group that a rule in force permits already'),
  denied: count.describe('Flows of the group that a rule in force refuses: they are not learnt'),
  deniedBy: z.array(z.object({ rule: z.string(), records: count })),
  others: count.describe('Flows of others, and records without a flow'),
  unreadable: count,
  omitted: count.describe('Flows beyond the most destinations and ports that are kept'),
  destinations: count.describe('Addresses that were learnt'),
  rules: count.describe('Rules of the proposal'),
  format: z.enum(['yaml', 'terraform']),
  policy: z.string().describe('The proposal, a policy of its own'),
});

export type LearnAnswer = Readonly<Output<typeof learnSchema>>;

const kernelFindingSchema = z.object({
  name: z.string(),
  level: z.enum(['ok', 'info', 'warning', 'error']),
  value: z.string(),
  expected: z.string().exactOptional(),
  detail: z.string(),
});

/** What each command says with `--json`, by its name. */
export const COMMAND_SCHEMAS = {
  explain: explainSchema,
  simulate: simulateSchema,
  check: checkSchema,
  'check --kernel': z.object({ findings: z.array(kernelFindingSchema) }),
  learn: learnSchema,
  ...ADMIN_SCHEMAS,
} as const;

/** The published JSON Schema (2020-12) of the commands, `deploy/commands.schema.json`: one definition a command. */
export function commandsJsonSchema(): object {
  const definitions = Object.entries(COMMAND_SCHEMAS).map(([name, schema]) => {
    const { $schema: _, ...definition } = z.toJSONSchema(schema);
    return [name, definition] as const;
  });
  const $schema = 'https://json-schema.org/draft/2020-12/schema';
  return { $schema, title: 'What sluice commands say with --json', $defs: Object.fromEntries(definitions) };
}
