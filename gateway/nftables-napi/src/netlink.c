/*
 * Netlink sockets for Node.js, against Node-API alone. Nine verbs, no policy, no parsing: index.ts checks
 * every argument and turns error numbers into errors, so a verb returns an errno (0: fine) or a negative one.
 *
 * Threads. The JavaScript thread owns `struct netlink`; the reader thread of a socket touches only what is
 * marked below. The reader fills a slot with datagrams and hands it over by a thread-safe function; the
 * JavaScript thread copies it out and gives the slot back by `free_slots`. So a slot has one owner at any
 * time, and at most SLOTS are queued: while JavaScript is busy the kernel's socket buffer holds the rest, and
 * tells of what it could not. JavaScript gives slots back in another turn of its loop: given back at once they
 * would come full again before the queue is empty, and timers and files would wait for as long.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/netlink.h>
#include "verbs.h"

#define SLOTS 4
#define SLOT_BYTES (256 * 1024)
/* The most that netfilter's logging packs into one datagram; dumps come in 32 KiB. A longer one is lost. */
#define DATAGRAM_BYTES_MAX (128 * 1024)

struct slot {
  size_t length;
  uint32_t lost;
  unsigned char *bytes;
};

struct netlink {
  /* JavaScript thread only. */
  unsigned references; /* the handle, the thread-safe function, each send in flight */
  unsigned sending;
  bool open;
  pthread_t reader;
  unsigned char *memory;
  /* Both threads: constant while the reader lives, or made for sharing. */
  int fd, wake, coalesce_ms;
  atomic_bool closing;
  sem_t free_slots;
  struct slot slots[SLOTS];
  napi_threadsafe_function deliver;
};

struct sending {
  struct netlink *netlink;
  napi_async_work work;
  napi_deferred deferred;
  napi_ref bytes;
  const void *data;
  size_t length;
  int error;
};

