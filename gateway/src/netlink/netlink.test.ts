import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t from 'tap';
import { decodeError } from './connection.js';
import { isBusy, isNotFound, isNotSupported, NetlinkError } from './error.js';
import { Attributes, type Message, readMessages } from './reader.js';
import { ATTRIBUTE_BYTES_MAX, align, MessageWriter, NLA_HDRLEN, NLMSG_HDRLEN } from './writer.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const header = { type: 0x0102, flags: 0x0304, sequence: 0x05060708 };

/** One message of these attributes. */
function message(write: (writer: MessageWriter) => void): Uint8Array {
  const writer = new MessageWriter(1).beginMessage(header);
  write(writer);
  return writer.endMessage().bytes();
}

const attributesOf = (bytes: Uint8Array) => new Attributes(bytes, NLMSG_HDRLEN);

t.test('bytes, as linux/netlink.h draws them', (t) => {
  t.strictSame([0, 1, 3, 4, 5].map(align), [0, 4, 4, 4, 8]);
  const bytes = message((writer) =>
    writer
      .netfilterHeader(2, 0x0a0b)
      .attributeU8(1, 0xff)
      .attributeU16be(2, 0x0102)
      .attributeU32(3, 0x01020304)
      .attributeU32be(4, 0xfffffffe)
      .attributeU64be(5, 0x0102030405060708n)
      .attributeString(6, 'abcd')
      .attributeBytes(7, new Uint8Array())
      .nest(8, () => writer.attributeU8(1, 1)),
  );
  const expected = [
    ['5c000000', '0201', '0403', '08070605', '00000000'],
    ['02000a0b'],
    ['05000100', 'ff000000'],
    ['06000200', '01020000'],
    ['08000300', '04030201'],
    ['08000400', 'fffffffe'],
    ['0c000500', '0102030405060708'],
    ['09000600', '6162636400000000'],
    ['04000700'],
    ['0c000880', '0500010001000000'],
  ];
  t.equal(hex(bytes), expected.flat().join(''));
  t.equal(hex(new MessageWriter().raw(Uint8Array.of(1, 2, 3, 4, 5)).bytes()), '0102030405000000');
  const attributes = attributesOf(bytes.subarray(4));
  t.strictSame(
    [
      attributes.u8(1),
      attributes.u16be(2),
      attributes.u32(3),
      attributes.u32be(4),
      attributes.u64be(5),
      attributes.string(6),
      attributes.bytes(7),
      attributes.nested(8)?.u8(1),
    ],
    [255, 0x0102, 0x01020304, 0xfffffffe, 0x0102030405060708n, 'abcd', new Uint8Array(), 1],
  );
  t.strictSame(attributes.types(), [1, 2, 3, 4, 5, 6, 7, 8], 'without the flag of nests');
  t.strictSame([attributes.has(8), attributes.has(9)], [true, false]);
  const absent = [attributes.u8(9), attributes.u32be(9), attributes.bytes(9), attributes.string(9)];
  t.strictSame([...absent, attributes.nested(9)], Array(5).fill(undefined));
  t.throws(() => attributes.u16be(1), {
    constructor: RangeError,
    message: /attribute 1: it has 1 bytes, not 2/,
  });
  t.throws(() => attributes.u64be(4), RangeError);
  t.equal(attributesOf(message((w) => w.attributeBytes(1, Buffer.from('no zero')))).string(1), 'no zero');
  t.end();
});

t.test('messages follow each other; the last may lack its padding', (t) => {
  const writer = new MessageWriter(1);
  const payloads = [0, 1, 2, 3, 4, 5].map((length) => new Uint8Array(length).fill(length));
  const bytes = Buffer.concat(
    payloads.map((payload, sequence) => {
      const padded = Buffer.alloc(align(NLMSG_HDRLEN + payload.length));
      padded.writeUInt32LE(NLMSG_HDRLEN + payload.length, 0);
      padded.writeUInt32LE(sequence, 8);
      padded.writeUInt32LE(77, 12);
      padded.set(payload, NLMSG_HDRLEN);
      return padded;
    }),
  );
  for (const end of [0, 1, 2, 3]) {
    const messages = [...readMessages(bytes.subarray(0, bytes.length - end))];
    t.strictSame(
      messages.map(({ sequence, portId, payload }) => [sequence, portId, Uint8Array.from(payload)]),
      payloads.map((payload, sequence) => [sequence, 77, payload]),
      `${end} bytes of padding are missing`,
    );
  }
  const short = () => [...readMessages(bytes.subarray(0, bytes.length - 4))];
  t.throws(short, { constructor: RangeError, message: /it says 21 bytes, the buffer has 20 left/ });
  t.strictSame([...readMessages(new Uint8Array(NLMSG_HDRLEN - 1))], [], 'less than a header');
  const lying = Buffer.from(bytes);
  lying.writeUInt32LE(NLMSG_HDRLEN - 1, 0);
  t.throws(() => [...readMessages(lying)], RangeError, 'shorter than its header');
  lying.writeUInt32LE(0, 0);
  t.throws(() => [...readMessages(lying)], RangeError, 'of no length');
  lying.writeUInt32LE(0xffff_ffff, 0);
  t.throws(() => [...readMessages(lying)], RangeError, 'of a length beyond all memory');
  writer.beginMessage(header).attributeU8(1, 1).endMessage().beginMessage(header).endMessage();
  t.strictSame(
    [...readMessages(writer.bytes())].map(({ payload }) => payload.length),
    [8, 0],
    'the writer pads its own',
  );
  t.end();
});

