/** `enum nft_meta_keys`. */
export const META_PRIORITY = 2;
export const META_MARK = 3;
export const META_IIFNAME = 6;
export const META_OIFNAME = 7;
export const META_NFPROTO = 15;
export const META_L4PROTO = 16;

/** `enum nft_ct_keys`; `IP_CT_DIR_ORIGINAL`. */
export const CT_STATE_KEY = 0;
export const CT_MARK = 3;
export const CT_PROTOCOL = 10;
export const CT_PROTO_DST = 12;
export const CT_SRC_IP = 19;
export const CT_DST_IP = 20;
export const CT_SRC_IP6 = 21;
export const CT_DST_IP6 = 22;
export const DIRECTION_ORIGINAL = 0;

/** `enum nft_fib_result`, `enum nft_fib_flags`. */
export const FIB_RESULT_OIF = 1;
export const FIB_RESULT_OIFNAME = 2;
export const FIB_F_SADDR = 1;
export const FIB_F_MARK = 4;
export const FIB_F_IIF = 8;
export const FIB_F_PRESENT = 32;
