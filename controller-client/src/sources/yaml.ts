import { isAlias, isMap, isScalar, isSeq, parseDocument } from 'yaml';
import { escapeControls, PolicyError, type Position, quote } from './diagnostics.js';
import { DEPTH_MAX, type Entry, NODES_MAX, type Node } from './node.js';
import type { SourceText } from './text.js';

interface Parsed {
  readonly range?: readonly [number, number, number] | null | undefined;
  readonly anchor?: string;
}

/**
 * Turns the library's tree into ours; aliases are followed, so nodes are counted as often as they are used.
 */
class YamlReader {
  readonly #source: SourceText;
  readonly #anchors = new Map<string, unknown>();
  #nodes = 0;
  #aliases = 0;

  constructor(source: SourceText) {
    this.#source = source;
  }

  #at(part: unknown, fallback: Position): Position {
    const range = (part as Parsed | null)?.range;
    return range ? this.#source.at(range[0]) : fallback;
  }

  #fail(at: Position, message: string): PolicyError {
    return new PolicyError([{ ...at, message }]);
  }

  #entry(part: { key: unknown; value: unknown }, parent: Position, depth: number): Entry {
    const at = this.#at(part.key, parent);
    if (!isScalar(part.key) || typeof part.key.value !== 'string') {
      throw this.#fail(at, 'a key must be a string: put it in quotes');
    }
    return { key: part.key.value, at, value: this.node(part.value, at, depth + 1) };
  }

  node(part: unknown, parent: Position, depth: number): Node {
    const at = this.#at(part, parent);
    if (++this.#nodes > NODES_MAX) {
      throw this.#fail(at, `the file holds more than ${NODES_MAX} values, aliases counted as often as used`);
    }
    if (depth > DEPTH_MAX) throw this.#fail(at, `values are nested deeper than the limit of ${DEPTH_MAX}`);
    if (part === null || part === undefined) return { kind: 'scalar', value: null, at };
    if (isAlias(part)) {
      this.#aliases++;
      const node = this.node(this.#anchors.get(part.source), at, depth + 1);
      this.#aliases--;
      return node;
    }
    const { anchor } = part as Parsed;
    if (anchor !== undefined && this.#aliases === 0) {
      // An alias inside of what is used again would mean the later one.
      if (this.#anchors.has(anchor)) throw this.#fail(at, `anchor ${quote(anchor)} is given twice`);
      this.#anchors.set(anchor, part);
    }
    if (isSeq(part))
      return { kind: 'list', items: part.items.map((item) => this.node(item, at, depth + 1)), at };
    if (isMap(part)) {
      return { kind: 'map', entries: part.items.map((item) => this.#entry(item, at, depth)), at };
    }
    const value = isScalar(part) ? part.value : undefined;
    switch (typeof value) {
      case 'string':
      case 'number':
      case 'boolean':
        return { kind: 'scalar', value, at };
      default:
        if (value === null) return { kind: 'scalar', value, at };
        throw this.#fail(
          at,
          'this kind of value is not understood: use a string, number, boolean, list or map',
        );
    }
  }
}

/**
 * Reads one YAML 1.2 document (core schema: dates are strings, `<<` is a plain key) with the position of
 * every value and key. Throws PolicyError with all syntax errors, unknown tags among them.
 */
export function readYaml(source: SourceText): Node {
  const document = parseDocument(source.text, {
    prettyErrors: false,
    schema: 'core',
    version: '1.2',
    uniqueKeys: false,
  });
  const problems = [...document.errors, ...document.warnings];
  if (problems.length > 0) {
    throw new PolicyError(
      problems.map(({ code, pos, message }) => {
        const said = code === 'MULTIPLE_DOCS' ? 'the file holds more than one document' : message;
        return { ...source.at(pos[0]), message: `YAML syntax: ${escapeControls(said)}` };
      }),
    );
  }
  return new YamlReader(source).node(document.contents, source.at(0), 0);
}
