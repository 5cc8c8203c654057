import { readdirSync, readFileSync } from 'node:fs';
import { parse } from '@cdktn/hcl2json';
import t from 'tap';
import { type Body, type Expression, parseHcl } from './hcl-parse.js';
import { SourceText } from './text.js';

/* Held against hcl2json, which is HashiCorp's own parser compiled to WebAssembly. */

const fixtures = new URL('../../../test/fixtures/policy/', import.meta.url);

type Json = string | number | boolean | null | Json[] | { [key: string]: Json };

/** What hcl2json prints for a template: source text, escapes of `${` left in place. */
function judged(expression: Expression): Json {
  switch (expression.kind) {
    case 'literal': {
      const { value } = expression;
      return typeof value === 'string' ? value.replace(/([$%])(?=\{)/g, '$1$1') : value;
    }
    case 'list':
      return expression.items.map(judged);
    case 'object':
      return Object.fromEntries(expression.members.map(({ key, value }) => [key, judged(value)]));
    case 'reference':
      return `\${${expression.path.join('.')}}`;
    case 'unsupported': {
      const { text } = expression;
      return text.startsWith('"') ? text.slice(1, -1) : `\${${text}}`;
    }
  }
}

function judgedBody({ attributes, blocks }: Body): { [key: string]: Json } {
  const result: { [key: string]: Json } = {};
  for (const { key, value } of attributes) result[key] = judged(value);
  for (const { type, labels, body } of blocks) {
    let place = result;
    const path = [type, ...labels];
    const last = path.pop()!;
    for (const step of path) {
      place[step] ??= {};
      place = place[step] as { [key: string]: Json };
    }
    place[last] ??= [];
    (place[last] as Json[]).push(judgedBody(body));
  }
  return result;
}

t.test('reads what the official parser reads', async (t) => {
  for (const folder of ['hcl/', 'terraform/', 'corpus/']) {
    for (const name of readdirSync(new URL(folder, fixtures))) {
      const text = readFileSync(new URL(folder + name, fixtures), 'utf8');
      const ours = judgedBody(parseHcl(new SourceText(name, text)));
      t.same(ours, await parse(name, text), name);
    }
  }
});

function messageOf(text: string): string {
  try {
    parseHcl(new SourceText('x.tf', text));
  } catch (error) {
    return (error as Error).message;
  }
  return 'accepted';
}

t.test('refuses what the official parser refuses, and says where', async (t) => {
  const cases: readonly (readonly [string, string])[] = [
    ['a {\n', 'x.tf:1:3: Terraform syntax: this block is never closed'],
    ['a = \n', 'x.tf:1:5: Terraform syntax: expected a value'],
    ['x "l\n"{}', 'x.tf:1:3: Terraform syntax: this string is not closed on its line'],

    ['a = "\\q"\n', 'x.tf:1:6: Terraform syntax: "\\\\q" is no escape sequence'],
    ['a = "x${\n', 'x.tf:1:7: Terraform syntax: "${" is never closed'],
    ['-a = 1\n', 'x.tf:1:1: Terraform syntax: expected an argument or a block'],
    ['a=1;b=2', 'x.tf:1:4: Terraform syntax: unexpected character ";"'],
    ['a\n', 'x.tf:1:2: Terraform syntax: expected "=" or "{" after "a"'],
    ['a "b" = 2\n', 'x.tf:1:7: Terraform syntax: expected "=" or "{" after "a"'],
    ['a = [1, 2\n', 'x.tf:1:5: Terraform syntax: this bracket is never closed'],
    ['a = f(1]\n', 'x.tf:1:8: Terraform syntax: "]" closes nothing here'],
    ['a = <<EOT\nx\n', 'x.tf:1:5: Terraform syntax: heredoc "EOT" is never closed'],
    ['a = 1\n}\n', 'x.tf:2:1: Terraform syntax: expected an argument or a block'],
    ['a = ]\n', 'x.tf:1:5: Terraform syntax: expected a value'],
  ];
  for (const [text, message] of cases) {
    await t.rejects(parse('x.tf', text), `the judge refuses ${JSON.stringify(text)}`);

    t.equal(messageOf(text), message);
  }
  const deep = `a = ${'['.repeat(10_000)}${']'.repeat(10_000)}\n`;
  t.equal(messageOf(deep), 'x.tf:1:70: Terraform syntax: values are nested deeper than the limit of 64');
});
