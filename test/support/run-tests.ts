import { spawnSync } from 'node:child_process';
import { globSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Runs the compiled tests with tap, all of them or those named, and ends with one line that counts them. */
const root = fileURLToPath(new URL('../../..', import.meta.url));
const output = join(root, 'test', 'dist', 'results.tap');
const named = process.argv.slice(2);
const files =
  named.length > 0
    ? named
    : globSync(['{gateway,controller-client,test}/**/dist/**/*.test.js'], {
        cwd: root,
        exclude: ['**/node_modules/**'],
      });

rmSync(output, { force: true });
const env = {
  ...process.env,
  // tap starts what `node` means in the path: it must be the one that runs this.
  PATH: `${dirname(process.execPath)}:${process.env.PATH}`,
  // Node may hang at its end while V8 compiles in the background (nodejs/node#54918): hundreds of short processes meet it.
  NODE_OPTIONS: '--v8-pool-size=0',
};
const { status } = spawnSync(
  join(root, 'node_modules', '.bin', 'tap'),
  ['run', `--output-file=${output}`, ...files.sort()],
  { cwd: root, stdio: 'inherit', env },
);
const summary =
  readFileSync(output, 'utf8')
    .match(/^# \{ total: .*\}$/gm)
    ?.at(-1) ?? '';
const count = (name: string) => Number(new RegExp(`${name}: (\\d+)`).exec(summary)?.[1] ?? 0);
const failed = count('fail') + (status !== 0 && count('fail') === 0 ? 1 : 0);
process.stdout.write(
  `\n${count('pass')} passed, ${failed} failed, ${count('skip') + count('todo')} skipped\n`,
);
process.exit(status ?? 1);
