import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t from 'tap';
import { parseAddress } from '../net/address.js';
import { Attributes, readMessages } from '../netlink/reader.js';
import { MessageWriter } from '../netlink/writer.js';
import {
  type ConntrackEvent,
  decodeEntry,
  decodeEvent,
  IPS_ASSURED,
  IPS_DST_NAT,
  IPS_SEEN_REPLY,
  IPS_SRC_NAT,
  TCP_STATES,
} from './decode.js';
import { encodeDelete, encodeDump, encodeGet } from './encode.js';
import { onlyMessage, readFixture } from './fixture.js';
import type { Tuple } from './tuple.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

const fixture = readFixture('conntrack/fixtures/conntrack.hex');
const bytesOf = (name: string) => fixture.get(name)!;
const eventOf = (name: string) => decodeEvent(onlyMessage(bytesOf(name)))!;

function tuple(src: string, dst: string, protocol: number, rest: Partial<Tuple>): Tuple {
  const none = { srcPort: undefined, dstPort: undefined, icmp: undefined };
  return { src: parseAddress(src), dst: parseAddress(dst), protocol, ...none, ...rest };
}

const ports = (srcPort: number, dstPort: number) => ({ srcPort, dstPort });
const echo = (type: number) => ({ icmp: { type, code: 0, id: 4660 } });
const UDP4 = tuple('10.0.0.5', '10.0.0.9', 17, ports(40000, 53));
const TCP4 = tuple('10.0.0.5', '10.0.0.77', 6, ports(41000, 443));
const TCP6 = tuple('2001:db8::5', '2001:db8::9', 6, ports(42000, 443));
const ICMP4 = tuple('10.0.0.5', '10.0.0.9', 1, echo(8));
const ICMP6 = tuple('2001:db8::5', '2001:db8::9', 58, echo(128));

t.test('events, as the conntrack tool printed them', (t) => {
  const none = { counters: undefined, stopMs: undefined };
  const counters = (packets: number, bytes: number) => ({ packets, bytes });
  const udp4 = {
    id: 3365464230,
    mark: 0x00070003,
    zone: 0,
    family: 4,
    protocol: 17,
    original: UDP4,
    reply: tuple('10.0.0.9', '10.0.0.5', 17, ports(53, 40000)),
    tcpState: undefined,
  };
  const started = eventOf('new-udp4');
  t.match(started, { ...udp4, ...none, kind: 'new', timeoutSeconds: 2 });
  t.equal(started.status & IPS_SEEN_REPLY, 0);
  t.equal(started.startMs, undefined, 'said in dumps and at the end');
  t.equal(Math.floor(started.eventMs! / 1_000), 1795300573);
  const ended = eventOf('destroy-udp4');
  t.match(ended, { ...udp4, kind: 'destroy' });
  t.equal(Math.floor(ended.startMs! / 1_000), 1795300573);
  t.strictSame(ended.counters, { original: counters(1, 33), reply: counters(0, 0) });
  t.equal(Math.floor((ended.stopMs! - ended.startMs!) / 1_000), 2, 'delta-time');

  const times = (ns: bigint) => {
    const bytes = bytesOf('new-udp4').slice();
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const at = bytes.length - 8;
    t.equal(
      view.getBigUint64(at) / 1_000_000_000n,
      1795300573n,
      'the last attribute is the time of the event',
    );
    view.setBigUint64(at, ns);
    return decodeEvent(onlyMessage(bytes))!.eventMs;
  };
  for (const ns of [1n, 1_795_300_573_123_999_999n, 1_795_300_573_124_000_000n, 2n ** 64n - 1n])
    t.equal(times(ns) ?? 0, Number(ns / 1_000_000n), 'no nanosecond too early or too late');
  t.equal(times(0n), undefined, 'a kernel that keeps none');

  const tcp4 = {
    id: 3802383213,
    mark: 0x00070003,
    family: 4,
    protocol: 6,
    original: TCP4,
    reply: tuple('10.0.0.9', '10.0.0.9', 6, ports(8443, 41000)),
  };
  const state = (event: ConntrackEvent) => TCP_STATES[event.tcpState!];
  t.match(eventOf('new-tcp4'), { ...tcp4, ...none, kind: 'new', timeoutSeconds: 120 });
  t.equal(state(eventOf('new-tcp4')), 'SYN_SENT');
  const established = eventOf('update-tcp4');
  t.match(established, { ...tcp4, ...none, kind: 'update', timeoutSeconds: 432000 });
  t.equal(state(established), 'ESTABLISHED');
  const bits = IPS_SEEN_REPLY | IPS_ASSURED | IPS_SRC_NAT | IPS_DST_NAT;
  t.equal(established.status & bits, bits);
  t.match(eventOf('destroy-tcp4'), { ...tcp4, kind: 'destroy', timeoutSeconds: 116 });
  t.equal(state(eventOf('destroy-tcp4')), 'TIME_WAIT');
  const sums = { original: counters(5, 276), reply: counters(5, 274) };
  t.strictSame(eventOf('destroy-tcp4').counters, sums);

  t.match(eventOf('new-tcp6'), {
    id: 2922853532,
    family: 6,
    original: TCP6,
    reply: tuple('2001:db8::9', '2001:db8::5', 6, ports(443, 42000)),
  });
  t.match(eventOf('new-icmp4'), { original: ICMP4, reply: tuple('10.0.0.9', '10.0.0.5', 1, echo(0)) });
  t.match(eventOf('new-icmp6'), {
    original: ICMP6,
    reply: tuple('2001:db8::9', '2001:db8::5', 58, echo(129)),
  });

  const entry = decodeEntry(onlyMessage(bytesOf('entry-tcp4')))!;
  t.match(entry, { ...tcp4, counters: sums, stopMs: undefined, startMs: eventOf('destroy-tcp4').startMs });
  t.equal('kind' in entry, false);
  t.end();
});

