import { spawnSync } from 'node:child_process';
import t from 'tap';
import { FILE_MS_MAX } from './patience.js';

function whyNot(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root for network namespaces';
  const probe = spawnSync('unshare', ['-n', 'nft', '--version']);
  if (probe.status === 0) return undefined;
  return `needs unshare -n and nft: ${probe.error?.message ?? probe.stderr.toString().trim()}`;
}

/** Ends this test file as skipped where network namespaces can't be made, or `nft` can't be asked. */
export function needPrivileges(): void {
  // tap's own limit is meant for tests without namespaces and processes.
  t.setTimeout(FILE_MS_MAX);
  const reason = whyNot();
  if (reason === undefined) return;
  t.plan(0, reason);
  process.exit(0);
}
