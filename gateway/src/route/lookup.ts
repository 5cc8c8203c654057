import { AF_INET, AF_INET6, NLM_F_ACK, NLM_F_REQUEST } from '../conntrack/constants.js';
import { type Address, addressFromBytes, addressToBytes } from '../net/address.js';
import { BITS } from '../net/family.js';
import type { NetlinkConnection } from '../netlink/connection.js';
import { Attributes, type Message } from '../netlink/reader.js';
import { MessageWriter } from '../netlink/writer.js';

/** linux/rtnetlink.h, linux/if_link.h. */
const RTM_GETLINK = 18;
const RTM_GETROUTE = 26;
const RTMSG_BYTES = 12;
const IFINFOMSG_BYTES = 16;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_PREFSRC = 7;
const IFLA_IFNAME = 3;

/** Where a packet would go, and the address that the kernel would give it if it were its own. */
export interface Route {
  readonly interfaceName: string;
  readonly preferred: Address | undefined;
}

async function ask(
  connection: NetlinkConnection,
  operation: string,
  type: number,
  body: (writer: MessageWriter) => void,
): Promise<Message> {
  const writer = new MessageWriter().beginMessage({
    ...{ type, flags: NLM_F_REQUEST | NLM_F_ACK, sequence: 1 },
  });
  body(writer);
  const bytes = writer.endMessage().bytes();
  const [message] = await connection.request({ bytes, lastSequence: 1, operation: () => operation });
  return message!;
}

/** Asks the routing table for one destination. Rejects with a NetlinkError (ENETUNREACH) where there is no route. */
export async function lookUpRoute(connection: NetlinkConnection, to: Address): Promise<Route> {
  const header = new Uint8Array(RTMSG_BYTES);
  header[0] = to.family === 4 ? AF_INET : AF_INET6;
  header[1] = BITS[to.family];
  const found = await ask(connection, 'look up route', RTM_GETROUTE, (writer) =>
    writer.raw(header).attributeBytes(RTA_DST, addressToBytes(to)),
  );
  const route = new Attributes(found.payload, RTMSG_BYTES);
  const source = route.bytes(RTA_PREFSRC);
  const request = new Uint8Array(IFINFOMSG_BYTES);
  new DataView(request.buffer).setInt32(4, route.u32(RTA_OIF) ?? 0, true);
  const link = await ask(connection, 'look up interface', RTM_GETLINK, (writer) => writer.raw(request));
  return {
    interfaceName: new Attributes(link.payload, IFINFOMSG_BYTES).string(IFLA_IFNAME) ?? '',
    preferred: source === undefined ? undefined : addressFromBytes(source),
  };
}
