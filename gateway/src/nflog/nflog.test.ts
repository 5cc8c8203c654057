import fc from 'fast-check';
import t from 'tap';
import { onlyMessage, readFixture } from '../conntrack/fixture.js';
import { parseAddress } from '../net/address.js';
import { Attributes, readMessages } from '../netlink/reader.js';
import { MessageWriter } from '../netlink/writer.js';
import { decodePacket, HOOKS } from './decode.js';
import { type BindRequest, encodeBind } from './encode.js';
import { readPacket } from './packet.js';

const seed = process.env.TEST_SEED === undefined ? Date.now() & 0xffff_ffff : Number(process.env.TEST_SEED);

const fixture = readFixture('nflog/fixtures/nflog.hex');
const connections = readFixture('conntrack/fixtures/conntrack.hex');
const bytesOf = (name: string) => fixture.get(name)!;
const packetOf = (name: string) => decodePacket(onlyMessage(bytesOf(name)))!;
const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
const hex = (...parts: string[]) => Uint8Array.from(Buffer.from(parts.join('').replace(/\s/g, ''), 'hex'));

const SYN = 0x02;

t.test('packets, as they were sent', (t) => {
  const common = {
    prefix: 'deny',
    sequence: undefined,
    mark: 0x40000001,
    indev: undefined,
    outdev: 1,
    timestampMs: undefined,
    conntrack: undefined,
    conntrackInfo: undefined,
  };
  const none = { srcPort: undefined, dstPort: undefined, icmp: undefined };
  const [src4, dst4] = [parseAddress('10.0.0.5'), parseAddress('10.0.0.9')];
  const [src6, dst6] = [parseAddress('2001:db8::5'), parseAddress('2001:db8::9')];
  const icmp = (type: number) => ({ type, code: 0, id: 4660 });
  const expected = {
    udp4: { tuple: { src: src4, dst: dst4, protocol: 17, ...none, srcPort: 40000, dstPort: 53 } },
    tcp4: {
      tuple: { src: src4, dst: dst4, protocol: 6, ...none, srcPort: 41000, dstPort: 8443 },
      tcp: { sequence: 0x9e8fa95d, acknowledgement: 0, flags: SYN },
    },
    tcp6: {
      tuple: { src: src6, dst: dst6, protocol: 6, ...none, srcPort: 42000, dstPort: 443 },
      tcp: { sequence: 4_114_436_573, acknowledgement: 0, flags: SYN },
    },
    icmp4: { tuple: { src: src4, dst: dst4, protocol: 1, ...none, icmp: icmp(8) } },
    icmp6: { tuple: { src: src6, dst: dst6, protocol: 58, ...none, icmp: icmp(128) } },
  };
  for (const [name, one] of Object.entries(expected)) {
    const protocol = name.endsWith('4') ? 0x0800 : 0x86dd;
    t.strictSame({ ...packetOf(name) }, { ...common, tcp: undefined, ...one, protocol, hook: 3 }, name);
  }
  t.equal(HOOKS[3], 'output');
  const bytes = bytesOf('tcp6').slice();
  const packet = decodePacket(onlyMessage(bytes));
  bytes.fill(0xff);
  t.strictSame(packet, packetOf('tcp6'), 'nothing points into the bytes');
  t.equal(decodePacket(onlyMessage(connections.get('new-udp4')!)), undefined, 'another message');
  t.end();
});

/** A message of attributes that the kernel of the fixtures does not send. */
function message(attributes: (writer: MessageWriter) => void): Uint8Array {
  const writer = new MessageWriter();
  writer.beginMessage({ type: 0x400, flags: 0, sequence: 0 }).netfilterHeader(2, 7);
  attributes(writer);
  return writer.endMessage().bytes().slice();
}

t.test('connection and time stamp, which not every kernel sends', (t) => {
  const bytes = message((writer) => {
    writer.attributeBytes(1, hex('86dd0200'));
    writer.attributeBytes(3, hex('000000006b021d8a 000000000001e240'));
    writer.attributeU32be(4, 12);
    writer.attributeBytes(18, connections.get('new-tcp6')!.subarray(20));
    writer.attributeU32be(19, 2);
    writer.attributeU32be(99, 1);
  });
  const packet = decodePacket(onlyMessage(bytes))!;
  t.equal(packet.timestampMs, 1795300746_123);
  t.match(packet, { indev: 12, hook: 2, conntrackInfo: 2, prefix: '', mark: 0, tuple: undefined });
  t.match(packet.conntrack, { id: 2922853532, original: { srcPort: 42000, dstPort: 443 } });
  t.throws(() => decodePacket(onlyMessage(message((writer) => writer.attributeU32be(2, 1)))), RangeError);
  t.end();
});

