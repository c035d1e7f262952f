/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The front-end side of vhost-user against a target of one thread, which can be told to offer
 * little, to refuse, to answer wrongly or to hang up.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "frontend/blk_client.h"
#include "vhost/vhost_user_wire.h"

#define BIT(n) (1ull << (n))
#define ALL_PROTOCOL                                                                          \
	(BIT(VHOST_USER_PROTOCOL_F_MQ) | BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) |               \
	 BIT(VHOST_USER_PROTOCOL_F_CONFIG) | BIT(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS) | \
	 BIT(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD))
#define BLK_FEATURES                                                     \
	(BIT(VIRTIO_F_VERSION_1) | BIT(VHOST_USER_F_PROTOCOL_FEATURES) | \
	 BIT(VIRTIO_BLK_F_BLK_SIZE) | BIT(VIRTIO_BLK_F_MQ) | BIT(VIRTIO_BLK_F_FLUSH))

struct target {
	/* What it is like. */
	uint64_t features;
	uint64_t protocol_features;
	uint64_t queue_count;
	uint32_t config_bytes; /* it gives at most; 0: refuses */
	struct virtio_blk_config config;
	uint32_t refuse;        /* message that is acked with 1 */
	uint32_t hang_up_at;    /* message at which it closes */
	bool no_journal;        /* answers GET_INFLIGHT_FD without one */
	uint32_t wrong_request; /* message that is answered as if it were another */
	/* What it saw. */
	uint32_t seen[VHOST_USER_REQUEST_MAX];
	uint32_t need_reply_count;
	uint32_t fd_count;
	uint64_t acked_features;
	struct vhost_user_memory_region region;
	struct vhost_user_vring_addr addr;
	struct vhost_user_vring_state base;
	struct vhost_user_inflight journal;
	int listener;
	pthread_t thread;
};

static struct target target;
static bool want_packed;
static bool want_journal;
static char dir[] = "/tmp/sluice-test-XXXXXX";
static char path[64];

static void reply(int sock, const struct vhost_user_message *msg, const void *payload, uint32_t len)
{
	struct vhost_user_message out = {.header = msg->header};

	out.header.flags = VHOST_USER_VERSION | VHOST_USER_REPLY_FLAG;
	out.header.size = len;
	if (msg->header.request == target.wrong_request)
		out.header.request++;
	memcpy(&out.payload, payload, len);
	(void)fd_send(sock, &out.header, sizeof(out.header) + len, NULL, 0);
}

static void reply_config(int sock, const struct vhost_user_message *msg)
{
	struct vhost_user_config config = msg->payload.config;
	uint32_t len = MIN(config.size_bytes, target.config_bytes);

	config.size_bytes = len;
	memcpy(config.region, &target.config, MIN(len, sizeof(target.config)));
	reply(sock, msg, &config, len == 0 ? 0 : VHOST_USER_CONFIG_HEADER_BYTES + len);
}

static void reply_journal(int sock, const struct vhost_user_message *msg)
{
	struct vhost_user_message out = {.header = msg->header, .payload = msg->payload};
	int fd = fd_memfd_create("journal", 4096, 0);

	out.header.flags = VHOST_USER_VERSION | VHOST_USER_REPLY_FLAG;
	out.payload.inflight.mmap_size_bytes = 4096;
	(void)fd_send(sock, &out.header, sizeof(out.header) + out.header.size, &fd,
		      target.no_journal ? 0 : 1);
	fd_close(&fd);
}

