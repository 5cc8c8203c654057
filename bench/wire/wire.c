// Frames onto a wire and off it, faster than a gateway forwards them: wire send IF FRAMES CPU | wire count IF.
//
// FRAMES holds frames one after the other, each behind its length in two bytes, the high one first. Both take commands,
// one a line, until standard input ends, and answer with lines that begin with "=".
//
// send:  run PACKETS MS SHIFT  sends as fast as it can until either is reached, milliseconds of processor time; with
//                              SHIFT 1 every datagram has a source port one higher than when it was sent before.
//                              "=ran SENT WALL_NS CPU_NS"
//        start PER_SECOND SHIFT goes on at this rate, every datagram stamped with the epoch; "=started"
//        epoch NUMBER          the stamp from here on, below EPOCHS_MAX
//        stop                  "=sent EPOCH:COUNT ..."
// count: counts what carries a tag: below EPOCHS_MAX by tag; prints those with the high bit, without it. ICMP errors
//        don't count.
//        report                "=counted LOST EPOCH:COUNT ..."; lost are frames that came too fast to be looked at
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define EPOCHS_MAX 65536
#define BURST_NS 1000000
#define LINE_BYTES_MAX 256
#define TAG_BYTES 8
#define UDP 17

static uint64_t counts[EPOCHS_MAX];

static void fail(const char *what) {
  fprintf(stderr, "Cannot %s: %s\n", what, strerror(errno));
  exit(1);
}

static uint64_t now_ns(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static int open_link(const char *name, int protocol) {
  int link = socket(AF_PACKET, SOCK_RAW, 0);
  if (link < 0) fail("open packet socket");
  struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(name)};
  at.sll_protocol = htons((uint16_t)protocol);
  if (at.sll_ifindex == 0 || bind(link, (struct sockaddr *)&at, sizeof at) < 0) fail("bind packet socket");
  return link;
}

static void print_counts(void) {
  for (int epoch = 0; epoch < EPOCHS_MAX; epoch++)
    if (counts[epoch] > 0) printf(" %d:%llu", epoch, (unsigned long long)counts[epoch]);
  printf("\n");
  fflush(stdout);
}

// A command, without its line feed; exits where standard input has ended.
static char *read_command(void) {
  static char line[LINE_BYTES_MAX];
  size_t length = 0;
  while (length < sizeof line - 1) {
    ssize_t got = read(0, line + length, 1);
    if (got <= 0) exit(0);
    if (line[length] == '\n') break;
    length++;
  }
  line[length] = 0;
  return line;
}

static int has_command(int wait_ms) {
  struct pollfd input = {.fd = 0, .events = POLLIN};
  return poll(&input, 1, wait_ms) > 0;
}

struct frame {
  uint8_t *bytes;
  size_t length;
  uint8_t *udp; // its header; null in what is no datagram
};

static struct frame *frames;
static size_t frame_count, next_frame;

static void load_frames(const char *path) {
  FILE *file = fopen(path, "rb");
  struct stat stat;
  if (file == NULL || fstat(fileno(file), &stat) < 0) fail("open frames");
  uint8_t *bytes = malloc((size_t)stat.st_size);
  frames = calloc((size_t)stat.st_size / 2 + 1, sizeof *frames);
  if (bytes == NULL || frames == NULL || fread(bytes, 1, (size_t)stat.st_size, file) != (size_t)stat.st_size)
    fail("read frames");
  for (uint8_t *at = bytes, *end = bytes + stat.st_size; at + 2 < end; at += 2 + frames[frame_count++].length) {
    struct frame *frame = &frames[frame_count];
    frame->length = (size_t)(at[0] << 8 | at[1]);
    frame->bytes = at + 2;
    int is_ipv4 = frame->bytes[12] == 0x08;
    if (frame->bytes[is_ipv4 ? 23 : 20] == UDP) frame->udp = frame->bytes + (is_ipv4 ? 34 : 54);
  }
  fclose(file);
}

// Changes two bytes of a datagram and its checksum with them (RFC 1624, equation 3).
static void replace16(uint8_t *udp, uint8_t *at, uint16_t value) {
  uint32_t sum = (uint16_t) ~(udp[6] << 8 | udp[7]) + (uint32_t)(uint16_t) ~(at[0] << 8 | at[1]) + value;
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (uint16_t) ~((sum & 0xffff) + (sum >> 16));
  if (sum == 0) sum = 0xffff;
  at[0] = (uint8_t)(value >> 8);
  at[1] = (uint8_t)value;
  udp[6] = (uint8_t)(sum >> 8);
  udp[7] = (uint8_t)sum;
}

static void shift_port(struct frame *frame) {
  if (frame->udp != NULL) replace16(frame->udp, frame->udp, (uint16_t)((frame->udp[0] << 8 | frame->udp[1]) + 1));
}

static void stamp(struct frame *frame, uint32_t epoch) {
  if (frame->udp == NULL || (frame->bytes[frame->length - 4] & 0x80) != 0) return;
  replace16(frame->udp, frame->bytes + frame->length - 4, (uint16_t)(epoch >> 16));
  replace16(frame->udp, frame->bytes + frame->length - 2, (uint16_t)epoch);
}

// Sends so many of the next frames, at most BATCH. A frame that finds a full queue counts as sent: it was offered.
static void send_batch(int link, unsigned count, int shift, const uint32_t *epoch) {
  struct mmsghdr messages[BATCH] = {0};
  struct iovec parts[BATCH];
  for (unsigned i = 0; i < count; i++) {
    struct frame *frame = &frames[next_frame];
    if (++next_frame == frame_count) next_frame = 0;
    if (shift) shift_port(frame);
    if (epoch != NULL) {
      stamp(frame, *epoch);
      counts[*epoch]++;
    }
    parts[i] = (struct iovec){.iov_base = frame->bytes, .iov_len = frame->length};
    messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
  }
  for (unsigned done = 0; done < count;) {
    int sent = sendmmsg(link, messages + done, count - done, 0);
    if (sent < 0 && errno != ENOBUFS) fail("send frames");
    done += sent < 0 ? 1 : (unsigned)sent;
  }
}