/* Leaves a verb when Node-API refuses a call, as only an engine that is shutting down does. */
#define TRY(env, call)                                                                                   \
  do {                                                                                                   \
    if ((call) != napi_ok) {                                                                             \
      bool pending = false;                                                                              \
      napi_is_exception_pending((env), &pending);                                                        \
      if (!pending) napi_throw_error((env), "ERR_INTERNAL", "Cannot call Node-API: " #call);             \
      return NULL;                                                                                       \
    }                                                                                                    \
  } while (0)

static void unreference(struct netlink *netlink) {
  if (--netlink->references > 0) return;
  sem_destroy(&netlink->free_slots);
  free(netlink->memory);
  free(netlink);
}

/* ---- the reader thread ---- */

/* Takes what the socket holds, until the slot might not hold one more datagram; whether that was all. */
static bool fill(struct netlink *netlink, struct slot *slot) {
  slot->length = 0;
  slot->lost = 0;
  while (SLOT_BYTES - slot->length >= DATAGRAM_BYTES_MAX) {
    struct sockaddr_nl from;
    socklen_t from_length = sizeof(from);
    unsigned char *at = slot->bytes + slot->length;
    ssize_t length = recvfrom(netlink->fd, at, DATAGRAM_BYTES_MAX, MSG_DONTWAIT | MSG_TRUNC,
                              (struct sockaddr *)&from, &from_length);
    if (length < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return true;
      slot->lost++; /* ENOBUFS: the kernel could not queue some messages; or a dump broke off */
      if (errno != ENOBUFS) return true;
    } else if (length > DATAGRAM_BYTES_MAX) {
      slot->lost++;
    } else if (from.nl_pid == 0) { /* from the kernel, not from another process */
      size_t padded = NLMSG_ALIGN((size_t)length);
      memset(at + length, 0, padded - (size_t)length);
      slot->length += padded;
    }
  }
  return false;
}

/* Waits until there is something to receive, and then for more; false when the socket is being closed. */
static bool wait_readable(struct netlink *netlink, int coalesce_ms) {
  struct pollfd both[2] = {{.fd = netlink->wake, .events = POLLIN}, {.fd = netlink->fd, .events = POLLIN}};
  do {
    poll(both, 2, -1);
    if (atomic_load(&netlink->closing)) return false;
  } while (both[1].revents == 0);
  if (coalesce_ms > 0) poll(both, 1, coalesce_ms);
  return !atomic_load(&netlink->closing);
}

static void *read_loop(void *argument) {
  struct netlink *netlink = argument;
  bool drained = true;
  for (unsigned turn = 0;; turn = (turn + 1) % SLOTS) {
    struct slot *slot = &netlink->slots[turn];
    while (sem_wait(&netlink->free_slots) != 0) continue; /* EINTR */
    do {
      if (!wait_readable(netlink, drained ? netlink->coalesce_ms : 0)) return NULL;
      drained = fill(netlink, slot);
    } while (slot->length == 0 && slot->lost == 0);
    if (napi_call_threadsafe_function(netlink->deliver, slot, napi_tsfn_nonblocking) != napi_ok) return NULL;
  }
}

/* ---- the JavaScript thread ---- */

/*
 * Calls onReceive(bytes, lost) with a copy, which may be kept; JavaScript gives the slot back by free(). After the
 * abort in close_netlink() Node passes what is still queued without an environment.
 */
static void deliver(napi_env env, napi_value on_receive, void *context, void *data) {
  (void)context;
  struct slot *slot = data;
  if (env == NULL) return;
  napi_value buffer, arguments[2], undefined, error;
  void *copy;
  uint32_t lost = slot->lost;
  size_t length = slot->length;
  bool made = napi_create_arraybuffer(env, length, &copy, &buffer) == napi_ok;
  if (made && length > 0) memcpy(copy, slot->bytes, length);
  if (!made || napi_create_typedarray(env, napi_uint8_array, length, buffer, 0, &arguments[0]) != napi_ok ||
      napi_create_uint32(env, lost, &arguments[1]) != napi_ok ||
      napi_get_undefined(env, &undefined) != napi_ok) {
    return; /* the engine is shutting down */
  }
  if (napi_call_function(env, undefined, on_receive, 2, arguments, NULL) == napi_pending_exception &&
      napi_get_and_clear_last_exception(env, &error) == napi_ok) {
    napi_fatal_exception(env, error);
  }
}

static void delivered_last(napi_env env, void *data, void *context) {
  (void)env, (void)data;
  unreference(context);
}

static void close_descriptors(struct netlink *netlink) {
  close(netlink->fd);
  close(netlink->wake);
  netlink->fd = netlink->wake = -1;
}

/* Ends the reader at once. The descriptor outlives it where a send still uses it. Safe to repeat. */
static void close_netlink(struct netlink *netlink) {
  if (!netlink->open) return;
  netlink->open = false;
  atomic_store(&netlink->closing, true);
  eventfd_write(netlink->wake, 1);
  sem_post(&netlink->free_slots);
  pthread_join(netlink->reader, NULL);
  napi_release_threadsafe_function(netlink->deliver, napi_tsfn_abort);
  if (netlink->sending == 0) close_descriptors(netlink);
}

static void clean_up(void *data) { close_netlink(data); }

static void handle_collected(napi_env env, void *data, void *hint) {
  (void)hint;
  struct netlink *netlink = data;
  if (netlink->open) napi_remove_env_cleanup_hook(env, clean_up, netlink);
  close_netlink(netlink);
  unreference(netlink);
}

/* socket(), bind() to a port of the kernel's choosing, and what the reader needs; 0 or an errno. */
static int open_descriptors(struct netlink *netlink, int protocol) {
  struct sockaddr_nl local = {.nl_family = AF_NETLINK};
  netlink->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
  if (netlink->fd < 0) return errno;
  netlink->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  int failed = netlink->wake < 0 || bind(netlink->fd, (struct sockaddr *)&local, sizeof(local)) != 0;
  return failed ? errno : 0;
}

/* Signals are for Node's own threads. */
static int start_reader(struct netlink *netlink) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = pthread_create(&netlink->reader, NULL, read_loop, netlink);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return error;
}

static napi_value number(napi_env env, int64_t value) {
  napi_value result = NULL;
  napi_create_int64(env, value, &result);
  return result;
}

