import { quote } from './diagnostics.js';
import { DEPTH_MAX, type Entry, type Node } from './node.js';
import type { SourceText } from './text.js';

const SPACE = /[ \t\n\r]*/y;
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const WORD = /(?:true|false|null)\b/y;

class JsonReader {
  readonly #source: SourceText;
  #offset = 0;

  constructor(source: SourceText) {
    this.#source = source;
  }

  document(): Node {
    const node = this.#value(0);
    if (this.#peek() !== '') throw this.#fail('the end of the file');
    return node;
  }

  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#offset;
    const text = pattern.exec(this.#source.text)?.[0];
    if (text !== undefined) this.#offset += text.length;
    return text;
  }

  /** The next character after white space; '' at the end. */
  #peek(): string {
    this.#take(SPACE);
    return this.#source.text.charAt(this.#offset);
  }

  #fail(expected: string): Error {
    const found = this.#peek();
    const what = found === '' ? 'the file ends' : `found ${quote(found)}`;
    return this.#source.fail(this.#offset, `JSON syntax: ${what}, expected ${expected}`);
  }

  #value(depth: number): Node {
    const next = this.#peek();
    const at = this.#source.at(this.#offset);
    if (depth > DEPTH_MAX) {
      throw this.#source.fail(this.#offset, `values are nested deeper than the limit of ${DEPTH_MAX}`);
    }
    if (next === '{') return { kind: 'map', entries: this.#listed('}', () => this.#member(depth)), at };
    if (next === '[') return { kind: 'list', items: this.#listed(']', () => this.#value(depth + 1)), at };
    const scalar = this.#take(STRING) ?? this.#take(NUMBER) ?? this.#take(WORD);
    if (scalar === undefined) throw this.#fail('a value (strings stand in double quotes)');
    return { kind: 'scalar', value: JSON.parse(scalar) as string | number | boolean | null, at };
  }

  #listed<T>(close: string, read: () => T): T[] {
    const parts: T[] = [];
    this.#offset++;
    if (this.#peek() === close) {
      this.#offset++;
      return parts;
    }
    for (;;) {
      parts.push(read());
      const next = this.#peek();
      if (next !== ',' && next !== close) throw this.#fail(`"," or "${close}"`);
      this.#offset++;
      if (next === close) return parts;
    }
  }

  #member(depth: number): Entry {
    this.#peek();
    const at = this.#source.at(this.#offset);
    const key = this.#take(STRING);
    if (key === undefined) throw this.#fail('a key in double quotes');
    if (this.#peek() !== ':') throw this.#fail('":"');
    this.#offset++;
    return { key: JSON.parse(key) as string, at, value: this.#value(depth + 1) };
  }
}

/**
 * Reads RFC 8259 JSON with the position of every value and key, which JSON.parse does not give. Throws
 * PolicyError for the first thing that is not JSON.
 */
export function readJson(source: SourceText): Node {
  return new JsonReader(source).document();
}
