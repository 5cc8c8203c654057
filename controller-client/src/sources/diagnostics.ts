/** A place in a file of the user's; line and column start at 1, columns count UTF-16 units. */
export interface Position {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** One thing to say about the user's input, and where. */
export interface Diagnostic extends Position {
  readonly message: string;
}

const CONTROL = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** Text with what could move a terminal's cursor or reorder a line written as `\u{…}`. */
export function escapeControls(text: string): string {
  return text.replace(CONTROL, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}

const QUOTED_LENGTH_MAX = 80;

/** A value of the user's for a message: in double quotes, control characters escaped, cut when long. */
export function quote(text: string): string {
  const cut = text.length > QUOTED_LENGTH_MAX ? `${text.slice(0, QUOTED_LENGTH_MAX)}…` : text;
  return escapeControls(JSON.stringify(cut));
}

/** `a, b or c`. */
export function oneOf(words: readonly string[]): string {
  if (words.length < 2) return words.join('');
  return `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

/** `file:line:column`. */
export function printPosition({ file, line, column }: Position): string {
  return `${escapeControls(file)}:${line}:${column}`;
}

/** `file:line:column: message`, one line. */
export function printDiagnostic({ message, ...at }: Diagnostic): string {
  return `${printPosition(at)}: ${message}`;
}

function comparePlaces(a: Position, b: Position): number {
  if (a.file !== b.file) return a.file < b.file ? -1 : 1;
  return a.line - b.line || a.column - b.column;
}

/** Sorted by file, line and column; what is said twice of one place is kept once. */
export function sortDiagnostics(diagnostics: readonly Diagnostic[]): Diagnostic[] {
  const unique = new Map(diagnostics.map((diagnostic) => [printDiagnostic(diagnostic), diagnostic]));
  return [...unique.values()].sort(comparePlaces);
}

/** Everything that is wrong with a policy, at once. The message holds one diagnostic a line. */
export class PolicyError extends Error {
  override readonly name = 'PolicyError';
  readonly diagnostics: readonly Diagnostic[];

  constructor(diagnostics: readonly Diagnostic[]) {
    const sorted = sortDiagnostics(diagnostics);
    super(sorted.map(printDiagnostic).join('\n'));
    this.diagnostics = sorted;
  }
}

function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + same));
    }
    row = next;
  }
  return row[b.length]!;
}

const SUGGEST_LENGTH_MAX = 64;
const SUGGEST_CANDIDATES_MAX = 1_000;

/** The candidate that the user most likely meant, if one is near; case does not count. */
export function nearest(text: string, candidates: Iterable<string>): string | undefined {
  if (text.length > SUGGEST_LENGTH_MAX) return undefined;
  let best: string | undefined;
  let bestDistance = Math.floor(text.length / 3) + 1;
  for (const candidate of Iterator.from(candidates).take(SUGGEST_CANDIDATES_MAX)) {
    if (Math.abs(candidate.length - text.length) >= bestDistance) continue;
    const apart = distance(text.toLowerCase(), candidate.toLowerCase());
    if (apart < bestDistance) [best, bestDistance] = [candidate, apart];
  }
  return best;
}
