// Compiles the C files of src to build/netlink.node with one compiler call: no node-gyp, no make, no Python. It is
// the package's install script and runs on Node 20 and later.
import { spawnSync } from 'node:child_process';
import { mkdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(fileURLToPath(import.meta.url));
const sources = ['netlink.c', 'filter.c', 'tcp.c', 'ethtool.c', 'notify.c', 'peer.c'].map((name) =>
  join(root, 'src', name),
);
const included = join(root, 'src', 'verbs.h');
const output = join(root, 'build', 'netlink.node');

const HELP = `It needs a C compiler and the headers of libc and Linux:
  Debian, Ubuntu   apt-get install gcc libc6-dev
  Amazon Linux     dnf install gcc glibc-devel kernel-headers
Set CC to use another compiler.`;

function modifiedMs(path) {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

function fail(reason) {
  process.stderr.write(`Cannot build nftables-napi: ${reason}\n${HELP}\n`);
  process.exit(1);
}

if (process.platform !== 'linux') fail(`this is ${process.platform}, netlink is part of Linux`);
const inputs = [...sources, included, fileURLToPath(import.meta.url)];
if (modifiedMs(output) > Math.max(...inputs.map(modifiedMs))) process.exit(0);

// Renamed into place: a process that has the old one loaded keeps it.
const fresh = `${output}.${process.pid}`;
const flags = [
  '-std=gnu11',
  '-O2',
  '-fPIC',
  '-shared',
  '-pthread',
  '-fvisibility=hidden',
  '-Wall',
  '-Wextra',
];
const headers = createRequire(import.meta.url)('node-api-headers').include_dir;
const compilers = process.env.CC ? [process.env.CC] : ['cc', 'gcc', 'clang'];
mkdirSync(dirname(output), { recursive: true });
for (const compiler of compilers) {
  const [command, ...own] = compiler.trim().split(/\s+/);
  const run = spawnSync(command, [...own, ...flags, '-I', headers, ...sources, '-o', fresh], {
    stdio: 'inherit',
  });
  if (run.error?.code === 'ENOENT') continue;
  if (run.error !== undefined || run.status !== 0) {
    rmSync(fresh, { force: true });
    fail(`${compiler} failed (${run.error?.message ?? `exit status ${run.status ?? run.signal}`})`);
  }
  renameSync(fresh, output);
  process.exit(0);
}
fail(`found none of ${compilers.join(', ')}`);
