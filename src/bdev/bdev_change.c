/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks that change their size, or go away, while they are in use. The control thread decides,
 * sends each channel a notice, and goes on when all have answered. The functions called on_... and
 * notice_... run on the reactor of the channel, the rest on the control thread.
 *
 * A channel learns of a removal, or of a smaller size, at once, and answers when the I/O that was
 * under way has ended. So that under load there comes such a moment, new I/O is held back while a
 * disk shrinks; of a disk that is gone it is refused.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"
#include "bdev/bdev_impl.h"
#include "bdev/bdev_io.h"

/* How often a channel looks whether its I/O has ended. Nothing on the path of an I/O tells. */
#define DRAIN_STEP_NS 100000

/* Of struct bdev, changing. */
static struct list changing = {.next = &changing, .prev = &changing};
static struct {
	void (*fn)(void *arg);
	void *arg;
} idle;

/* ---- on the reactor ---------------------------------------------------------------------- */

static void on_answer(struct reactor_msg *msg);

static struct bdev_channel *notice_channel(struct bdev_notice *notice)
{
	return container_of(notice, struct bdev_channel, notice);
}

/* Takes the place of the back-end's submit while a disk shrinks. */
static void notice_hold(struct bdev_channel *channel, struct bdev_io *io)
{
	struct bdev_notice *notice = &channel->notice;

	channel->inflight_count--;
	io->next = NULL;
	*notice->held_last = io;
	notice->held_last = &io->next;
}

/* Lets the I/O in that was held back. It was acceptable, and the size has not changed since. */
static void notice_release(struct bdev_channel *channel)
{
	struct bdev_io *io = channel->notice.held_first;

	channel->notice.held_first = NULL;
	while (io != NULL) {
		struct bdev_io *next = io->next;
		channel->inflight_count++;
		channel->submit(channel, io);
		io = next;
	}
}

static void notice_resized(struct bdev_channel *channel)
{
	/* Its queues may have let go of it meanwhile; the bdev stays until we have answered. */
	if (channel->submit == notice_hold)
		channel->submit = channel->bdev->ops->submit;
	if (channel->started && channel->bdev->ops->channel_resize != NULL)
		channel->bdev->ops->channel_resize(channel);
	notice_release(channel);
}

static void notice_answer(struct bdev_notice *notice)
{
	struct bdev_channel *channel = notice_channel(notice);

	if (notice->remove) {
		if (channel->started)
			bdev_channel_stop(channel);
	} else {
		notice_resized(channel);
	}
	notice->msg.fn = on_answer;
	reactor_send(notice->control, &notice->msg);
}

static void on_drain_step(struct reactor_timer *timer)
{
	struct bdev_notice *notice = container_of(timer, struct bdev_notice, timer);
	struct bdev_channel *channel = notice_channel(notice);

	if (channel->inflight_count > 0)
		reactor_timer_start(channel->reactor, timer, DRAIN_STEP_NS);
	else
		notice_answer(notice);
}

static void on_notice(struct reactor_msg *msg)
{
	struct bdev_notice *notice = container_of(msg, struct bdev_notice, msg);
	struct bdev_channel *channel = notice_channel(notice);

	channel->size_bytes = notice->size_bytes;
	if (notice->remove) {
		channel->gone = true;
		channel->type_mask = 0;
	} else if (notice->wait && channel->inflight_count > 0) {
		notice->held_first = NULL;
		notice->held_last = &notice->held_first;
		channel->submit = notice_hold;
	}
	notice->timer.fn = on_drain_step;
	if (notice->wait)
		on_drain_step(&notice->timer);
	else
		notice_answer(notice);
}

/* ---- telling the channels ---------------------------------------------------------------- */

static void change_answered(struct bdev *bdev);

static void on_answer(struct reactor_msg *msg)
{
	struct bdev_notice *notice = container_of(msg, struct bdev_notice, msg);
	struct bdev *bdev = notice->bdev;

	notice->busy = false;
	if (notice->freed)
		free(notice_channel(notice));
	change_answered(bdev);
}

static void notice_send(struct bdev_channel *channel, bool remove, bool wait)
{
	struct bdev_notice *notice = &channel->notice;
	struct bdev *bdev = channel->bdev;

	ensure(!notice->busy);
	notice->bdev = bdev;
	notice->control = reactor_current();
	notice->size_bytes = bdev->change.block_count * bdev->limits.block_size_bytes;
	notice->remove = remove;
	notice->wait = wait;
	notice->busy = true;
	notice->msg.fn = on_notice;
	bdev->change.pending_count++;
	reactor_send(channel->reactor, &notice->msg);
}