static void handle(int sock, const struct vhost_user_message *msg)
{
	uint64_t ack = msg->header.request == target.refuse;

	switch (msg->header.request) {
	case VHOST_USER_GET_FEATURES:
		reply(sock, msg, &target.features, 8);
		return;
	case VHOST_USER_GET_PROTOCOL_FEATURES:
		reply(sock, msg, &target.protocol_features, 8);
		return;
	case VHOST_USER_GET_QUEUE_NUM:
		reply(sock, msg, &target.queue_count, 8);
		return;
	case VHOST_USER_GET_CONFIG:
		reply_config(sock, msg);
		return;
	case VHOST_USER_GET_INFLIGHT_FD:
		reply_journal(sock, msg);
		return;
	case VHOST_USER_GET_VRING_BASE:
		reply(sock, msg, &msg->payload.state, sizeof(msg->payload.state));
		return;
	case VHOST_USER_SET_FEATURES:
		target.acked_features = msg->payload.u64;
		break;
	case VHOST_USER_SET_MEM_TABLE:
		target.region = msg->payload.memory.regions[0];
		break;
	case VHOST_USER_ADD_MEM_REG:
		target.region = msg->payload.region.region;
		break;
	case VHOST_USER_SET_VRING_BASE:
		target.base = msg->payload.state;
		break;
	case VHOST_USER_SET_INFLIGHT_FD:
		target.journal = msg->payload.inflight;
		break;
	case VHOST_USER_SET_VRING_ADDR:
		target.addr = msg->payload.addr;
		break;
	default:
		break;
	}
	if (msg->header.flags & VHOST_USER_NEED_REPLY_FLAG) {
		target.need_reply_count++;
		reply(sock, msg, &ack, 8);
	}
}

static bool receive(int sock, struct vhost_user_message *msg)
{
	int fds[FD_PASS_MAX];
	size_t count;

	memset(msg, 0, sizeof(*msg));
	if (fd_recv(sock, &msg->header, sizeof(msg->header), 0, fds, FD_PASS_MAX, &count) !=
	    sizeof(msg->header))
		return false;
	target.fd_count += (uint32_t)count;
	for (size_t i = 0; i < count; i++)
		fd_close(&fds[i]);
	if (msg->header.size == 0)
		return true;
	return fd_recv(sock, &msg->payload, msg->header.size, 0, NULL, 0, &count) ==
	       (ssize_t)msg->header.size;
}

static void *target_main(void *arg)
{
	struct vhost_user_message msg;
	int sock = accept(target.listener, NULL, NULL);

	while (receive(sock, &msg)) {
		if (msg.header.request >= VHOST_USER_REQUEST_MAX ||
		    msg.header.request == target.hang_up_at)
			break;
		target.seen[msg.header.request]++;
		handle(sock, &msg);
	}
	close(sock);
	return arg;
}

static void target_start(void)
{
	target.listener = fd_unix_listen(path, 0600);
	assert_true(target.listener >= 0);
	assert_int_equal(fd_set_nonblocking(target.listener, false), 0);
	assert_int_equal(pthread_create(&target.thread, NULL, target_main, NULL), 0);
}

static void target_stop(struct blk_client *client)
{
	blk_client_close(client);
	pthread_join(target.thread, NULL);
	fd_close(&target.listener);
}

static int make_target(void **state)
{
	want_packed = false;
	want_journal = false;
	target = (struct target){
		.features = BLK_FEATURES,
		.protocol_features = ALL_PROTOCOL,
		.queue_count = 4,
		.config_bytes = 60,
		.config = {.capacity = 2048, .blk_size = 4096, .num_queues = 3},
	};
	return 0;
}

static int bring_up(struct blk_client *client, struct guest_arena *arena, struct vring_driver *ring)
{
	struct vring_driver_options options = {.size = 128, .packed = want_packed};
	struct blk_client_choice choice = {.packed = want_packed};

	assert_int_equal(guest_arena_create(arena, vring_driver_arena_bytes(128), false), 0);
	assert_int_equal(vring_driver_init(ring, arena, &options), 0);
	int rc = blk_client_accept(client, &choice);
	if (rc == 0)
		rc = vhost_user_client_set_memory(&client->vhost, arena);
	if (rc == 0 && want_journal)
		rc = vhost_user_client_keep_journal(&client->vhost, 3, 128);
	if (rc == 0)
		rc = vhost_user_client_set_vring(&client->vhost, 0, ring);
	if (rc == 0)
		rc = vhost_user_client_enable_vring(&client->vhost, 0);
	if (rc == 0)
		rc = vhost_user_client_sync(&client->vhost);
	return rc;
}

