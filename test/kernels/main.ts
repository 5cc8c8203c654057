import { spawnSync } from 'node:child_process';
import { appendFileSync, globSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { boot } from './boot.js';
import type { FileResult, Plan } from './plan.js';

/**
 * `main.js [--short] [--kernel SERIES]... [FILE]...`: runs compiled test files on Debian's cloud kernels inside QEMU, all those
 * that ask the kernel unless some are named, and tells how many passed on each. A file that fails is run once more. Fails
 * where one does twice; a kernel that was not to be had is skipped.
 */
const root = fileURLToPath(new URL('../../..', import.meta.url));
const work = join(root, 'build', 'kernels');

const SERIES = ['6.1', '6.12'];
const ALL = ['test/dist/{kernel,golden,e2e}/*.test.js', 'gateway/{,nftables-napi/}dist/**/kernel.test.js'];
/** Those that most depend on the kernel. */
const SHORT = [
  'test/dist/kernel/{program,pitfalls,leak,guard,netlink}.test.js',
  'gateway/{,nftables-napi/}dist/**/kernel.test.js',
];
/** How much slower than this machine an emulated one may be; TEST_PATIENCE says more where this one is busy. */
const PATIENCE = 5;
const FILE_MS_MAX = 1_800_000;
const KERNEL_MS_MAX = 14_400_000;
const SHORT_KERNEL_MS_MAX = 900_000;

/** In the place of a file, where the guest did not come to its end. */
const GUEST = 'the guest';

const script = (name: string) => join(root, 'test', 'kernels', name);

/** The folder of an unpacked kernel package, or why there is none. */
function fetchKernel(series: string): { readonly folder: string } | { readonly reason: string } {
  const { status, stdout, stderr } = spawnSync('sh', [script('kernel.sh'), series, work], {
    encoding: 'utf8',
  });
  if (status === 0) return { folder: stdout.trim() };
  return { reason: stderr.trim().split('\n').at(-1) ?? `kernel.sh ended with ${status}` };
}

function makeInitramfs(folder: string, plan: Plan): string {
  const file = join(work, 'initramfs');
  writeFileSync(join(work, 'plan.json'), JSON.stringify(plan));
  const { status } = spawnSync('sh', [script('initramfs.sh'), root, folder, file], { stdio: 'inherit' });
  if (status !== 0) throw new Error(`Cannot make the initramfs: initramfs.sh ended with ${status}`);
  return file;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

const counted = ({ passed, failed, skipped }: Pick<FileResult, 'passed' | 'failed' | 'skipped'>) =>
  `${passed} passed, ${failed} failed, ${skipped} skipped`;

function sum(results: readonly FileResult[]): Pick<FileResult, 'passed' | 'failed' | 'skipped'> {
  const total = { passed: 0, failed: 0, skipped: 0 };
  for (const result of results) {
    total.passed += result.passed;
    total.failed += result.failed;
    total.skipped += result.skipped;
  }
  return total;
}

/** Runs the files of the plan on one kernel, and keeps what the failing ones wrote. */
async function runFiles(series: string, folder: string, plan: Plan, msMax: number): Promise<FileResult[]> {
  const [console, failures] = [join(work, `console-${series}.txt`), join(work, `failures-${series}.txt`)];
  const results: FileResult[] = [];
  const onFile = (result: FileResult) => {
    results.push(result);
    print(`  ${counted(result)}  ${Math.round(result.ms / 1000)} s  ${result.file}`);
    if (result.failed === 0) return;
    appendFileSync(failures, `# ${result.file}\n${result.output}\n`);
    print(`    what it wrote is in ${relative(root, failures)}`);
  };
  const initramfs = makeInitramfs(folder, plan);
  const init = [script('init.sh'), root, process.execPath];
  const { release, reason } = await boot({ folder, initramfs, init, console, msMax, onFile });
  if (reason !== undefined) {
    print(`  ${reason}; what it wrote is in ${relative(root, console)}`);
    results.push({ file: GUEST, passed: 0, failed: 1, skipped: 0, ms: 0, output: '' });
  }
  print(`linux ${release ?? series}: ${counted(sum(results))}`);
  return results;
}

async function runKernel(series: string, plan: Plan, msMax: number): Promise<FileResult[]> {
  const fetched = fetchKernel(series);
  if ('reason' in fetched) {
    print(`linux ${series}: skipped, ${fetched.reason}`);
    return [{ file: series, passed: 0, failed: 0, skipped: 1, ms: 0, output: '' }];
  }
  rmSync(join(work, `failures-${series}.txt`), { force: true });
  const first = await runFiles(series, fetched.folder, plan, msMax);
  const failed = first.filter((result) => result.failed > 0).map(({ file }) => file);
  if (failed.length === 0) return first;
  const files = plan.files.filter((file) => failed.includes(file) || failed.includes(GUEST));
  print(`  again, since an emulated machine may stand still at any moment: ${files.length} files`);
  const second = await runFiles(series, fetched.folder, { ...plan, files }, msMax);
  return [...first.filter((result) => result.failed === 0), ...second];
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { short: { type: 'boolean' }, kernel: { type: 'string', multiple: true } },
  });
  const { short = false, kernel = short ? SERIES.slice(0, 1) : SERIES } = values;
  mkdirSync(work, { recursive: true });
  const files = positionals.length > 0 ? positionals : globSync(short ? SHORT : ALL, { cwd: root }).sort();
  const replay = Object.entries(process.env).filter(([name]) => name.startsWith('TEST_'));
  const env = {
    PATH: `${dirname(process.execPath)}:${process.env.PATH}`,
    TEST_PATIENCE: `${PATIENCE}`,
    // What takes an emulated process longest is to compile itself.
    NODE_COMPILE_CACHE: '/run/node',
    TAP_TIMEOUT: `${FILE_MS_MAX / 1000}`,
    ...Object.fromEntries(replay),
  };
  const plan = { files, env, fileMsMax: FILE_MS_MAX };
  const results: FileResult[] = [];
  for (const series of kernel)
    results.push(...(await runKernel(series, plan, short ? SHORT_KERNEL_MS_MAX : KERNEL_MS_MAX)));
  const total = sum(results);
  print(`\n${counted(total)}`);
  return total.failed > 0 ? 1 : 0;
}

process.exitCode = await main();
