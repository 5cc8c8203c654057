import t from 'tap';
import { COLUMNS_MAX, tableLines, wrap } from './output.js';

const LONG = 'x'.repeat(256);

t.test('a table is as wide as its cells, and never wider than a line', async (t) => {
  t.strictSame(tableLines(['A', 'B'], [['1', 'two']]), ['A  B', '1  two']);
  const many = Array.from({ length: 200_000 }, () => ['10.0.0.0/8']);
  t.equal(tableLines(['PREFIX'], many).length, many.length + 1, 'however many rows there are');
  for (const row of [
    ['short', LONG, 'short'],
    [LONG, 'short', LONG],
    [LONG, LONG, LONG],
  ]) {
    const [, line] = tableLines(['A', 'B', 'C'], [row]);
    t.equal(line!.length, COLUMNS_MAX, 'what does not fit is cut, and no more of it than has to be');
    if (row.includes('short')) t.match(line, 'short', 'where there is too much');
  }
  t.strictSame(tableLines(['A'], [['\u001b[2J']]), ['A', '\\u001b[2J'], 'nothing acts on the terminal');
});

t.test('a text is cut at spaces, and in a word that is longer than a line', async (t) => {
  t.strictSame(wrap('one two three', 7), ['one two', 'three']);
  t.strictSame(wrap('a 1234567890 b', 4), ['a', '1234', '5678', '90 b']);
  t.strictSame(wrap('', 4), ['']);
});
