/*
 * Speaks for one end of a TCP connection that goes through this machine, as its first packet had it: what is sent
 * leaves as any packet of ours does, so that connection tracking translates it with the rest. A transparent socket in
 * repair mode needs CAP_NET_ADMIN and no raw sockets (tcp(7) TCP_REPAIR, Linux 3.5; without a window probe 4.19);
 * ports below `ip_unprivileged_port_start` need CAP_NET_BIND_SERVICE too: EACCES. Nothing here blocks.
 */
#include "verbs.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/tcp.h>

/* linux/tcp.h before 5.0 has none of these. */
#define REPAIR_ON 1
#define REPAIR_OFF 0
#define REPAIR_RECEIVE 1
#define REPAIR_SEND 2

struct end {
  socklen_t length;
  struct sockaddr_storage address;
};

static int option(int fd, int level, int name, const void *value, socklen_t length) {
  return setsockopt(fd, level, name, value, length) == 0 ? 0 : errno;
}

static int number_option(int fd, int level, int name, int value) {
  return option(fd, level, name, &value, sizeof(value));
}

/* A socket bound to the source, whoever else has its port: 0 or an errno. */
static int bind_as(int fd, const struct end *source) {
  bool is4 = source->address.ss_family == AF_INET;
  int error = is4 ? number_option(fd, IPPROTO_IP, IP_TRANSPARENT, 1)
                  : number_option(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1);
  if (error == 0) error = number_option(fd, IPPROTO_TCP, TCP_REPAIR, REPAIR_ON);
  if (error != 0) return error;
  return bind(fd, (const struct sockaddr *)&source->address, source->length) == 0 ? 0 : errno;
}

static int connect_to(int fd, const struct end *destination) {
  int failed = connect(fd, (const struct sockaddr *)&destination->address, destination->length);
  return failed && errno != EINPROGRESS ? errno : 0;
}

static int set_sequence(int fd, int queue, uint32_t value) {
  int error = number_option(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);
  return error == 0 ? option(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &value, sizeof(value)) : error;
}

/*
 * The socket stands in the middle of the connection, with nothing sent for it. Leaving repair mode sends a bare ACK
 * with the sequence number before the next, under the mark; closing without lingering sends a reset, under none.
 */
static int reset_as(int fd, const struct end *source, const struct end *destination, uint32_t sequence,
                    uint32_t acknowledgement, uint32_t mark) {
  const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
  int error = option(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
  if (error == 0) error = bind_as(fd, source);
  if (error == 0) error = set_sequence(fd, REPAIR_SEND, sequence);
  if (error == 0) error = set_sequence(fd, REPAIR_RECEIVE, acknowledgement);
  if (error == 0) error = connect_to(fd, destination);
  if (error == 0) error = option(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  if (error == 0) error = number_option(fd, IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF);
  if (error == 0) error = number_option(fd, SOL_SOCKET, SO_MARK, 0);
  return error;
}

/* A first packet. Closing sends nothing more. */
static int syn_as(int fd, const struct end *source, const struct end *destination) {
  int error = bind_as(fd, source);
  if (error == 0) error = number_option(fd, IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF);
  return error == 0 ? connect_to(fd, destination) : error;
}

static bool end_of(napi_env env, napi_value value, struct end *end) {
  size_t length;
  void *bytes;
  if (napi_get_typedarray_info(env, value, NULL, &length, &bytes, NULL, NULL) != napi_ok) return false;
  if (length > sizeof(end->address)) return false;
  memset(end, 0, sizeof(*end));
  memcpy(&end->address, bytes, length);
  end->length = length;
  return true;
}

/* resetAs(source, destination, sequence, acknowledgement, mark), synAs(source, destination): an errno. */
static napi_value speak(napi_env env, napi_callback_info info, bool is_reset) {
  size_t count = 5;
  napi_value arguments[5], result = NULL;
  struct end source, destination;
  uint32_t numbers[3] = {0, 0, 0};
  if (napi_get_cb_info(env, info, &count, arguments, NULL, NULL) != napi_ok) return NULL;
  bool valid = end_of(env, arguments[0], &source) && end_of(env, arguments[1], &destination);
  for (size_t index = 0; is_reset && index < 3; index++) {
    valid = valid && napi_get_value_uint32(env, arguments[2 + index], &numbers[index]) == napi_ok;
  }
  int error = EINVAL;
  if (valid) {
    int fd = socket(source.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0) error = errno;
    else if (is_reset) error = reset_as(fd, &source, &destination, numbers[0], numbers[1], numbers[2]);
    else error = syn_as(fd, &source, &destination);
    if (fd >= 0) close(fd);
  }
  napi_create_int32(env, error, &result);
  return result;
}

napi_value verb_reset_as(napi_env env, napi_callback_info info) { return speak(env, info, true); }

napi_value verb_syn_as(napi_env env, napi_callback_info info) { return speak(env, info, false); }
