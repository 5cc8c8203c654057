// Makes, and ends, connections by ctnetlink, some 300,000 a second: `node conntrack-load.js new|delete FIRST COUNT [PER_SECOND]`.
// Connection N is UDP from 10.(N >> 20).x.x:1024+… to 10.200.x.x:53 with the mark MARK, distinct for each N < 2^24.
import { NetlinkSocket } from 'nftables-napi';
import * as c from 'sluice-gateway/conntrack/constants.js';
import { NETLINK_NETFILTER } from 'sluice-gateway/netlink/connection.js';
import { MessageWriter } from 'sluice-gateway/netlink/writer.js';
import { encodeMark } from 'sluice-gateway/nft/mark.js';

const NLM_F_EXCL = 0x200;
const UDP = 17;
const TIMEOUT_S = 3_600;
const BATCH = 2_000;

/** Generation 1, rule 1: what the connections that are made carry. */
export const LOAD_MARK = encodeMark({ generation: 1, rule: 1 });

const SOURCE_PORT_FIRST = 1_024;
const sourceOf = (n: number) => 0x0a000000 + (n >>> 8);
const portOf = (n: number) => SOURCE_PORT_FIRST + (n & 0xff);
/** Spread over 65,536 servers. */
const destinationOf = (n: number) => 0x0ac80000 + ((n * 40_503) & 0xffff);

/** One message, and where in it lie the addresses and ports that tell connections apart. */
function template(kind: 'new' | 'delete'): Uint8Array {
  const writer = new MessageWriter();
  const isNew = kind === 'new';
  const flags = c.NLM_F_REQUEST | (isNew ? c.NLM_F_CREATE | NLM_F_EXCL : 0);
  writer.beginMessage({ type: isNew ? c.IPCTNL_MSG_CT_NEW : c.IPCTNL_MSG_CT_DELETE, flags, sequence: 0 });
  writer.netfilterHeader(c.AF_INET);
  const tuple = (type: number) =>
    writer.nest(type, () => {
      writer.nest(c.CTA_TUPLE_IP, () => {
        writer.attributeBytes(c.CTA_IP_V4_SRC, new Uint8Array(4));
        writer.attributeBytes(c.CTA_IP_V4_DST, new Uint8Array(4));
      });
      writer.nest(c.CTA_TUPLE_PROTO, () => {
        writer.attributeU8(c.CTA_PROTO_NUM, UDP);
        writer.attributeU16be(c.CTA_PROTO_SRC_PORT, 0);
        writer.attributeU16be(c.CTA_PROTO_DST_PORT, 53);
      });
    });
  tuple(c.CTA_TUPLE_ORIG);
  if (isNew) {
    tuple(c.CTA_TUPLE_REPLY);
    writer.attributeU32be(c.CTA_TIMEOUT, TIMEOUT_S);
    writer.attributeU32be(c.CTA_MARK, LOAD_MARK);
  }
  writer.endMessage();
  return writer.bytes().slice();
}

/** Of the first tuple: header 16, nfgenmsg 4, three attribute headers; the second follows the first, as long. */
const FIRST_ADDRESS = 16 + 4 + 4 + 4 + 4;
const PORTS_AFTER = 8 + 4 + 4 + 8 + 4;
const TUPLE_BYTES = 52;

function patch(view: DataView, at: number, n: number, isReply: boolean): void {
  const [source, destination] = [sourceOf(n), destinationOf(n)];
  view.setUint32(at, isReply ? destination : source);
  view.setUint32(at + 8, isReply ? source : destination);
  const ports = at + PORTS_AFTER;
  view.setUint16(ports, isReply ? 53 : portOf(n));
  view.setUint16(ports + 8, isReply ? portOf(n) : 53);
}

async function main(kind: 'new' | 'delete', first: number, count: number, perSecond: number): Promise<void> {
  const one = template(kind);
  const bytes = new Uint8Array(one.length * BATCH);
  for (let i = 0; i < BATCH; i++) bytes.set(one, i * one.length);
  const view = new DataView(bytes.buffer);
  let refused = 0;
  const socket = new NetlinkSocket({
    protocol: NETLINK_NETFILTER,
    sendBufferBytes: 8 << 20,
    onReceive: () => refused++,
  });
  const start = performance.now();
  for (let sent = 0; sent < count; sent += BATCH) {
    const batch = Math.min(BATCH, count - sent);
    for (let i = 0; i < batch; i++) {
      const at = i * one.length + FIRST_ADDRESS;
      patch(view, at, first + sent + i, false);
      if (kind === 'new') patch(view, at + TUPLE_BYTES, first + sent + i, true);
    }
    await socket.send(bytes.subarray(0, batch * one.length));
    const dueMs = ((sent + batch) / perSecond) * 1_000 - (performance.now() - start);
    if (dueMs > 1) await new Promise((resolve) => setTimeout(resolve, dueMs));
  }
  const seconds = (performance.now() - start) / 1_000;
  await new Promise((resolve) => setTimeout(resolve, 50));
  socket.close();
  process.stdout.write(`${JSON.stringify({ refused, seconds })}\n`);
}

const [kind, first, count, perSecond] = process.argv.slice(2);
if (kind === 'new' || kind === 'delete')
  await main(kind, Number(first), Number(count), Number(perSecond ?? Number.POSITIVE_INFINITY));