static void run(int link, uint64_t packets, uint64_t ms, int shift) {
  uint64_t sent = 0, wall = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_THREAD_CPUTIME_ID), end = cpu + ms * 1000000;
  while (sent < packets && now_ns(CLOCK_THREAD_CPUTIME_ID) < end) {
    unsigned count = packets - sent < BATCH ? (unsigned)(packets - sent) : BATCH;
    send_batch(link, count, shift, NULL);
    sent += count;
  }
  wall = now_ns(CLOCK_MONOTONIC) - wall;
  cpu = now_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
  printf("=ran %llu %llu %llu\n", (unsigned long long)sent, (unsigned long long)wall, (unsigned long long)cpu);
  fflush(stdout);
}

// Late is late: nothing is made up for in a burst. Gives back when told to stop.
static void stream(int link, unsigned per_second, int shift) {
  uint32_t epoch = 0;
  unsigned burst = per_second / (1000000000 / BURST_NS);
  printf("=started\n");
  fflush(stdout);
  for (uint64_t due = now_ns(CLOCK_MONOTONIC);;) {
    while (has_command(0)) {
      char *command = read_command();
      if (strcmp(command, "stop") == 0) return;
      if (sscanf(command, "epoch %u", &epoch) != 1 || epoch >= EPOCHS_MAX) exit(2);
    }
    for (unsigned left = burst > 0 ? burst : 1; left > 0;) {
      unsigned count = left < BATCH ? left : BATCH;
      send_batch(link, count, shift, &epoch);
      left -= count;
    }
    due += BURST_NS;
    uint64_t now = now_ns(CLOCK_MONOTONIC);
    if (now > due) due = now;
    struct timespec until = {.tv_sec = (time_t)(due / 1000000000), .tv_nsec = (long)(due % 1000000000)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
  }
}

static void send_frames(const char *name, const char *path, int cpu) {
  load_frames(path);
  int link = open_link(name, 0);
  int on = 1;
  // Without a queue in between, a frame is forwarded by the time that sending it returns.
  if (setsockopt(link, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on) < 0) fail("bypass the queue");
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  CPU_SET(cpu, &cpus);
  if (cpu >= 0 && sched_setaffinity(0, sizeof cpus, &cpus) < 0) fail("stay on one processor");
  printf("=ready %zu\n", frame_count);
  fflush(stdout);
  for (;;) {
    char *command = read_command();
    unsigned long long packets, ms;
    unsigned per_second;
    int shift;
    if (sscanf(command, "run %llu %llu %d", &packets, &ms, &shift) == 3) run(link, packets, ms, shift);
    else if (sscanf(command, "start %u %d", &per_second, &shift) == 2) {
      memset(counts, 0, sizeof counts);
      stream(link, per_second, shift);
      printf("=sent");
      print_counts();
    } else exit(2);
  }
}

// "Unreachable", which quotes the packet that it is about: it came from another side than that packet went to.
static int is_unreachable(const uint8_t *bytes) {
  return bytes[12] == 0x08 ? bytes[23] == 1 && bytes[34] == 3 : bytes[20] == 58 && bytes[54] == 1;
}

static void look_at(const uint8_t *bytes, size_t length) {
  if (length < 50 || is_unreachable(bytes)) return;
  const uint8_t *at = memmem(bytes, length, "SLCE", 4);
  if (at == NULL || at + TAG_BYTES > bytes + length) return;
  uint32_t tag = (uint32_t)at[4] << 24 | (uint32_t)at[5] << 16 | (uint32_t)at[6] << 8 | at[7];
  if (tag < EPOCHS_MAX) counts[tag]++;
  if ((tag & 0x80000000) == 0) return;
  printf("%u\n", tag & 0x7fffffff);
  fflush(stdout);
}

static void count_frames(const char *name) {
  int link = open_link(name, ETH_P_ALL);
  int room = 64 << 20;
  if (setsockopt(link, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) < 0) fail("get receive buffer");
  printf("=ready 0\n");
  fflush(stdout);
  for (uint64_t lost = 0;;) {
    struct pollfd inputs[2] = {{.fd = link, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    poll(inputs, 2, -1);
    for (;;) {
      uint8_t bytes[65536];
      struct sockaddr_ll from;
      socklen_t size = sizeof from;
      ssize_t length = recvfrom(link, bytes, sizeof bytes, MSG_DONTWAIT, (struct sockaddr *)&from, &size);
      if (length < 0) break;
      if (from.sll_pkttype != PACKET_OUTGOING) look_at(bytes, (size_t)length);
    }
    if ((inputs[1].revents & (POLLIN | POLLHUP)) == 0) continue;
    if (strcmp(read_command(), "report") != 0) exit(2);
    struct tpacket_stats stats;
    socklen_t size = sizeof stats;
    if (getsockopt(link, SOL_PACKET, PACKET_STATISTICS, &stats, &size) == 0) lost += stats.tp_drops;
    printf("=counted %llu", (unsigned long long)lost);
    print_counts();
  }
}

int main(int count, char **arguments) {
  if (count == 5 && strcmp(arguments[1], "send") == 0) send_frames(arguments[2], arguments[3], atoi(arguments[4]));
  if (count == 3 && strcmp(arguments[1], "count") == 0) count_frames(arguments[2]);
  fprintf(stderr, "Usage: wire send IF FRAMES CPU | wire count IF\n");
  return 2;
}
