/*
 * One datagram to a UNIX socket, which Node.js has none of: how a service tells systemd of itself (sd_notify(3)). A path
 * that begins with @ is a name in the abstract namespace (unix(7)). Needs no privilege, and never blocks.
 */
#include "verbs.h"
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* sd_notify(3) has no limit of its own; ours are states and a line of text. */
#define TEXT_BYTES_MAX 4096

/* notify(path, text): an errno. */
napi_value verb_notify(napi_env env, napi_callback_info info) {
  size_t count = 2, path_length, text_length;
  napi_value arguments[2], result = NULL;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char text[TEXT_BYTES_MAX];
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok ||
      napi_get_value_string_utf8(env, arguments[0], address.sun_path, sizeof(address.sun_path), &path_length) !=
          napi_ok ||
      napi_get_value_string_utf8(env, arguments[1], text, sizeof(text), &text_length) != napi_ok) {
    return NULL;
  }
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';
  socklen_t length = offsetof(struct sockaddr_un, sun_path) + path_length;
  int error = 0;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || sendto(fd, text, text_length, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address, length) < 0) {
    error = errno;
  }
  if (fd >= 0) close(fd);
  napi_create_int32(env, error, &result);
  return result;
}
