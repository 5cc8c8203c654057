/** What a guest is to do. */
export interface Plan {
  /** Compiled test files, from the clone's folder on. */
  readonly files: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Of one file. */
  readonly fileMsMax: number;
}

/** How a test file ended. */
export interface FileResult {
  readonly file: string;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  readonly ms: number;
  /** All that it wrote; empty where nothing failed. */
  readonly output: string;
}

/** A line that a guest says about itself, as JSON. */
export type Said =
  | { readonly kind: 'start'; readonly release: string }
  | ({ readonly kind: 'file' } & FileResult)
  | { readonly kind: 'end' };

/**
 * Counts from what a test file wrote, which tap ends with `# { total: 9, pass: 7, fail: 1, skip: 1 }`. A file that ends without
 * success, or that ran no test, has failed: a guest can do all that tests ask for.
 */
export function countTests(
  output: string,
  status: number | null,
): Pick<FileResult, 'passed' | 'failed' | 'skipped'> {
  const summary = output.match(/^# \{ total: .*\}$/gm)?.at(-1) ?? '';
  const count = (name: string) => Number(new RegExp(`${name}: (\\d+)`).exec(summary)?.[1] ?? 0);
  const passed = count('pass');
  const failed = count('fail');
  const isUnsaid = failed === 0 && (status !== 0 || passed === 0);
  return { passed, failed: isUnsaid ? 1 : failed, skipped: count('skip') + count('todo') };
}
