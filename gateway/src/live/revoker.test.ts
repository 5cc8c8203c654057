import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { type Connection, TCP_STATES } from '../conntrack/decode.js';
import type { Tuple } from '../conntrack/tuple.js';
import { connection, mark, packet, REPLY, RULES } from '../flows/fixture.js';
import type { NflogPacket } from '../nflog/decode.js';
import type { Action } from '../policy/model.js';
import { type Numbers, numbersOf } from './reset.js';
import { type InForce, Revoker } from './revoker.js';

/** Packets, sockets and the real table: test/kernel/live.test.ts. */

const ESTABLISHED = TCP_STATES.indexOf('ESTABLISHED');
const DENYING = mark(2, 0);
const ACK = { sequence: 1, acknowledgement: 1, flags: 0x10 };

/** A policy that says one thing of everything. */
const saying = (action: Action, generation = 2): InForce => ({
  generation,
  judge: {
    decide: () => ({ number: 0, name: 'all', priority: 0, action, logging: false, enforced: true }),
  },
});

function world(entries: Connection[], inForce: InForce | undefined) {
  const said = {
    entries,
    inForce,
    refused: [] as NflogPacket[],
    swept: [] as [number, number][],
    deleted: [] as number[],
    listings: 0,
    failures: 0,
    warnings: [] as string[],
    spoken: [] as (Numbers | 'probe')[],
    isMute: false,
    /** Runs before a deletion. */
    onDelete: () => {},
  };
  const silent = { debug() {}, info() {}, error() {} };
  const revoker = new Revoker({
    table: {
      find: async (tuple: Tuple) => said.entries.find(({ original }) => original === tuple),
      deleteAll: async (entries) => {
        said.onDelete();
        said.deleted.push(...entries.map(({ id }) => id));
        return true;
      },
    },
    listing: {
      forEach: async (visit) => {
        said.listings++;
        if (said.failures-- > 0) throw new Error('lost');
        for (const entry of said.entries) visit(entry);
      },
    },
    inForce: () => said.inForce,
    speaker: {
      reset: (_, numbers) => {
        if (said.isMute) throw new Error('EPERM');
        said.spoken.push(numbers);
      },
      probe: () => void said.spoken.push('probe'),
    },
    rules: { ruleOf: ({ rule }) => RULES[rule] },
    onRefused: (one) => said.refused.push(one),
    onSwept: ({ id }, decision) => said.swept.push([id, decision]),
    log: { ...silent, warn: (message) => said.warnings.push(message) },
  });
  return { said, revoker };
}

const until = async (probe: () => boolean) => {
  while (!probe()) await delay(5);
};
const refusal = (more: Partial<NflogPacket> = {}) => packet('revoke', { mark: DENYING, tcp: ACK, ...more });

t.test('a refused packet is told with its entry, which goes', async (t) => {
  const counters = { original: { packets: 5, bytes: 6 }, reply: { packets: 7, bytes: 8 } };
  const { said, revoker } = world([connection({ counters })], saying('DENY'));
  revoker.refused(refusal());
  revoker.refused(refusal());
  await until(() => said.deleted.length > 0);
  await delay(20);
  t.same(said.deleted, [7], 'once, while it is under way');
  t.strictSame(
    said.refused.map(({ conntrack }) => conntrack?.counters),
    [counters],
  );

  const of = connection({ id: 6 });
  revoker.refused(refusal({ conntrack: of }));
  await until(() => said.deleted.length > 1);
  t.same(said.deleted, [7, 6], 'another has its tuple now: it goes by its own id');
  t.equal(said.refused.at(-1)?.conntrack, of);
  await revoker.stop();
});

t.test('what has no entry is told too', async (t) => {
  const { said, revoker } = world([], saying('DENY'));
  revoker.refused(refusal());
  revoker.refused(refusal({ tuple: undefined }));
  await until(() => said.refused.length === 2);
  await delay(20);
  t.same(said.deleted, []);
  await revoker.stop();
});

t.test('what a change permits again stays; while one is under way nothing goes', async (t) => {
  const { said, revoker } = world([connection()], undefined);
  revoker.refused(refusal());
  await until(() => said.refused.length === 1);
  await delay(250);
  t.same(said.deleted, [], 'nobody knows what is in force');
  said.inForce = saying('PERMIT', 2);
  await delay(250);
  t.same(said.deleted, [], 'the same generation, which has come to permit it');
  said.inForce = saying('DENY', 3);
  revoker.refused(refusal());
  await until(() => said.deleted.length > 0);
  t.same(said.deleted, [7]);
  await revoker.stop();
});

