/*
 * DPDK's rte_lpm and rte_lpm6 as a contestant of the benchmark: holds one table and a list of addresses, and does what
 * it is asked on standard input, one line a request, so that it takes turns with the others.
 *
 *     rte-lpm 4|6 PREFIXES               > SECONDS            that building the table took
 *     < addresses ADDRESSES ANSWERS      > COUNT              writes one int32 an address, -1 for none
 *     < single|bulk MS                   > LOOKUPS SECONDS    looks up for so long
 *
 * PREFIXES and ADDRESSES are files of 32-bit words in the machine's byte order: an address takes one word or, most
 * significant first, four; a prefix one more, its length. Its position in the file is the next hop. There have to be
 * some thousand addresses at least.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lpm.h>
#include <rte_lpm6.h>

#define BATCH 256
/* Lookups between two looks at the clock. */
#define CHUNK (64 * BATCH)
/* rte_lpm_add looks through all rules of a length and all groups in use: up to here it takes less than a second. */
#define ADD_MAX 10000
#define GROUP RTE_LPM_TBL8_GROUP_NUM_ENTRIES

struct list {
	uint32_t *words;
	uint8_t (*bytes6)[16];
	size_t count;
};

static struct list addresses;
static struct rte_lpm *lpm4;
static struct rte_lpm6 *lpm6;
static volatile uint32_t sink;

static void die(const char *what, const char *why)
{
	fprintf(stderr, "Cannot %s: %s\n", what, why);
	exit(1);
}

static void *need(void *pointer, const char *what)
{
	if (pointer == NULL)
		die(what, rte_strerror(rte_errno));
	return pointer;
}

static struct list read_words(const char *path, size_t words_each)
{
	FILE *file = need(fopen(path, "rb"), path);
	struct stat status;
	if (fstat(fileno(file), &status) != 0)
		die("read", path);
	struct list list = { .count = status.st_size / 4 / words_each };
	list.words = need(malloc(status.st_size), "allocate");
	if (fread(list.words, 4 * words_each, list.count, file) != list.count)
		die("read", path);
	fclose(file);
	return list;
}

static void to_bytes6(const uint32_t *words, uint8_t bytes[16])
{
	for (int i = 0; i < 16; i++)
		bytes[i] = words[i / 4] >> (24 - 8 * (i % 4));
}

static struct list read_addresses(const char *path, bool is6)
{
	struct list list = read_words(path, is6 ? 4 : 1);
	if (is6) {
		list.bytes6 = need(malloc(16 * list.count), "allocate");
		for (size_t i = 0; i < list.count; i++)
			to_bytes6(list.words + 4 * i, list.bytes6[i]);
	}
	return list;
}

/* Groups of 256 entries that prefixes sorted by address need: one for each distinct start of 24, 32, 40, ... bits. */
static uint32_t groups_needed(const struct list *prefixes, int width)
{
	uint32_t groups = 0;
	for (int bits = 24; bits < 32 * width; bits += 8) {
		const uint32_t *last = NULL;
		for (size_t i = 0; i < prefixes->count; i++) {
			const uint32_t *at = prefixes->words + i * (width + 1);
			if (at[width] <= (uint32_t)bits)
				continue;
			int whole = bits / 32, rest = bits % 32;
			if (last == NULL || memcmp(last, at, 4 * whole) != 0 ||
			    (rest != 0 && (last[whole] ^ at[whole]) >> (32 - rest) != 0))
				groups++;
			last = at;
		}
	}
	return groups;
}

static struct rte_lpm *create4(const char *name, uint32_t rules, uint32_t groups)
{
	struct rte_lpm_config config = { .max_rules = rules + 1, .number_tbl8s = groups + 1 };
	return need(rte_lpm_create(name, SOCKET_ID_ANY, &config), "create rte_lpm");
}

static void set(struct rte_lpm_tbl_entry *entries, size_t count, const uint32_t *prefix, uint32_t hop)
{
	struct rte_lpm_tbl_entry entry = { .next_hop = hop, .valid = 1, .depth = prefix[1] };
	for (size_t i = 0; i < count; i++)
		entries[i] = entry;
}

/*
 * Writes the tables as rte_lpm_add leaves them when it is given the prefixes in order of length. rte_lpm_add itself
 * is quadratic, and would need the better part of an hour for a million.
 */
static void fill4(struct rte_lpm *lpm, const struct list *prefixes)
{
	uint32_t groups = 0;
	for (uint32_t depth = 1; depth <= 32; depth++) {
		for (size_t i = 0; i < prefixes->count; i++) {
			const uint32_t *prefix = prefixes->words + 2 * i;
			if (prefix[1] != depth)
				continue;
			struct rte_lpm_tbl_entry *entry = &lpm->tbl24[prefix[0] >> 8];
			if (depth <= 24) {
				set(entry, 1u << (24 - depth), prefix, i);
				continue;
			}
			if (!entry->valid_group) {
				for (int j = 0; j < GROUP; j++)
					lpm->tbl8[groups * GROUP + j] = *entry;
				*entry = (struct rte_lpm_tbl_entry){ .next_hop = groups++, .valid = 1, .valid_group = 1 };
			}
			set(&lpm->tbl8[entry->next_hop * GROUP + (prefix[0] & 0xff)], 1u << (32 - depth), prefix, i);
		}
	}
}

static void build4(const struct list *prefixes, uint32_t groups)
{
	lpm4 = create4("table", 0, groups);
	fill4(lpm4, prefixes);
}

static bool differ(struct rte_lpm_tbl_entry a, struct rte_lpm_tbl_entry b)
{
	return a.valid != b.valid || (a.valid && (a.next_hop != b.next_hop || a.depth != b.depth));
}

