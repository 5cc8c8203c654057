import { JsonCodec2, XmlShapeSerializer } from '@aws-sdk/core/protocols';
import { NormalizedSchema } from '@smithy/core/schema';
import type { StaticStructureSchema } from '@smithy/types';
import { invalid, type ServiceError } from './errors.js';

/** An operation as the SDK exports it: [9, namespace, name, traits, input, output]. */
export type OperationSchema = readonly [9, string, string, unknown, unknown, unknown];

type SchemaRef = Parameters<typeof NormalizedSchema.of>[0];
export type Input = Readonly<Record<string, unknown>>;

/** How a service that speaks XML wraps its answers: EC2 as it is, others as a result beside the request's id. */
export interface XmlStyle {
  readonly version: string;
  readonly namespace: string;
  readonly wrapped?: boolean;
}

const inputOf = (operation: OperationSchema) => NormalizedSchema.of(operation[4] as SchemaRef);
const outputOf = (operation: OperationSchema) => NormalizedSchema.of(operation[5] as SchemaRef);

/** Required members come first in a structure; their count is its seventh element. */
function requiredOf(schema: NormalizedSchema): readonly string[] {
  const [, , , , names, , count = 0] = schema.getSchema() as StaticStructureSchema;
  return names.slice(0, count);
}

function scalar(schema: NormalizedSchema, text: string, name: string): unknown {
  if (schema.isStringSchema()) return text;
  if (schema.isBooleanSchema() && /^(true|false)$/i.test(text)) return text.toLowerCase() === 'true';
  if (schema.isNumericSchema() && /^-?[0-9]+$/.test(text)) return Number(text);
  throw invalid('InvalidParameterValue', `Invalid value '${text}' for ${name}`);
}

/** The name of a member in an ec2Query request: `ec2QueryName`, or `xmlName` or its own name, capitalised. */
function queryName(name: string, schema: NormalizedSchema): string {
  const { ec2QueryName, xmlName = name } = schema.getMergedTraits();
  return typeof ec2QueryName === 'string' ? ec2QueryName : xmlName[0]!.toUpperCase() + xmlName.slice(1);
}

/** `Filter.1.Value.2=x` as a tree; the path to here goes into errors. */
interface Node {
  readonly path: string;
  value?: string;
  readonly children: Map<string, Node>;
}

function treeOf(parameters: Iterable<readonly [string, string]>): Node {
  const root: Node = { path: '', children: new Map() };
  for (const [key, value] of parameters) {
    let node = root;
    for (const part of key.split('.')) {
      const path = node.path === '' ? part : `${node.path}.${part}`;
      const child: Node = node.children.get(part) ?? { path, children: new Map() };
      node.children.set(part, child);
      node = child;
    }
    node.value = value;
  }
  return root;
}

function readNode(schema: NormalizedSchema, node: Node): unknown {
  if (schema.isStructSchema()) return readStruct(schema, node);
  if (schema.isListSchema()) {
    const entries = [...node.children].sort(([a], [b]) => Number(a) - Number(b));
    for (const [index, child] of entries) {
      if (!/^[1-9][0-9]*$/.test(index)) throw unknownParameter(child.path);
    }
    return entries.map(([, child]) => readNode(schema.getValueSchema(), child));
  }
  const [below] = node.children.values();
  if (below !== undefined || node.value === undefined) throw unknownParameter(below?.path ?? node.path);
  return scalar(schema, node.value, node.path);
}

function readStruct(schema: NormalizedSchema, node: Node): Input {
  const members = new Map(
    [...schema.structIterator()].map(
      ([name, member]) => [queryName(name, member), { name, member }] as const,
    ),
  );
  const input: Record<string, unknown> = {};
  for (const [key, child] of node.children) {
    const known = members.get(key);
    if (known === undefined) throw unknownParameter(child.path);
    input[known.name] = readNode(known.member, child);
  }
  for (const name of requiredOf(schema)) {
    if (input[name] !== undefined) continue;
    const path = [node.path, queryName(name, schema.getMemberSchema(name))]
      .filter((part) => part !== '')
      .join('.');
    throw invalid('MissingParameter', `The request must contain the parameter ${path}`);
  }
  return input;
}

function unknownParameter(path: string): ServiceError {
  return invalid('UnknownParameter', `The parameter ${path} is not recognized`);
}

