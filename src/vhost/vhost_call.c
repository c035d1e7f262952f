/* SPDX-License-Identifier: Apache-2.0 */
/* When to call a driver: see vhost_call.h. Owning reactor, but for the settings. */
#include "vhost/vhost_call.h"

#include "base/clock.h"
#include "base/compiler.h"

static struct {
	uint64_t hold;
	uint64_t close;
	uint64_t rate;
} ticks;

void vhost_call_init(struct vhost_call *call)
{
	/* The same values every time. */
	store_relaxed(&ticks.hold, ns_to_ticks(VHOST_CALL_HOLD_NS));
	store_relaxed(&ticks.close, ns_to_ticks(VHOST_CALL_CLOSE_NS));
	store_relaxed(&ticks.rate, ns_to_ticks(VHOST_CALL_RATE_NS));
	*call = (struct vhost_call){.fd = -1, .mode = VHOST_COALESCING_ADAPTIVE};
}

void vhost_call_set(struct vhost_call *call, const struct vhost_coalescing *coalescing)
{
	/* One after the other: a decision between them is made by a mixture, once. */
	store_relaxed(&call->iops_threshold, coalescing->iops_threshold);
	store_relaxed(&call->delay_base_ticks, ns_to_ticks(coalescing->delay_base_us * 1000ull));
	store_relaxed(&call->mode, coalescing->mode);
}

uint64_t vhost_call_distance(uint64_t delay_base_ticks, uint32_t iops_threshold, uint64_t iops)
{
	if (iops <= iops_threshold || iops_threshold == 0)
		return 0;
	uint64_t above = MIN(iops - iops_threshold, iops_threshold);

	return (uint64_t)((double)delay_base_ticks * (double)above / (double)iops_threshold);
}

/* ---- adaptive ----------------------------------------------------------------------------- */

static bool hold_adaptive(struct vhost_call *call, const struct vhost_call_batch *batch)
{
	uint32_t wait = batch->inflight_count / 8;

	if (batch->inflight_count < VHOST_CALL_DEEP || batch->count >= wait + 1 ||
	    batch->now_ticks - call->sent_ticks > load_relaxed(&ticks.close))
		return false;
	call->wait_left = wait;
	call->due_ticks = batch->now_ticks + load_relaxed(&ticks.hold);
	return true;
}

/* ---- fixed -------------------------------------------------------------------------------- */

static void measure_rate(struct vhost_call *call, const struct vhost_call_batch *batch)
{
	uint64_t elapsed = batch->now_ticks - call->rate_ticks;

	if (elapsed < load_relaxed(&ticks.rate))
		return;
	uint64_t requests = batch->request_count - call->rate_request_count;
	uint64_t iops = (uint64_t)((double)requests * (double)ticks_hz() / (double)elapsed);

	call->rate_ticks = batch->now_ticks;
	call->rate_request_count = batch->request_count;
	call->distance_ticks = vhost_call_distance(load_relaxed(&call->delay_base_ticks),
						   load_relaxed(&call->iops_threshold), iops);
}

static bool hold_fixed(struct vhost_call *call, const struct vhost_call_batch *batch)
{
	measure_rate(call, batch);
	call->wait_left = UINT32_MAX;
	call->due_ticks = call->sent_ticks + call->distance_ticks;
	return call->distance_ticks > 0 && !vhost_call_is_due(call, batch->now_ticks);
}

/* ---- decisions ---------------------------------------------------------------------------- */

bool vhost_call_wanted(struct vhost_call *call, const struct vhost_call_batch *batch)
{
	uint32_t mode = load_relaxed(&call->mode);

	if (mode == VHOST_COALESCING_ADAPTIVE)
		call->held = hold_adaptive(call, batch);
	else
		call->held = mode == VHOST_COALESCING_FIXED && hold_fixed(call, batch);
	return !call->held;
}

bool vhost_call_more(struct vhost_call *call, const struct vhost_call_batch *batch)
{
	if (vhost_call_is_due(call, batch->now_ticks))
		return true;
	if (call->wait_left == UINT32_MAX)
		return false;
	call->wait_left -= MIN(batch->count, call->wait_left);
	return call->wait_left == 0 || batch->inflight_count == 0;
}
