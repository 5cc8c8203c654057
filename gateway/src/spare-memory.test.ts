import { mock } from 'node:test';
import t from 'tap';
import { createLog } from './log.js';
import { GROWN_BYTES_MIN, SpareMemory } from './spare-memory.js';

/** Makes garbage of more than is worth a pause. */
function waste(): void {
  const objects = Array.from({ length: 10_000_000 }, (_, index) => ({ index }));
  if (process.memoryUsage().heapUsed < 2 * GROWN_BYTES_MIN + objects.length) throw new Error('too little');
}

t.test('what became garbage goes back to the system, once, when nothing is at work', (t) => {
  mock.timers.enable({ apis: ['setTimeout'] });
  t.teardown(() => mock.timers.reset());
  const said: string[] = [];
  let isBusy = true;
  const log = createLog({ write: (line) => said.push(line) });
  const memory = new SpareMemory(() => isBusy, log);
  t.teardown(() => memory.stop());
  const look = () => {
    memory.applied();
    mock.timers.tick(10_000);
  };
  const used = Buffer.alloc(2 * GROWN_BYTES_MIN, 1);
  waste();
  const before = process.memoryUsage.rss();
  look();
  t.strictSame(said, [], 'not while something is at work');
  isBusy = false;
  mock.timers.tick(10_000);
  t.match(said, [/memory was given back/], 'but behind it');
  t.ok(process.memoryUsage.rss() < before - GROWN_BYTES_MIN);
  look();
  t.equal(said.length, 1, `the ${used.length} bytes that stay in use are not looked at again and again`);
  t.end();
});
