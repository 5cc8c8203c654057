import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

/** House rules that a machine can see. Exceptions stand here, with their reason. */
const root = fileURLToPath(new URL('../../..', import.meta.url));
const SOURCE_LINES_MAX = 400;
const FILE_BYTES_MAX = 256 << 10;
const LONG_FILES = new Map<string, string>([]);
const LARGE_FILES = new Map([['package-lock.json', 'written by npm']]);

const files = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { cwd: root })
  .toString()
  .trim()
  .split('\n')
  .filter((file) => file !== '');
const read = (file: string) => readFileSync(join(root, file));
const isSource = (file: string) => /\.(?:ts|mjs|c|py|sh)$/.test(file);

t.test('no file grows without limit', async (t) => {
  for (const file of files) {
    const bytes = read(file);
    if (!LARGE_FILES.has(file)) t.ok(bytes.length <= FILE_BYTES_MAX, `${file} has ${bytes.length} bytes`);
    if (!isSource(file) || LONG_FILES.has(file)) continue;
    const lines = bytes.toString().split('\n').length - 1;
    t.ok(lines <= SOURCE_LINES_MAX, `${file} has ${lines} lines`);
  }
});

/** Pattern, and what to do instead. Split so that this file does not contain them. */
const BANNED: readonly (readonly [RegExp, string])[] = [
  [new RegExp(['TO', 'DO|FIX', 'ME'].join('')), 'do it, or open an issue'],
  [/\bt(?:ap)?\.only\(/, 'all tests run'],
  [/registry\.npmjs|deb\.debian\.org/, 'no registry hosts'],
];

t.test('nothing banned stands in a source file', async (t) => {
  for (const file of files.filter(isSource)) {
    const text = read(file).toString();
    for (const [pattern, instead] of BANNED) t.notMatch(text, pattern, `${file}: ${instead}`);
  }
});

t.test('the product writes by its own output functions and log', async (t) => {
  for (const file of files.filter(
    (name) => /^(?:gateway|controller-client)\//.test(name) && isSource(name),
  )) {
    if (!file.includes('.test.')) t.notMatch(read(file).toString(), /\bconsole\./, file);
  }
});

/** Who may not import whom. */
const WALLS: readonly (readonly [from: RegExp, imported: RegExp, why: string])[] = [
  [/^gateway\/src\//, /aws-sdk|sluice-controller-client/, 'the gateway knows no AWS'],
  [
    /^controller-client\/src\//,
    /nftables-napi|sluice-gateway\/(?:netlink|nft|conntrack|nflog|route)\//,
    'the client knows no netlink',
  ],
  [/^gateway\/src\/netlink\//, /\.\.\/(?:nft|policy|conntrack|nflog|flows)\//, 'netlink knows no nftables'],
  [/^gateway\/src\/net\//, /\.\.\//, 'net stands on nothing'],
  [
    /^(?:gateway|controller-client)\/.*src\//,
    /child_process.*nft|['"]nft['"]/,
    'no nft process in the product',
  ],
];

t.test('the walls between folders hold', async (t) => {
  for (const file of files.filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'))) {
    const imports = read(file)
      .toString()
      .split('\n')
      .filter((line) => /^(?:import|} from|export .* from)/.test(line))
      .join('\n');
    for (const [from, imported, why] of WALLS)
      if (from.test(file)) t.notMatch(imports, imported, `${file}: ${why}`);
  }
});

t.test('the lockfile has no download addresses', async (t) => {
  t.notMatch(read('package-lock.json').toString(), /"resolved": "https?:/);
});
