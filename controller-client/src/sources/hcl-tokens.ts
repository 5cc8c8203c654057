import { quote } from './diagnostics.js';
import type { SourceText } from './text.js';

/** A piece of a string: literal text, or the source between `${` or `%{` and `}`. */
export type TemplatePart = string | { readonly expression: string };

interface Span {
  readonly start: number;
  readonly end: number;
}

export type Token = Span &
  (
    | { readonly kind: 'identifier'; readonly text: string }
    | { readonly kind: 'number'; readonly text: string }
    | { readonly kind: 'string'; readonly parts: readonly TemplatePart[] }
    | { readonly kind: 'symbol'; readonly text: string }
    | { readonly kind: 'newline'; readonly text: '\n' }
    | { readonly kind: 'end'; readonly text: '' }
  );

const BLANK = /(?:[ \t]+|\r(?=\n)|#[^\n]*|\/\/[^\n]*|\/\*[\s\S]*?\*\/)+/y;
const NEWLINE = /\n/y;
const IDENTIFIER = /[\p{ID_Start}_][\p{ID_Continue}-]*/uy;
const NUMBER = /[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const SYMBOL = /\.\.\.|=>|==|!=|<=|>=|&&|\|\||[{}[\]().,:?=+\-*/%!<>]/y;
const HEREDOC = /<<(-?)([\p{ID_Start}_][\p{ID_Continue}-]*)\r?\n/uy;
const PLAIN = /[^"\\\n$%]+/y;
const ESCAPE = /\\(?:([nrt"\\])|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))/y;
const ESCAPED: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', '"': '"', '\\': '\\' };
const CODE_POINT_MAX = 0x10ffff;

/**
 * Cuts HCL's native syntax (as Terraform's files use it) into tokens; newlines are tokens, comments are not.
 */
class Tokenizer {
  readonly #source: SourceText;
  readonly #text: string;
  #offset = 0;

  constructor(source: SourceText) {
    this.#source = source;
    this.#text = source.text;
  }

  #match(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#offset;
    const match = pattern.exec(this.#text);
    if (match === null) return undefined;
    this.#offset += match[0].length;
    return match;
  }

  next(): Token {
    this.#match(BLANK);
    const start = this.#offset;
    if (start === this.#text.length) return { kind: 'end', text: '', start, end: start };
    if (this.#match(NEWLINE)) return { kind: 'newline', text: '\n', start, end: this.#offset };
    if (this.#text[start] === '"') {
      this.#offset++;
      return { kind: 'string', parts: this.#quoted(start), start, end: this.#offset };
    }
    const heredoc = this.#match(HEREDOC);
    if (heredoc) {
      const parts = this.#heredoc(start, heredoc[1] === '-', heredoc[2]!);
      return { kind: 'string', parts, start, end: this.#offset };
    }
    const identifier = this.#match(IDENTIFIER);
    if (identifier) return { kind: 'identifier', text: identifier[0], start, end: this.#offset };
    const number = this.#match(NUMBER);
    if (number) return { kind: 'number', text: number[0], start, end: this.#offset };
    const symbol = this.#match(SYMBOL);
    if (symbol) return { kind: 'symbol', text: symbol[0], start, end: this.#offset };
    const found = String.fromCodePoint(this.#text.codePointAt(start)!);
    throw this.#source.fail(start, `Terraform syntax: unexpected character ${quote(found)}`);
  }

  #quoted(start: number): TemplatePart[] {
    const parts: TemplatePart[] = [];
    let literal = '';
    for (;;) {
      const plain = this.#match(PLAIN);
      if (plain) literal += plain[0];
      const next = this.#text[this.#offset];
      if (next === '"') break;
      if (next === '\\') literal += this.#escape();
      else if (next === '$' || next === '%') {
        const opened = this.#template();
        if (typeof opened === 'string') literal += opened;
        else {
          if (literal !== '') parts.push(literal);
          literal = '';
          parts.push(opened);
        }
      } else throw this.#source.fail(start, 'Terraform syntax: this string is not closed on its line');
    }
    this.#offset++;
    if (literal !== '' || parts.length === 0) parts.push(literal);
    return parts;
  }

  #escape(): string {
    const start = this.#offset;
    const match = this.#match(ESCAPE);
    const code = Number.parseInt(match?.[2] ?? match?.[3] ?? '', 16);
    if (match?.[1] !== undefined) return ESCAPED[match[1]]!;
    if (code <= CODE_POINT_MAX) return String.fromCodePoint(code);
    const found = quote(this.#text.slice(start, start + 2));
    throw this.#source.fail(start, `Terraform syntax: ${found} is no escape sequence`);
  }

  /** At a `$` or `%`: the character itself, an escaped `${`, or the template expression that starts here. */
  #template(): TemplatePart {
    const start = this.#offset;
    const sign = this.#text[start]!;
    if (this.#text.startsWith(`${sign}${sign}{`, start)) {
      this.#offset += 3;
      return `${sign}{`;
    }
    this.#offset++;
    if (this.#text[this.#offset] !== '{') return sign;
    this.#offset++;
    for (let depth = 1; ; ) {
      const token = this.next();
      if (token.kind === 'end')
        throw this.#source.fail(start, `Terraform syntax: "${sign}{" is never closed`);
      if (token.kind !== 'symbol') continue;
      if (token.text === '{') depth++;
      if (token.text === '}' && --depth === 0) break;
    }
    return { expression: this.#text.slice(start + 2, this.#offset - 1) };
  }

  #heredoc(start: number, flush: boolean, marker: string): TemplatePart[] {
    const lines: string[] = [];
    for (;;) {
      const lineEnd = this.#text.indexOf('\n', this.#offset);
      const end = lineEnd < 0 ? this.#text.length : lineEnd;
      const line = this.#text.slice(this.#offset, end);
      if (line.trim() === marker) {
        this.#offset = end;
        break;
      }
      if (lineEnd < 0)
        throw this.#source.fail(start, `Terraform syntax: heredoc ${quote(marker)} is never closed`);
      lines.push(`${line}\n`);
      this.#offset = lineEnd + 1;
    }
    const indents = lines.filter((line) => line !== '\n').map((line) => /^[ \t]*/.exec(line)![0].length);
    const indent = flush ? Math.min(...indents, Number.MAX_SAFE_INTEGER) : 0;
    const body = lines.map((line) => (line === '\n' ? line : line.slice(indent))).join('');
    if (/(?<!\$)\$\{|(?<!%)%\{/.test(body)) return [{ expression: body }, ''];
    return [body.replaceAll('$${', '${').replaceAll('%%{', '%{')];
  }
}

/** All tokens of a file, the last one `end`. Throws PolicyError at the first character that is not HCL. */
export function tokenize(source: SourceText): Token[] {
  const tokenizer = new Tokenizer(source);
  const tokens: Token[] = [];
  do {
    tokens.push(tokenizer.next());
  } while (tokens.at(-1)!.kind !== 'end');
  return tokens;
}
