/**
 * Characters that would act on a terminal instead of being shown: C0, DEL and C1 controls, line and paragraph
 * separators, and what changes the direction of the text around it.
 */
const ACTING = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

const SHORT: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

const escaped = (character: string) =>
  SHORT[character] ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;

/**
 * The text with every character escaped that would act on a terminal, as in JSON: `\n`, `\u001b`. For names,
 * tags and other text of strangers on its way to a terminal or a metric. Not reversible: a backslash stays as
 * it is.
 */
export function printable(text: string): string {
  return text.replace(ACTING, escaped);
}

/** One line of JSON that is harmless on a terminal and reads back equal. */
export function printableJson(value: unknown): string {
  return printable(JSON.stringify(value));
}