static int open_and_bring_up(struct blk_client *client)
{
	struct guest_arena arena;
	struct vring_driver ring;

	target_start();
	assert_int_equal(blk_client_open(client, path), 0);
	int rc = bring_up(client, &arena, &ring);
	if (rc == 0) {
		assert_int_equal(target.base.num, want_packed ? 0x80008000 : 0);
		assert_int_equal(target.region.guest_addr, GUEST_ARENA_BASE);
		assert_int_equal(target.region.user_addr, (uintptr_t)arena.base);
		assert_int_equal(target.addr.descriptor, (uintptr_t)ring.desc);
		assert_int_equal(target.addr.available, (uintptr_t)ring.avail);
		assert_int_equal(target.addr.used, (uintptr_t)ring.used);
		rc = vhost_user_client_stop_vring(&client->vhost, 0);
	}
	vring_driver_fini(&ring);
	guest_arena_destroy(&arena);
	target_stop(client);
	return rc;
}

static void test_full_target(void **state)
{
	struct blk_client client;

	assert_int_equal(open_and_bring_up(&client), 0);
	assert_int_equal(client.capacity_bytes, 2048 * 512);
	assert_int_equal(client.block_size_bytes, 4096);
	assert_int_equal(client.queue_max, 3);
	assert_true(client.flush);
	assert_false(client.read_only);
	assert_int_equal(target.seen[VHOST_USER_ADD_MEM_REG], 1);
	assert_int_equal(target.seen[VHOST_USER_SET_MEM_TABLE], 0);
	assert_int_equal(target.seen[VHOST_USER_SET_VRING_ENABLE], 1);
	assert_int_equal(target.acked_features, BLK_FEATURES);
	/* Owner, features, memory, five of the ring, enable. */
	assert_int_equal(target.need_reply_count, 9);
	assert_int_equal(target.fd_count, 3);
}

static void test_packed_ring(void **state)
{
	struct blk_client client;

	want_packed = true;
	target.features |= BIT(VIRTIO_F_RING_PACKED) | BIT(VIRTIO_RING_F_EVENT_IDX);
	assert_int_equal(open_and_bring_up(&client), 0);
	assert_true(client.packed);
	assert_true(client.event_idx);
	assert_int_equal(target.acked_features, BLK_FEATURES | BIT(VIRTIO_F_RING_PACKED));
}

static void test_journal(void **state)
{
	struct blk_client client;

	want_journal = true;
	assert_int_equal(open_and_bring_up(&client), 0);
	assert_int_equal(target.journal.queue_count, 3);
	assert_int_equal(target.journal.queue_size, 128);
	assert_int_equal(target.journal.mmap_size_bytes, 4096);
	/* Memory, journal, call, kick. */
	assert_int_equal(target.fd_count, 4);
	assert_int_equal(client.vhost.journal_fd, -1);

	make_target(NULL);
	want_journal = true;
	target.no_journal = true;
	assert_int_equal(open_and_bring_up(&client), -EREMOTEIO);
	assert_non_null(strstr(client.vhost.error, "no inflight journal"));
	assert_int_equal(target.seen[VHOST_USER_SET_VRING_KICK], 0);
}

