/* Who is at the other end of a UNIX socket: SO_PEERCRED of unix(7), as it was when the connection was made. */
#define _GNU_SOURCE
#include "verbs.h"
#include <errno.h>
#include <stdint.h>
#include <sys/socket.h>

/* peerCredentials(fd): pid, uid and gid as three 32-bit values; or an errno. */
napi_value verb_peer_credentials(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument, result = NULL;
  int32_t fd;
  if (napi_get_cb_info(env, info, &count, &argument, NULL, NULL) != napi_ok ||
      napi_get_value_int32(env, argument, &fd) != napi_ok) {
    return NULL;
  }
  struct ucred peer;
  socklen_t length = sizeof(peer);
  uint32_t *values;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) {
    napi_create_int32(env, errno, &result);
  } else if (napi_create_arraybuffer(env, 3 * sizeof(*values), (void **)&values, &result) == napi_ok) {
    values[0] = (uint32_t)peer.pid;
    values[1] = peer.uid;
    values[2] = peer.gid;
  }
  return result;
}
