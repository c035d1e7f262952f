/* SPDX-License-Identifier: Apache-2.0 */
/* The path of a virtio-blk request (virtio 1.2, section 5.2.6), on the queue's reactor. */
#ifndef SLUICE_VHOST_BLK_BLK_REQUEST_H
#define SLUICE_VHOST_BLK_BLK_REQUEST_H

#include "vhost/blk/blk_queue.h"

/* The poller of a struct blk_queue: takes what is available, up to a batch. */
unsigned int blk_queue_poll(struct poller *poller);

/* blk_special.c: GET_ID, DISCARD, WRITE_ZEROES and unknown types. data is the part of the chain
 * between header and status. */
void blk_request_special(struct blk_request *request, uint32_t type,
			 const struct virtqueue_chain *data);
/* The next range of a DISCARD or WRITE_ZEROES; false if that was the last. */
bool blk_request_next_range(struct blk_request *request);

/* Gives the request back with a VIRTIO_BLK_S_ status. written_bytes counts the status byte. */
void blk_request_end(struct blk_request *request, uint8_t status, uint32_t written_bytes);
void blk_request_fail(struct blk_request *request, uint8_t status);
/* The same for one that came to no I/O. */
void blk_request_reject(struct blk_request *request, uint8_t status);
/* The completion of a struct bdev_io of a request. */
void blk_request_complete(struct bdev_io *io, enum bdev_status status);

#endif
