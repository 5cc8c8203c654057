import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { configSchema } from 'sluice-gateway/config/config.js';
import t from 'tap';
import { z } from 'zod';

/** configuration.md names every key, with the default and the limits that the code has. */
interface Node {
  readonly properties?: Readonly<Record<string, Node>>;
  readonly additionalProperties?: Node | false;
  readonly items?: Node;
  readonly oneOf?: readonly Node[];
  readonly const?: string;
  readonly required?: readonly string[];
  readonly default?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
}

interface Key {
  readonly key: string;
  readonly fallback: string;
  readonly range: string;
  /** Of which type of sink it is; undefined outside of sinks. */
  readonly sink: string | undefined;
}

const hasKeys = (node: Node | false | undefined): node is Node =>
  node !== undefined && node !== false && (node.properties !== undefined || node.oneOf !== undefined);

function* keysOf(
  node: Node,
  path: string,
  inherited: unknown,
  isRequired: boolean,
  sink?: string,
): Generator<Key> {
  const fallback = node.default ?? inherited;
  if (node.oneOf !== undefined) {
    for (const one of node.oneOf) yield* keysOf(one, path, undefined, false, one.properties!.type!.const);
  } else if (node.properties !== undefined) {
    for (const [name, child] of Object.entries(node.properties)) {
      const inner = (fallback as Record<string, unknown> | undefined)?.[name];
      yield* keysOf(
        child,
        path === '' ? name : `${path}.${name}`,
        inner,
        node.required?.includes(name) === true,
        sink,
      );
    }
  } else if (hasKeys(node.items)) yield* keysOf(node.items, `${path}[]`, undefined, false, sink);
  else if (hasKeys(node.additionalProperties || undefined))
    yield* keysOf(node.additionalProperties as Node, `${path}.NAME`, undefined, false, sink);
  else {
    const text = typeof fallback === 'string' ? fallback : JSON.stringify(fallback);
    const given = text === undefined || text === '' ? '' : `\`${text}\``;
    const range = node.maximum === undefined ? '' : `${node.minimum} to ${node.maximum}`;
    yield { key: path, fallback: given || (isRequired ? 'required' : ''), range, sink };
  }
}

const schema = z.toJSONSchema(configSchema, { io: 'input' }) as Node;
const keys = [...keysOf(schema, '', undefined, true)];
const types = [...new Set(keys.flatMap(({ sink }) => sink ?? []))];

/** A line of the table as far as the code says it. */
function lineOf({ key, fallback, range, sink }: Key): string {
  if (sink === undefined) return `| \`${key}\` | ${fallback} | ${range} |`;
  const alike = keys.filter((other) => other.key === key).map((other) => other.sink!);
  const of = alike.length === types.length ? 'all' : alike.join(', ');
  return `| \`${key.replace('flows.sinks[].', '')}\` | ${of} | ${fallback} | ${range} |`;
}

t.test('every key is in the document, with its default and its limits, and nothing else is', async (t) => {
  const file = fileURLToPath(new URL('../../../deploy/docs/configuration.md', import.meta.url));
  const rows = readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.replace(/[^|]*\|$/, '').trimEnd());
  t.same(rows.toSorted(), [...new Set(keys.map(lineOf))].toSorted());
});
