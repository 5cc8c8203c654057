/*
 * What the kernel itself takes to load elements: nothing but pre-encoded nf_tables batches sent over libmnl.
 *
 *     floor FILE TRANSACTION_BYTES      > SECONDS, from the first byte sent to the last acknowledgement
 *
 * FILE, numbers being 32 bits in the machine's byte order:
 *
 *     maps, then for each of them
 *       name (64 bytes, padded with 0), key type as nft numbers it, key bytes, key byte order, data type, 1 if keys are
 *       intervals, elements, then for each of them
 *         first key, last key (as the kernel compares them), number
 *
 * Makes the table inet "sluice" with these maps and nothing else in it.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#define TABLE "sluice"
#define NAME_BYTES 64
#define KEY_BYTES_MAX 16
/* Of a nested attribute, with room for one interval. */
#define ELEMENTS_BYTES_MAX (UINT16_MAX - 256)
#define MESSAGE_BYTES_MAX (UINT16_MAX + 1024)
#define HOST_ORDER 1

struct map {
	char name[NAME_BYTES];
	uint32_t key_type, key_bytes, key_order, data_type, interval, elements;
	const uint8_t *data;
};
#define MAP_HEAD_BYTES (NAME_BYTES + 6 * sizeof(uint32_t))

/* One transaction, whole. */
struct batch {
	uint8_t *bytes;
	size_t length, room;
	struct nlmsghdr *last;
	uint32_t sequence;
};

static struct batch *batches;
static size_t batch_count;

static void die(const char *what)
{
	fprintf(stderr, "Cannot %s: %s\n", what, strerror(errno));
	exit(1);
}

static void *need(void *pointer, const char *what)
{
	if (pointer == NULL)
		die(what);
	return pointer;
}

/* Begins a message at the end of a batch, which has the room already. */
static struct nlmsghdr *begin(struct batch *batch, uint16_t type, uint16_t flags, uint8_t family, uint16_t resource)
{
	struct nlmsghdr *message = mnl_nlmsg_put_header(batch->bytes + batch->length);
	message->nlmsg_type = type;
	message->nlmsg_flags = NLM_F_REQUEST | flags;
	message->nlmsg_seq = batch->sequence++;
	struct nfgenmsg *head = mnl_nlmsg_put_extra_header(message, sizeof *head);
	head->nfgen_family = family;
	head->version = NFNETLINK_V0;
	head->res_id = htons(resource);
	return message;
}

static struct nlmsghdr *begin_nft(struct batch *batch, uint16_t type, uint16_t flags)
{
	return begin(batch, NFNL_SUBSYS_NFTABLES << 8 | type, flags, NFPROTO_INET, 0);
}

static void end(struct batch *batch, struct nlmsghdr *message)
{
	batch->length += message->nlmsg_len;
	batch->last = message;
}

