import { createHash } from 'node:crypto';
import { z } from 'zod';

/** The first field of every manifest. */
export const SNAPSHOT_FORMAT = 'sluice.snapshot/1';

/** Bounds on what the gateway accepts from the controller client, whose every byte is hostile input. */
export const SNAPSHOT_LIMITS = {
  manifestBytesMax: 16 << 20,
  bodyBytesMax: 16 << 20,
  /** Of all bodies together. */
  bodiesBytesMax: 128 << 20,
  groupsMax: 1_000,
  rulesMax: 10_000,
  prefixesMax: 1_000_000,
  functionsMax: 100_000,
  nameLengthMax: 256,
  portRangesMax: 64,
} as const;

/** Functions are split over bodies of at most so many. */
export const BODY_FUNCTIONS_MAX = 256;

/** A group with more prefixes than this is split over several bodies by address range. */
export const BODY_PREFIXES_MAX = 4_096;

const digest = z.string().regex(/^[0-9a-f]{64}$/);
const name = z.string().min(1).max(SNAPSHOT_LIMITS.nameLengthMax);
const time = z.iso.datetime();

export const manifestSchema = z.strictObject({
  format: z.literal(SNAPSHOT_FORMAT),
  revision: z.int().positive(),
  createdAt: time,
  policy: z.strictObject({
    digest,
    /** Of what policy files said, group definitions included: another one tells that the files are others. */
    source: digest.optional(),
  }),
  groups: z
    .array(
      z.strictObject({
        name,
        /** False: nothing was ever learnt of it, which is not the same as empty. */
        resolved: z.boolean(),
        prefixCount: z.int().nonnegative(),
        bodies: z.array(digest),
        /**
         * What it is from then on, unless a newer snapshot comes: network interfaces that AWS did not show for so long
         * may belong to other functions.
         */
        expires: z
          .strictObject({ at: time, prefixCount: z.int().nonnegative(), bodies: z.array(digest) })
          .optional(),
        /** Why it holds what it holds. Never changes what is enforced, and is read only when somebody asks. */
        provenance: z.array(digest).optional(),
      }),
    )
    .max(SNAPSHOT_LIMITS.groupsMax),
  /** Which function holds which prefixes, and how AWS was read. Never changes what is enforced. */
  inventory: z.strictObject({ digest, functions: z.array(digest).max(SNAPSHOT_LIMITS.functionsMax) }),
});

const portRange = z
  .strictObject({ lo: z.int().min(1).max(65_535), hi: z.int().min(1).max(65_535) })
  .refine(({ lo, hi }) => lo <= hi, 'lo is above hi');

const action = z.enum(['PERMIT', 'DENY', 'REJECT']);

export const policyBodySchema = z.strictObject({
  rules: z
    .array(
      z.strictObject({
        name,
        priority: z.int().nonnegative(),
        action,
        src: z.array(name).min(1),
        dst: z.array(name).min(1),
        protocol: z.enum(['TCP', 'UDP', 'ICMP', 'ANY']),
        portRanges: z.array(portRange).max(SNAPSHOT_LIMITS.portRangesMax),
        logging: z.boolean(),
        enforcement: z.enum(['ENFORCE', 'MONITOR', 'DISABLE']),
        expires: time.optional(),
        description: z.string().max(4_096).optional(),
        owner: z.string().max(256).optional(),
        ticket: z.string().max(256).optional(),
      }),
    )
    .max(SNAPSHOT_LIMITS.rulesMax),
  defaultAction: z.strictObject({ action, logging: z.boolean() }),
});

export const groupBodySchema = z.strictObject({ prefixes: z.array(z.string().max(64)) });

/** One body of a group's provenance: its members are prefix, index of the source, and since when it is one. */
export const provenanceBodySchema = z.strictObject({
  sources: z.array(
    z.strictObject({
      /** ARN of a function, id of another resource, a name or feed, `cidr` or `system`. */
      via: z.string().max(512),
      /** The subnet or network interface by which a function has it. */
      by: z.string().max(128).optional(),
      /** The group inside the group that brought it. */
      group: name.optional(),
    }),
  ),
  members: z.array(z.tuple([z.string().max(64), z.int().nonnegative(), time])),
});

/** How sure it is that an address means this one function. */
export const identitySchema = z.enum([
  'dedicated-subnet',
  'dedicated-eni',
  'shared',
  'not-in-vpc',
  'unknown',
]);
export type Identity = z.infer<typeof identitySchema>;

/** One body of functions. */
export const functionsBodySchema = z.strictObject({
  functions: z
    .array(
      z.strictObject({
        arn: z.string().min(1).max(512),
        name,
        accountId: z.string().max(64),
        region: z.string().max(64),
        identity: identitySchema,
        /** ARNs of the functions that its addresses may as well mean. */
        sharedWith: z.array(z.string().max(512)),
        /** The subnets and network interfaces that it shares with them. */
        sharedBy: z.array(z.string().max(128)).optional(),
        /** Why the identity is unknown. */
        detail: z.string().max(512).optional(),
        prefixes: z.array(z.string().max(64)),
        /** Of the network interfaces that it uses and that were seen lately. */
        addresses: z.array(z.string().max(64)).optional(),
      }),
    )
    .max(BODY_FUNCTIONS_MAX),
});

/** The rest of the inventory. */
export const inventoryBodySchema = z.strictObject({
  scopes: z.array(
    z.strictObject({
      accountId: z.string().max(64),
      region: z.string().max(64),
      refreshedAt: time.optional(),
      error: z.string().max(4_096).optional(),
    }),
  ),
  /** The names and feeds that groups speak of. */
  feeds: z
    .array(
      z.strictObject({
        name: z.string().max(1_024),
        prefixes: z.int().nonnegative(),
        refreshedAt: time.optional(),
        error: z.string().max(4_096).optional(),
      }),
    )
    .optional(),
});

export type Manifest = z.infer<typeof manifestSchema>;
export type PolicyBody = z.infer<typeof policyBodySchema>;
/** All that a snapshot says of AWS, from its several bodies. */
export type InventoryBody = z.infer<typeof inventoryBodySchema> & z.infer<typeof functionsBodySchema>;

/** Every body that a manifest names. */
export function digestsOf({
  policy,
  groups,
  inventory,
}: Pick<Manifest, 'policy' | 'groups' | 'inventory'>): string[] {
  const ofGroups = groups.flatMap(({ bodies, expires, provenance = [] }) => [
    ...bodies,
    ...(expires?.bodies ?? []),
    ...provenance,
  ]);
  return [policy.digest, inventory.digest, ...inventory.functions, ...ofGroups];
}

/** JSON with sorted keys and no white space: equal data gives equal bytes, and so an equal digest. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) =>
    part !== null && typeof part === 'object' && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  );
}

/** The name of a body: lower-case hexadecimal sha256 of its bytes. */
export function bodyDigest(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Where a snapshot directory keeps its manifest and a body. */
export const MANIFEST_FILE = 'manifest.json';
export const BODIES_FOLDER = 'bodies';
