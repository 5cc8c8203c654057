import type { Finding } from './finding.js';

/** A kernel as it calls itself, and as which stable release it counts. */
export interface KernelVersion {
  /** `uname -r`, such as `6.1.0-56-cloud-amd64`. */
  readonly release: string;
  readonly major: number;
  readonly minor: number;
  /** Of the stable release; undefined where a vendor's kernel does not say which fixes it took. */
  readonly patch: number | undefined;
}

const NUMBERS = /^([0-9]+)\.([0-9]+)(?:\.([0-9]+))?/;

/** Red Hat and its rebuilds keep a version and take fixes as they choose. */
const PICKED = /\.el[0-9]/;

/**
 * Reads `uname -r`, and where that has a name of its own for the patch level, what names the stable release:
 * `/proc/version` of Debian ends in `Debian 6.1.164-1`, Ubuntu has `/proc/version_signature`, `Ubuntu … 6.8.12`.
 * Undefined where it is no version.
 */
export function parseKernelVersion(release: string, ...texts: readonly string[]): KernelVersion | undefined {
  const own = NUMBERS.exec(release);
  if (own === null) return undefined;
  const numbers = { release, major: Number(own[1]), minor: Number(own[2]) };
  const stable = texts
    .map((text) => / #.*\bDebian ([0-9.]+)|^Ubuntu \S+ ([0-9.]+)/.exec(text.trim()))
    .map((found) => NUMBERS.exec(found?.[1] ?? found?.[2] ?? ''))
    .find(
      (found) => found !== null && Number(found[1]) === numbers.major && Number(found[2]) === numbers.minor,
    );
  if (PICKED.test(release)) return { ...numbers, patch: undefined };
  return { ...numbers, patch: Number(stable?.[3] ?? own[3] ?? 0) };
}

/** Something that is wrong with some kernels, and why it does us no harm, or what harm. */
export interface Problem {
  readonly name: string;
  /** Of the fix, where one is known. */
  readonly commit?: string;
  /** Releases that have the fix: in each their later patch levels too, and after the last all. */
  readonly fixedIn: readonly string[];
  readonly consequence: string;
  readonly guard: string;
  /** Where the guard is not whole. */
  readonly level: 'info' | 'warning';
}

/** Commits and releases from the kernel's history; what each means for others is in their trackers. */
export const PROBLEMS: readonly Problem[] = [
  {
    name: 'lookup_miss',
    commit: 'b2f742c846ca',
    fixedIn: ['6.12.48', '6.17'],
    consequence: 'a lookup may miss a key that is there while a transaction is committed',
    guard: 'a miss drops a packet, of a new connection or one that is judged again, and permits none',
    level: 'info',
  },
  {
    name: 'lookup_miss_interval',
    commit: '7e43e0a1141d',
    fixedIn: ['7.0'],
    consequence: 'a lookup in an interval set may miss while elements of the same set are committed',
    guard: 'a miss drops a packet, of a new connection or one that is judged again, and permits none',
    level: 'info',
  },
  {
    name: 'late_chain_release',
    fixedIn: ['6.2'],
    consequence: 'a deleted map lets go of its chains late, and deleting those is refused as busy',
    guard: 'what left force is collected 1.5 s later, and again when busy',
    level: 'info',
  },
  {
    name: 'timeout_not_extended',
    fixedIn: ['6.12'],
    consequence: 'an element with a time-out that is added again keeps its old expiry',
    guard: 'only limits of rates have one: one that is lost means a fresh allowance',
    level: 'info',
  },
  {
    name: 'interval_open_end',
    commit: '648946966a08',
    fixedIn: ['7.0'],
    consequence: 'an interval that is open at the top may overlap another unnoticed',
    guard: 'intervals are disjoint by construction',
    level: 'info',
  },
  {
    name: 'concatenation_reload',
    commit: 'd3c0037ffe12',
    fixedIn: ['6.18.24', '7.0'],
    consequence: 'emptying and filling a set of concatenated intervals in one transaction is refused',
    guard: 'no set is concatenated, and none is ever emptied',
    level: 'info',
  },
];

/** The oldest kernel that the program was tried on. */
const TRIED_FROM = '6.1';

type Numbers = Pick<KernelVersion, 'major' | 'minor' | 'patch'>;

function numbersOf(text: string): { major: number; minor: number; patch: number } {
  const [, major, minor, patch] = NUMBERS.exec(text)!;
  return { major: Number(major), minor: Number(minor), patch: Number(patch ?? 0) };
}

const isSeries = (a: Numbers, b: Numbers) => a.major === b.major && a.minor === b.minor;
const isLaterSeries = (a: Numbers, b: Numbers) =>
  a.major > b.major || (a.major === b.major && a.minor > b.minor);

/** Whether a kernel has a problem; a vendor's choice of fixes that is not known counts as without. */
export function hasProblem(kernel: KernelVersion, { fixedIn }: Problem): boolean {
  const fixes = fixedIn.map(numbersOf);
  const inSeries = fixes.find((fix) => isSeries(kernel, fix));
  if (inSeries !== undefined) return inSeries.patch > (kernel.patch ?? 0);
  return !isLaterSeries(kernel, fixes.at(-1)!);
}

/** The kernel's release, and each known problem with it. */
export function versionFindings(kernel: KernelVersion | undefined, release: string): Finding[] {
  if (kernel === undefined) {
    const detail = 'it is no version that can be compared: treat every known problem as present';
    return [{ name: 'kernel', level: 'warning', value: release, expected: `${TRIED_FROM} or later`, detail }];
  }
  const isTried = !isLaterSeries(numbersOf(TRIED_FROM), kernel);
  const patch = kernel.patch === undefined ? 'fixes of its vendor, not known' : `patch level ${kernel.patch}`;
  return [
    {
      name: 'kernel',
      level: isTried ? 'ok' : 'warning',
      value: release,
      expected: `${TRIED_FROM} or later`,
      detail: `counts as ${kernel.major}.${kernel.minor}, ${patch}`,
    },
    ...PROBLEMS.map((problem): Finding => {
      const { name, commit, consequence, guard, fixedIn, level } = problem;
      const isPresent = hasProblem(kernel, problem);
      const fixed = `fixed in ${fixedIn.join(', ')}${commit === undefined ? '' : ` (${commit})`}`;
      return {
        name: `problem.${name}`,
        level: isPresent ? level : 'ok',
        value: isPresent ? 'yes' : 'no',
        detail: isPresent ? `${consequence}; ${guard}; ${fixed}` : fixed,
      };
    }),
  ];
}
