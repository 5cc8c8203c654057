import t from 'tap';
import { matcherOf } from '../matcher/of-snapshot.js';
import { prefixes, rule } from '../policy/fixture.js';
import { snapshotWith } from '../reconcile-stand.js';
import { explainQuestion } from './explain.js';

t.test('a question that means millions of connections is answered by some of them', async (t) => {
  const addresses = Array.from({ length: 8_000 }, (_, index) => `10.0.${index >> 7}.${2 * (index & 127)}/32`);
  const made = snapshotWith(addresses, rule('one', 'a', 'a'));
  const fn = { accountId: '1', region: 'r', identity: 'shared', sharedWith: [], prefixes: ['10.0.0.0/16'] };
  const functions = ['x', 'y'].map((name) => ({ ...fn, arn: `arn:${name}`, name, addresses: [] }));
  const snapshot = { ...made, inventory: { functions, scopes: [] } } as unknown as typeof made;
  const known = { matcher: matcherOf(snapshot, []), now: new Date() };
  const question = { src: 'x', dst: 'y', protocol: 'tcp', port: 443 };
  const explained = explainQuestion(snapshot, known, prefixes(), question);
  t.strictSame(
    explained.map(({ explanation }) => explanation.rule.name),
    ['one', 'default'],
  );
});