/* The slow twin of fill4. */
static void check_fill4(const struct list *prefixes, uint32_t groups)
{
	struct rte_lpm *twin = create4("twin", prefixes->count, groups);
	for (uint32_t depth = 1; depth <= 32; depth++)
		for (size_t i = 0; i < prefixes->count; i++) {
			const uint32_t *prefix = prefixes->words + 2 * i;
			if (prefix[1] == depth && rte_lpm_add(twin, prefix[0], depth, i) != 0)
				die("check table", "rte_lpm_add failed");
		}
	for (uint32_t i = 0; i < RTE_LPM_TBL24_NUM_ENTRIES; i++)
		if (differ(lpm4->tbl24[i], twin->tbl24[i]) || lpm4->tbl24[i].valid_group != twin->tbl24[i].valid_group)
			die("check table", "tbl24 is not what rte_lpm_add makes");
	for (uint32_t i = 0; i < groups * GROUP; i++)
		if (differ(lpm4->tbl8[i], twin->tbl8[i]))
			die("check table", "tbl8 is not what rte_lpm_add makes");
	rte_lpm_free(twin);
}

static void build6(const struct list *prefixes, uint32_t groups)
{
	struct rte_lpm6_config config = { .max_rules = prefixes->count + 1, .number_tbl8s = groups + 1 };
	lpm6 = need(rte_lpm6_create("table", SOCKET_ID_ANY, &config), "create rte_lpm6");
	for (size_t i = 0; i < prefixes->count; i++) {
		const uint32_t *prefix = prefixes->words + 5 * i;
		uint8_t bytes[16];
		to_bytes6(prefix, bytes);
		if (rte_lpm6_add(lpm6, bytes, prefix[4], i) != 0)
			die("build table", "rte_lpm6_add failed");
	}
}

/* The next hop, or -1. */
static inline int32_t lookup(size_t at)
{
	uint32_t hop;
	int missed = lpm4 != NULL ? rte_lpm_lookup(lpm4, addresses.words[at], &hop)
				  : rte_lpm6_lookup(lpm6, addresses.bytes6[at], &hop);
	return missed == 0 ? (int32_t)hop : -1;
}

static void single(size_t from)
{
	uint32_t sum = 0;
	for (size_t i = from; i < from + CHUNK; i++)
		sum += lookup(i);
	sink = sum;
}

static void bulk(size_t from)
{
	uint32_t hops[BATCH];
	for (size_t i = from; i < from + CHUNK; i += BATCH) {
		if (lpm4 != NULL)
			rte_lpm_lookup_bulk(lpm4, addresses.words + i, hops, BATCH);
		else
			rte_lpm6_lookup_bulk_func(lpm6, addresses.bytes6 + i, (int32_t *)hops, BATCH);
		sink = hops[0];
	}
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void take_turn(void (*lookups)(size_t), double seconds)
{
	static size_t at;
	uint64_t count = 0;
	double begun = now(), taken = 0;
	for (; taken < seconds; taken = now() - begun) {
		if (at + CHUNK > addresses.count)
			at = 0;
		lookups(at);
		at += CHUNK;
		count += CHUNK;
	}
	printf("%" PRIu64 " %.9f\n", count, taken);
}

static void write_answers(const char *path)
{
	FILE *file = need(fopen(path, "wb"), path);
	for (size_t i = 0; i < addresses.count; i++) {
		int32_t answer = lookup(i);
		fwrite(&answer, 4, 1, file);
	}
	if (fclose(file) != 0)
		die("write", path);
	printf("%zu\n", addresses.count);
}

static void start(size_t bytes)
{
	char megabytes[16];
	snprintf(megabytes, sizeof megabytes, "%zu", (bytes >> 20) + 256);
	char *arguments[] = { "rte-lpm", "--no-huge", "--no-shconf", "--no-telemetry", "--no-pci", "-l", "0",
			      "--log-level", "error", "-m", megabytes, NULL };
	if (rte_eal_init(sizeof arguments / sizeof arguments[0] - 1, arguments) < 0)
		die("start DPDK", rte_strerror(rte_errno));
}

int main(int count, char **arguments)
{
	if (count != 3)
		die("start", "give 4|6 PREFIXES");
	bool is6 = strcmp(arguments[1], "6") == 0;
	int width = is6 ? 4 : 1;
	struct list prefixes = read_words(arguments[2], width + 1);
	uint32_t groups = groups_needed(&prefixes, width);
	start(2 * (sizeof(struct rte_lpm) + ((size_t)groups + 1) * GROUP * 4) + 256 * prefixes.count);
	double begun = now();
	if (is6)
		build6(&prefixes, groups);
	else
		build4(&prefixes, groups);
	printf("%.6f\n", now() - begun);
	if (!is6 && prefixes.count <= ADD_MAX)
		check_fill4(&prefixes, groups);

	char line[8192], command[16], first[4096], second[4096];
	while (fflush(stdout) == 0 && fgets(line, sizeof line, stdin) != NULL) {
		int words = sscanf(line, "%15s %4095s %4095s", command, first, second);
		if (words == 3 && strcmp(command, "addresses") == 0) {
			addresses = read_addresses(first, is6);
			write_answers(second);
		} else if (words == 2 && strcmp(command, "single") == 0) {
			take_turn(single, atof(first) / 1000);
		} else if (words == 2 && strcmp(command, "bulk") == 0) {
			take_turn(bulk, atof(first) / 1000);
		} else {
			die("read request", line);
		}
	}
	return 0;
}
