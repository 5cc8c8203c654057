/** `enum nfnetlink_groups` of linux/netfilter/nfnetlink.h: the multicast groups of connection tracking. */
export const NFNLGRP_CONNTRACK_NEW = 1;
export const NFNLGRP_CONNTRACK_UPDATE = 2;
export const NFNLGRP_CONNTRACK_DESTROY = 3;