t.test('the sweep ends what other generations permitted, and nothing else', async (t) => {
  const entry = (id: number, ofMark: number, more: Partial<Connection> = {}) =>
    connection({ id, mark: ofMark, tcpState: ESTABLISHED, ...more });
  const { said, revoker } = world(
    [
      entry(1, mark(1, 1)),
      entry(2, mark(2, 1)),
      entry(3, 0),
      entry(4, mark(1, 1), { tcpState: TCP_STATES.indexOf('TIME_WAIT') }),
      entry(5, mark(3, 1), { protocol: 17, tcpState: undefined }),
    ],
    saying('DENY'),
  );
  revoker.sweep();
  await until(() => said.deleted.length === 2);
  await delay(20);
  t.same(said.deleted, [1, 5]);
  t.same(said.swept, [
    [1, DENYING],
    [5, DENYING],
  ]);
  revoker.sweep();
  await delay(20);
  t.equal(said.listings, 1, 'once a generation');
  said.inForce = saying('PERMIT', 4);
  revoker.sweep();
  await until(() => said.listings === 2);
  await delay(20);
  t.equal(said.deleted.length, 2, 'its next packet is judged');
  await revoker.stop();
});

t.test('a sweep stops at a change, and the next takes up', async (t) => {
  // More than are deleted at once.
  const ids = Array.from({ length: 100 }, (_, index) => index);
  const entries = ids.map((id) => connection({ id }));
  const { said, revoker } = world(entries, saying('DENY'));
  said.onDelete = () => {
    said.inForce = undefined;
  };
  revoker.sweep();
  await until(() => said.deleted.length > 0);
  await delay(20);
  t.same(said.deleted, ids.slice(0, 64), 'a change is under way');
  said.entries = entries.slice(64);
  said.onDelete = () => {};
  said.inForce = saying('DENY', 2);
  revoker.sweep();
  await until(() => said.deleted.length === 100);
  t.same(said.deleted, ids, 'under the same generation: it was not complete');
  await revoker.stop();
});

t.test('a listing that fails is made again', async (t) => {
  const { said, revoker } = world([connection()], saying('DENY'));
  said.failures = 1;
  revoker.sweep();
  await until(() => said.deleted.length === 1);
  t.equal(said.warnings.length, 1);
  await revoker.stop();
});

t.test('a packet that did not arrive says where both ends stand', async (t) => {
  const header = { sequence: 100, acknowledgement: 200, flags: 0x18 };
  t.same(numbersOf(header, false), { original: 100, reply: 200 });
  t.same(numbersOf(header, true), { original: 200, reply: 100 });
  t.equal(numbersOf({ ...header, flags: 0x04 }, false), undefined, 'a reset that acknowledges nothing');
  t.equal(numbersOf(undefined, false), undefined);
});

t.test('both ends of a rejected TCP connection are reset before its entry goes', async (t) => {
  const { said, revoker } = world([connection()], saying('REJECT'));
  const rejected = (more: Partial<NflogPacket> = {}) => refusal({ mark: mark(2, 3), ...more });
  revoker.refused(
    rejected({
      tcp: { sequence: 10, acknowledgement: 20, flags: 0x10 },
      tuple: REPLY,
      conntrack: connection(),
    }),
  );
  await until(() => said.refused.length === 1);
  t.same(said.spoken, [{ original: 20, reply: 10 }]);
  for (let n = 0; n < 20; n++) revoker.refused(rejected({ conntrack: connection(), tcp: undefined }));
  t.same(said.spoken.slice(1), Array(7).fill('probe'), 'so often and no more');
  t.same(said.deleted, [], 'what its ends answer is judged by it');
  await until(() => said.deleted.length === 1);
  t.equal(said.refused.length, 1);

  said.isMute = true;
  for (let n = 0; n < 2; n++) {
    revoker.refused(rejected());
    await until(() => said.deleted.length === 2 + n);
  }
  t.equal(said.warnings.length, 1, 'told once, and the rest goes on');
  await revoker.stop();
});

t.test('idle TCP connections that a rule rejects are asked where they stand', async (t) => {
  const open = connection({ tcpState: ESTABLISHED });
  const datagrams = connection({ id: 8, protocol: 17 });
  const { said, revoker } = world([open, datagrams], saying('REJECT'));
  revoker.sweep();
  await until(() => said.spoken.length === 1);
  t.same(said.spoken, ['probe']);
  t.same(said.deleted, [8]);
  said.entries = [open];
  await until(() => said.listings === 2);
  said.inForce = saying('REJECT');
  revoker.sweep();
  await until(() => said.listings >= 4);
  await delay(20);
  t.same(said.spoken, Array(3).fill('probe'), 'again, since a probe or its answer may be lost');
  t.same(said.deleted, [8], 'who does not answer is reset when it sends');
  t.same(
    said.swept.map(([id]) => id),
    [8, 7],
    'each is told once',
  );
  await revoker.stop();
});

t.test('a change ends the waiting for answers', async (t) => {
  const { said, revoker } = world([connection({ tcpState: ESTABLISHED })], saying('REJECT'));
  revoker.sweep();
  await until(() => said.spoken.length === 1);
  said.inForce = saying('PERMIT', 3);
  revoker.sweep();
  await until(() => said.listings === 2);
  await delay(20);
  t.same([said.spoken.length, said.deleted], [1, []], 'it is permitted again');
  await revoker.stop();
});
