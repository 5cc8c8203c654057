import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  BODIES_FOLDER,
  bodyDigest,
  canonicalJson,
  MANIFEST_FILE,
  type Manifest,
  type PolicyBody,
  SNAPSHOT_FORMAT,
} from './format.js';

/** For tests: what a snapshot is written from, right or wrong. */
export interface SnapshotDraft {
  readonly revision?: unknown;
  readonly manifest?: Readonly<Record<string, unknown>>;
  readonly rules?: readonly Partial<Record<keyof PolicyBody['rules'][number], unknown>>[];
  readonly policy?: Readonly<Record<string, unknown>>;
  readonly groups?: readonly (Partial<Record<keyof Manifest['groups'][number], unknown>> & {
    /** Its prefixes, body by body. */
    readonly parts?: readonly unknown[];
  })[];
  readonly inventory?: Readonly<Record<string, unknown>>;
}

const RULE = {
  name: 'pay',
  priority: 10,
  action: 'PERMIT',
  src: ['functions'],
  dst: ['payments'],
  protocol: 'TCP',
  portRanges: [{ lo: 443, hi: 443 }],
  logging: true,
  enforcement: 'ENFORCE',
};
const GROUPS: NonNullable<SnapshotDraft['groups']> = [
  { name: 'functions', parts: [['10.0.1.0/24'], ['2001:db8:1::/64']] },
  { name: 'payments', parts: [['10.20.0.0/16']] },
];

/** For tests: writes a snapshot that is right but for what the draft says, and gives its manifest. */
export function writeDraft(folder: string, draft: SnapshotDraft = {}): Manifest {
  mkdirSync(join(folder, BODIES_FOLDER), { recursive: true });
  const put = (value: unknown): string => {
    const text = canonicalJson(value);
    const digest = bodyDigest(text);
    writeFileSync(join(folder, BODIES_FOLDER, digest), text);
    return digest;
  };
  const rules = (draft.rules ?? [{}]).map((rule) => ({ ...RULE, ...rule }));
  const policy = { rules, defaultAction: { action: 'DENY', logging: true }, ...draft.policy };
  const groups = (draft.groups ?? GROUPS).map(({ parts = [], ...group }) => ({
    resolved: true,
    prefixCount: parts.flat().length,
    bodies: parts.map((prefixes) => put({ prefixes })),
    ...group,
  }));
  const { functions = [], ...rest } = (draft.inventory ?? {}) as { functions?: unknown[] };
  const manifest = {
    format: SNAPSHOT_FORMAT,
    revision: draft.revision ?? 1,
    createdAt: '2026-11-01T00:00:00.000Z',
    policy: { digest: put(policy) },
    groups,
    inventory: {
      digest: put({ scopes: [], ...rest }),
      functions: functions.length === 0 ? [] : [put({ functions })],
    },
    ...draft.manifest,
  };
  const path = join(folder, MANIFEST_FILE);
  writeFileSync(`${path}.new`, canonicalJson(manifest));
  renameSync(`${path}.new`, path);
  return manifest as Manifest;
}