t.test('other messages are not ours; nothing decoded points into the bytes', (t) => {
  for (const decode of [decodeEvent, decodeEntry]) {
    t.equal(decode({ type: 3, flags: 2, sequence: 1, portId: 1, payload: new Uint8Array(4) }), undefined);
    t.equal(decode(onlyMessage(bytesOf('request-dump-mark'))), undefined);
  }
  t.equal(decodeEntry(onlyMessage(bytesOf('destroy-tcp4'))), undefined);
  const bytes = bytesOf('destroy-tcp6').slice();
  const event = decodeEvent(onlyMessage(bytes));
  bytes.fill(0xff);
  t.strictSame(event, eventOf('destroy-tcp6'));
  t.end();
});

/** What `write` appends, with the length of each message checked. */
function written(write: (writer: MessageWriter) => void): Uint8Array {
  const writer = new MessageWriter();
  write(writer);
  const bytes = writer.bytes().slice();
  onlyMessage(bytes);
  return bytes;
}

t.test('requests, byte for byte as the conntrack tool sends them', (t) => {
  const sequenceOf = (name: string) => onlyMessage(bytesOf(name)).sequence;
  const dump = { sequence: sequenceOf('request-dump-mark'), mark: { value: 0x70003, mask: 0xffff0000 } };
  t.strictSame(
    written((writer) => encodeDump(writer, dump)),
    bytesOf('request-dump-mark'),
  );
  t.equal(onlyMessage(written((writer) => encodeDump(writer, { sequence: 1, family: 6 }))).payload[0], 10);

  const gets: [string, Tuple][] = [
    ['request-get-tcp4', TCP4],
    ['request-get-tcp6', TCP6],
    ['request-get-icmp4', ICMP4],
  ];
  for (const [name, original] of gets) {
    const ours = written((writer) => encodeGet(writer, { sequence: sequenceOf(name), original }));
    const theirs = bytesOf(name);
    t.strictSame(ours.subarray(4), theirs.subarray(4, ours.length), name);
    const rest = new Attributes(theirs.subarray(ours.length));
    t.ok(
      rest.types().every((type) => type === 4),
      'the tool adds CTA_PROTOINFO at most',
    );
  }

  const original = TCP4;
  const ours = onlyMessage(
    written((writer) => encodeDelete(writer, { sequence: 9, original, id: 7, zone: 5 })),
  );
  const theirs = onlyMessage(bytesOf('request-delete-tcp4'));
  t.strictSame([ours.type, ours.flags, ours.payload[0]], [theirs.type, theirs.flags, theirs.payload[0]]);
  const attributes = new Attributes(ours.payload, 4);
  t.strictSame(attributes.types(), [1, 18, 12]);
  t.equal(attributes.u32be(12), 7);
  t.equal(attributes.u16be(18), 5);
  t.end();
});