static struct batch *new_batch(size_t room)
{
	batches = need(realloc(batches, (batch_count + 1) * sizeof *batches), "allocate");
	struct batch *batch = &batches[batch_count++];
	*batch = (struct batch){ .bytes = need(malloc(room), "allocate"), .room = room };
	end(batch, begin(batch, NFNL_MSG_BATCH_BEGIN, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
	return batch;
}

static void finish(struct batch *batch)
{
	batch->last->nlmsg_flags |= NLM_F_ACK;
	struct nlmsghdr *last = batch->last;
	end(batch, begin(batch, NFNL_MSG_BATCH_END, 0, AF_UNSPEC, NFNL_SUBSYS_NFTABLES));
	batch->last = last;
}

static void put_value(struct nlmsghdr *message, uint16_t type, const void *value, size_t bytes)
{
	struct nlattr *nest = mnl_attr_nest_start(message, type);
	mnl_attr_put(message, NFTA_DATA_VALUE, bytes, value);
	mnl_attr_nest_end(message, nest);
}

static void add_map(struct batch *batch, const struct map *map, uint32_t id)
{
	struct nlmsghdr *message = begin_nft(batch, NFT_MSG_NEWSET, NLM_F_CREATE);
	mnl_attr_put_strz(message, NFTA_SET_TABLE, TABLE);
	mnl_attr_put_strz(message, NFTA_SET_NAME, map->name);
	mnl_attr_put_u32(message, NFTA_SET_FLAGS, htonl(NFT_SET_MAP | (map->interval ? NFT_SET_INTERVAL : 0)));
	mnl_attr_put_u32(message, NFTA_SET_KEY_TYPE, htonl(map->key_type));
	mnl_attr_put_u32(message, NFTA_SET_KEY_LEN, htonl(map->key_bytes));
	mnl_attr_put_u32(message, NFTA_SET_DATA_TYPE, htonl(map->data_type));
	mnl_attr_put_u32(message, NFTA_SET_DATA_LEN, htonl(4));
	mnl_attr_put_u32(message, NFTA_SET_ID, htonl(id));
	/* libnftnl's udata.h: NFTNL_UDATA_SET_KEYBYTEORDER 0, DATABYTEORDER 1, DATA_INTERVAL 6. */
	const uint8_t notes[] = { 0, 4, map->key_order, 0, 0, 0, 1, 4, HOST_ORDER, 0, 0, 0, 6, 4, 0, 0, 0, 0 };
	mnl_attr_put(message, NFTA_SET_USERDATA, sizeof notes, notes);
	if (!map->interval) {
		struct nlattr *nest = mnl_attr_nest_start(message, NFTA_SET_DESC);
		mnl_attr_put_u32(message, NFTA_SET_DESC_SIZE, htonl(map->elements));
		mnl_attr_nest_end(message, nest);
	}
	end(batch, message);
}

/* The key one past the last; false where there is none. */
static bool past(const uint8_t *last, uint32_t bytes, uint8_t key[KEY_BYTES_MAX])
{
	memcpy(key, last, bytes);
	for (int i = bytes - 1; i >= 0; i--)
		if (++key[i] != 0)
			return true;
	return false;
}

static void put_element(struct nlmsghdr *message, const struct map *map, const uint8_t *element)
{
	uint32_t bytes = map->key_bytes;
	struct nlattr *nest = mnl_attr_nest_start(message, NFTA_LIST_ELEM);
	put_value(message, NFTA_SET_ELEM_KEY, element, bytes);
	put_value(message, NFTA_SET_ELEM_DATA, element + 2 * bytes, 4);
	mnl_attr_nest_end(message, nest);
	uint8_t key[KEY_BYTES_MAX];
	if (!map->interval || !past(element + bytes, bytes, key))
		return;
	nest = mnl_attr_nest_start(message, NFTA_LIST_ELEM);
	mnl_attr_put_u32(message, NFTA_SET_ELEM_FLAGS, htonl(NFT_SET_ELEM_INTERVAL_END));
	put_value(message, NFTA_SET_ELEM_KEY, key, bytes);
	mnl_attr_nest_end(message, nest);
}

/* Adds elements from `from` on in one message; gives the first that it did not take. */
static uint32_t add_elements(struct batch *batch, const struct map *map, uint32_t from)
{
	struct nlmsghdr *message = begin_nft(batch, NFT_MSG_NEWSETELEM, NLM_F_CREATE);
	mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_TABLE, TABLE);
	mnl_attr_put_strz(message, NFTA_SET_ELEM_LIST_SET, map->name);
	struct nlattr *nest = mnl_attr_nest_start(message, NFTA_SET_ELEM_LIST_ELEMENTS);
	size_t start = message->nlmsg_len, each = 2 * map->key_bytes + 4;
	for (; from < map->elements && message->nlmsg_len - start < ELEMENTS_BYTES_MAX; from++)
		put_element(message, map, map->data + from * each);
	mnl_attr_nest_end(message, nest);
	end(batch, message);
	return from;
}

static void encode(const struct map *maps, uint32_t count, size_t transaction_bytes)
{
	size_t room = transaction_bytes + 2 * MESSAGE_BYTES_MAX;
	struct batch *batch = new_batch(room);
	struct nlmsghdr *message = begin_nft(batch, NFT_MSG_NEWTABLE, NLM_F_CREATE);
	mnl_attr_put_strz(message, NFTA_TABLE_NAME, TABLE);
	end(batch, message);
	for (uint32_t i = 0; i < count; i++) {
		add_map(batch, &maps[i], i + 1);
		for (uint32_t next = 0; next < maps[i].elements;) {
			next = add_elements(batch, &maps[i], next);
			if (batch->length < transaction_bytes)
				continue;
			finish(batch);
			batch = new_batch(room);
		}
		if (batch->length < transaction_bytes)
			continue;
		finish(batch);
		batch = new_batch(room);
	}
	/* Of a batch with nothing in it the end would be the only message. */
	if (batch->sequence > 1)
		finish(batch);
	else
		batch_count--;
}

static void load(struct mnl_socket *socket, const struct batch *batch)
{
	if (mnl_socket_sendto(socket, batch->bytes, batch->length) < 0)
		die("send batch");
	static uint8_t answer[1 << 16];
	for (;;) {
		ssize_t length = mnl_socket_recvfrom(socket, answer, sizeof answer);
		if (length < 0)
			die("receive answer");
		const struct nlmsghdr *message = (const void *)answer;
		for (int rest = length; mnl_nlmsg_ok(message, rest); message = mnl_nlmsg_next(message, &rest)) {
			const struct nlmsgerr *result = mnl_nlmsg_get_payload(message);
			if (message->nlmsg_type != NLMSG_ERROR)
				continue;
			errno = -result->error;
			if (result->error != 0)
				die("load batch");
			if (message->nlmsg_seq == batch->last->nlmsg_seq)
				return;
		}
	}
}

static uint8_t *read_all(const char *path)
{
	FILE *file = need(fopen(path, "rb"), "open file");
	fseek(file, 0, SEEK_END);
	size_t bytes = ftell(file);
	rewind(file);
	uint8_t *content = need(malloc(bytes), "allocate");
	if (fread(content, 1, bytes, file) != bytes)
		die("read file");
	fclose(file);
	return content;
}

static struct map *read_maps(const char *path, uint32_t *count)
{
	const uint8_t *at = read_all(path);
	memcpy(count, at, 4);
	at += 4;
	struct map *maps = need(calloc(*count, sizeof *maps), "allocate");
	for (uint32_t i = 0; i < *count; i++) {
		struct map *map = &maps[i];
		memcpy(map, at, MAP_HEAD_BYTES);
		map->data = at += MAP_HEAD_BYTES;
		at += (size_t)map->elements * (2 * map->key_bytes + 4);
	}
	return maps;
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int argument_count, char **arguments)
{
	if (argument_count != 3) {
		fprintf(stderr, "Usage: floor FILE TRANSACTION_BYTES\n");
		return 2;
	}
	uint32_t count;
	struct map *maps = read_maps(arguments[1], &count);
	size_t transaction_bytes = strtoul(arguments[2], NULL, 10);
	encode(maps, count, transaction_bytes);

	struct mnl_socket *socket = need(mnl_socket_open(NETLINK_NETFILTER), "open socket");
	if (mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0)
		die("bind socket");
	int bytes = 2 * transaction_bytes + 4 * MESSAGE_BYTES_MAX;
	if (setsockopt(mnl_socket_get_fd(socket), SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) < 0)
		die("make send buffer larger");
	double begun = now();
	for (size_t i = 0; i < batch_count; i++)
		load(socket, &batches[i]);
	printf("%.6f\n", now() - begun);
	return 0;
}