static void test_modest_target(void **state)
{
	struct blk_client client;

	target.protocol_features = BIT(VHOST_USER_PROTOCOL_F_CONFIG);
	target.features &= ~BIT(VIRTIO_BLK_F_BLK_SIZE);
	target.config_bytes = 8;
	assert_int_equal(open_and_bring_up(&client), 0);
	assert_int_equal(client.block_size_bytes, 512);
	assert_int_equal(client.queue_max, 1);
	assert_int_equal(target.need_reply_count, 0);
	assert_int_equal(target.seen[VHOST_USER_GET_QUEUE_NUM], 0);
	assert_int_equal(target.seen[VHOST_USER_ADD_MEM_REG], 0);
	assert_int_equal(target.seen[VHOST_USER_SET_MEM_TABLE], 1);
}

static void expect_open_fails(int rc, const char *words)
{
	struct blk_client client;

	target_start();
	assert_int_equal(blk_client_open(&client, path), rc);
	if (strstr(client.vhost.error, words) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", client.vhost.error, words);
	target_stop(&client);
}

static void test_targets_that_do_not_fit(void **state)
{
	target.features &= ~BIT(VIRTIO_F_VERSION_1);
	expect_open_fails(-EPROTO, "VERSION_1");
	make_target(NULL);
	target.features &= ~BIT(VHOST_USER_F_PROTOCOL_FEATURES);
	expect_open_fails(-EPROTO, "CONFIG");
	assert_int_equal(target.seen[VHOST_USER_GET_PROTOCOL_FEATURES], 0);
	make_target(NULL);
	target.config_bytes = 0;
	expect_open_fails(-EREMOTEIO, "refused GET_CONFIG");
	make_target(NULL);
	target.config_bytes = 7;
	expect_open_fails(-EPROTO, "too short");
	make_target(NULL);
	target.config.capacity = 0;
	expect_open_fails(-EPROTO, "empty");
	make_target(NULL);
	target.config.capacity = UINT64_MAX;
	expect_open_fails(-EPROTO, "impossibly large");
	make_target(NULL);
	target.config.blk_size = 1000;
	expect_open_fails(-EPROTO, "block size");
	make_target(NULL);
	target.queue_count = 0;
	expect_open_fails(-EPROTO, "0 queues");
}

static void test_targets_that_misbehave(void **state)
{
	target.wrong_request = VHOST_USER_GET_CONFIG;
	expect_open_fails(-EPROTO, "no reply to it");
	make_target(NULL);
	target.hang_up_at = VHOST_USER_GET_QUEUE_NUM;
	expect_open_fails(-ECONNRESET, "closed the connection at GET_QUEUE_NUM");
	make_target(NULL);
	target.refuse = VHOST_USER_SET_OWNER;
	expect_open_fails(-EREMOTEIO, "refused SET_OWNER");
}

static void test_refused_ring(void **state)
{
	struct blk_client client;

	target.refuse = VHOST_USER_SET_VRING_ADDR;
	assert_int_equal(open_and_bring_up(&client), -EREMOTEIO);
	assert_non_null(strstr(client.vhost.error, "SET_VRING_ADDR"));
	assert_int_equal(target.seen[VHOST_USER_SET_VRING_KICK], 0);
}

static void test_nobody_listens(void **state)
{
	struct blk_client client;

	unlink(path);
	assert_int_equal(blk_client_open(&client, path), -ENOENT);
	assert_non_null(strstr(client.vhost.error, "cannot connect"));
	blk_client_close(&client);
}

static int make_dir(void **state)
{
	if (mkdtemp(dir) == NULL)
		return -1;
	snprintf(path, sizeof(path), "%s/target", dir);
	return 0;
}

static int remove_dir(void **state)
{
	unlink(path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_full_target, make_target),
		cmocka_unit_test_setup(test_packed_ring, make_target),
		cmocka_unit_test_setup(test_journal, make_target),
		cmocka_unit_test_setup(test_modest_target, make_target),
		cmocka_unit_test_setup(test_targets_that_do_not_fit, make_target),
		cmocka_unit_test_setup(test_targets_that_misbehave, make_target),
		cmocka_unit_test_setup(test_refused_ring, make_target),
		cmocka_unit_test_setup(test_nobody_listens, make_target),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
