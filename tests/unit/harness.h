/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests of what runs on reactors: one real reactor on its own thread. The test's main thread
 * plays the control thread.
 */
#ifndef SLUICE_TESTS_HARNESS_H
#define SLUICE_TESTS_HARNESS_H

#include <stdint.h>
#include <sys/uio.h>

#include "bdev/bdev.h"
#include "reactor/reactor.h"

/* Starts and ends the reactor and two worker threads. One harness at a time. */
void harness_start(enum reactor_poll_mode mode);
void harness_stop(void);
struct reactor *harness_reactor(void);

/* Runs fn on the reactor and waits until it has returned. */
void harness_call(void (*fn)(void *arg), void *arg);

/* Waits until a counter that another thread raises has reached target; a failure after 20 s. */
void harness_wait_at_least(const unsigned int *value, unsigned int target);

/* A disk opened, with one started channel. NULL channel and rc set if starting failed. */
struct harness_disk {
	struct bdev *bdev;
	struct bdev_open *open;
	struct bdev_channel *channel;
};
void harness_disk_open(struct harness_disk *disk, struct bdev *bdev, bool writable);
/* Closes, and destroys the bdev. */
void harness_disk_destroy(struct harness_disk *disk);
/* Closes only. */
void harness_disk_close(struct harness_disk *disk);

/* Submits all I/Os in one message, waits until every one is completed, and stores their statuses.
 * complete, channel and next of the I/Os are set here. */
void harness_submit(struct harness_disk *disk, struct bdev_io *ios, size_t count,
		    enum bdev_status *statuses);
/* One I/O with one buffer (which may be NULL for types without). */
enum bdev_status harness_io(struct harness_disk *disk, enum bdev_io_type type, uint32_t flags,
			    uint64_t offset_bytes, void *buf, uint64_t len_bytes);

/* A seed from SLUICE_TEST_SEED or the clock, printed; then random numbers from it. */
void harness_seed(void);
uint64_t harness_random(uint64_t below);
void harness_random_fill(void *buf, size_t len_bytes);

#endif
