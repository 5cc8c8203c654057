import type { Position } from './diagnostics.js';
import { type Token, tokenize } from './hcl-tokens.js';
import { DEPTH_MAX } from './node.js';
import type { SourceText } from './text.js';

/** An expression of HCL. What needs evaluation is kept as its source text only. */
export type Expression =
  | { readonly kind: 'literal'; readonly value: string | number | boolean | null; readonly at: Position }
  | { readonly kind: 'list'; readonly items: readonly Expression[]; readonly at: Position }
  | { readonly kind: 'object'; readonly members: readonly Attribute[]; readonly at: Position }
  | { readonly kind: 'reference'; readonly path: readonly string[]; readonly at: Position }
  | { readonly kind: 'unsupported'; readonly text: string; readonly at: Position };

export interface Attribute {
  readonly key: string;
  readonly at: Position;
  readonly value: Expression;
}

export interface Block {
  readonly type: string;
  readonly labels: readonly string[];
  readonly body: Body;
  readonly at: Position;
}

export interface Body {
  readonly attributes: readonly Attribute[];
  readonly blocks: readonly Block[];
}

const PLAIN_REFERENCE =
  /^\s*[\p{ID_Start}_][\p{ID_Continue}-]*(?:\.[\p{ID_Start}_][\p{ID_Continue}-]*)+\s*$/u;
const WORDS = new Map<string, boolean | null>([
  ['true', true],
  ['false', false],
  ['null', null],
]);
const CLOSERS: Readonly<Record<string, string>> = { '{': '}', '[': ']', '(': ')' };

class Parser {
  readonly #source: SourceText;
  readonly #tokens: readonly Token[];
  #index = 0;

  constructor(source: SourceText) {
    this.#source = source;
    this.#tokens = tokenize(source);
  }