/** Reads the parameters of an ec2Query request (without Action and Version); throws a ServiceError. */
export function decodeQuery(
  operation: OperationSchema,
  parameters: Iterable<readonly [string, string]>,
): Input {
  return readStruct(inputOf(operation), treeOf(parameters));
}

/** Method, path template and status of a restJson operation. */
export function httpOf(operation: OperationSchema): readonly [method: string, path: string, status: number] {
  return (operation[3] as { http: [string, string, number] }).http;
}

/**
 * Reads path labels and query of a restJson request. Returns undefined when the path is another operation's;
 * throws a ServiceError for a query that the schema does not know: stricter than AWS, which ignores it.
 */
export function decodeRest(operation: OperationSchema, url: URL): Input | undefined {
  const labels: string[] = [];
  const template = httpOf(operation)[1].replace(/\{(\w+)\}/g, (_, label: string) => {
    labels.push(label);
    return '([^/]+)';
  });
  const match = new RegExp(`^${template}/?$`).exec(url.pathname);
  if (match === null) return undefined;
  const input: Record<string, unknown> = {};
  for (const [index, label] of labels.entries()) input[label] = decodeURIComponent(match[index + 1]!);
  const members = new Map(
    [...inputOf(operation).structIterator()].map(([name, member]) => {
      return [member.getMergedTraits().httpQuery, { name, member }] as const;
    }),
  );
  for (const [key, value] of url.searchParams) {
    const known = members.get(key);
    if (known === undefined) throw invalid('ValidationException', `Unknown query parameter '${key}'`);
    try {
      input[known.name] = scalar(known.member, value, key);
    } catch (error) {
      throw invalid('ValidationException', (error as ServiceError).message);
    }
  }
  return input;
}

/** The body of an answer in XML: the schema's, with the root and the request id that its service gives it. */
export function encodeXml(
  operation: OperationSchema,
  output: object,
  requestId: string,
  { namespace, wrapped = false }: XmlStyle,
): string {
  const serializer = new XmlShapeSerializer({
    xmlNamespace: namespace,
    serviceNamespace: operation[1],
    timestampFormat: { useTrait: true, default: 5 },
  });
  serializer.write(outputOf(operation), checkedMembers(outputOf(operation), output));
  const body = String(serializer.flush())
    .replace(/^<[^>]*>/, '')
    .replace(/<[^<]*>$/, '');
  const name = operation[2];
  const inner = wrapped
    ? `<${name}Result>${body}</${name}Result><ResponseMetadata><RequestId>${requestId}</RequestId></ResponseMetadata>`
    : `<requestId>${requestId}</requestId>${body}`;
  return `<?xml version="1.0" encoding="UTF-8"?>\n<${name}Response xmlns="${namespace}">${inner}</${name}Response>`;
}

/** Reads the body of a JSON request; throws a ServiceError for members that the schema does not have, or misses. */
export function decodeJson(operation: OperationSchema, body: string): Input {
  const input = JSON.parse(body) as Input;
  const schema = inputOf(operation);
  try {
    checkedMembers(schema, input);
  } catch (error) {
    throw invalid('SerializationException', (error as Error).message);
  }
  for (const name of requiredOf(schema)) {
    if (input[name] === undefined)
      throw invalid('MissingParameter', `The request must contain the parameter ${name}`);
  }
  return input;
}

/** The body of an answer in JSON. */
export function encodeJson(operation: OperationSchema, output: object): string | Uint8Array {
  const serializer = new JsonCodec2({
    timestampFormat: { useTrait: true, default: 7 },
    jsonName: true,
  }).createSerializer();
  serializer.write(outputOf(operation), checkedMembers(outputOf(operation), output));
  return serializer.flush();
}

/**
 * The serializers pass over what they do not know: a slip of this endpoint would be an answer without the
 * field.
 */
function checkedMembers<T>(schema: NormalizedSchema, value: T): T {
  if (schema.isStructSchema()) {
    const members = new Map(schema.structIterator());
    for (const [name, member] of Object.entries(value as object)) {
      const known = members.get(name);
      if (known === undefined) throw new TypeError(`Cannot exchange ${schema.getName()}: it has no ${name}`);
      checkedMembers(known, member);
    }
  } else if (schema.isListSchema()) {
    for (const item of value as Iterable<unknown>) checkedMembers(schema.getValueSchema(), item);
  }
  return value;
}
