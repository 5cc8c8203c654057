import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { policyBodySchema } from 'sluice-gateway/snapshot/format.js';
import t from 'tap';
import { printDiagnostic } from './diagnostics.js';
import { loadPolicy } from './load.js';
import { policyJsonSchema } from './schema.js';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const fixtures = join(root, 'test/fixtures/policy/');

function messageOf(path: string): string {
  try {
    loadPolicy(path);
  } catch (error) {
    return (error as Error).message;
  }
  return 'accepted';
}

const relative = (text: string, folder: string) => text.replaceAll(join(folder, '/'), '');

t.test('every bad input is refused with file, line, column and what was expected', async (t) => {
  const folder = join(fixtures, 'bad');
  const inputs = readdirSync(folder).filter((name) => !name.endsWith('.expected'));
  t.ok(inputs.length >= 50, 'the corpus is there');
  for (const name of inputs) {
    const expected = readFileSync(join(folder, `${name}.expected`), 'utf8').trimEnd();
    t.equal(relative(messageOf(join(folder, name)), folder), expected, name);
  }
});

t.test('YAML, Terraform, its state and the Controller say the same policy', async (t) => {
  const [own, terraform, controller, show] = ['own', 'terraform', 'controller', 'show'].map((name) =>
    loadPolicy(join(fixtures, name)),
  );
  t.same(terraform!.policy, own!.policy);
  t.same(show!.policy, own!.policy);
  t.same(show!.warnings, []);
  t.same(controller!.policy, own!.policy);
  const bare = (loaded: typeof own) =>
    loaded!.groups.map(({ name, expressions }) => ({
      name,
      expressions: expressions.map(({ at: _, ...expression }) => expression),
    }));
  t.same(bare(terraform), bare(own));
  t.same(bare(controller), bare(own));
  t.same(bare(show), bare(own));
  t.same(
    own!.policy.rules.map(({ name }) => name),
    ['gatus-to-payments', 'watch-internet'],
    'in order of priority',
  );
  t.doesNotThrow(() => policyBodySchema.parse(own!.policy), 'the gateway takes it');
  t.same(
    terraform!.warnings.map((warning) => relative(printDiagnostic(warning), fixtures)),
    [
      'terraform/main.tf:2:1: terraform is skipped: it is no part of policy',
      'terraform/main.tf:12:1: provider "aviatrix" is skipped: it is no part of policy',
      'terraform/main.tf:71:1: output "serverless_uuid" is skipped: it is no part of policy',
    ],
  );
});

t.test('files that hold the same give what was read before', async (t) => {
  const rules = (action: string) =>
    `version: sluice.policy/1\npolicies: [ { name: own, priority: 7, action: ${action}, src: [a], dst: [a], protocol: ANY } ]\n`;
  const folder = t.testdir({
    'a.yaml':
      'version: sluice.policy/1\nsmartGroups: [ { name: a, selector: { any: [ { all: { cidr: 10.0.0.0/8 } } ] } } ]\n',
    'b.yaml': rules('PERMIT'),
  });
  const before = loadPolicy(folder);
  t.equal(loadPolicy(folder, before), before);
  writeFileSync(join(folder, 'b.yaml'), rules('DENY  '));
  const after = loadPolicy(folder, before);
  t.equal(after.policy.rules[0]!.action, 'DENY', 'a file of the same length');
  writeFileSync(join(folder, 'b.yaml'), 'policies: {');
  t.throws(() => loadPolicy(folder, after), /b\.yaml/);
  writeFileSync(join(folder, 'b.yaml'), rules('DENY  '));
  t.equal(loadPolicy(folder, after), after);
});

t.test('a rule that is watched does so where its enforcement is empty', async (t) => {
  const any = '["def000ad-0000-0000-0000-000000000000"]';
  const folder = t.testdir({
    'rules.tf': `resource "aviatrix_distributed_firewalling_policy_list" "l" {
  policies {
    name             = "r"
    action           = "PERMIT"
    priority         = 1
    protocol         = "ANY"
    watch            = true
    enforcement      = ""
    src_smart_groups = ${any}
    dst_smart_groups = ${any}
  }
}
`,
  });
  t.equal(loadPolicy(folder).policy.rules[0]!.enforcement, 'MONITOR');
});

t.test('a plan that does not know a condition is refused, whatever the condition is called', async (t) => {
  const unknown = { id: true, uuid: true, selector: [{ match_expressions: [{ tags: { id: true } }] }] };
  const [mode, type, address] = ['managed', 'aviatrix_smart_group', 'aviatrix_smart_group.g'];
  const plan = {
    format_version: '1.2',
    planned_values: {
      root_module: {
        resources: [
          {
            ...{ mode, type, address, name: 'g' },
            values: { name: 'g', selector: [{ match_expressions: [{ type: 'vm', tags: { team: 'pay' } }] }] },
          },
        ],
      },
    },
    resource_changes: [{ mode, type, address, change: { after_unknown: unknown } }],
  };
  const folder = t.testdir({ 'plan.json': JSON.stringify(plan) });
  t.match(messageOf(folder), /: "id" is not known before the plan is applied/);
  t.notMatch(messageOf(folder), /uuid/);
});

