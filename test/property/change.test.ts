import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Compiler } from 'sluice-gateway/policy/compile.js';
import { evaluate } from 'sluice-gateway/policy/evaluate.js';
import { RuleNumbers } from 'sluice-gateway/policy/in-force.js';
import t from 'tap';
import { Kernel } from '../support/kernel-model.js';
import { rounds, seed } from '../support/seed.js';
import { everyConnection, type Step, someConnections, stepArbitrary, World } from '../support/world.js';

/*
 * One compiler over a walk of changes to policy and to what groups hold. After each step the program must decide as
 * policy does, the kernel must be able to come to it in place, and what the change is said to do must be true.
 */

const VERDICT = { PERMIT: 'accept', DENY: 'drop', REJECT: 'reject' } as const;

function take(isTopped: boolean, steps: readonly Step[], draws: readonly number[]): void {
  const world = new World(isTopped);
  const numbers = new RuleNumbers();
  const compiler = new Compiler('test');
  const kernel = new Kernel();
  let before = world.input(numbers);
  kernel.take(compiler.compile(before));
  for (const step of steps) {
    world.take(step);
    const after = world.input(numbers);
    const compilation = compiler.compile(after);
    kernel.take(compilation, before.stretches === after.stretches);

    const program = kernel.program();
    for (const connection of someConnections(world, draws)) {
      const { decided, monitored } = evaluate(after.policy, world.groups, world.own, connection);
      const { verdict, rule, monitored: told } = kernel.walk(program, connection);
      assert.deepEqual(
        { verdict, rule, told },
        {
          verdict: VERDICT[decided.action],
          rule: decided.number,
          told: monitored.map(({ number }) => number),
        },
      );
    }

    const { grants, revokes } = compilation.effect;
    if (!grants || !revokes) {
      for (const connection of everyConnection(world)) {
        const was = evaluate(before.policy, before.whole, before.excluded, connection).decided.action;
        const is = evaluate(after.policy, after.whole, after.excluded, connection).decided.action;
        if (!revokes) assert.ok(is === 'PERMIT' || was !== 'PERMIT', 'said to revoke nothing');
        if (!grants) assert.ok(was === 'PERMIT' || is !== 'PERMIT', 'said to grant nothing');
      }
    }
    before = after;
  }
}

t.test('a walk of changes, each told as what it is and carried out in place', async () => {
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.array(stepArbitrary, { minLength: 1, maxLength: 40, size: 'max' }),
      fc.noShrink(fc.array(fc.nat(), { minLength: 32, maxLength: 32 })),
      take,
    ),
    { seed, numRuns: 150 * rounds },
  );
});