t.test('packets made to mislead', (t) => {
  const head4 = (fragment: string, protocol: string, first = '45') =>
    `${first} 00 0040 0000 ${fragment} 40 ${protocol} 0000 0a000005 0a000009`;
  const head6 = (next: string) =>
    `60000000 0040 ${next} 40 20010db8000000000000000000000005 20010db8000000000000000000000009`;
  const tcp = 'a028 01bb 00000001 00000002 5002 0000 0000 0000';
  const ports = { srcPort: 0xa028, dstPort: 0x01bb };
  const nothing = { srcPort: undefined, dstPort: undefined, icmp: undefined };
  const cases: [string, string, object | undefined][] = [
    ['nothing', '', undefined],
    ['neither version', `00${head4('0000', '06').slice(2)}`, undefined],
    ['cut in the header', '45000040', undefined],
    ['cut in the IPv6 header', head6('06').slice(0, 60), undefined],
    ['IPv4', head4('0000', '06') + tcp, { protocol: 6, ...ports }],
    ['options', `${head4('0000', '06', '46')}01010101${tcp}`, { protocol: 6, ...ports }],
    ['header length too small', head4('0000', '06', '44') + tcp, { protocol: 6, ...nothing }],
    ['header length beyond the end', head4('0000', '06', '4f') + tcp, { protocol: 6, ...nothing }],
    ['first fragment', head4('2000', '06') + tcp, { protocol: 6, ...ports }],
    ['later fragment', head4('2001', '06') + tcp, { protocol: 6, ...nothing }],
    ['ports cut off', `${head4('0000', '11')}a028`, { protocol: 17, ...nothing }],
    ['no ports', head4('0000', '2f') + tcp, { protocol: 47, ...nothing }],
    ['SCTP', head4('0000', '84') + tcp, { protocol: 132, ...ports }],
    ['ICMP without id', `${head4('0000', '01')}0301 0000 1234 0000`, { icmp: { type: 3, code: 1, id: 0 } }],
    ['ICMP cut', `${head4('0000', '01')}08`, { protocol: 1, ...nothing }],
    [
      'hop by hop, routing, options',
      `${head6('00')} 2b00000000000000 3c00000000000000 0600000000000000 ${tcp}`,
      ports,
    ],
    ['extension of 16 bytes', `${head6('3c')} 0601000000000000 0000000000000000 ${tcp}`, ports],
    ['authentication', `${head6('33')} 0601 0000 00000000 00000000 ${tcp}`, { protocol: 6, ...ports }],
    ['first IPv6 fragment', `${head6('2c')} 0600000100000001 ${tcp}`, { protocol: 6, ...ports }],
    ['far fragment', `${head4('1000', '06')}${tcp}`, { protocol: 6, ...nothing }],
    ['extension cut off', `${head6('3c')} 0600`, { protocol: 60, ...nothing }],
    ['later IPv6 fragment', `${head6('2c')} 0600000900000001 ${tcp}`, { protocol: 6, ...nothing }],
    ['extension beyond the end', `${head6('3c')} 06ff000000000000 ${tcp}`, { protocol: 6, ...nothing }],
    [
      'too many extensions',
      `${head6('3c')} ${'3c00000000000000'.repeat(8)} 0600000000000000 ${tcp}`,
      nothing,
    ],
    ['ICMPv6 in IPv4', `${head4('0000', '3a')}8000 0000 1234 0000`, { protocol: 58, ...nothing }],
    ['no next header', head6('3b'), { protocol: 59, ...nothing }],
  ];
  for (const [name, packet, tuple] of cases) {
    const read = readPacket(viewOf(hex(packet)));
    if (tuple === undefined) t.equal(read, undefined, name);
    else t.match(read?.tuple, tuple, name);
  }
  const header = { sequence: 1, acknowledgement: 2, flags: SYN };
  t.strictSame(readPacket(viewOf(hex(head4('0000', '06'), tcp)))?.tcp, header);
  t.equal(readPacket(viewOf(hex(head4('0000', '06'), tcp.slice(0, 24))))?.tcp, undefined);
  t.end();
});

t.test('binding', (t) => {
  const request: BindRequest = {
    sequence: 3,
    group: 513,
    copyBytes: 96,
    bufferBytes: 65536,
    thresholdPackets: 64,
    timeoutMs: 250,
    conntrack: true,
  };
  const encode = (change: Partial<BindRequest> = {}) => {
    const writer = new MessageWriter();
    encodeBind(writer, { ...request, ...change });
    return onlyMessage(writer.bytes());
  };
  const { type, flags, sequence, payload } = encode();
  t.strictSame([type, flags, sequence], [0x401, 0x005, 3]);
  t.strictSame(payload.subarray(0, 4), hex('00 00 0201'));
  const attributes = new Attributes(payload, 4);
  t.equal(attributes.u8(1), 1);
  t.strictSame(attributes.bytes(2), hex('00000060 02 00'));
  t.equal(attributes.u32be(3), 65536);
  t.equal(attributes.u32be(4), 25, 'hundredths of a second');
  t.equal(attributes.u32be(5), 64);
  t.equal(attributes.u16be(6), 5);
  t.equal(new Attributes(encode({ conntrack: false }).payload, 4).u16be(6), 1);
  for (const wrong of [{ group: 65536 }, { group: -1 }, { group: 0.5 }, { bufferBytes: 131073 }]) {
    t.throws(() => encode(wrong), RangeError, JSON.stringify(wrong));
  }
  t.end();
});

t.test(`damaged bytes (TEST_SEED=${seed})`, (t) => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 120 }),
      fc.constantFrom(0x40, 0x45, 0x4f, 0x60),
      (bytes, first) => {
        bytes[0] = first;
        readPacket(viewOf(bytes));
      },
    ),
    { seed, numRuns: 5000 },
  );
  t.pass('of a packet: never an exception');
  let decoded = 0;
  let refused = 0;
  const edits = fc.array(fc.record({ at: fc.nat(160), value: fc.nat(255) }), { maxLength: 4 });
  fc.assert(
    fc.property(fc.constantFrom(...fixture.keys()), edits, fc.nat(200), (name, edits, cut) => {
      const bytes = bytesOf(name).slice(0, cut < 100 ? undefined : cut);
      for (const { at, value } of edits) if (at < bytes.length) bytes[at] = value;
      try {
        for (const message of readMessages(bytes)) decodePacket(message);
        decoded++;
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
        refused++;
      }
    }),
    { seed, numRuns: 5000 },
  );
  t.ok(decoded > 0 && refused > 0, `of a message: ${decoded} decoded, ${refused} refused with RangeError`);
  t.end();
});