const arbitraryTuple = fc
  .record({
    six: fc.boolean(),
    src: fc.bigInt({ min: 0n, max: (1n << 128n) - 1n }),
    dst: fc.bigInt({ min: 0n, max: (1n << 128n) - 1n }),
    protocol: fc.integer({ min: 0, max: 255 }),
    port: fc.option(fc.tuple(fc.nat(0xffff), fc.nat(0xffff)), { nil: undefined }),
    icmp: fc.option(
      fc.record({ type: fc.nat(255), code: fc.nat(255), id: fc.nat(0xffff) }, { noNullPrototype: true }),
      {
        nil: undefined,
      },
    ),
  })
  .map(({ six, src, dst, protocol, port, icmp }): Tuple => {
    const address = (value: bigint) =>
      six ? ({ family: 6, value } as const) : ({ family: 4, value: value & 0xffffffffn } as const);
    const [srcPort, dstPort] = port ?? [];
    return { src: address(src), dst: address(dst), protocol, srcPort, dstPort, icmp };
  });

/** Turns a deletion into the event of one: its tuple twice, id, zone. */
function eventFrom(original: Tuple, reply: Tuple, id: number, zone: number): Uint8Array {
  const half = (tuple: Tuple) =>
    written((writer) => encodeDelete(writer, { sequence: 0, original: tuple, id, zone })).slice();
  const [first, second] = [half(original), half(reply)];
  second[22] = 2;
  const bytes = Uint8Array.from([...first, ...second.subarray(20)]);
  new DataView(bytes.buffer).setUint32(0, bytes.length, true);
  return bytes;
}

t.test(`properties (TEST_SEED=${seed})`, (t) => {
  const id = fc.nat(0xffff_ffff);
  const zone = fc.nat(0xffff);
  fc.assert(
    fc.property(arbitraryTuple, arbitraryTuple, id, zone, (original, reply, id, zone) => {
      const event = decodeEvent(onlyMessage(eventFrom(original, reply, id, zone)))!;
      const { kind } = event;
      return isDeepStrictEqual(
        [event.original, event.reply, event.id, event.zone, kind],
        [original, reply, id, zone, 'destroy'],
      );
    }),
    { seed, numRuns: 200 },
  );
  t.pass('encode, decode: the same');

  const names = [...fixture.keys()];
  const changed = fc.record({
    name: fc.constantFrom(...names),
    cut: fc.nat(400),
    edits: fc.array(fc.record({ at: fc.nat(400), value: fc.nat(255) }), { maxLength: 6 }),
  });
  let decoded = 0;
  let refused = 0;
  fc.assert(
    fc.property(changed, ({ name, cut, edits }) => {
      const bytes = bytesOf(name).slice(0, bytesOf(name).length - (cut % 5 === 0 ? cut : 0));
      for (const { at, value } of edits) if (at < bytes.length) bytes[at] = value;
      try {
        for (const message of readMessages(bytes)) {
          decodeEvent(message);
          decodeEntry(message);
        }
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

t.test('damage that is told apart', (t) => {
  const refused = (edit: (bytes: Uint8Array) => void, text: RegExp) => {
    const bytes = bytesOf('new-tcp4').slice();
    edit(bytes);
    t.throws(() => decodeEvent(onlyMessage(bytes)), { constructor: RangeError, message: text });
  };
  refused((bytes) => bytes.fill(0xff, 20, 22), /attribute: it says 65535 bytes/);
  refused((bytes) => bytes.fill(0, 20, 22), /attribute: it says 0 bytes/);
  refused((bytes) => bytes.fill(100, 22, 23), /no tuple/);
  refused((bytes) => bytes.fill(100, 30, 31), /no pair of addresses/);
  const mixed = written((writer) => {
    writer.beginMessage({ type: 0x100, flags: 0, sequence: 0 }).netfilterHeader(2);
    writer.nest(1, () => {
      writer.nest(1, () => writer.attributeU32be(1, 1).attributeBytes(4, new Uint8Array(16)));
      writer.nest(2, () => writer.attributeU8(1, 6));
    });
    writer.endMessage();
  });
  t.throws(() => decodeEvent(onlyMessage(mixed)), /no pair of addresses/, 'of two families');
  refused((bytes) => bytes.fill(5, 28, 29), /attribute 1: it has 1 bytes, not 4/);
  t.end();
});
