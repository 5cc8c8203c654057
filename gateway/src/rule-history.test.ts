import t from 'tap';
import { inForce, rule } from './policy/fixture.js';
import { GENERATIONS_REMEMBERED_MAX, RuleHistory } from './rule-history.js';

const policy = (name: string) => inForce(rule(`${name} 1`, 'a', 'b'), rule(`${name} 2`, 'a', 'b'));

t.test('a mark means a rule of its generation', (t) => {
  const history = new RuleHistory();
  history.remember(7, policy('seven'));
  history.remember(8, policy('eight'));
  const nameOf = (generation: number, rule: number) => history.ruleOf({ generation, rule })?.name;
  t.equal(nameOf(7, 1), 'seven 1');
  t.equal(nameOf(8, 2), 'eight 2');
  t.equal(nameOf(8, 0), 'default');
  t.equal(nameOf(8, 3), undefined, 'no such rule');
  t.equal(nameOf(9, 0), undefined, 'no such generation');
  history.remember(7, policy('again'));
  t.equal(nameOf(7, 1), 'again 1');
  t.end();
});

t.test('the newest generations are remembered', (t) => {
  const history = new RuleHistory();
  const knows = (generation: number) => history.ruleOf({ generation, rule: 0 }) !== undefined;
  for (let generation = 1; generation <= GENERATIONS_REMEMBERED_MAX; generation++) {
    history.remember(generation, policy(''));
  }
  history.remember(1, policy(''));
  t.ok(knows(2));
  history.remember(GENERATIONS_REMEMBERED_MAX + 1, policy(''));
  t.notOk(knows(2), 'the oldest goes');
  t.ok(knows(1), 'one that came again is not the oldest');
  history.remember(GENERATIONS_REMEMBERED_MAX + 2, policy(''));
  t.notOk(knows(3));
  t.ok(knows(4) && knows(GENERATIONS_REMEMBERED_MAX + 2));
  t.end();
});
