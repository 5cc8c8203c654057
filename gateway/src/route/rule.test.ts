import fc from 'fast-check';
import t from 'tap';
import { onlyMessage, readFixture } from '../conntrack/fixture.js';
import { readMessages } from '../netlink/reader.js';
import { MessageWriter } from '../netlink/writer.js';
import { type BlackholeRule, decodeRule, encodeAddRule, encodeDeleteRule, encodeDumpRules } from './rule.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

const fixture = readFixture('route/fixtures/rule.hex');
const bytesOf = (name: string) => fixture.get(name)!;
const GUARD: BlackholeRule = { family: 4, priority: 100, iifname: 'lam0', fwmark: 0, fwmask: 0x80000000 };

/** What `write` appends, with the sequence number of a fixture. */
function written(name: string, write: (writer: MessageWriter, sequence: number) => void): Uint8Array {
  const writer = new MessageWriter();
  write(writer, onlyMessage(bytesOf(name)).sequence);
  return writer.bytes();
}

t.test('requests, byte for byte as ip sends them', (t) => {
  const add = written('request-add4', (writer, sequence) => encodeAddRule(writer, sequence, GUARD));
  t.strictSame(add, bytesOf('request-add4'));
  const remove = written('request-delete6', (writer, sequence) =>
    encodeDeleteRule(writer, sequence, { ...GUARD, family: 6 }),
  );
  t.strictSame(remove, bytesOf('request-delete6'));
  const dump = written('request-dump4', (writer, sequence) => encodeDumpRules(writer, sequence, 4));
  t.strictSame(dump, bytesOf('request-dump4'));
  for (const iifname of ['', 'a23456789012345678', 'ä'.repeat(8)]) {
    t.throws(() => encodeAddRule(new MessageWriter(), 1, { ...GUARD, iifname }), RangeError, iifname);
  }
  t.end();
});

t.test('events', (t) => {
  for (const family of [4, 6] as const) {
    const rule = { ...GUARD, family, action: 'blackhole', otherwiseSelects: false };
    t.strictSame(decodeRule(onlyMessage(bytesOf(`added${family}`))), { kind: 'added', rule });
    t.strictSame(decodeRule(onlyMessage(bytesOf(`removed${family}`))), { kind: 'removed', rule });
    const other = { family, priority: 101, iifname: undefined, fwmark: 5, fwmask: 0xffffffff };
    t.strictSame(decodeRule(onlyMessage(bytesOf(`other${family}`))), {
      kind: 'added',
      rule: { ...other, action: 'other', otherwiseSelects: true },
    });
  }
  t.equal(decodeRule(onlyMessage(bytesOf('request-dump4'))), undefined, 'another message');
  const foreign = bytesOf('added4').slice();
  foreign[16] = 129;
  t.equal(decodeRule(onlyMessage(foreign)), undefined, 'neither IPv4 nor IPv6');
  const short = { ...onlyMessage(foreign), payload: new Uint8Array(4) };
  t.throws(() => decodeRule(short), { constructor: RangeError, message: /it has 4 bytes, at least 12/ });
  t.end();
});

t.test('a guard that takes fewer packets is not the guard', (t) => {
  const narrowed: [string, number, number][] = [
    ['destination length', 17, 8],
    ['source length', 18, 8],
    ['type of service', 19, 4],
    ['inverted', 24, 2],
    ['an attribute not known here', 30, 23],
  ];
  for (const [name, at, value] of narrowed) {
    const bytes = bytesOf('added4').slice();
    bytes[at] = value;
    t.equal(decodeRule(onlyMessage(bytes))?.rule.otherwiseSelects, true, name);
  }
  t.end();
});

t.test(`properties (TEST_SEED=${seed})`, (t) => {
  const u32 = fc.nat(0xffff_ffff);
  const name = fc.stringMatching(/^[a-z0-9.]{1,15}$/);
  fc.assert(
    fc.property(fc.constantFrom(4 as const, 6 as const), u32, name, u32, u32, (...fields) => {
      const [family, priority, iifname, fwmark, fwmask] = fields;
      const writer = new MessageWriter();
      encodeAddRule(writer, 1, { family, priority, iifname, fwmark, fwmask });
      const { rule } = decodeRule(onlyMessage(writer.bytes()))!;
      const { otherwiseSelects, action, ...rest } = rule;
      t.strictSame(rest, { family, priority, iifname, fwmark, fwmask });
      t.strictSame([otherwiseSelects, action], [false, 'blackhole']);
    }),
    { seed, numRuns: 50 },
  );
  let decoded = 0;
  let refused = 0;
  const edits = fc.array(fc.record({ at: fc.nat(100), value: fc.nat(255) }), { maxLength: 4 });
  fc.assert(
    fc.property(fc.constantFrom(...fixture.keys()), edits, fc.nat(100), (name, edits, cut) => {
      const bytes = bytesOf(name).slice(0, cut < 50 ? undefined : cut);
      for (const { at, value } of edits) if (at < bytes.length) bytes[at] = value;
      try {
        for (const message of readMessages(bytes)) decodeRule(message);
        decoded++;
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        refused++;
      }
    }),
    { seed, numRuns: 5000 },
  );
  t.ok(decoded > 0 && refused > 0, `damaged bytes: ${decoded} decoded, ${refused} refused with RangeError`);
  t.end();
});