  get #token(): Token {
    return this.#tokens[this.#index]!;
  }

  #at(token: Token): Position {
    return this.#source.at(token.start);
  }

  #fail(token: Token, message: string): Error {
    return this.#source.fail(token.start, `Terraform syntax: ${message}`);
  }

  #isSymbol(text: string): boolean {
    return this.#token.kind === 'symbol' && this.#token.text === text;
  }

  #take(text: string): boolean {
    if (!this.#isSymbol(text)) return false;
    this.#index++;
    return true;
  }

  #skipNewlines(): void {
    while (this.#token.kind === 'newline') this.#index++;
  }

  /** The attributes and blocks up to the `}` that closes `opened`, or to the end of the file. */
  body(opened: Token | undefined, depth: number): Body {
    const attributes: Attribute[] = [];
    const blocks: Block[] = [];
    if (depth > DEPTH_MAX)
      throw this.#fail(this.#token, `blocks are nested deeper than the limit of ${DEPTH_MAX}`);
    for (;;) {
      this.#skipNewlines();
      const token = this.#token;
      if (opened ? this.#isSymbol('}') : token.kind === 'end') return { attributes, blocks };
      if (token.kind === 'end') throw this.#fail(opened!, 'this block is never closed');
      if (token.kind !== 'identifier') throw this.#fail(token, 'expected an argument or a block');
      this.#index++;
      if (this.#take('=')) {
        attributes.push({ key: token.text, at: this.#at(token), value: this.#expression(true, 0) });
      } else {
        blocks.push(this.#block(token.text, token, depth));
      }
      if (this.#token.kind !== 'newline' && this.#token.kind !== 'end' && !(opened && this.#isSymbol('}'))) {
        throw this.#fail(this.#token, 'expected a new line here');
      }
    }
  }

  #block(type: string, first: Token, depth: number): Block {
    const labels: string[] = [];
    while (!this.#isSymbol('{')) {
      const token = this.#token;
      const label = token.kind === 'identifier' ? token.text : plainText(token);
      if (label === undefined) throw this.#fail(token, `expected "=" or "{" after "${type}"`);
      labels.push(label);
      this.#index++;
    }
    const opened = this.#token;
    this.#index++;
    const body = this.body(opened, depth + 1);
    this.#index++;
    return { type, labels, body, at: this.#at(first) };
  }

  /** A whole expression: of the subset if it can be, else as text. A new line ends it outside of brackets. */
  #expression(newlineEnds: boolean, depth: number): Expression {
    const start = this.#index;
    const token = this.#token;
    const at = this.#at(token);
    if (
      token.kind === 'newline' ||
      token.kind === 'end' ||
      (token.kind === 'symbol' && /^[,\])}]$/.test(token.text))
    ) {
      throw this.#fail(token, 'expected a value');
    }
    if (depth > DEPTH_MAX) throw this.#fail(token, `values are nested deeper than the limit of ${DEPTH_MAX}`);
    const simple = this.#simple(at, depth);
    if (!newlineEnds) this.#skipNewlines();
    if (simple !== undefined && this.#atEnd(newlineEnds)) return simple;
    this.#index = start;
    this.#skip(newlineEnds);
    const end = this.#tokens[this.#index - 1]!.end;
    return { kind: 'unsupported', text: this.#source.text.slice(token.start, end).trimEnd(), at };
  }

  #atEnd(newlineEnds: boolean): boolean {
    const { kind } = this.#token;
    if (kind === 'end' || (newlineEnds && kind === 'newline')) return true;
    return this.#isSymbol(',') || this.#isSymbol('}') || this.#isSymbol(']') || this.#isSymbol(')');
  }

  #skip(newlineEnds: boolean): void {
    const open: Token[] = [];
    for (; open.length > 0 || !this.#atEnd(newlineEnds); this.#index++) {
      const token = this.#token;
      if (token.kind === 'end') throw this.#fail(open.at(-1)!, 'this bracket is never closed');
      if (token.kind !== 'symbol') continue;
      if (token.text in CLOSERS) open.push(token);
      else if (/^[\])}]$/.test(token.text)) {
        const opener = open.pop();
        if (opener?.kind !== 'symbol' || CLOSERS[opener.text] !== token.text) {
          throw this.#fail(token, `"${token.text}" closes nothing here`);
        }
      }
    }
  }

  #simple(at: Position, depth: number): Expression | undefined {
    const token = this.#token;
    this.#index++;
    switch (token.kind) {
      case 'number':
        return { kind: 'literal', value: Number(token.text), at };
      case 'string':
        return stringValue(token, at);
      case 'identifier':
        return this.#named(token.text, at);
      case 'symbol':
        if (token.text === '[') return this.#list(at, depth);
        if (token.text === '{') return this.#object(at, depth);
        return token.text === '-' ? this.#negative(at) : undefined;
      default:
        return undefined;
    }
  }

  #negative(at: Position): Expression | undefined {
    const token = this.#token;
    this.#index++;
    return token.kind === 'number' ? { kind: 'literal', value: -Number(token.text), at } : undefined;
  }

  #named(first: string, at: Position): Expression | undefined {
    const path = [first];
    while (this.#take('.')) {
      if (this.#token.kind !== 'identifier') return undefined;
      path.push(this.#token.text);
      this.#index++;
    }
    const word = path.length === 1 ? WORDS.get(first) : undefined;
    return word === undefined ? { kind: 'reference', path, at } : { kind: 'literal', value: word, at };
  }

  #isFor(): boolean {
    return this.#token.kind === 'identifier' && this.#token.text === 'for';
  }

  #list(at: Position, depth: number): Expression | undefined {
    const items: Expression[] = [];
    this.#skipNewlines();
    if (this.#isFor()) return undefined;
    while (!this.#take(']')) {
      items.push(this.#expression(false, depth + 1));
      this.#skipNewlines();
      if (!this.#take(',') && !this.#isSymbol(']')) return undefined;
      this.#skipNewlines();
    }
    return { kind: 'list', items, at };
  }

  #object(at: Position, depth: number): Expression | undefined {
    const members: Attribute[] = [];
    this.#skipNewlines();
    if (this.#isFor()) return undefined;
    while (!this.#take('}')) {
      const token = this.#token;
      const key = token.kind === 'identifier' ? token.text : plainText(token);
      this.#index++;
      if (key === undefined || !(this.#take('=') || this.#take(':'))) return undefined;
      members.push({ key, at: this.#at(token), value: this.#expression(true, depth + 1) });
      if (!this.#take(',') && this.#token.kind !== 'newline' && !this.#isSymbol('}')) return undefined;
      this.#skipNewlines();
    }
    return { kind: 'object', members, at };
  }
}

function plainText(token: Token): string | undefined {
  const part = token.kind === 'string' && token.parts.length === 1 ? token.parts[0] : undefined;
  return typeof part === 'string' ? part : undefined;
}

function stringValue(token: Token & { kind: 'string' }, at: Position): Expression | undefined {
  const text = plainText(token);
  if (text !== undefined) return { kind: 'literal', value: text, at };
  const [only] = token.parts;
  if (token.parts.length !== 1 || typeof only !== 'object' || !PLAIN_REFERENCE.test(only.expression)) {
    return undefined;
  }
  return { kind: 'reference', path: only.expression.trim().split('.'), at };
}

/**
 * Reads a Terraform file. Literals, lists, objects and plain references are understood; any other expression
 * is kept as text, so that it matters only where it is used. Throws PolicyError at the first syntax error.
 */
export function parseHcl(source: SourceText): Body {
  return new Parser(source).body(undefined, 0);
}
