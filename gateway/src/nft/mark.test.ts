import fc from 'fast-check';
import t from 'tap';
import {
  ACTION_BITS,
  ACTION_MASK,
  decodeMark,
  encodeMark,
  GENERATION_MASK,
  GENERATION_MAX,
  GUARD_BIT,
  KIND,
  KIND_MASK,
  LOG_BIT,
  NUMBER_MAX,
  PASS_BIT,
  RULE_MASK,
  RULES_MAX,
} from './mark.js';

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

t.test('numbers of one kind are never those of another, nor touch the guard and pass bits', (t) => {
  const kinds = Object.values(KIND);
  t.equal(new Set(kinds).size, kinds.length);
  for (const kind of kinds) {
    t.not(kind, 0, 'an empty mark is of no kind');
    t.equal((kind & KIND_MASK) >>> 0, kind);
    t.equal((kind | NUMBER_MAX) & (GUARD_BIT | PASS_BIT), 0);
  }
  t.equal((KIND_MASK | NUMBER_MAX) >>> 0, 0xffff_ffff);
  t.equal(KIND_MASK & NUMBER_MAX, 0);
  const actions = Object.values(ACTION_BITS);
  t.equal(new Set(actions).size, actions.length);
  for (const bits of actions) t.equal(bits & ACTION_MASK, bits);
  t.notOk(
    actions.some((bits) => (bits as number) === 0),
    'a mark without an action is no decision',
  );
  t.strictSame(
    [ACTION_MASK & RULE_MASK, LOG_BIT & (RULE_MASK | ACTION_MASK), (ACTION_MASK | LOG_BIT) & ~NUMBER_MAX],
    [0, 0, 0],
    'rule, action and log lie apart, below the kind',
  );
  t.end();
});
