import t from 'tap';
import { Generations } from './generations.js';
import { GENERATION_MAX } from './nft/mark.js';

/** What connections carry, and how often somebody looked. */
class Connections {
  inUse = new Set<number>();
  looks = 0;
  readonly look = async () => {
    this.looks++;
    return new Set(this.inUse);
  };
}

const allBut = (...free: number[]) =>
  new Set(Array.from({ length: GENERATION_MAX }, (_, index) => index + 1)).difference(new Set(free));

t.test('from 1 on, with one look at the connections', async (t) => {
  const connections = new Connections();
  const generations = new Generations(undefined, connections.look);
  t.strictSame([await generations.next(), await generations.next(), await generations.next()], [1, 2, 3]);
  t.equal(connections.looks, 1);
});

t.test('after the one in force, leaving out what connections carry', async (t) => {
  const connections = new Connections();
  connections.inUse = new Set([7, 9, 10]);
  const generations = new Generations(6, connections.look);
  t.strictSame([await generations.next(), await generations.next()], [8, 11]);
});

t.test('at wrap-around it looks again', async (t) => {
  const connections = new Connections();
  connections.inUse = new Set([1, 2, 5]);
  const generations = new Generations(GENERATION_MAX - 2, connections.look);
  t.strictSame([await generations.next(), await generations.next()], [GENERATION_MAX - 1, GENERATION_MAX]);
  t.equal(connections.looks, 1);
  connections.inUse = new Set([1, 3, GENERATION_MAX]);
  t.strictSame([await generations.next(), await generations.next()], [2, 4], 'what is carried now, not then');
  t.equal(connections.looks, 2);
  t.equal(await generations.next(), 5, 'free by now');
});

t.test('all in use', async (t) => {
  const connections = new Connections();
  connections.inUse = allBut(8);
  const generations = new Generations(8, connections.look);
  const refused = { name: 'RangeError', message: `connections carry all ${GENERATION_MAX}` };
  await t.rejects(generations.next(), refused, 'the one in force is never the next');
  connections.inUse = allBut(5, 8);
  t.equal(await generations.next(), 5, 'found when it is free');
  connections.inUse = allBut(5, 9);
  t.equal(await generations.next(), 9, 'not 8: connections got it after the look that did not find it');
});

t.test('a look that fails gives none, and is made again', async (t) => {
  const connections = new Connections();
  let fails = true;
  const generations = new Generations(GENERATION_MAX - 1, async () => {
    if (fails) throw new Error('Cannot dump connections');
    return connections.look();
  });
  await t.rejects(generations.next(), { message: 'Cannot dump connections' });
  fails = false;
  t.equal(await generations.next(), GENERATION_MAX);
  fails = true;
  await t.rejects(generations.next(), { message: 'Cannot dump connections' }, 'at wrap-around too');
  fails = false;
  connections.inUse = new Set([1]);
  t.equal(await generations.next(), 2);
});