t.test('rulesets are tried in the order of their attachment points', async (t) => {
  const folder = t.testdir({
    'rulesets.tf': readFileSync(join(fixtures, 'corpus/rulesets.tf')),
    'own.yaml': `version: sluice.policy/1\npolicies: [ { name: own, priority: 7, action: DENY, src: [vms], dst: [vms], protocol: ANY } ]\n`,
  });
  const { policy, groups, warnings } = loadPolicy(folder);
  t.same(
    policy.rules.map(({ name, priority }) => [name, priority]),
    [
      ['first', 1000],
      ['second', 1010],
      ['own', 1010],
      ['late-deny', 1010],
    ],
  );
  t.same(
    warnings.map((warning) => relative(printDiagnostic(warning), folder)),
    [
      'own.yaml:2:36: the policy list comes behind rules up to priority 1010: records show its own raised to that',
      'rulesets.tf:40:24: ruleset "late" comes behind rules up to priority 1010: records show its own raised to that',
    ],
  );
  const { id, zone } = { id: 'vpc-0a1b', zone: 'us-east-1a' };
  const tags = { 'kubernetes.io/role': 'node', Team: 'a:b/c=d+e@f' };
  t.same(
    groups[0]!.expressions.map(({ at: _, ...rest }) => rest),
    [
      { type: 'vm', accountId: '111122223333', region: 'useast1', zone, tags },
      { type: 'external', query: { external: 'geo', country_iso_code: 'DE', is_in_eu: true } },
      { type: 'fqdn', fqdn: 'api.example.com' },
      { type: 'vpc', id },
    ],
  );
});

const version = 'version: sluice.policy/1\n';
const rule = (name: string, rest: string) =>
  `{ name: ${name}, action: DENY, src: [Anywhere], dst: [Anywhere], protocol: ANY, ${rest} }`;

t.test('files of a folder are one policy: names and priorities are unique over all of them', async (t) => {
  const group = (name: string) => `- { name: ${name}, selector: { any: [ { all: { cidr: 10.0.0.0/8 } } ] } }`;
  const both = `${version}smartGroups:\n  ${group('g')}\npolicies:\n  - ${rule('r', 'priority: 1')}\n`;
  const folder = t.testdir({
    'a.yaml': both,
    'b.yml': both,
    'c.json': '{"version": "sluice.policy/1", "defaultAction": {"action": "PERMIT"}}',
    'd.yaml': 'version: sluice.policy/1\ndefaultAction: { action: DENY }\n',
    'README.md': 'no policy',
  });
  t.equal(
    relative(messageOf(folder), folder),
    [
      'b.yml:3:13: group "g" is defined twice: first at a.yaml:3:13',
      'b.yml:5:13: rule "r" is defined twice: first at a.yaml:5:13',
      'b.yml:5:89: priority 1 is given twice: first at a.yaml:5:89, by rule "r"',
      'd.yaml:2:16: the default action is given twice: first at c.json:1:49',
    ].join('\n'),
  );
});

t.test('a group defined in one file is named in another, whatever their forms', async (t) => {
  const folder = t.testdir({
    'groups.json': JSON.stringify({
      app_domains: [{ uuid: 'u-1', name: 'fns', selector: { any: [{ all: { type: 'serverless' } }] } }],
    }),
    'rules.tf': `resource "aviatrix_distributed_firewalling_policy_list" "l" {
  policies {
    name             = "second"
    action           = "DENY"
    protocol         = "ANY"
    src_smart_groups = ["u-1"]
    dst_smart_groups = ["def000ad-0000-0000-0000-000000000000"]
  }
  policies {
    name             = "first in the alphabet, second in the list"
    action           = "PERMIT"
    protocol         = "ANY"
    src_smart_groups = ["u-1"]
    dst_smart_groups = ["def000ad-0000-0000-0000-000000000001"]
    watch            = false
  }
}
`,
    'zz.yaml': `${version}policies: [ ${rule('own', 'priority: 5').replace('[Anywhere]', '[fns]')} ]\n`,
  });
  const { policy, warnings, places } = loadPolicy(folder);
  t.same(
    policy.rules.map(({ name, priority, src, dst }) => [name, priority, src, dst]),
    [
      ['second', 0, ['fns'], ['Anywhere']],
      ['first in the alphabet, second in the list', 0, ['fns'], ['Public Internet']],
      ['own', 5, ['fns'], ['Anywhere']],
    ],
  );
  t.same(
    warnings.map((warning) => relative(printDiagnostic(warning), folder)),
    ['rules.tf:2:3: 2 rules have priority 0: they are tried in the order of the list'],
  );
  t.same(places.get('own'), { file: join(folder, 'zz.yaml'), line: 2, column: 13 });
});

