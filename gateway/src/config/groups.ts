import { z } from 'zod';
import { readAddress } from '../net/address.js';

/** Of one configuration. */
const LISTS_MAX = 256;
const SERVERS_MAX = 8;

const isServer = (text: string) =>
  readAddress(text) !== undefined || /^(?:[0-9.]+|\[[0-9a-f:]+\]):[0-9]{1,5}$/i.test(text);

const source = z
  .strictObject({
    url: z
      .url({ protocol: /^https?$/, error: 'expected an address such as https://example.com/list' })
      .optional(),
    path: z.string().min(1).optional(),
  })
  .refine(({ url, path }) => (url === undefined) !== (path === undefined), 'expected either url or path');

/** Where a feed comes from: a file or a web server; one of both is given. */
export type FeedSource = z.output<typeof source>;

/** The section `groups`: how groups get their addresses, beside AWS. */
export const groupsSection = z
  .strictObject({
    /** Refuses a policy with a group whose functions share addresses with functions outside of it. */
    strictIdentity: z.boolean().default(false),
    /** What AWS did not show for so long has no address in a group; absent: three refreshes, at least 900. */
    eniMaxAgeSeconds: z.int().min(1).max(604_800).optional(),
    dns: z
      .strictObject({
        /** Address, or address:port; none: those of the system. */
        servers: z
          .array(z.string().refine(isServer, 'expected an address such as 10.0.0.2, or 10.0.0.2:5353'))
          .max(SERVERS_MAX)
          .default([]),
        /** How long an address stays that a name no longer gives, beyond its time to live. */
        graceSeconds: z.int().min(0).max(604_800).default(600),
      })
      .prefault({}),
    feeds: z
      .strictObject({
        refreshSeconds: z.int().min(1).max(604_800).default(3_600),
        aws: source.prefault({ url: 'https://ip-ranges.amazonaws.com/ip-ranges.json' }),
        lists: z
          .record(z.string().min(1).max(64), source)
          .default({})
          .refine((lists) => Object.keys(lists).length <= LISTS_MAX, `the limit is ${LISTS_MAX} lists`),
        geo: z.strictObject({ path: z.string().min(1) }).optional(),
      })
      .prefault({}),
  })
  .prefault({});

export type GroupsSection = z.output<typeof groupsSection>;

/** The section with its paths as `absolute` makes them. */
export function withAbsolutePaths(section: GroupsSection, absolute: (path: string) => string): GroupsSection {
  const at = <Source extends { path?: string | undefined }>(one: Source): Source =>
    one.path === undefined ? one : { ...one, path: absolute(one.path) };
  const { aws, lists, geo, ...feeds } = section.feeds;
  return {
    ...section,
    feeds: {
      ...feeds,
      aws: at(aws),
      lists: Object.fromEntries(Object.entries(lists).map(([name, one]) => [name, at(one)])),
      ...(geo && { geo: at(geo) }),
    },
  };
}

const ENI_MAX_AGE_SECONDS_MIN = 900;
const REFRESHES = 3;

/** The limit in force: the one given, or three refreshes of AWS, at least 900 s. */
export function eniMaxAge({ eniMaxAgeSeconds }: GroupsSection, refreshSeconds = 0): number {
  return eniMaxAgeSeconds ?? Math.max(ENI_MAX_AGE_SECONDS_MIN, REFRESHES * refreshSeconds);
}