t.test('attributes that say more, or less, than there is are refused', (t) => {
  const bytes = (length: number) => Uint8Array.of(length, 0, 1, 0, 7, 7, 7, 7);
  t.equal(new Attributes(bytes(8)).u32(1), 0x07070707);
  t.equal(new Attributes(bytes(5)).u8(1), 7, 'the rest is padding');
  const refused = (length: number) => ({
    constructor: RangeError,
    message: `Cannot decode attribute: it says ${length} bytes, 8 are left`,
  });
  for (const length of [0, 3, 9, 255]) t.throws(() => new Attributes(bytes(length)), refused(length));
  t.strictSame(new Attributes(bytes(8).subarray(0, 3)).types(), [], 'less than a header');
  t.end();
});

t.test('an attribute holds 65,535 bytes, its header included', (t) => {
  const most = ATTRIBUTE_BYTES_MAX - NLA_HDRLEN;
  t.equal(most, 65_531);
  const full = message((writer) => writer.attributeBytes(1, new Uint8Array(most).fill(7)).attributeU8(2, 9));
  t.equal(attributesOf(full).bytes(1)?.length, most);
  t.equal(attributesOf(full).u8(2), 9, 'and the next starts where it should');
  const tooLong = { constructor: RangeError, message: /attribute 1: it has 65532 bytes, the limit is 65531/ };
  t.throws(() => message((writer) => writer.attributeBytes(1, new Uint8Array(most + 1))), tooLong);

  const nest = (count: number) => (writer: MessageWriter) => {
    writer.nest(3, () => {
      for (let index = 0; index < count; index++) writer.attributeU32be(1, index);
    });
  };
  const fits = Math.floor(most / 8);
  t.equal(
    attributesOf(message(nest(fits)))
      .nested(3)
      ?.u32be(1),
    fits - 1,
  );
  const tooMany = {
    constructor: RangeError,
    message: /nested attribute 3: it has 65540 bytes, the limit is 65535/,
  };
  t.throws(() => message(nest(fits + 1)), tooMany);
  t.end();
});

t.test('what is taken out of a message stays when its buffer is used again', (t) => {
  const bytes = message((writer) =>
    writer
      .attributeBytes(1, Uint8Array.of(1, 2, 3))
      .attributeString(2, 'name')
      .attributeU64be(3, 5n),
  );
  const attributes = attributesOf(bytes);
  const taken = [attributes.bytes(1), attributes.string(2), attributes.u64be(3)];
  bytes.fill(0xff);
  t.strictSame(taken, [Uint8Array.of(1, 2, 3), 'name', 5n]);
  const writer = new MessageWriter(16).beginMessage(header).endMessage();
  const before = hex(writer.bytes());
  writer.beginMessage(header).attributeBytes(1, new Uint8Array(1000)).endMessage();
  t.equal(hex(writer.bytes().subarray(0, 16)), before, 'the writer moves what it has when it grows');
  t.end();
});

type Tree = readonly { readonly type: number; readonly value: Uint8Array | Tree }[];

const { tree } = fc.letrec<{ tree: Tree }>((tie) => ({
  tree: fc.uniqueArray(
    fc.record(
      {
        type: fc.nat(0x3fff),
        value: fc.oneof({ maxDepth: 4 }, fc.uint8Array({ maxLength: 20 }), tie('tree')),
      },
      { noNullPrototype: true },
    ),
    { maxLength: 6, selector: ({ type }) => type },
  ),
}));

function write(writer: MessageWriter, attributes: Tree): void {
  for (const { type, value } of attributes) {
    if (value instanceof Uint8Array) writer.attributeBytes(type, value);
    else writer.nest(type, () => write(writer, value));
  }
}

/** What is in the bytes, read in the shape of a tree that is known. */
function readAs(attributes: Attributes, shape: Tree): Tree {
  return shape.map(({ type, value }) => ({
    type,
    value:
      value instanceof Uint8Array
        ? Uint8Array.from(attributes.bytes(type)!)
        : readAs(attributes.nested(type)!, value),
  }));
}

/** Reads all there is in every way there is. */
function readAll(bytes: Uint8Array): void {
  for (const found of readMessages(bytes)) {
    decodeError(found, 'fuzz');
    const attributes = new Attributes(found.payload, 4);
    for (const type of attributes.types()) {
      attributes.string(type);
      attributes.bytes(type);
      const nested = attributes.nested(type)!;
      for (const inner of nested.types()) nested.u32be(inner);
    }
  }
}

