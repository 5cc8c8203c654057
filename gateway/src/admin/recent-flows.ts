import { z } from 'zod';
import type { FlowRecord } from '../flows/record.js';
import { readAddress } from '../net/address.js';
import { type Prefix, parsePrefix, prefixContains } from '../net/prefix.js';
import { QuestionError } from './question.js';

/** Records kept for `sluice flows`, about 1 kB each; older ones are in the sinks only. */
export const RECENT_RECORDS_MAX = 4_096;

const text = z.string().min(1).max(1_024).optional();
const flowsQuerySchema = z.strictObject({
  since: z.coerce.number().int().min(0).optional(),
  function: text,
  group: text,
  rule: text,
  verdict: text,
  cidr: text,
  port: text,
});

/** What `sluice flows` asks: each filter as its user wrote it. */
export type FlowsQuery = z.input<typeof flowsQuerySchema>;

/** What `sluice flows` is answered. */
export interface FlowsAnswer {
  readonly records: readonly FlowRecord[];
  /** The number to ask for next. */
  readonly next: number;
  /** Records that came since and were pushed out before they were asked for, whether or not the filter wants them. */
  readonly missed: number;
}

type Filter = (record: FlowRecord) => boolean;

const VERDICTS: readonly unknown[] = ['PERMIT', 'DENY', 'REJECT'];

/** The last part of a function's ARN. */
export const functionName = (arn: string) => arn.replace(/^arn:[^:]*:lambda:.*:function:/, '');

const refused = (what: string, value: string, expected: string) =>
  new QuestionError(`Cannot show flows: ${what} ${JSON.stringify(value)} is not ${expected}`);

function parseCidr(value: string): Prefix {
  try {
    return parsePrefix(value);
  } catch (cause) {
    throw new QuestionError(`Cannot show flows: ${(cause as Error).message}`, { cause });
  }
}

function isInside(prefix: Prefix, ip: string | undefined): boolean {
  const address = ip === undefined ? undefined : readAddress(ip);
  return address !== undefined && prefixContains(prefix, address);
}

const FILTERS: Readonly<Record<Exclude<keyof FlowsQuery, 'since'>, (value: string) => Filter>> = {
  function:
    (value) =>
    ({ src }) =>
      src?.functions.some((arn) => arn === value || functionName(arn) === value) === true,
  group:
    (value) =>
    ({ src, dst }) =>
      src?.groups.includes(value) === true || dst?.groups.includes(value) === true,
  rule:
    (value) =>
    ({ rule, permittedBy }) =>
      rule?.name === value || permittedBy?.name === value,
  verdict: (value) => {
    const wanted = value.toUpperCase();
    if (!VERDICTS.includes(wanted)) throw refused('verdict', value, 'PERMIT, DENY or REJECT');
    return ({ verdict }) => verdict === wanted;
  },
  cidr: (value) => {
    const prefix = parseCidr(value);
    return ({ src, dst }) => isInside(prefix, src?.ip) || isInside(prefix, dst?.ip);
  },
  port: (value) => {
    if (!/^(?:0|[1-9][0-9]{0,4})$/.test(value) || Number(value) > 65_535)
      throw refused('port', value, 'a number from 0 to 65535');
    const wanted = Number(value);
    return ({ dst }) => dst?.port === wanted;
  },
};

/** Records that all filters want. That of a loss says that any may be missing: it is wanted always. */
function filterOf(query: FlowsQuery): Filter {
  const filters = Object.entries(FILTERS).flatMap(([name, make]) => {
    const value = query[name as keyof typeof FILTERS];
    return value === undefined ? [] : [make(value)];
  });
  return (record) => record.loss !== undefined || filters.every((isWanted) => isWanted(record));
}

/** The newest flow records, each with a number by which a follower asks for what came after. */
export class RecentFlows {
  /** A ring: the record of a number is at the number modulo its size. */
  readonly #records: FlowRecord[] = [];
  #next = 0;

  add(record: FlowRecord): void {
    this.#records[this.#next % RECENT_RECORDS_MAX] = record;
    this.#next++;
  }

  /** Answers a question as it came; oldest first, all that are kept where it names no number. Throws QuestionError. */
  answer(question: Readonly<Record<string, string>>): FlowsAnswer {
    const parsed = flowsQuerySchema.safeParse(question);
    if (!parsed.success) throw new QuestionError(`Cannot show flows: ${z.prettifyError(parsed.error)}`);
    const isWanted = filterOf(parsed.data);
    const oldest = Math.max(0, this.#next - RECENT_RECORDS_MAX);
    // A number that is yet to come is of a gateway that ran before.
    const known = parsed.data.since ?? oldest;
    const since = known > this.#next ? oldest : known;
    const records: FlowRecord[] = [];
    for (let number = Math.max(since, oldest); number < this.#next; number++) {
      const record = this.#records[number % RECENT_RECORDS_MAX]!;
      if (isWanted(record)) records.push(record);
    }
    return { records, next: this.#next, missed: Math.max(0, oldest - since) };
  }
}
