import t from 'tap';
import { countTests } from './plan.js';

t.test('what a test file wrote is counted; none that ended badly or tried nothing passes', async (t) => {
  const summary = (text: string) =>
    `ok 1 - first\n# Subtest: # { total: 9, pass: 9 }\n# { total: ${text} }\n# time=8ms\n`;
  const cases: readonly (readonly [output: string, status: number | null, counts: string])[] = [
    [summary('12, pass: 12'), 0, '12 0 0'],
    [summary('12, pass: 9, fail: 2, skip: 1'), 1, '9 2 1'],
    [summary('4, pass: 2, todo: 1, skip: 1'), 0, '2 0 2'],
    [summary('12, pass: 12'), 1, '12 1 0'],
    [summary('12, pass: 12'), null, '12 1 0'],
    ['1..0 # SKIP needs root for network namespaces\n', 0, '0 1 0'],
    [summary('1, skip: 1'), 0, '0 1 1'],
    ['', 0, '0 1 0'],
  ];
  for (const [output, status, counts] of cases) {
    const { passed, failed, skipped } = countTests(output, status);
    t.equal(`${passed} ${failed} ${skipped}`, counts, JSON.stringify([output, status]));
  }
});