t.test(`properties (TEST_SEED=${seed})`, (t) => {
  fc.assert(
    fc.property(fc.array(tree, { maxLength: 4 }), (trees) => {
      const writer = new MessageWriter(1);
      for (const attributes of trees) {
        writer.beginMessage(header);
        write(writer, attributes);
        writer.endMessage();
      }
      const read = [...readMessages(writer.bytes())].map(({ payload }, index) =>
        readAs(new Attributes(payload), trees[index]!),
      );
      return isDeepStrictEqual(read, trees) && writer.length % 4 === 0;
    }),
    { seed, numRuns: 500 },
  );
  t.pass('written, read: the same');

  const damaged = fc.record({
    attributes: tree,
    cut: fc.nat(100),
    edits: fc.array(fc.record({ at: fc.nat(200), value: fc.nat(255) }), { maxLength: 4 }),
  });
  const outcomes = { read: 0, refused: 0 };
  const tryToRead = (bytes: Uint8Array) => {
    try {
      readAll(bytes);
      outcomes.read++;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      outcomes.refused++;
    }
  };
  fc.assert(
    fc.property(damaged, ({ attributes, cut, edits }) => {
      const whole = message((writer) => {
        writer.netfilterHeader(1);
        write(writer, attributes);
      });
      const bytes = whole.slice(0, cut % 4 === 0 ? whole.length - cut : whole.length);
      for (const { at, value } of edits) if (at < bytes.length) bytes[at] = value;
      tryToRead(bytes);
    }),
    { seed, numRuns: 5000 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), tryToRead), { seed, numRuns: 5000 });
  t.ok(outcomes.read > 100 && outcomes.refused > 100, `damaged bytes: ${JSON.stringify(outcomes)}`);
  t.end();
});

/** `struct nlmsgerr` with what follows it. */
function acknowledgement(errno: number, flags: number, ...rest: readonly Uint8Array[]): Message {
  const start = new Uint8Array(4);
  new DataView(start.buffer).setInt32(0, errno, true);
  const payload = Uint8Array.from(Buffer.concat([start, ...rest]));
  return { type: 2, flags, sequence: 1, portId: 1, payload };
}

t.test('errors', (t) => {
  const NLM_F_CAPPED = 0x100;
  const NLM_F_ACK_TLVS = 0x200;
  const [EPERM, ENOENT, EBUSY, EOPNOTSUPP] = [1, 2, 16, 95];
  const echoed = message((writer) => writer.attributeString(1, 'what was asked'));
  const words = message((writer) => writer.attributeString(1, 'No such chain').attributeU32(2, 36));
  const attributes = words.subarray(NLMSG_HDRLEN);
  t.equal(decodeError(acknowledgement(0, 0, echoed), 'add'), undefined, 'success');
  t.equal(
    decodeError({ ...acknowledgement(-EPERM, 0, echoed), type: 16 }, 'add'),
    undefined,
    'no error message',
  );
  const plain = decodeError(acknowledgement(-EPERM, 0, echoed), 'add chain "x"')!;
  t.match(plain, {
    errno: EPERM,
    code: 'EPERM',
    operation: 'add chain "x"',
    message: 'Cannot add chain "x": EPERM',
  });
  t.equal(plain.kernelMessage, undefined);
  const expected = {
    kernelMessage: 'No such chain',
    offset: 36,
    message: 'Cannot add: ENOENT, the kernel says "No such chain"',
  };
  const whole = acknowledgement(-ENOENT, NLM_F_ACK_TLVS, echoed, attributes);
  t.match(decodeError(whole, 'add'), expected, 'behind the whole of the message it is about');
  const capped = acknowledgement(
    -ENOENT,
    NLM_F_ACK_TLVS | NLM_F_CAPPED,
    echoed.subarray(0, NLMSG_HDRLEN),
    attributes,
  );
  t.match(decodeError(capped, 'add'), expected, 'behind its header alone');
  const done = (errno: number) => ({ ...acknowledgement(errno, 2), type: 3 });
  t.equal(decodeError(done(0), 'list'), undefined, 'the end of a dump');
  t.match(decodeError(done(-EPERM), 'list'), { errno: EPERM, operation: 'list' }, 'a dump that broke off');
  const cutShort = { ...acknowledgement(-EPERM, 0), payload: new Uint8Array(3) };
  t.throws(() => decodeError(cutShort, 'add'), RangeError);
  const is = (errno: number) => {
    const error = new NetlinkError('try', errno);
    return [isNotFound(error), isBusy(error), isNotSupported(error)];
  };
  t.strictSame([ENOENT, EBUSY, EOPNOTSUPP, EPERM].map(is), [
    [true, false, false],
    [false, true, false],
    [false, false, true],
    [false, false, false],
  ]);
  t.equal(isNotFound(new Error('ENOENT')), false);
  t.end();
});
