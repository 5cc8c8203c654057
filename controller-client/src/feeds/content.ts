import { type Prefix, parsePrefix } from 'sluice-gateway/net/prefix.js';
import { z } from 'zod';
import { mergePrefixes } from '../groups/members.js';
import { quote } from '../sources/diagnostics.js';
import type { FeedQuery } from '../sources/model.js';
import { readGeo } from './geo.js';

/** What a query selects from the content of a feed, in the fewest prefixes. Throws for what selects nothing. */
export type FeedContent = (query: FeedQuery) => Prefix[];

/** Of one query. */
const FEED_PREFIXES_MAX = 250_000;

/**
 * A list of CIDRs or addresses, one a line; what follows `#` or `;` is a comment. An empty one is cut short more likely
 * than meant: a DENY by it would end.
 */
function readList(bytes: Buffer): FeedContent {
  const lines = bytes.toString('utf8').split('\n');
  if (lines.every((line) => line.trim() === ''))
    throw new Error('Cannot read feed: it is empty, a list of nothing is expected to say so in a comment');
  const prefixes = lines.flatMap((line, index) => {
    const text = line.replace(/[#;].*/, '').trim();
    if (text === '') return [];
    try {
      return [parsePrefix(text)];
    } catch (cause) {
      throw new Error(`Cannot read feed: line ${index + 1}: ${(cause as Error).message}`, { cause });
    }
  });
  return () => prefixes;
}

const ranges = z.object({
  prefixes: z.array(z.object({ ip_prefix: z.string(), region: z.string(), service: z.string() })),
  ipv6_prefixes: z.array(z.object({ ipv6_prefix: z.string(), region: z.string(), service: z.string() })),
});

/** AWS's ip-ranges.json. */
function readAwsRanges(bytes: Buffer): FeedContent {
  const { prefixes, ipv6_prefixes } = ranges.parse(JSON.parse(bytes.toString('utf8')));
  const all = [
    ...prefixes.map(({ ip_prefix, ...rest }) => ({ ...rest, prefix: ip_prefix })),
    ...ipv6_prefixes.map(({ ipv6_prefix, ...rest }) => ({ ...rest, prefix: ipv6_prefix })),
  ];
  if (all.length === 0) throw new Error('Cannot read feed: it holds no ranges');
  return (query) => {
    const { service, region } = query as FeedQuery & { external: 'aws' };
    for (const [key, wanted] of Object.entries({ service, region })) {
      if (wanted !== undefined && !all.some((one) => one[key as 'service' | 'region'] === wanted))
        throw new Error(`Cannot read feed: AWS publishes no ${key} ${quote(wanted)}`);
    }
    return all
      .filter((one) => (service ?? one.service) === one.service && (region ?? one.region) === one.region)
      .map(({ prefix }) => parsePrefix(prefix));
  };
}

const READERS: Readonly<
  Record<FeedQuery['external'], (bytes: Buffer) => FeedContent | Promise<FeedContent>>
> = {
  aws: readAwsRanges,
  list: readList,
  geo: readGeo,
};

/** Reads the content of a feed as its kind has it. Throws when it is something else, or too much. */
export async function readContent(kind: FeedQuery['external'], bytes: Buffer): Promise<FeedContent> {
  const content = await READERS[kind](bytes);
  return (query) => {
    const prefixes = mergePrefixes(content(query));
    if (prefixes.length > FEED_PREFIXES_MAX) {
      const what = `it holds ${prefixes.length} prefixes`;
      throw new RangeError(`Cannot read feed: ${what}, the limit is ${FEED_PREFIXES_MAX}`);
    }
    return prefixes;
  };
}
