import fc from 'fast-check';
import t from 'tap';
import { decodeMark, encodeMark, GENERATION_MASK, GENERATION_MAX, RULE_MASK, RULES_MAX } from './mark.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

t.test(`marks (TEST_SEED=${seed})`, (t) => {
  const anyMark = fc.record({ generation: fc.nat(GENERATION_MAX), rule: fc.nat(RULES_MAX) });
  fc.assert(
    fc.property(anyMark, ({ generation, rule }) => {
      const mark = encodeMark({ generation, rule });
      const back = decodeMark(mark);
      const isInRange = Number.isInteger(mark) && mark >= 0 && mark <= 0xffff_ffff;
      const byMask = (mark & GENERATION_MASK) >>> 0 === encodeMark({ generation, rule: 0 });
      return isInRange && byMask && back.generation === generation && back.rule === rule;
    }),
    { seed, numRuns: 1000, examples: [[{ generation: GENERATION_MAX, rule: RULES_MAX }]] },
  );
  t.equal((GENERATION_MASK | RULE_MASK) >>> 0, 0xffff_ffff);
  t.equal(GENERATION_MASK & RULE_MASK, 0);
  t.strictSame(decodeMark(0x0001_c003), { generation: 7, rule: 3 });
  t.end();
});
