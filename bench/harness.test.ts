import t from 'tap';
import { type Contestant, race, ratioOf, short, shortSpread, spreadOf } from './harness.js';
import { ConsoleReport } from './report.js';

t.test('spreads', async (t) => {
  t.same(spreadOf([5, 1, 3]), { median: 3, low: 1, high: 5, samples: [5, 1, 3] });
  t.equal(spreadOf([4, 1, 2, 9]).median, 3);
  t.equal(spreadOf([7]).median, 7);
  t.throws(() => spreadOf([]), { message: 'there are no samples' });
  t.same([0.5, 12.34, 999, 1234, 2.5e6].map(short), ['0.50', '12.3', '999', '1.23k', '2.50M']);
  t.same(ratioOf(spreadOf([6, 2, 8]), spreadOf([2, 2, 2])).samples, [3, 1, 4]);
  t.equal(shortSpread(spreadOf([1, 2, 3])), '2.00 (1.00–3.00)');
});

t.test('contestants take turns, the first round does not count', async (t) => {
  const turns: string[] = [];
  const contestant = (name: string, later: boolean): Contestant => ({
    name,
    work: () => {
      if (turns.at(-1) !== name) turns.push(name);
      const end = performance.now() + 1;
      while (performance.now() < end);
      return later ? Promise.resolve(10) : 10;
    },
  });
  const spreads = await race([contestant('a', false), contestant('b', true)], { rounds: 3, turnMs: 4 });
  t.same(turns, ['a', 'b', 'a', 'b', 'a', 'b', 'a', 'b']);
  t.same(
    spreads.map(({ samples }) => samples.length),
    [3, 3],
  );
  t.ok(spreads.every(({ low }) => low > 0));
});

t.test('a report prints tables, hides progress without a terminal, and keeps figures', async (t) => {
  const [out, err] = [[] as string[], [] as string[]];
  const report = new ConsoleReport(
    'demo',
    { write: (text) => out.push(text) },
    { write: (text) => err.push(text) },
  );
  report.progress('working');
  report.table(
    'title',
    ['', 'rate'],
    [
      ['a', '1'],
      ['bcd', '1234'],
    ],
  );
  report.figure('one', 1);
  report.figure('many', spreadOf([1, 2, 9]));
  t.throws(() => report.figure('one', 2), { message: '"one" is given twice' });
  t.same(err, []);
  t.equal(out.join(''), '\ntitle\n       rate\n  a       1\n  bcd  1234\n');
  t.same(report.result(), {
    name: 'demo',
    figures: { one: 1, many: 2 },
    intervals: { many: [1, 9] },
    samples: { many: [1, 2, 9] },
  });
});
