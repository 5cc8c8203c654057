import { spawnSync } from 'node:child_process';
import { needPrivileges } from './privileged.js';

/**
 * Imported first by a test file, runs that file again in a network namespace of its own, which is then the
 * gateway's. Goes on only there: the first process ends with the second's exit code, or skips where namespaces
 * can't be made.
 */
const MARK = 'SLUICE_TEST_NAMESPACE';

if (process.env[MARK] !== '1') {
  needPrivileges();
  const again = ['-n', process.execPath, '--enable-source-maps', ...process.argv.slice(1)];
  const { status } = spawnSync('unshare', again, { stdio: 'inherit', env: { ...process.env, [MARK]: '1' } });
  process.exit(status ?? 1);
}