t.test('a broken file hides no error of another, and makes none there', async (t) => {
  const folder = t.testdir({
    'a.yaml': 'version: [\n',
    'b.yaml': `${version}policies:\n  - ${rule('r', 'priority: -1').replace('[Anywhere]', '[from-a]')}\n`,
    'c.tf': 'resource "aviatrix_smart_group" {}\n',
    'latin1.json': '{}',
  });
  writeFileSync(join(folder, 'latin1.json'), Buffer.from([0x7b, 0xff, 0x7d]));
  const message = relative(messageOf(folder), folder);
  t.match(message, /^a\.yaml:2:1: YAML syntax: /);
  t.match(message, 'b.yaml:3:87: "priority" is -1: the lowest allowed is 0');
  t.match(message, 'c.tf:1:1: a resource has two labels: its type and its name');
  t.match(message, 'latin1.json:1:1: the file is not UTF-8 text');
  t.notMatch(message, 'from-a', 'a.yaml may define it');
});

t.test('defaults, and names of any characters', async (t) => {
  const name = 'a\nb\u001b[2J"=\u202e\ud83d\ude00';
  const folder = t.testdir({
    'p.json': JSON.stringify({
      version: 'sluice.policy/1',
      smartGroups: [{ name, selector: { any: [{ all: { cidr: '192.0.2.1' } }] } }],
      policies: [
        {
          name,
          priority: 3,
          action: 'REJECT',
          src: [name, name],
          dst: ['Anywhere'],
          protocol: 'UDP',
          portRanges: [{ lo: 53 }],
          expires: '2027-01-31T01:30:00+01:00',
        },
      ],
    }),
  });
  const { policy, groups, warnings } = loadPolicy(folder);
  t.same(policy, {
    rules: [
      {
        name,
        priority: 3,
        action: 'REJECT',
        src: [name],
        dst: ['Anywhere'],
        protocol: 'UDP',
        portRanges: [{ lo: 53, hi: 53 }],
        logging: false,
        enforcement: 'ENFORCE',
        expires: '2027-01-31T00:30:00.000Z',
      },
    ],
    defaultAction: { action: 'DENY', logging: false },
  });
  t.equal(groups[0]!.name, name);
  t.same(warnings, []);
  t.doesNotThrow(() => policyBodySchema.parse(policy));
});

t.test('what is no policy at all', async (t) => {
  const folder = t.testdir({ 'README.md': 'x' });
  t.equal(
    messageOf(folder),
    `${folder}:1:1: the folder holds no policy: expected .yaml, .yml, .json or .tf files`,
  );
  t.equal(
    messageOf(join(folder, 'README.md')),
    `${join(folder, 'README.md')}:1:1: not a policy file: expected .yaml, .yml, .json or .tf`,
  );
  t.match(
    messageOf(join(folder, 'none.yaml')),
    /^Cannot read policy: there is no file or folder .*none\.yaml$/,
  );
  mkdirSync(join(folder, 'nested.yaml'));
  t.match(messageOf(folder), 'the folder holds no policy', 'folders inside are not read');
  writeFileSync(join(folder, 'big.json'), ' '.repeat((8 << 20) + 1));
  t.match(messageOf(folder), 'big.json:1:1: the file holds 8388609 bytes, the limit is 8388608');
});

t.test('more groups or rules than a snapshot can hold are refused', async (t) => {
  const folder = t.testdir({
    'p.json': JSON.stringify({
      version: 'sluice.policy/1',
      smartGroups: Array.from({ length: 999 }, (_, index) => ({
        name: `g${index}`,
        selector: { any: [{ all: { cidr: '10.0.0.0/8' } }] },
      })),
    }),
  });
  t.match(messageOf(folder), 'the policy holds 999 groups, the limit is 998');
  const any = Array.from({ length: 1_001 }, (_, index) => ({ all: { fqdn: `h${index}.example.com` } }));
  writeFileSync(
    join(folder, 'p.json'),
    JSON.stringify({ version: 'sluice.policy/1', smartGroups: [{ name: 'g', selector: { any } }] }),
  );
  t.match(messageOf(folder), 'the policy holds 1001 names and feeds, the limit is 1000');
});

t.test('the published JSON Schema is what the code makes', async (t) => {
  const published = JSON.parse(readFileSync(join(root, 'deploy/policy.schema.json'), 'utf8')) as unknown;
  t.same(
    published,
    policyJsonSchema(),
    'run: node controller-client/dist/sources/print-schema.js > deploy/policy.schema.json',
  );
});
