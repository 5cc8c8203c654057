import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** A program of C that stands beside a benchmark, and the Debian package whose library it is made with. */
export interface CProgram {
  /** Without `.c`, from the folder of the benchmarks: `lpm/rte-lpm`. */
  readonly name: string;
  /** As pkg-config calls the library. */
  readonly library: string;
  readonly debianPackage: string;
}

function run(command: string, args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args);
  if (status !== 0) throw new Error(`Cannot run ${command}: ${error?.message ?? stderr.toString()}`);
  return stdout.toString();
}

/** Whether the machine has what the program is made of. */
export function canCompile({ library }: CProgram): boolean {
  return spawnSync('pkg-config', ['--exists', library]).status === 0;
}

/** Compiles a program beside the compiled benchmarks; gives its path. */
export function compile({ name, library }: CProgram): string {
  const path = (file: string) => fileURLToPath(new URL(file, import.meta.url));
  const program = path(name);
  const source = path(`../${name}.c`);
  const flags = run('pkg-config', ['--cflags', '--libs', library]).split(/\s+/);
  run('cc', ['-O3', '-Wall', '-Wextra', '-o', program, source, ...flags.filter((flag) => flag !== '')]);
  return program;
}
