/*
 * The statistics of a network interface that only its driver knows, by the ioctls that `ethtool -S` uses (SIOCETHTOOL
 * with ETHTOOL_GSSET_INFO, Linux 2.6.34, GSTRINGS and GSTATS). Needs no privilege, and asks the network namespace of
 * the process.
 */
#include "verbs.h"
#include <errno.h>
#include <net/if.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>

/* Drivers with statistics for each queue have some thousands. */
#define STATS_MAX 65536

struct stats {
  uint32_t count;
  struct ethtool_gstrings *names;
  struct ethtool_stats *values;
};

static int ask(int fd, const char interface[IFNAMSIZ], void *command) {
  struct ifreq request = {.ifr_data = command};
  memcpy(request.ifr_name, interface, IFNAMSIZ);
  return ioctl(fd, SIOCETHTOOL, &request) == 0 ? 0 : errno;
}

/* 0 or an errno. Names and values are the caller's to free, whatever comes of it. */
static int read_stats(int fd, const char interface[IFNAMSIZ], struct stats *stats) {
  struct {
    struct ethtool_sset_info info;
    uint32_t count;
  } sets = {.info = {.cmd = ETHTOOL_GSSET_INFO, .sset_mask = 1ULL << ETH_SS_STATS}};
  int error = ask(fd, interface, &sets);
  if (error != 0) return error;
  /* The mask comes back without what the driver does not have. */
  if (sets.info.sset_mask == 0) return 0;
  if (sets.count > STATS_MAX) return E2BIG;
  /* The kernel writes as many as the driver has by then, whatever it was asked for: hence the room. */
  stats->names = calloc(1, sizeof(*stats->names) + (size_t)STATS_MAX * ETH_GSTRING_LEN);
  stats->values = calloc(1, sizeof(*stats->values) + (size_t)STATS_MAX * sizeof(uint64_t));
  if (stats->names == NULL || stats->values == NULL) return ENOMEM;
  *stats->names = (struct ethtool_gstrings){
      .cmd = ETHTOOL_GSTRINGS, .string_set = ETH_SS_STATS, .len = sets.count};
  *stats->values = (struct ethtool_stats){.cmd = ETHTOOL_GSTATS, .n_stats = sets.count};
  error = ask(fd, interface, stats->names);
  if (error == 0) error = ask(fd, interface, stats->values);
  if (error == 0 && stats->names->len != stats->values->n_stats) return EAGAIN;
  stats->count = error == 0 ? stats->names->len : 0;
  return error;
}

/* ethtoolStats(interface): names of ETH_GSTRING_LEN bytes each, then as many 64-bit values; or an errno. */
napi_value verb_ethtool_stats(napi_env env, napi_callback_info info) {
  size_t count = 1, length;
  napi_value argument, result = NULL;
  char interface[IFNAMSIZ] = {0};
  void *bytes;
  if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) != napi_ok ||
      napi_get_value_string_utf8(env, argument, interface, sizeof(interface), &length) != napi_ok) {
    return NULL;
  }
  struct stats stats = {0};
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  int error = fd < 0 ? errno : read_stats(fd, interface, &stats);
  if (fd >= 0) close(fd);
  size_t names_bytes = (size_t)stats.count * ETH_GSTRING_LEN;
  size_t values_bytes = (size_t)stats.count * sizeof(uint64_t);
  if (error != 0) {
    napi_create_int32(env, error, &result);
  } else if (napi_create_arraybuffer(env, names_bytes + values_bytes, &bytes, &result) == napi_ok &&
             stats.count > 0) {
    memcpy(bytes, stats.names->data, names_bytes);
    memcpy((char *)bytes + names_bytes, stats.values->data, values_bytes);
  }
  free(stats.names);
  free(stats.values);
  return result;
}
