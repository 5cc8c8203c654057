import { printable, printableJson } from 'sluice-gateway/text.js';

/** Exit codes of every command. */
export const EXIT = { fine: 0, found: 1, failed: 2 } as const;

/** Writes one line for a person: nothing in it acts on the terminal. */
export function say(line = ''): void {
  process.stdout.write(`${printable(line)}\n`);
}

/** Writes what went wrong, one or more lines, to standard error. */
export function complain(text: string): void {
  for (const line of text.trimEnd().split('\n')) process.stderr.write(`${printable(line)}\n`);
}

/** Writes one line of JSON for a machine. */
export function sayJson(value: unknown): void {
  process.stdout.write(`${printableJson(value)}\n`);
}

/** Says a value as JSON where that was asked for, else in words. */
export function show<T>(options: { readonly json?: boolean }, value: T, text: (value: T) => void): void {
  if (options.json === true) sayJson(value);
  else text(value);
}

export const plural = (count: number, word: string) => `${count} ${word}${count === 1 ? '' : 's'}`;

/** The width that every human form fits. */
export const COLUMNS_MAX = 100;

/** The text in lines that fit, cut at spaces, and inside of a word only where that is longer than a line. */
export function wrap(text: string, columns: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= columns) lines[lines.length - 1] += ` ${word}`;
    else
      for (let at = 0; at === 0 || at < word.length; at += columns) lines.push(word.slice(at, at + columns));
  }
  return lines;
}

/** Says a text behind a lead, in lines that fit; those after the first are indented as far as the lead. */
export function sayWrapped(lead: string, text: string): void {
  const indent = ' '.repeat(lead.length);
  for (const [index, line] of wrap(printable(text), COLUMNS_MAX - lead.length).entries()) {
    say(`${index === 0 ? lead : indent}${line}`);
  }
}

/** The text in so many columns, its end left out where it is longer; nothing in it acts on the terminal. */
export function cell(text: string, columns: number): string {
  const shown = printable(text);
  return shown.length > columns ? `${shown.slice(0, columns - 1)}…` : shown.padEnd(columns);
}

const GAP = '  ';

/** Columns as wide as their widest cell; where that is too wide for a line, the widest of them are cut. */
export function tableLines(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const cells = [head, ...rows].map((row) => row.map(printable));
  const widths = head.map((_, column) => cells.reduce((most, row) => Math.max(most, row[column]!.length), 0));
  const columns = COLUMNS_MAX - GAP.length * (head.length - 1);
  while (widths.reduce((sum, width) => sum + width) > columns) widths[widths.indexOf(Math.max(...widths))]!--;
  return cells.map((row) =>
    row
      .map((text, column) => cell(text, widths[column]!))
      .join(GAP)
      .trimEnd(),
  );
}

export function sayTable(head: readonly string[], rows: readonly (readonly string[])[]): void {
  for (const line of tableLines(head, rows)) say(line);
}

const SIZES = ['', 'k', 'M', 'G', 'T', 'P'];

/** A number of bytes in at most four characters: 999, 1.2k, 12k, 123M. */
export function shortSize(bytes: number): string {
  let value = bytes;
  let size = 0;
  while (value >= 999.5 && size < SIZES.length - 1) {
    value /= 1_000;
    size++;
  }
  return `${size > 0 && value < 9.95 ? value.toFixed(1) : Math.round(value)}${SIZES[size]}`;
}

/** An address with its port, as in a URL. */
export function endText({ ip, port }: { readonly ip: string; readonly port?: number | undefined }): string {
  if (port === undefined) return ip;
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
}
