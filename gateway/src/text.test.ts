import t from 'tap';
import { createLog, type LogFields, type LogLevel } from './log.js';
import { printable, printableJson } from './text.js';

const ESC = '\u001b';
const HOSTILE = `a\nb${ESC}[31m\u009b2J\u007f\u202egnp\u2066x\u2028"\\é日`;
const ACTING = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/;

t.test('printable escapes what acts on a terminal and keeps the rest', (t) => {
  t.equal(printable(HOSTILE), 'a\\nb\\u001b[31m\\u009b2J\\u007f\\u202egnp\\u2066x\\u2028"\\é日');
  t.equal(printable('payments — 日本 🦊'), 'payments — 日本 🦊');
  for (let code = 0; code < 0x3000; code++) {
    const character = String.fromCharCode(code);
    if (ACTING.test(character)) t.notMatch(printable(character), ACTING);
    else if (printable(character) !== character) t.fail(`U+${code.toString(16)} was escaped`);
  }
  t.end();
});

t.test('printableJson reads back equal and holds nothing that acts', (t) => {
  const value = { name: HOSTILE, list: [HOSTILE, 1, null] };
  const line = printableJson(value);
  t.notMatch(line, ACTING);
  t.same(JSON.parse(line), value);
  t.end();
});

function logged(terminal: boolean, level: LogLevel, message: string, fields?: LogFields): string[] {
  const lines: string[] = [];
  const now = () => new Date('2026-01-02T03:04:05.678Z');
  const log = createLog({ terminal, now, write: (line) => lines.push(line) });
  log[level](message, fields);
  return lines;
}

t.test('the log writes one JSON object a line', (t) => {
  const cause = new Error('Cannot open socket: EPERM');
  const fields = {
    revision: 7,
    name: HOSTILE,
    level: 'forged',
    error: new Error('Cannot apply program: it failed', { cause }),
    absent: undefined,
    rules: ['a', 'b'],
    packets: 18_446_744_073_709_551_615n,
  };
  const [line, ...more] = logged(false, 'warn', `applied${ESC}[2J`, fields);
  t.same(more, []);
  t.equal(line!.indexOf('\n'), line!.length - 1, 'one line');
  t.same(JSON.parse(line!), {
    level: 'warn',
    time: '2026-01-02T03:04:05.678Z',
    message: `applied${ESC}[2J`,
    revision: 7,
    name: HOSTILE,
    error: 'Cannot apply program: it failed: Cannot open socket: EPERM',
    rules: ['a', 'b'],
    packets: '18446744073709551615',
  });
  t.notMatch(line!.slice(0, -1), ACTING);
  t.end();
});

t.test('on a terminal the log is short text without control characters', (t) => {
  const [line] = logged(true, 'error', `no\n${ESC}[31m`, {
    path: '/a b',
    rule: HOSTILE,
    count: 3n,
    gone: undefined,
  });
  t.match(line, /^03:04:05\.678 error no\\n\\u001b\[31m path="\/a b" rule="a\\\\?n.* count=3\n$/);
  t.notMatch(line!.slice(0, -1), ACTING);
  t.end();
});

t.test('levels below the chosen one are left out', (t) => {
  t.same(logged(false, 'debug', 'detail'), []);
  t.equal(logged(false, 'info', 'news').length, 1);
  const looped = new Error('loop');
  looped.cause = looped;
  t.match(logged(false, 'info', 'x', { error: looped })[0], /loop: loop/, 'a cause of itself ends');
  t.end();
});
