import t from 'tap';
import { policyInForce } from './in-force.js';
import type { PolicyRule } from './model.js';
import { LISTS_A_MAP_MAX, ListBook } from './rule-content.js';

t.test('lists that need equal maps share them, up to so many', (t) => {
  const rules = Array.from(
    { length: 3 * LISTS_A_MAP_MAX },
    (_, index): PolicyRule => ({
      name: `rule ${index}`,
      priority: index,
      ...{
        action: 'PERMIT',
        src: ['a'],
        dst: ['b'],
        protocol: 'TCP',
        logging: false,
        enforcement: 'ENFORCE',
      },
      portRanges: [{ lo: 1 + index, hi: 1 + index }],
    }),
  );
  const policy = policyInForce({ rules, defaultAction: { action: 'DENY', logging: false } }, new Date(0));
  const book = new ListBook('');
  const users = new Map<string, number>();
  for (const rule of policy.rules) {
    const { chains, maps } = book.contentOf(rule.rule.name, [rule], policy);
    const referred = chains
      .flatMap(({ rules }) => rules.flat())
      .filter((one) => one.kind === 'setMarkFromMap');
    t.strictSame(
      referred.map(({ map }) => map),
      maps.map(({ name }) => name),
    );
    for (const { name } of maps) users.set(name, (users.get(name) ?? 0) + 1);
  }
  t.ok(users.size > 1 && users.size < 6, `${users.size} maps`);
  t.ok([...users.values()].every((count) => count <= LISTS_A_MAP_MAX));
  t.end();
});
