/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests of disks that change while they are in use. The harness' reactor plays the control
 * reactor, too: what is told to a channel is a message all the same.
 */
#ifndef SLUICE_TESTS_BDEV_CHANGES_H
#define SLUICE_TESTS_BDEV_CHANGES_H

#include <semaphore.h>

#include "harness.h"

/* ---- changes, from the main thread ------------------------------------------------------- */

struct change {
	struct bdev *bdev;
	uint64_t block_count;
	bool settle;
	int rc;
	bool ended; /* the reactor's */
	sem_t done;
};

/* A change of size, with bdev_reserve() if settle; then change_wait() if rc is 0. */
void change_resize(struct change *change, struct bdev *bdev, uint64_t block_count, bool settle);
void change_remove(struct change *change, struct bdev *bdev);
void change_wait(struct change *change);
/* From reserve to the end. */
int resize(struct bdev *bdev, uint64_t block_count);

/* What the opener of the last disk_open() was told. */
struct change_events {
	unsigned int resize_count;
	unsigned int remove_count;
	uint64_t block_count;
};
extern struct change_events seen;
void disk_watch(struct harness_disk *disk);
/* Opens and watches. */
void disk_open(struct harness_disk *disk, struct bdev *bdev);
/* What an owner does with the channel of a disk that is gone. */
void disk_drop(struct harness_disk *disk);

/* ---- a back-end that ends I/O when it is told to ----------------------------------------- */

struct slow_state {
	struct bdev_io *ios[16];
	unsigned int count;
	unsigned int put_count;
	unsigned int destroy_count;
};
extern struct slow_state slow;
/* 100 blocks of 4096. */
struct bdev *slow_create(void);
/* On the reactor: ends all, well. */
void slow_end_all(void *unused);

/* An I/O of one block whose end is looked at, not waited for. */
struct loose_io {
	struct bdev_io io;
	struct iovec iov;
	struct bdev_channel *channel;
	enum bdev_status status; /* BDEV_STATUS_COUNT: it has not ended */
};
void loose_submit(struct loose_io *loose, struct harness_disk *disk, uint64_t block);

/* Time for the reactor to do what it should not. */
void a_while(void);

#endif