static void change_begin(struct bdev *bdev, void (*done)(void *arg), void *arg)
{
	struct bdev_change *change = &bdev->change;

	ensure(!change->busy && reactor_current() != NULL);
	change->busy = true;
	change->done = done;
	change->arg = arg;
	list_add_tail(&changing, &change->link);
}

static void channels_tell(struct bdev *bdev, bool remove, bool wait)
{
	bdev->change.pending_count = 1;
	list_for_each (node, &bdev->channels)
		notice_send(list_entry(node, struct bdev_channel, link), remove, wait);
	change_answered(bdev);
}

void bdev_changes_check(void)
{
	void (*fn)(void *arg) = idle.fn;

	if (fn == NULL || !list_empty(&changing) || bdev_release_count() > 0)
		return;
	idle.fn = NULL;
	fn(idle.arg);
}

void bdev_changes_wait(void (*fn)(void *arg), void *arg)
{
	ensure(idle.fn == NULL);
	idle.fn = fn;
	idle.arg = arg;
	bdev_changes_check();
}

bool bdev_is_changing(const struct bdev *bdev)
{
	return bdev->change.busy || bdev->block_count_next != 0;
}

/* ---- resize ------------------------------------------------------------------------------ */

static void openers_tell(struct bdev *bdev, enum bdev_event event)
{
	list_for_each_safe (node, &bdev->opens) {
		struct bdev_open *open = list_entry(node, struct bdev_open, link);
		if (open->event != NULL)
			open->event(open, event, open->event_arg);
	}
}

int bdev_reserve(struct bdev *bdev, uint64_t block_count)
{
	const struct bdev_ops *ops = bdev->ops;

	if (bdev_is_changing(bdev))
		return -EBUSY;
	if (ops->reserve == NULL || ops->settle == NULL)
		return -EOPNOTSUPP;
	if (block_count == 0 || block_count > INT64_MAX / bdev->limits.block_size_bytes)
		return -EINVAL;
	int rc = ops->reserve(bdev, block_count);
	if (rc == 0)
		bdev->block_count_next = block_count;
	return rc;
}

void bdev_resize(struct bdev *bdev, uint64_t block_count, bool settle, void (*done)(void *arg),
		 void *arg)
{
	bool shrinks = block_count < bdev->block_count;

	bdev->change.block_count = block_count;
	bdev->change.settle = settle;
	bdev->block_count_next = block_count;
	change_begin(bdev, done, arg);
	channels_tell(bdev, false, shrinks);
}

static void resize_end(struct bdev *bdev)
{
	bool changed = bdev->block_count != bdev->change.block_count;

	/* Not earlier: a guest that sees a larger size uses it at once. */
	bdev->block_count = bdev->change.block_count;
	bdev->block_count_next = 0;
	if (bdev->change.settle)
		bdev->ops->settle(bdev);
	if (changed)
		openers_tell(bdev, BDEV_EVENT_RESIZE);
}

/* ---- removal ----------------------------------------------------------------------------- */

static bool all_watch(const struct bdev *bdev)
{
	list_for_each (node, &bdev->opens) {
		if (list_entry(node, struct bdev_open, link)->event == NULL)
			return false;
	}
	return true;
}

int bdev_remove(struct bdev *bdev, void (*done)(void *arg), void *arg)
{
	if (bdev_is_changing(bdev) || !all_watch(bdev))
		return -EBUSY;
	bdev->removing = true;
	list_remove(&bdev->link);
	bdev->change.block_count = bdev->block_count;
	change_begin(bdev, done, arg);
	openers_tell(bdev, BDEV_EVENT_REMOVE);
	channels_tell(bdev, true, true);
	return 0;
}

/* The channels stay with their owners, for whom they refuse. */
static void remove_end(struct bdev *bdev, void (*done)(void *arg), void *arg)
{
	list_for_each_safe (node, &bdev->channels) {
		struct bdev_channel *channel = list_entry(node, struct bdev_channel, link);
		list_remove(&channel->link);
		channel->open->channel_count--;
		channel->open = NULL;
		channel->bdev = NULL;
	}
	list_for_each_safe (node, &bdev->opens)
		bdev_close(list_entry(node, struct bdev_open, link));
	bdev_release(bdev, done, arg);
}

/* ---- the end ----------------------------------------------------------------------------- */

static void change_answered(struct bdev *bdev)
{
	struct bdev_change *change = &bdev->change;
	void (*done)(void *arg) = change->done;
	void *arg = change->arg;

	ensure(change->pending_count > 0);
	if (--change->pending_count > 0)
		return;
	list_remove(&change->link);
	change->busy = false;
	if (bdev->removing) {
		remove_end(bdev, done, arg);
		return;
	}
	resize_end(bdev);
	done(arg);
	bdev_changes_check();
}
