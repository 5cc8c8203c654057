import { closeSync, fstatSync, openSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { extname, join } from 'node:path';
import { bodyDigest } from 'sluice-gateway/snapshot/format.js';
import { buildPolicy } from './build.js';
import { isControllerJson, readControllerForm } from './controller.js';
import { type Diagnostic, PolicyError, type Position } from './diagnostics.js';
import { readJson } from './json.js';
import type { LoadedPolicy } from './model.js';
import { checkTree, type Draft, type Node } from './node.js';
import { readOwnForm } from './own.js';
import { readTerraform } from './terraform.js';
import { isTerraformShow, readTerraformShow } from './terraform-show.js';
import { SourceText } from './text.js';
import { readYaml } from './yaml.js';

export const POLICY_LIMITS = { fileBytesMax: 8 << 20, filesMax: 1_000 } as const;

function checked(root: Node, read: (root: Node) => Draft): Draft {
  const problems = checkTree(root);
  if (problems.length > 0) throw new PolicyError(problems);
  return read(root);
}

/** How each file name extension is read. */
const READERS: Readonly<Record<string, (source: SourceText) => Draft>> = {
  '.yaml': (source) => checked(readYaml(source), readOwnForm),
  '.yml': (source) => checked(readYaml(source), readOwnForm),
  '.json': (source) =>
    checked(readJson(source), (root) => {
      if (isTerraformShow(root)) return readTerraformShow(root);
      return isControllerJson(root) ? readControllerForm(root) : readOwnForm(root);
    }),
  '.tf': readTerraform,
};

function startOf(file: string): Position {
  return { file, line: 1, column: 1 };
}

function fail(file: string, message: string): PolicyError {
  return new PolicyError([{ ...startOf(file), message }]);
}

function readText(file: string): string {
  const descriptor = openSync(file, 'r');
  try {
    const { size } = fstatSync(descriptor);
    const { fileBytesMax } = POLICY_LIMITS;
    if (size > fileBytesMax) throw fail(file, `the file holds ${size} bytes, the limit is ${fileBytesMax}`);
    return new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(descriptor));
  } catch (error) {
    throw error instanceof TypeError ? fail(file, 'the file is not UTF-8 text') : error;
  } finally {
    closeSync(descriptor);
  }
}

function filesOf(path: string): string[] {
  if (!statSync(path).isDirectory()) return [path];
  const names = readdirSync(path, { withFileTypes: true })
    .filter((entry) => !entry.isDirectory() && !entry.name.startsWith('.') && extname(entry.name) in READERS)
    .map(({ name }) => name)
    .sort();
  if (names.length === 0)
    throw fail(path, 'the folder holds no policy: expected .yaml, .yml, .json or .tf files');
  if (names.length > POLICY_LIMITS.filesMax) {
    throw fail(path, `the folder holds ${names.length} files, the limit is ${POLICY_LIMITS.filesMax}`);
  }
  return names.map((name) => join(path, name));
}

interface PolicyFile {
  readonly file: string;
  readonly text: string;
  readonly read: (source: SourceText) => Draft;
}

const digestOf = (files: readonly PolicyFile[]) =>
  bodyDigest(JSON.stringify(files.map(({ file, text }) => [file, text])));

/** What `work` gives for each; the diagnostics of those where it throws a PolicyError go to `broken`. */
function tryEach<T, R>(items: readonly T[], broken: Diagnostic[], work: (item: T) => R): R[] {
  return items.flatMap((item) => {
    try {
      return [work(item)];
    } catch (error) {
      if (!(error instanceof PolicyError)) throw error;
      broken.push(...error.diagnostics);
      return [];
    }
  });
}

function readFiles(path: string, before: LoadedPolicy | undefined): LoadedPolicy {
  const broken: Diagnostic[] = [];
  const files = tryEach(filesOf(path), broken, (file): PolicyFile => {
    const read = READERS[extname(file)];
    if (read === undefined) throw fail(file, 'not a policy file: expected .yaml, .yml, .json or .tf');
    return { file, text: readText(file), read };
  });
  const digest = digestOf(files);
  if (broken.length === 0 && digest === before?.digest) return before;
  const drafts = tryEach(files, broken, ({ file, text, read }) => read(new SourceText(file, text)));
  return { ...buildPolicy(drafts, broken, startOf(path)), digest };
}

/**
 * Reads policy from a file, or from all `.yaml`, `.yml`, `.json` and `.tf` files of a folder (not of the
 * folders in it). Gives `before`, what was read before, where the files hold the same. Throws one PolicyError that
 * names everything wrong in all of them, or an Error when a file cannot be read.
 */
export function loadPolicy(path: string, before?: LoadedPolicy): LoadedPolicy {
  try {
    return readFiles(path, before);
  } catch (error) {
    if (error instanceof PolicyError) throw error;
    const { code, path: missing, message } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? `there is no file or folder ${missing}` : message;
    throw new Error(`Cannot read policy: ${why}`, { cause: error });
  }
}
