import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { ADDRESS_MAX } from 'sluice-gateway/net/family.js';
import type { MapEdit } from 'sluice-gateway/nft/program.js';
import { type Compilation, Compiler } from 'sluice-gateway/policy/compile.js';
import { type Connection, evaluate } from 'sluice-gateway/policy/evaluate.js';
import { RuleNumbers } from 'sluice-gateway/policy/in-force.js';
import t from 'tap';
import { Kernel } from '../support/kernel-model.js';
import { rounds, seed } from '../support/seed.js';
import {
  everyConnection,
  type Step,
  someConnections,
  stepArbitrary,
  World,
  type WorldInput,
} from '../support/world.js';

/*
 * One compiler over a walk of changes to policy and to what groups hold. After each step the program must decide as
 * policy does, the kernel must be able to come to it in place, and what the change is said to do must be true.
 */

/** How often changes were made in each way: a walk that goes none of them proves nothing. */
const ways = { edits: 0, columns: 0, rows: 0, lists: 0, tops: 0, moves: 0, comings: 0, goings: 0 };

function count(
  { edits, added }: Compilation,
  { policy: { rules: was } }: WorldInput,
  { policy: { rules: is } }: WorldInput,
): void {
  if (edits === undefined) return;
  if (is.length > was.length) ways.comings++;
  if (is.length < was.length) ways.goings++;
  const [old, now] = [was, is].map((rules) => rules.map(({ name }) => name));
  if (was.length === is.length && !isDeepStrictEqual(old, now)) ways.moves++;
  if (edits.length > 0) ways.edits++;
  if (edits.some(reachesTop)) ways.tops++;
  if (added === undefined) return;
  if (added.prepared.length > 0) ways.columns++;
  if (added.maps.some(({ name }) => name.startsWith('to_'))) ways.rows++;
  if (edits.some(({ map }) => map.name.startsWith('to_'))) ways.lists++;
}

/** Whether an edit reaches into the last addresses of a family. */
function reachesTop({ map, remove, add }: MapEdit): boolean {
  const family = /^(?:source|destination)([46])_/.exec(map.name)?.[1];
  if (family === undefined) return false;
  const top = ADDRESS_MAX[family === '4' ? 4 : 6];
  return [...remove, ...add].some(({ last }) => last > top - 16n);
}

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
    const connections = someConnections(world, draws);
    const said = ({ policy, whole, excluded }: WorldInput, connection: Connection) => {
      const { decided, monitored } = evaluate(policy, whole, excluded, connection);
      const told = monitored.map(({ number }) => number);
      return { verdict: VERDICT[decided.action], rule: decided.number, told };
    };
    const checkAll = (...policies: readonly WorldInput[]) => {
      const program = kernel.program();
      for (const connection of connections) {
        const { verdict, rule, monitored: told } = kernel.walk(program, connection);
        const allowed = policies.map((input) => said(input, connection));
        const isAllowed = allowed.some((one) => isDeepStrictEqual(one, { verdict, rule, told }));
        if (!isAllowed) assert.deepEqual({ verdict, rule, told }, allowed[0]);
      }
    };
    const was = before;
    kernel.take(compilation, was.stretches === after.stretches, (isOld) =>
      isOld ? checkAll(was) : checkAll(was, after),
    );
    checkAll(after);
    count(compilation, was, after);

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

t.test('a walk of changes, each told as what it is and carried out in place', async (t) => {
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.array(stepArbitrary, { minLength: 1, maxLength: 40, size: 'max' }),
      fc.noShrink(fc.array(fc.nat(), { minLength: 32, maxLength: 32 })),
      take,
    ),
    { seed, numRuns: 150 * rounds },
  );
  t.comment(JSON.stringify(ways));
  for (const [way, times] of Object.entries(ways)) t.ok(times > 0, `${way} in place`);
});