/* open(protocol, coalesceMs, onReceive): a handle, or an errno. */
static napi_value verb_open(napi_env env, napi_callback_info info) {
  size_t count = 3;
  napi_value arguments[3], name, handle;
  int32_t protocol, coalesce_ms;
  TRY(env, napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  TRY(env, napi_get_value_int32(env, arguments[0], &protocol));
  TRY(env, napi_get_value_int32(env, arguments[1], &coalesce_ms));
  TRY(env, napi_create_string_utf8(env, "netlink", NAPI_AUTO_LENGTH, &name));

  struct netlink *netlink = calloc(1, sizeof(*netlink));
  if (netlink == NULL) return number(env, ENOMEM);
  netlink->fd = netlink->wake = -1;
  netlink->coalesce_ms = coalesce_ms;
  netlink->references = 1;
  sem_init(&netlink->free_slots, 0, SLOTS);
  /* From here the handle owns it, whatever fails next. */
  napi_status status = napi_create_external(env, netlink, handle_collected, NULL, &handle);
  if (status != napi_ok) unreference(netlink);
  TRY(env, status);

  netlink->memory = malloc(SLOTS * SLOT_BYTES);
  if (netlink->memory == NULL) return number(env, ENOMEM);
  for (unsigned index = 0; index < SLOTS; index++) {
    netlink->slots[index].bytes = netlink->memory + index * SLOT_BYTES;
  }
  int error = open_descriptors(netlink, protocol);
  if (error == 0) {
    status = napi_create_threadsafe_function(env, arguments[2], NULL, name, 0, 1, NULL, delivered_last,
                                             netlink, deliver, &netlink->deliver);
    if (status != napi_ok) close_descriptors(netlink);
    TRY(env, status);
    netlink->references++;
    error = start_reader(netlink);
    if (error != 0) napi_release_threadsafe_function(netlink->deliver, napi_tsfn_abort);
  }
  if (error != 0) {
    close_descriptors(netlink);
    return number(env, error);
  }
  netlink->open = true;
  /* Hooks run newest first: this one ends the reader before Node's own ends the thread-safe function. */
  TRY(env, napi_add_env_cleanup_hook(env, clean_up, netlink));
  return handle;
}

/* The handle is the first argument of every other verb; further ones are whole numbers. NULL: refused. */
static struct netlink *arguments_of(napi_env env, napi_callback_info info, size_t numbers, int32_t *values) {
  size_t count = 4;
  napi_value arguments[4];
  void *netlink;
  TRY(env, napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  TRY(env, napi_get_value_external(env, arguments[0], &netlink));
  for (size_t index = 0; index < numbers; index++) {
    TRY(env, napi_get_value_int32(env, arguments[index + 1], &values[index]));
  }
  return netlink;
}

/* close(handle) */
static napi_value verb_close(napi_env env, napi_callback_info info) {
  struct netlink *netlink = arguments_of(env, info, 0, NULL);
  if (netlink == NULL || !netlink->open) return NULL;
  napi_remove_env_cleanup_hook(env, clean_up, netlink);
  close_netlink(netlink);
  return NULL;
}

/* free(handle): a slot that was received may be filled again. */
static napi_value verb_free(napi_env env, napi_callback_info info) {
  struct netlink *netlink = arguments_of(env, info, 0, NULL);
  if (netlink != NULL) sem_post(&netlink->free_slots);
  return NULL;
}

/* unref(handle): an open socket no longer keeps the process alive. */
static napi_value verb_unref(napi_env env, napi_callback_info info) {
  struct netlink *netlink = arguments_of(env, info, 0, NULL);
  if (netlink != NULL && netlink->open) TRY(env, napi_unref_threadsafe_function(env, netlink->deliver));
  return NULL;
}

/* portId(handle): the kernel's 32-bit number for this socket, or a negative errno. */
static napi_value verb_port_id(napi_env env, napi_callback_info info) {
  struct netlink *netlink = arguments_of(env, info, 0, NULL);
  if (netlink == NULL) return NULL;
  struct sockaddr_nl local;
  socklen_t length = sizeof(local);
  if (getsockname(netlink->fd, (struct sockaddr *)&local, &length) != 0) return number(env, -errno);
  return number(env, local.nl_pid);
}

/* setOption(handle, level, option, value): errno. */
static napi_value verb_set_option(napi_env env, napi_callback_info info) {
  int32_t values[3];
  struct netlink *netlink = arguments_of(env, info, 3, values);
  if (netlink == NULL) return NULL;
  return number(env, setsockopt(netlink->fd, values[0], values[1], &values[2], sizeof(values[2])) ? errno : 0);
}

/* getOption(handle, level, option): the value, or a negative errno. */
static napi_value verb_get_option(napi_env env, napi_callback_info info) {
  int32_t values[2], value = 0;
  socklen_t length = sizeof(value);
  struct netlink *netlink = arguments_of(env, info, 2, values);
  if (netlink == NULL) return NULL;
  return number(env, getsockopt(netlink->fd, values[0], values[1], &value, &length) ? -errno : value);
}

/* ignore(handle, portId): errno. */
static napi_value verb_ignore(napi_env env, napi_callback_info info) {
  int32_t port_id;
  struct netlink *netlink = arguments_of(env, info, 1, &port_id);
  return netlink == NULL ? NULL : number(env, ignore_port(netlink->fd, (uint32_t)port_id));
}

/* On a thread of libuv's pool: the kernel works through a batch inside send(), a big one for seconds. */
static void send_execute(napi_env env, void *data) {
  (void)env;
  struct sending *sending = data;
  ssize_t sent;
  do {
    sent = send(sending->netlink->fd, sending->data, sending->length, 0);
  } while (sent < 0 && errno == EINTR);
  sending->error = sent < 0 ? errno : 0;
}

static void send_complete(napi_env env, napi_status status, void *data) {
  struct sending *sending = data;
  struct netlink *netlink = sending->netlink;
  if (--netlink->sending == 0 && !netlink->open) close_descriptors(netlink);
  unreference(netlink);
  napi_delete_reference(env, sending->bytes);
  napi_delete_async_work(env, sending->work);
  napi_resolve_deferred(env, sending->deferred, number(env, status == napi_ok ? sending->error : ECANCELED));
  free(sending);
}

/* send(handle, bytes): a promise of an errno. The bytes are referenced, not copied. */
static napi_value verb_send(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value arguments[2], name, promise;
  void *netlink, *bytes;
  size_t length;
  TRY(env, napi_get_cb_info(env, info, &count, arguments, NULL, NULL));
  TRY(env, napi_get_value_external(env, arguments[0], &netlink));
  TRY(env, napi_get_typedarray_info(env, arguments[1], NULL, &length, &bytes, NULL, NULL));
  TRY(env, napi_create_string_utf8(env, "netlink send", NAPI_AUTO_LENGTH, &name));
  struct sending *sending = calloc(1, sizeof(*sending));
  if (sending == NULL) TRY(env, napi_generic_failure);
  *sending = (struct sending){.netlink = netlink, .data = bytes, .length = length};

  napi_status status =
      napi_create_async_work(env, NULL, name, send_execute, send_complete, sending, &sending->work);
  if (status == napi_ok) status = napi_create_reference(env, arguments[1], 1, &sending->bytes);
  if (status == napi_ok) status = napi_create_promise(env, &sending->deferred, &promise);
  if (status == napi_ok) status = napi_queue_async_work(env, sending->work);
  if (status != napi_ok) {
    if (sending->bytes != NULL) napi_delete_reference(env, sending->bytes);
    if (sending->work != NULL) napi_delete_async_work(env, sending->work);
    free(sending);
    TRY(env, status);
  }
  sending->netlink->sending++;
  sending->netlink->references++;
  return promise;
}

NAPI_MODULE_INIT() {
#define VERB(name, function) {name, NULL, function, NULL, NULL, NULL, napi_default, NULL}
  const napi_property_descriptor verbs[] = {
      VERB("open", verb_open), VERB("close", verb_close), VERB("free", verb_free),
      VERB("unref", verb_unref), VERB("portId", verb_port_id), VERB("setOption", verb_set_option),
      VERB("getOption", verb_get_option), VERB("send", verb_send), VERB("resetAs", verb_reset_as),
      VERB("synAs", verb_syn_as), VERB("ethtoolStats", verb_ethtool_stats), VERB("ignore", verb_ignore),
      VERB("notify", verb_notify), VERB("peerCredentials", verb_peer_credentials),
  };
  TRY(env, napi_define_properties(env, exports, sizeof(verbs) / sizeof(verbs[0]), verbs));
  return exports;
}
