import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { ConntrackEvent } from '../conntrack/decode.js';
import { createLog } from '../log.js';
import { readAddress } from '../net/address.js';
import { SOURCES_MAX } from '../policy/fairness.js';
import { Crowd, type HeldBack } from './crowd.js';

const src = readAddress('10.0.1.7')!;
const event = (kind: 'new' | 'destroy', id = 1) =>
  ({ kind, id, mark: 1 << 14, original: { src } }) as ConntrackEvent;

/** One whose kernel takes everything. */
function crowdOf(t: Test, connectionsMax: number): Crowd {
  const log = createLog({ write: () => {} });
  const crowd = new Crowd({ connectionsMax, holdBack: async () => undefined, log });
  t.teardown(() => crowd.stop());
  return crowd;
}

t.test('nobody is held only where the kernel was told so', async (t) => {
  const told: HeldBack[] = [];
  let fails = false;
  const crowd = new Crowd({
    connectionsMax: 1,
    holdBack: async (sources) => {
      if (fails) throw new Error('busy');
      told.push(sources);
    },
    log: createLog({ write: () => {} }),
  });
  t.teardown(() => crowd.stop());
  const settle = async () => {
    while (!crowd.holdsNobody) await delay(1);
  };
  t.notOk(crowd.holdsNobody, 'what a process before told is not known');
  crowd.tell();
  await settle();
  crowd.event(event('new'));
  t.notOk(crowd.holdsNobody);
  while (told.length < 2) await delay(1);
  crowd.event(event('destroy'));
  t.equal(crowd.size, 0);
  t.notOk(crowd.holdsNobody, 'the kernel still holds it back');
  await settle();
  t.match(told.at(-1), { 4: [], 6: [] });
  fails = true;
  crowd.tell();
  await delay(50);
  t.notOk(crowd.holdsNobody, 'the kernel could not be told');
});

t.test('a connection that opens while all are listed counts once', async (t) => {
  const crowd = crowdOf(t, 10);
  const { listed, end } = crowd.list();
  for (let id = 0; id < 5; id++) {
    crowd.event(event('new', id));
    listed(event('new', id));
  }
  listed(event('new', 5));
  end();
  t.equal(crowd.size, 0, 'there are six');
  for (let id = 6; id < 10; id++) crowd.event(event('new', id));
  t.equal(crowd.size, 1, 'there are ten');
});

t.test('events that come late of what was listed, or of what had ended by then, do not count', async (t) => {
  const crowd = crowdOf(t, 3);
  crowd.event(event('new', 1));
  const { listed, end } = crowd.list();
  listed(event('new', 2));
  crowd.event(event('new', 2));
  crowd.event(event('destroy', 1));
  crowd.event(event('destroy', 3));
  listed(event('new', 3));
  end();
  crowd.event(event('new', 4));
  t.equal(crowd.size, 0, 'there are two');
  crowd.event(event('new', 5));
  t.equal(crowd.size, 1, 'there are three');
});

t.test('sources over the limit are not held back, which is told, until others are free', async (t) => {
  const logged: string[] = [];
  const crowd = new Crowd({
    connectionsMax: 1,
    holdBack: async () => undefined,
    log: createLog({
      terminal: false,
      write: (line) => void (/more sources/.test(line) && logged.push(line)),
    }),
  });
  t.teardown(() => crowd.stop());
  const from = (kind: 'new' | 'destroy', value: number) =>
    ({ ...event(kind), original: { src: { family: 4, value: BigInt(value) } } }) as ConntrackEvent;
  for (let value = 0; value < SOURCES_MAX + 2; value++) crowd.event(from('new', value));
  t.equal(crowd.size, SOURCES_MAX);
  t.match(logged, [/"sourcesMax":65535/]);
  crowd.event(from('destroy', 0));
  t.equal(crowd.size, SOURCES_MAX - 1);
  crowd.event(from('new', SOURCES_MAX));
  t.equal(crowd.size, SOURCES_MAX, 'at its next connection');
  crowd.event(from('new', SOURCES_MAX + 1));
  t.equal(logged.length, 2, 'told anew');
});

t.test('one that was stopped tries nothing again', async (t) => {
  const { promise, reject } = Promise.withResolvers<void>();
  const log = createLog({ write: () => {} });
  const crowd = new Crowd({ connectionsMax: 1, holdBack: () => promise, log });
  const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
  const before = timers();
  crowd.tell();
  while (timers() > before) await delay(1);
  crowd.stop();
  reject(new Error('closed'));
  await delay(1);
  t.equal(timers(), before);
});
