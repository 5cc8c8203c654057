/* The verbs of tcp.c, ethtool.c, notify.c and peer.c, which index.ts describes, and what filter.c does for netlink.c. */
#define NAPI_VERSION 8
#include <node_api.h>
#include <stdbool.h>
#include <stdint.h>

napi_value verb_reset_as(napi_env env, napi_callback_info info);
napi_value verb_syn_as(napi_env env, napi_callback_info info);
napi_value verb_ethtool_stats(napi_env env, napi_callback_info info);
napi_value verb_notify(napi_env env, napi_callback_info info);
napi_value verb_peer_credentials(napi_env env, napi_callback_info info);

int ignore_port(int fd, uint32_t port_id);
