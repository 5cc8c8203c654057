import { z } from 'zod';

/**
 * The first field of every record. Within version 1 fields may be added; none changes its meaning or goes.
 */
export const FLOW_SCHEMA = 'sluice.flow/1';

/**
 * An address that belongs to more functions or groups than this lists the first, and says how many it left
 * out.
 */
export const RECORD_NAMES_MAX = 64;

const count = (text: string) => z.int().nonnegative().describe(text);
const port = z
  .int()
  .min(0)
  .max(65_535)
  .optional()
  .describe('Absent for protocols without ports, ICMP among them');
const ip = z.string().describe('IPv4, or IPv6 as in RFC 5952');
const time = (text: string) =>
  z.iso.datetime({ precision: 3 }).describe(`${text} RFC 3339, UTC, milliseconds.`);
const omitted = (what: string) =>
  z.int().positive().optional().describe(`How many more ${what} there are than listed; absent when all are`);

const groups = z.array(z.string()).describe('Names of the groups that hold the address, sorted');
const groupsOmitted = omitted('groups');

const src = z.object({
  ip,
  port,
  functions: z
    .array(z.string())
    .describe(
      'ARNs of the functions that the address may mean, at the time of connecting; empty when none is ' +
        'known, and for reason spoofed, where the address says nothing about who sent',
    ),
  functionsOmitted: omitted('functions'),
  groups,
  groupsOmitted,
  identity: z
    .string()
    .optional()
    .describe(
      'How sure the function is: dedicated-subnet, dedicated-eni or shared, for example; shared when ' +
        'several are listed and differ. Absent when none is listed',
    ),
  account: z
    .string()
    .optional()
    .describe('AWS account of the functions; absent when they differ or none is listed'),
  region: z
    .string()
    .optional()
    .describe('AWS region of the functions; absent when they differ or none is listed'),
});

const dst = z.object({
  ip,
  port,
  name: z.string().optional().describe('DNS name under which the address was learnt; absent when none was'),
  groups,
  groupsOmitted,
});

const both = (what: string) =>
  z
    .object({ out: count('From source to destination'), in: count('From destination to source') })
    .optional()
    .describe(
      `${what} of the whole connection; on close, until then on update and revoke, and absent where the kernel does not count`,
    );

/** Events that a record can tell. */
export const FLOW_EVENTS = ['open', 'update', 'close', 'deny', 'revoke', 'loss'] as const;

/** Where events can be lost on their way from the kernel. */
export type LossSource = 'conntrack' | 'nflog';

/** Why the verdict is what it is: a rule, the default action, or the kernel program before any rule. */
const FLOW_REASONS = ['rule', 'default', 'unclassified', 'invalid', 'spoofed', 'limited'] as const;

/**
 * open, update and close are about connections that a logging rule permits: made, now permitted by another
 * rule or lasting (with what has passed so far), ended. deny is a refused packet (or one that a MONITOR rule would have refused), revoke a connection that
 * was permitted before and is refused now, whatever logging its rules have, and loss says that records are missing.
 */
export const flowRecordSchema = z.object({
  schema: z.literal(FLOW_SCHEMA),
  time: time('When it happened, by the kernel where it says so and else when the gateway read of it.'),
  start: time('When the connection was made; on open, update, close and revoke where known.').optional(),
  end: time('When the connection ended; on close.').optional(),
  event: z.enum(FLOW_EVENTS),
  verdict: z
    .enum(['PERMIT', 'DENY', 'REJECT'])
    .optional()
    .describe('Absent on loss, and on a MONITOR or revoke record whose rule the gateway no longer knows'),
  enforced: z
    .boolean()
    .optional()
    .describe('False: what a MONITOR rule would have decided; evaluation went on. Absent on loss'),
  reason: z.enum(FLOW_REASONS).optional().describe('Absent on loss'),
  rule: z
    .object({
      name: z.string(),
      priority: z.int().nonnegative().optional().describe('Absent for the default action'),
    })
    .optional()
    .describe('Absent when no rule decided, and when its generation is no longer known'),
  permittedBy: z
    .object({ name: z.string(), priority: z.int().nonnegative().optional() })
    .optional()
    .describe('The rule that permitted the connection before, on revoke; absent when no longer known'),
  generation: z.int().positive().optional().describe('Of the policy that decided; absent when no rule did'),
  gateway: z.string(),
  src: src
    .optional()
    .describe('Who connected, also in records of reply packets. Absent on loss and where unreadable'),
  dst: dst.optional().describe('To where. Absent on loss and where unreadable'),
  protocol: z
    .union([z.enum(['TCP', 'UDP', 'ICMP']), z.int().min(0).max(255)])
    .optional()
    .describe('ICMP means ICMP and ICMPv6; others by number. Absent on loss and where unreadable'),
  icmp: z
    .object({ type: z.int().min(0).max(255), code: z.int().min(0).max(255) })
    .optional()
    .describe('With protocol ICMP only'),
  nat: z
    .object({ ip, port })
    .optional()
    .describe('What the source became by source NAT; absent when it was not translated'),
  bytes: both('IP bytes'),
  packets: both('Packets'),
  endReason: z
    .enum(['closed', 'timeout', 'revoked', 'deleted'])
    .optional()
    .describe(
      'On close. closed: TCP ended it; timeout: nothing was heard; revoked: policy no longer permitted it; ' +
        'deleted: its entry was removed before its time, by hand or for want of room. Absent, with bytes and ' +
        'packets, when the event that told of the end was lost',
    ),
  communityId: z.string().optional().describe('Community ID version 1, seed 0'),
  suppressed: z
    .int()
    .positive()
    .optional()
    .describe(
      'How many decisions of this rule were not logged, for the rate limit, since its previous record; ' +
        'absent: none. A loss record with a rule tells what no later record of it could',
    ),
  loss: z
    .object({
      source: z.string().describe('conntrack, nflog'),
      since: time('Not before then; until `time` of the record.').optional(),
      events: z
        .int()
        .positive()
        .optional()
        .describe('Exactly how many. Absent: not known yet, a later record may tell'),
    })
    .optional()
    .describe('On loss: events that never reached the gateway'),
});

export type FlowRecord = Readonly<z.infer<typeof flowRecordSchema>>;

/** The published JSON Schema (2020-12) of a record, `deploy/flow.schema.json`. Open to fields added later. */
export function flowJsonSchema(): object {
  return { title: FLOW_SCHEMA, ...z.toJSONSchema(flowRecordSchema, { io: 'input' }) };
}
