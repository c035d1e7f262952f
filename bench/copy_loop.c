/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the memory back-end cannot beat: one thread that copies 4 KiB blocks between random places
 * of a memfd and a few buffers, with the C library's memcpy and nothing around it. Prints one JSON
 * object. Arguments: mebibytes of the memory, buffers, seconds for each direction, CPU (-1: any).
 */
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/random.h"

#define BLOCK_BYTES 4096u
#define BATCH 64u

struct area {
	uint8_t *disk;
	uint64_t block_count;
	uint8_t *buffers;
	uint64_t buffer_count;
};

static uint8_t *map_shared(const char *name, uint64_t len_bytes)
{
	int fd = fd_memfd_create(name, len_bytes, 0);
	void *at = fd < 0 ? MAP_FAILED
			  : mmap(NULL, len_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED) {
		fprintf(stderr, "copy_loop: no %s memory of %llu bytes\n", name,
			(unsigned long long)len_bytes);
		exit(1);
	}
	fd_close(&fd);
	madvise(at, len_bytes, MADV_HUGEPAGE);
	memset(at, 0xa5, len_bytes);
	return at;
}

/* Cycles for one copy, as the median of batches would be too kind to a cold cache: the mean. */
static double run(const struct area *area, double seconds, bool to_disk)
{
	uint64_t end = ticks_now() + (uint64_t)(seconds * (double)ticks_hz());
	uint64_t start = ticks_now();
	uint64_t random = 1, count = 0;

	while (ticks_now() < end) {
		for (uint32_t i = 0; i < BATCH; i++, count++) {
			uint64_t block = random_scale(random_next(&random), area->block_count);
			uint8_t *disk = area->disk + block * BLOCK_BYTES;
			uint8_t *buffer = area->buffers + count % area->buffer_count * BLOCK_BYTES;
			memcpy(to_disk ? disk : buffer, to_disk ? buffer : disk, BLOCK_BYTES);
		}
	}
	return (double)(ticks_now() - start) / (double)count;
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fputs("usage: copy_loop MIB BUFFERS SECONDS CPU\n", stderr);
		return 2;
	}
	int cpu = atoi(argv[4]);
	double seconds = atof(argv[3]);
	uint64_t disk_bytes = strtoull(argv[1], NULL, 10) << 20;
	struct area area = {
		.block_count = disk_bytes / BLOCK_BYTES,
		.buffer_count = strtoull(argv[2], NULL, 10),
	};
	if (area.block_count == 0 || area.buffer_count == 0 || seconds <= 0) {
		fputs("copy_loop: every number must be above 0\n", stderr);
		return 2;
	}
	if (cpu >= 0) {
		cpu_set_t set;
		CPU_ZERO(&set);
		CPU_SET((size_t)cpu, &set);
		if (sched_setaffinity(0, sizeof(set), &set) < 0) {
			fputs("copy_loop: there is no such CPU for us\n", stderr);
			return 1;
		}
	}
	area.disk = map_shared("disk", disk_bytes);
	area.buffers = map_shared("buffer", area.buffer_count * BLOCK_BYTES);
	double read_cycles = run(&area, seconds, false);
	double write_cycles = run(&area, seconds, true);
	printf("{\"read_cycles\": %.1f, \"write_cycles\": %.1f, \"tick_rate\": %llu}\n",
	       read_cycles, write_cycles, (unsigned long long)ticks_hz());
	return 0;
}
