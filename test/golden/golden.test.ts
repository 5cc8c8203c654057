import { spawnSync } from 'node:child_process';
import { existsSync, globSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, matchesGlob } from 'node:path';
import { fileURLToPath } from 'node:url';
import { emptyInventory, type Inventory } from 'sluice-controller-client/inventory.js';
import { buildWanted } from 'sluice-controller-client/wanted.js';
import { readConfig } from 'sluice-gateway/config/config.js';
import { interfacesOf } from 'sluice-gateway/interfaces.js';
import { printProgram } from 'sluice-gateway/nft/print.js';
import { compilePolicy, programOf } from 'sluice-gateway/policy/compile.js';
import type { GatewayInterfaces } from 'sluice-gateway/policy/fixed-chains.js';
import { policyInForce } from 'sluice-gateway/policy/in-force.js';
import t from 'tap';

/**
 * Policy beside the program that is made of it. A folder `NN-name` holds
 *
 *     policy.yaml      each about one thing. Its `# shows:` line says which chains and maps the case pins, by globs
 *     program.nft      those, as the product prints them: UPDATE_GOLDEN=1 writes it anew
 *     inventory.json   what is known of AWS, if not nothing
 *     config.yaml      the gateway, if not one with lam0 and wan0
 *
 * Content is named after a hash of itself, so that any change would show everywhere: here `list_9f3a…` is `list_1`,
 * numbered in the order in which the program has them. Only the last case pins the whole table.
 */
const folder = fileURLToPath(new URL('../../golden', import.meta.url));
const NOW = new Date('2026-11-01T00:00:00Z');
const SIMPLE: GatewayInterfaces = { lambda: ['lam0'], egress: ['wan0'], inputIcmp: false };

/** The program of a case, by the product's own path. */
function compileCase(path: string): string {
  const inventoryFile = join(path, 'inventory.json');
  const configFile = join(path, 'config.yaml');
  const inventory = existsSync(inventoryFile)
    ? { ...emptyInventory(), ...(JSON.parse(readFileSync(inventoryFile, 'utf8')) as Partial<Inventory>) }
    : emptyInventory();
  const { content, warnings } = buildWanted(join(path, 'policy.yaml'), inventory);
  if (warnings.length > 0) throw new Error(`Cannot compile ${path}: ${warnings.join('; ')}`);
  const compiled = compilePolicy({
    policy: policyInForce(content.policy, NOW),
    groups: new Map(content.groups.map(({ name, prefixes }) => [name, prefixes])),
    excluded: [],
    epoch: 'golden',
  });
  const interfaces = existsSync(configFile) ? interfacesOf(readConfig(configFile)) : SIMPLE;
  return printProgram(programOf(compiled, interfaces, 7));
}

/** Replaces the hash at the end of each name by a number: names of one kind count from 1. */
function numberNames(program: string): string {
  const numbers = new Map<string, number>();
  const kinds = new Map<string, number>();
  return program.replace(/\b(\w+)_([0-9a-f]{16})\b/g, (name, kind: string) => {
    const number = numbers.get(name) ?? (kinds.get(kind) ?? 0) + 1;
    if (!numbers.has(name)) kinds.set(kind, number);
    numbers.set(name, number);
    return `${kind}_${number}`;
  });
}

/** The chains, maps and counters whose names match one of the globs. */
function select(program: string, globs: readonly string[]): string {
  if (globs.includes('*')) return program;
  const blocks = program.match(/^ {2}(?:chain|map|set|counter|limit) \w+ \{\n(?: {4}.*\n| {6}.*\n)* {2}\}\n/gm) ?? [];
  const nameOf = (block: string) => /^ {2}\w+ (\w+) /.exec(block)![1]!;
  for (const glob of globs) {
    if (!blocks.some((block) => matchesGlob(nameOf(block), glob))) {
      throw new Error(`Cannot show ${JSON.stringify(glob)}: the program has no such chain or map`);
    }
  }
  return blocks
    .filter(
      (block) => !block.startsWith('  counter') && globs.some((glob) => matchesGlob(nameOf(block), glob)),
    )
    .join('');
}

function whyNoJudge(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root for network namespaces';
  const { status, error, stderr } = spawnSync('unshare', ['-n', 'nft', '--version']);
  return status === 0 ? undefined : `needs unshare -n and nft: ${error?.message ?? stderr.toString().trim()}`;
}
const noJudge = whyNoJudge();

const cases = globSync('*/policy.yaml', { cwd: folder }).map(dirname).sort();
t.ok(cases.length >= 13, `${cases.length} cases`);

for (const name of cases) {
  t.test(name, async (t) => {
    const path = join(folder, name);
    const shows = /^# shows: (.+)$/m.exec(readFileSync(join(path, 'policy.yaml'), 'utf8'))![1]!;
    const program = compileCase(path);
    const shown = select(numberNames(program), shows.split(' '));
    const golden = join(path, 'program.nft');
    if (process.env.UPDATE_GOLDEN === '1') writeFileSync(golden, shown);
    t.equal(
      shown,
      existsSync(golden) ? readFileSync(golden, 'utf8') : '',
      'UPDATE_GOLDEN=1 accepts a change',
    );
    t.test('nft accepts the whole program', noJudge === undefined ? {} : { skip: noJudge }, async (t) => {
      const { status, stderr } = spawnSync('unshare', ['-n', 'nft', '-c', '-f', '-'], { input: program });
      t.equal(status, 0, stderr.toString());
    });
  });
}
