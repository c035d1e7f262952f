/* SPDX-License-Identifier: Apache-2.0 */
/* Set-up of a split virtqueue and the walk of a descriptor chain. Owning reactor. */
#include "virtio/virtqueue.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"

void virtqueue_init(struct virtqueue *vq, const struct virtqueue_options *options)
{
	ensure(options->size > 0 && options->size <= VIRTQUEUE_SIZE_MAX);
	ensure((options->size & (options->size - 1)) == 0);
	memset(vq, 0, sizeof(*vq));
	vq->desc = options->desc;
	vq->avail = options->avail;
	vq->used = options->used;
	vq->mem = options->mem;
	vq->size = options->size;
	vq->mask = (uint16_t)(options->size - 1);
	vq->avail_index = options->avail_index;
	vq->event_idx = options->event_idx;
	vq->indirect = options->indirect;
	vq->used_index = load_relaxed(&vq->used->idx);
	vq->used_published = vq->used_index;
	vq->used_signalled = vq->used_index;
}

void virtqueue_break(struct virtqueue *vq, const char *why)
{
	if (vq->broken)
		return;
	vq->broken = true;
	vq->broken_why = why;
}

static int broken_chain(struct virtqueue *vq, const char *why)
{
	virtqueue_break(vq, why);
	return -EINVAL;
}

static int add_iov(struct virtqueue_chain *chain, void *base, uint64_t len)
{
	if (unlikely(chain->iov_count == chain->iov_max))
		return -ENOBUFS;
	chain->iovs[chain->iov_count++] = (struct iovec){.iov_base = base, .iov_len = len};
	return 0;
}

/* Adds the buffer of one descriptor: one iovec, or one for every region that it crosses. */
static inline int add_buffer(struct virtqueue *vq, const struct vring_desc *desc,
			     struct virtqueue_chain *chain)
{
	bool writable = desc->flags & VRING_DESC_F_WRITE;
	uint64_t addr = desc->addr;
	uint64_t left = desc->len;

	if (writable)
		chain->writable_bytes += left;
	else if (unlikely(chain->iov_count > chain->readable_count))
		return broken_chain(vq, "device-readable descriptor after a writable one");
	else
		chain->readable_bytes += left;
	while (left > 0) {
		uint64_t run = left;
		void *host = mem_translate(vq->mem, &vq->mem_hint, (gpa_t){addr}, left, &run);
		if (unlikely(host == NULL)) {
			chain->unmapped = true;
			run = left;
		}
		int rc = add_iov(chain, host, run);
		if (unlikely(rc < 0))
			return rc;
		if (!writable)
			chain->readable_count = chain->iov_count;
		addr += run;
		left -= run;
	}
	return 0;
}

/* Where the descriptors of a walk come from: the ring, or an indirect table in guest memory. */
struct desc_source {
	const struct vring_desc *host; /* NULL: not contiguous here, fetched one by one */
	gpa_t guest;
	uint32_t count;
};

/* A descriptor of a table that is not contiguous here, and may lie across regions itself. */
static int gather_desc(struct virtqueue *vq, uint64_t addr, struct vring_desc *out)
{
	uint8_t bytes[sizeof(*out)];
	uint64_t run;

	for (uint64_t done = 0; done < sizeof(bytes); done += run) {
		const uint8_t *host = mem_translate(vq->mem, &vq->mem_hint, (gpa_t){addr + done},
						    sizeof(bytes) - done, &run);
		if (host == NULL)
			return broken_chain(vq, "indirect table is not in guest memory");
		/* By bytes, each loaded once. */
		for (uint64_t i = 0; i < run; i++)
			bytes[done + i] = load_relaxed(&host[i]);
	}
	memcpy(out, bytes, sizeof(*out));
	return 0;
}

static inline int fetch_desc(struct virtqueue *vq, const struct desc_source *source, uint32_t index,
			     struct vring_desc *out)
{
	if (unlikely(source->host == NULL))
		return gather_desc(vq, source->guest.value + index * sizeof(*out), out);
	*out = virtqueue_copy_desc(&source->host[index]);
	return 0;
}

static int enter_indirect(struct virtqueue *vq, const struct vring_desc *desc,
			  struct desc_source *source)
{
	uint64_t run;

	if (unlikely(!vq->indirect))
		return broken_chain(vq, "indirect descriptor without the feature");
	if (unlikely(desc->flags & VRING_DESC_F_NEXT))
		return broken_chain(vq, "indirect descriptor with NEXT");
	if (unlikely(desc->len == 0 || desc->len % sizeof(struct vring_desc) != 0 ||
		     desc->len / sizeof(struct vring_desc) > VIRTQUEUE_INDIRECT_MAX))
		return broken_chain(vq, "indirect table has an illegal length");
	source->guest.value = desc->addr;
	source->count = desc->len / sizeof(struct vring_desc);
	source->host = mem_translate(vq->mem, &vq->mem_hint, source->guest, desc->len, &run);
	if (unlikely(source->host == NULL))
		return broken_chain(vq, "indirect table is not in guest memory");
	if (unlikely(run < desc->len || ((uintptr_t)source->host & 7) != 0))
		source->host = NULL;
	return 0;
}

int virtqueue_walk(struct virtqueue *vq, struct vring_desc first, struct virtqueue_chain *chain)
{
	struct desc_source source = {.host = vq->desc, .count = vq->size};
	struct vring_desc desc = first;
	bool in_table = false;
	/* Descriptors that this source may still give: a longer walk has met a loop. */
	uint32_t budget = source.count;
	int rc;

	chain->iov_count = 0;
	chain->readable_count = 0;
	chain->readable_bytes = 0;
	chain->writable_bytes = 0;
	chain->unmapped = false;
	for (;;) {
		if (unlikely(budget-- == 0))
			return broken_chain(vq, "descriptor chain is longer than its ring");
		if (desc.flags & VRING_DESC_F_INDIRECT) {
			if (unlikely(in_table))
				return broken_chain(vq, "indirect descriptor in an indirect table");
			in_table = true;
			rc = enter_indirect(vq, &desc, &source);
			if (rc == 0)
				rc = fetch_desc(vq, &source, 0, &desc);
			if (unlikely(rc < 0))
				return rc;
			budget = source.count;
			continue;
		}
		rc = add_buffer(vq, &desc, chain);
		if (unlikely(rc < 0))
			return rc;
		if (!(desc.flags & VRING_DESC_F_NEXT))
			return 0;
		if (unlikely(desc.next >= source.count))
			return broken_chain(vq, "next descriptor is outside its ring");
		rc = fetch_desc(vq, &source, desc.next, &desc);
		if (unlikely(rc < 0))
			return rc;
	}
}
