import { type Prefix, printPrefix } from 'sluice-gateway/net/prefix.js';
import type { PolicyRule } from 'sluice-gateway/policy/model.js';
import { stringify } from 'yaml';
import { systemReferences } from './controller.js';
import { quote } from './diagnostics.js';
import { type GroupInput, POLICY_VERSION } from './schema.js';

export const POLICY_FORMATS = ['yaml', 'terraform'] as const;
export type PolicyFormat = (typeof POLICY_FORMATS)[number];

/** A policy to be written: groups as they were read, groups of prefixes, and rules that name them. */
export interface PolicyText {
  /** Lines of comment above it. */
  readonly comment: readonly string[];
  readonly written: readonly GroupInput[];
  readonly groups: readonly { readonly name: string; readonly prefixes: readonly Prefix[] }[];
  readonly rules: readonly PolicyRule[];
}

type Condition = Readonly<Record<string, unknown>>;
function ruleOf({ portRanges, ...rule }: PolicyRule) {
  const ranges = portRanges.map(({ lo, hi }) => (lo === hi ? { lo } : { lo, hi }));
  return ranges.length === 0 ? rule : { ...rule, portRanges: ranges };
}

function printYaml(groups: readonly GroupInput[], rules: readonly PolicyRule[]): string {
  return stringify({ version: POLICY_VERSION, smartGroups: groups, policies: rules.map(ruleOf) });
}

/** A string of HCL: `${` and `%{` would begin a template. */
const hcl = (text: string) => JSON.stringify(text).replaceAll('${', '$${').replaceAll('%{', '%%{');

const TERRAFORM_KEY: Readonly<Record<string, string>> = {
  ...{ type: 'type', name: 'name', region: 'region', cidr: 'cidr', vpcId: 'vpcId' },
  ...{ accountId: 'account_id', id: 'res_id' },
};

const noTerraform = (group: string, key: string) =>
  new Error(`Cannot write group ${quote(group)} as Terraform: it has no ${quote(key)}, use YAML`);

function conditionLines(group: string, all: Condition): string[] {
  return Object.entries(all).flatMap(([key, value]) => {
    if (value === undefined) return [];
    if (key === 'tags') {
      const tags = Object.entries(value as Record<string, string>);
      return ['tags = {', ...tags.map(([tag, text]) => `  ${hcl(tag)} = ${hcl(text)}`), '}'];
    }
    const name = TERRAFORM_KEY[key];
    if (name !== undefined && typeof value === 'string') return [`${name} = ${hcl(value)}`];
    throw noTerraform(group, key);
  });
}

const indented = (lines: readonly string[]) => lines.map((line) => `  ${line}`);
const block = (head: string, lines: readonly string[]) => [`${head} {`, ...indented(lines), '}'];

/** Labels of resources: names that Terraform takes, each once. */
function labelsOf(names: readonly string[]): ReadonlyMap<string, string> {
  const labels = new Map<string, string>();
  const taken = new Set<string>();
  for (const name of names) {
    const base = name.replaceAll(/[^A-Za-z0-9_-]/g, '_').replace(/^(?![A-Za-z_])/, '_');
    let label = base;
    for (let number = 2; taken.has(label); number++) label = `${base}_${number}`;
    taken.add(label);
    labels.set(name, label);
  }
  return labels;
}

/** The system groups by the UUIDs that every Controller gives them. */
const SYSTEM_UUIDS = new Map(
  systemReferences({ file: '', line: 1, column: 1 }).map(({ name, target }) => [name, target]),
);

function printTerraform(groups: readonly GroupInput[], rules: readonly PolicyRule[]): string {
  const labels = labelsOf(groups.map(({ name }) => name));
  const reference = (name: string) => {
    const label = labels.get(name);
    return label === undefined ? hcl(SYSTEM_UUIDS.get(name) ?? name) : `aviatrix_smart_group.${label}.uuid`;
  };
  const list = (names: readonly string[]) => `[${names.map(reference).join(', ')}]`;
  const resources = groups.map(({ name, selector, resolve = 'subnets' }) => {
    if (resolve !== 'subnets') throw noTerraform(name, 'resolve');
    const expressions = selector.any.flatMap(({ all }) =>
      block('match_expressions', conditionLines(name, all as Condition)),
    );
    const body = [`name = ${hcl(name)}`, ...block('selector', expressions)];
    return block(`resource "aviatrix_smart_group" ${hcl(labels.get(name)!)}`, body);
  });
  const policies = rules.flatMap(({ name, priority, action, protocol, src, dst, portRanges, logging }) =>
    block('policies', [
      ...[`name = ${hcl(name)}`, `action = ${hcl(action)}`, `priority = ${priority}`],
      ...[`protocol = ${hcl(protocol)}`, `logging = ${logging}`],
      ...[`src_smart_groups = ${list(src)}`, `dst_smart_groups = ${list(dst)}`],
      ...portRanges.flatMap(({ lo, hi }) =>
        block('port_ranges', lo === hi ? [`lo = ${lo}`] : [`lo = ${lo}`, `hi = ${hi}`]),
      ),
    ]),
  );
  const head = 'resource "aviatrix_distributed_firewalling_policy_list" "learnt"';
  return `${[...resources, block(head, policies)].map((lines) => lines.join('\n')).join('\n\n')}\n`;
}

const PRINT: Readonly<
  Record<PolicyFormat, (groups: readonly GroupInput[], rules: readonly PolicyRule[]) => string>
> = { yaml: printYaml, terraform: printTerraform };

/** Writes a policy that our own reader reads back as it is. Throws for a group that the format can't express. */
export function printPolicy({ comment, written, groups, rules }: PolicyText, format: PolicyFormat): string {
  const defined = [
    ...written,
    ...groups.map(({ name, prefixes }) => ({
      name,
      selector: { any: prefixes.map((prefix) => ({ all: { cidr: printPrefix(prefix) } })) },
    })),
  ];
  return `${comment.map((line) => `# ${line}\n`).join('')}${PRINT[format](defined, rules)}`;
}
