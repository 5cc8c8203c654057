import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { printPrefix } from 'sluice-gateway/net/prefix.js';
import t, { type Test } from 'tap';
import { emptyInventory, OPTIONAL_PARTS } from '../inventory.js';
import { loadPolicy } from '../sources/load.js';
import { resolveWanted } from '../wanted.js';
import { ago, eni, fn, NOW, one, S1, scope } from './zoo-fixture.js';

const AGE = 4_000;
const OPTIONS = { now: NOW, eniMaxAgeSeconds: 900 };

/** AWS has not answered for longer than interface addresses count. */
const silent = {
  ...emptyInventory(),
  scopes: [scope(one, { learntAt: Object.fromEntries(OPTIONAL_PARTS.map((part) => [part, ago(AGE)])) })],
  functions: [fn('a', ['s1'])],
  subnets: [S1],
  interfaces: [eni('eni-1', 's1', '10.0.1.5', { seenAt: ago(AGE) })],
};

const serverless = (name: string) =>
  `{ name: ${name}, resolve: eni, selector: { any: [ { all: { type: serverless, name: a } } ] } }`;
const rule = (name: string, priority: number, action: string, sides: string, rest = '') =>
  `{ name: ${name}, priority: ${priority}, action: ${action}, ${sides}, protocol: ANY${rest} }`;
const from = (group: string) => `src: [${group}], dst: [Anywhere]`;

/** The addresses of each group in the snapshot, what is told, or why it is refused. */
function wanted(
  t: Test,
  groups: readonly string[],
  rules: readonly string[],
  inventory = silent,
  sourceInForce?: string,
) {
  const path = join(t.testdir(), 'policy.yaml');
  const items = (list: readonly string[]) => list.map((item) => `  - ${item}\n`).join('');
  writeFileSync(path, `version: sluice.policy/1\nsmartGroups:\n${items(groups)}policies:\n${items(rules)}`);
  try {
    const { content, warnings } = resolveWanted(loadPolicy(path), inventory, { ...OPTIONS, sourceInForce });
    const groups = content.groups.slice(2);
    const hold = groups.map(({ name, prefixes }) => [name, prefixes.map(printPrefix).join()]);
    const expire = groups.flatMap(({ name, expires }) =>
      expires === undefined
        ? []
        : [[name, `${expires.at.toISOString()} ${expires.prefixes.map(printPrefix)}`]],
    );
    return {
      source: content.source,
      ...{ hold: Object.fromEntries(hold), expire: Object.fromEntries(expire) },
      warnings: warnings.join('\n'),
    };
  } catch (error) {
    return { refused: (error as Error).message, expire: undefined, source: undefined };
  }
}

t.test('what is gone from AWS is refused in new policy, and told of what was in force', async (t) => {
  const groups = [
    `{ name: one, selector: { any: [ { all: { type: subnet, id: ${S1.id} } }, { all: { cidr: 10.9.0.0/16 } } ] } }`,
  ];
  const rules = [rule('p', 1, 'PERMIT', from('one'))];
  const { source } = wanted(t, groups, rules);
  const without = { ...silent, functions: [], interfaces: [], subnets: [] };
  const gone = `policy.yaml:3:44: unknown subnet "${S1.id}": AWS knows none of this id here`;
  t.match(wanted(t, groups, rules, without).refused, gone);
  const told = wanted(t, groups, rules, without, source);
  t.match(told, { hold: { one: '10.9.0.0/16' }, warnings: gone });
});

t.test('while AWS is silent old interface addresses are denied on, and permitted no more', async (t) => {
  const rules = [rule('d', 1, 'DENY', from('bad')), rule('p', 2, 'PERMIT', from('good'))];
  t.match(wanted(t, [serverless('bad'), serverless('good')], rules), {
    hold: { bad: '10.0.1.5/32', good: '' },
    warnings:
      'group "bad": function "a" keeps its addresses, since rules deny by them: network interfaces were last',
  });
});

t.test('what AWS shows no more leaves every group', async (t) => {
  const inventory = { ...silent, scopes: [scope(one)] };
  const rules = [rule('d', 1, 'REJECT', from('bad'))];
  t.match(wanted(t, [serverless('bad')], rules, inventory), {
    hold: { bad: '' },
    warnings: /no network interface that AWS showed lately/,
  });
});

t.test('one group can not be both: the policy is refused', async (t) => {
  const deny = rule('d', 1, 'DENY', from('bad'));
  const refused =
    /rule "d" is a DENY on group "bad", whose members are not all known: network interfaces were last/;
  const without = '{ name: good, selector: { any: [ { all: { cidr: 10.0.0.0/8, not: { group: bad } } } ] } }';
  const cases: readonly (readonly [string, readonly string[], readonly string[]])[] = [
    ['a rule permits by it', [], [rule('p', 2, 'PERMIT', 'src: [Anywhere], dst: [bad]')]],
    ['another group is made of it', ['{ name: good, selector: { any: [ { all: { group: bad } } ] } }'], []],
    ['another group is made without it', [without], []],
  ];
  for (const [what, groups, rules] of cases)
    t.match(wanted(t, [serverless('bad'), ...groups], [deny, ...rules]), { refused }, what);
  const off = rule('p', 2, 'PERMIT', from('bad'), ', enforcement: MONITOR');
  t.match(
    wanted(t, [serverless('bad')], [deny, off]),
    { hold: { bad: '10.0.1.5/32' } },
    'a monitor permits nothing',
  );
});

t.test(
  'what rules permit by an interface ends by itself where nothing new is learnt; what they deny does not',
  async (t) => {
    const inventory = {
      ...silent,
      scopes: [scope(one)],
      interfaces: [
        eni('eni-1', 's1', '10.0.1.5', { seenAt: ago(300) }),
        eni('eni-2', 's1', '10.0.1.6', { seenAt: ago(60) }),
      ],
    };
    const outer =
      '{ name: outer, selector: { any: [ { all: { group: inner } }, { all: { cidr: 10.0.1.5/32 } }, { all: { cidr: 192.0.2.0/24 } } ] } }';
    const groups = [serverless('bad'), serverless('both'), serverless('inner'), outer];
    const rules = [
      rule('d', 1, 'REJECT', from('bad')),
      rule('e', 2, 'DENY', 'src: [Anywhere], dst: [both]'),
      rule('p', 3, 'PERMIT', from('both')),
      rule('q', 4, 'PERMIT', from('outer')),
      rule('m', 5, 'DENY', from('outer'), ', enforcement: MONITOR'),
    ];
    t.strictSame(wanted(t, groups, rules, inventory).expire, {
      inner: `${ago(300 - 900)} `,
      outer: `${ago(300 - 900)} 10.0.1.5/32,192.0.2.0/24`,
    });
  },
);
