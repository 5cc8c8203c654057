import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { writeSnapshot } from 'sluice-controller-client/snapshot/write.js';
import { CANDIDATE_FOLDER } from 'sluice-gateway/changes/held.js';
import type { Config } from 'sluice-gateway/config/config.js';
import { bodyDigest, MANIFEST_FILE } from 'sluice-gateway/snapshot/format.js';
import { readBounded } from 'sluice-gateway/snapshot/read.js';
import type { FromFiles } from './files.js';

/** Beside the snapshot that is made of it. */
const POLICY_COPY = 'policy';
const MANIFEST_BYTES_MAX = 1 << 24;

/** Puts what is to be applied, and a copy of the policy it was made of, where the gateway takes it. Gives its digest. */
export async function putCandidate(config: Config, policy: string, { wanted }: FromFiles): Promise<string> {
  const isFolder = statSync(policy).isDirectory();
  if (realpathSync(policy) === realpathSync(config.policy.path))
    throw new Error(
      `Cannot apply: ${policy} is the policy of the configuration, in force as soon as it is saved: give another`,
    );
  if (isFolder !== statSync(config.policy.path).isDirectory()) {
    const [is, should] = isFolder ? ['a folder', 'a file'] : ['a file', 'a folder'];
    throw new Error(
      `Cannot apply: ${policy} is ${is}, and what policy.path names is ${should}: give ${should}`,
    );
  }
  const folder = join(config.state.path, CANDIDATE_FOLDER);
  rmSync(folder, { recursive: true, force: true });
  await writeSnapshot(folder, wanted.content, { now: new Date() });
  cpSync(policy, join(folder, POLICY_COPY), { recursive: true, dereference: true });
  return bodyDigest(await readBounded(join(folder, MANIFEST_FILE), MANIFEST_BYTES_MAX));
}

/** Who could read what was there can read what takes its place. */
function giveTo(path: string, like: Pick<Stats, 'uid' | 'gid' | 'mode'>): void {
  const isFolder = statSync(path).isDirectory();
  chownSync(path, like.uid, like.gid);
  chmodSync(path, isFolder ? like.mode : like.mode & 0o666);
  if (isFolder) for (const name of readdirSync(path)) giveTo(join(path, name), like);
}

/**
 * Has policy.path name what was confirmed: a reader meets the old files, none for a moment, or the new, whole. What was
 * there stays beside it, as `.before`.
 */
export function installCandidate(config: Config): void {
  const { path } = config.policy;
  const copy = join(config.state.path, CANDIDATE_FOLDER, POLICY_COPY);
  const [next, before] = [`${path}.new`, `${path}.before`];
  const old = statSync(path);
  rmSync(next, { recursive: true, force: true });
  cpSync(copy, next, { recursive: true });
  giveTo(next, old);
  rmSync(before, { recursive: true, force: true });
  if (old.isDirectory()) renameSync(path, before);
  else cpSync(path, before);
  try {
    renameSync(next, path);
  } finally {
    if (!existsSync(path)) renameSync(before, path);
  }
}
