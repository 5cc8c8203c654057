/** `NFNL_SUBSYS_CTNETLINK << 8`, and the messages of linux/netfilter/nfnetlink_conntrack.h. */
const CTNETLINK = 1 << 8;
export const IPCTNL_MSG_CT_NEW = CTNETLINK | 0;
export const IPCTNL_MSG_CT_GET = CTNETLINK | 1;
export const IPCTNL_MSG_CT_DELETE = CTNETLINK | 2;
export const IPCTNL_MSG_CT_GET_STATS_CPU = CTNETLINK | 4;

/**
 * linux/netlink.h. `NLM_F_DUMP` is `NLM_F_ROOT | NLM_F_MATCH`; `NLM_F_CREATE` marks the event of a new entry.
 */
export const NLM_F_REQUEST = 0x001;
export const NLM_F_ACK = 0x004;
export const NLM_F_DUMP = 0x300;
export const NLM_F_CREATE = 0x400;

/** `AF_*` of linux/socket.h. */
export const AF_UNSPEC = 0;
export const AF_INET = 2;
export const AF_INET6 = 10;

/** `enum ctattr_type`. */
export const CTA_TUPLE_ORIG = 1;
export const CTA_TUPLE_REPLY = 2;
export const CTA_STATUS = 3;
export const CTA_PROTOINFO = 4;
export const CTA_TIMEOUT = 7;
export const CTA_MARK = 8;
export const CTA_COUNTERS_ORIG = 9;
export const CTA_COUNTERS_REPLY = 10;
export const CTA_ID = 12;
export const CTA_ZONE = 18;
export const CTA_TIMESTAMP = 20;
export const CTA_MARK_MASK = 21;
/** From Linux 6.14. */
export const CTA_TIMESTAMP_EVENT = 27;

/** `enum ctattr_tuple`, `ctattr_ip`, `ctattr_l4proto`. */
export const CTA_TUPLE_IP = 1;
export const CTA_TUPLE_PROTO = 2;
export const CTA_IP_V4_SRC = 1;
export const CTA_IP_V4_DST = 2;
export const CTA_IP_V6_SRC = 3;
export const CTA_IP_V6_DST = 4;
export const CTA_PROTO_NUM = 1;
export const CTA_PROTO_SRC_PORT = 2;
export const CTA_PROTO_DST_PORT = 3;
export const CTA_PROTO_ICMP_ID = 4;
export const CTA_PROTO_ICMP_TYPE = 5;
export const CTA_PROTO_ICMP_CODE = 6;
export const CTA_PROTO_ICMPV6_ID = 7;
export const CTA_PROTO_ICMPV6_TYPE = 8;
export const CTA_PROTO_ICMPV6_CODE = 9;

/** `enum ctattr_protoinfo`, `ctattr_protoinfo_tcp`, `ctattr_counters`, `ctattr_tstamp`. */
export const CTA_PROTOINFO_TCP = 1;
export const CTA_PROTOINFO_TCP_STATE = 1;
export const CTA_COUNTERS_PACKETS = 1;
export const CTA_COUNTERS_BYTES = 2;
export const CTA_TIMESTAMP_START = 1;
export const CTA_TIMESTAMP_STOP = 2;
