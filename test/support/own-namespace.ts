import { spawnSync } from 'node:child_process';
import t from 'tap';

/**
 * Imported first by a test file, runs that file again in a network namespace of its own, which is then the
 * gateway's. Goes on only there: the first process ends with the second's exit code, or skips where namespaces
 * can't be made.
 */
const MARK = 'SLUICE_TEST_NAMESPACE';

function whyNotPrivileged(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root for network namespaces';
  const probe = spawnSync('unshare', ['-n', 'nft', '--version']);
  if (probe.status === 0) return undefined;
  return `needs unshare -n and nft: ${probe.error?.message ?? probe.stderr.toString().trim()}`;
}

if (process.env[MARK] !== '1') {
  const reason = whyNotPrivileged();
  if (reason !== undefined) {
    t.plan(0, reason);
    process.exit(0);
  }
  const again = ['-n', process.execPath, '--enable-source-maps', ...process.argv.slice(1)];
  const { status } = spawnSync('unshare', again, { stdio: 'inherit', env: { ...process.env, [MARK]: '1' } });
  process.exit(status ?? 1);
}
