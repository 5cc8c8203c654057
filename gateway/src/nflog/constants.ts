/** `NFNL_SUBSYS_ULOG << 8`, and the messages of linux/netfilter/nfnetlink_log.h. */
const ULOG = 4 << 8;
export const NFULNL_MSG_PACKET = ULOG | 0;
export const NFULNL_MSG_CONFIG = ULOG | 1;

/** `enum nfulnl_attr_type`. */
export const NFULA_PACKET_HDR = 1;
export const NFULA_MARK = 2;
export const NFULA_TIMESTAMP = 3;
export const NFULA_IFINDEX_INDEV = 4;
export const NFULA_IFINDEX_OUTDEV = 5;
export const NFULA_PAYLOAD = 9;
export const NFULA_PREFIX = 10;
export const NFULA_SEQ = 12;
export const NFULA_CT = 18;
export const NFULA_CT_INFO = 19;

/** `enum nfulnl_attr_config`. */
export const NFULA_CFG_CMD = 1;
export const NFULA_CFG_MODE = 2;
export const NFULA_CFG_NLBUFSIZ = 3;
export const NFULA_CFG_TIMEOUT = 4;
export const NFULA_CFG_QTHRESH = 5;
export const NFULA_CFG_FLAGS = 6;

export const NFULNL_CFG_CMD_BIND = 1;
export const NFULNL_COPY_PACKET = 2;
export const NFULNL_CFG_F_SEQ = 1 << 0;
export const NFULNL_CFG_F_CONNTRACK = 1 << 2;
