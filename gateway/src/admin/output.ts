import { z } from 'zod';
import { flowRecordSchema } from '../flows/record.js';
import { functionsBodySchema, inventoryBodySchema } from '../snapshot/format.js';
import { historySchema } from '../snapshot/history.js';

const count = z.int().nonnegative();
const time = z.string().describe('RFC 3339');
const revision = z.int().positive();

const changeSchema = z.object({
  revision: revision.describe('In force now'),
  generation: z.int(),
  changed: z.string().describe('In short'),
});
const outcomeSchema = changeSchema.extend({
  state: z.enum(['applied', 'trial', 'reverted']),
  until: time.exactOptional().describe('When a trial ends that is not confirmed'),
  why: z.string().exactOptional().describe('Why it was reverted'),
});

const statusSchema = z.object({
  gateway: z.string(),
  ready: z.boolean().describe('The wanted program is in the kernel'),
  reason: z.string(),
  generation: z.int().exactOptional(),
  revision: z.object({
    wanted: revision.exactOptional().describe('The newest of the controller client'),
    applied: revision.exactOptional(),
  }),
  rules: count,
  groups: count,
  functions: count,
  scopes: inventoryBodySchema.shape.scopes,
  dropped: z.record(z.string(), count).describe('Packets, by reason'),
  warnings: z.array(z.string()),
  held: z
    .object({
      kind: z
        .enum(['trial', 'apply', 'rollback'])
        .describe('apply: until the controller client has read the new policy files'),
      who: z.string(),
      since: time,
      until: time.exactOptional(),
      revision,
      waiting: revision.exactOptional().describe('The newest of the controller client'),
    })
    .exactOptional()
    .describe('What an operator holds in force'),
});

const groupsSchema = z.array(
  z.object({
    name: z.string(),
    resolved: z.boolean(),
    prefixes: z.array(z.string()),
    functions: z.array(z.string()).describe('ARNs'),
    origins: z
      .array(
        z.object({
          prefix: z.string(),
          via: z.string().describe('ARN of a function, id of another resource, or what else the group names'),
          by: z.string().exactOptional(),
          group: z.string().exactOptional().describe('The group inside the group that brought it'),
          since: time,
        }),
      )
      .exactOptional()
      .describe('Of one group that was asked for by name'),
  }),
);

const inventorySchema = inventoryBodySchema.extend({
  functions: z.array(functionsBodySchema.shape.functions.element),
  advice: z
    .array(z.object({ by: z.string(), shared: z.array(z.string()), advice: z.string() }))
    .describe('What would tell functions apart'),
});

const source = { source: z.string(), sharedBy: count };
const destination = z.object({ ip: z.string(), port: z.int().exactOptional(), protocol: z.string() });
const busiest = (label: z.ZodType) =>
  z.array(
    z.object({
      label: label.exactOptional().describe('Absent for all that were too many to be kept apart'),
      connections: count,
      bytes: z.object({ out: count, in: count }),
    }),
  );

const topSchema = z.object({
  seconds: count,
  functions: busiest(z.object(source)),
  destinations: busiest(destination),
  denies: busiest(z.object({ ...source, destination, rule: z.string() })),
});

/** What commands say with `--json` that ask a gateway, or change what it enforces. */
export const ADMIN_SCHEMAS = {
  boot: z.object({ revision: revision.exactOptional(), generation: z.int() }),
  compile: z.object({ program: z.string().describe('For nft -f') }),
  apply: outcomeSchema,
  confirm: outcomeSchema,
  revert: outcomeSchema,
  history: historySchema,
  rollback: changeSchema,
  status: statusSchema,
  groups: groupsSchema,
  inventory: inventorySchema,
  flows: flowRecordSchema.describe('One a line'),
  top: topSchema,
  version: z.object({ version: z.string(), node: z.string() }),
} as const;
