/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vhost-user protocol on the wire: message numbers, feature bits and payload layouts.
 * Source: QEMU, docs/interop/vhost-user.rst. All fields are in the byte order of the host, which
 * the protocol prescribes. Types only; any thread.
 */
#ifndef SLUICE_VHOST_VHOST_USER_WIRE_H
#define SLUICE_VHOST_VHOST_USER_WIRE_H

#include <stddef.h>
#include <stdint.h>

enum vhost_user_request {
	VHOST_USER_GET_FEATURES = 1,
	VHOST_USER_SET_FEATURES = 2,
	VHOST_USER_SET_OWNER = 3,
	VHOST_USER_RESET_OWNER = 4,
	VHOST_USER_SET_MEM_TABLE = 5,
	VHOST_USER_SET_LOG_BASE = 6,
	VHOST_USER_SET_LOG_FD = 7,
	VHOST_USER_SET_VRING_NUM = 8,
	VHOST_USER_SET_VRING_ADDR = 9,
	VHOST_USER_SET_VRING_BASE = 10,
	VHOST_USER_GET_VRING_BASE = 11,
	VHOST_USER_SET_VRING_KICK = 12,
	VHOST_USER_SET_VRING_CALL = 13,
	VHOST_USER_SET_VRING_ERR = 14,
	VHOST_USER_GET_PROTOCOL_FEATURES = 15,
	VHOST_USER_SET_PROTOCOL_FEATURES = 16,
	VHOST_USER_GET_QUEUE_NUM = 17,
	VHOST_USER_SET_VRING_ENABLE = 18,
	VHOST_USER_SEND_RARP = 19,
	VHOST_USER_NET_SET_MTU = 20,
	VHOST_USER_SET_BACKEND_REQ_FD = 21,
	VHOST_USER_IOTLB_MSG = 22,
	VHOST_USER_SET_VRING_ENDIAN = 23,
	VHOST_USER_GET_CONFIG = 24,
	VHOST_USER_SET_CONFIG = 25,
	VHOST_USER_CREATE_CRYPTO_SESSION = 26,
	VHOST_USER_CLOSE_CRYPTO_SESSION = 27,
	VHOST_USER_POSTCOPY_ADVISE = 28,
	VHOST_USER_POSTCOPY_LISTEN = 29,
	VHOST_USER_POSTCOPY_END = 30,
	VHOST_USER_GET_INFLIGHT_FD = 31,
	VHOST_USER_SET_INFLIGHT_FD = 32,
	VHOST_USER_GPU_SET_SOCKET = 33,
	VHOST_USER_RESET_DEVICE = 34,
	VHOST_USER_VRING_KICK = 35,
	VHOST_USER_GET_MAX_MEM_SLOTS = 36,
	VHOST_USER_ADD_MEM_REG = 37,
	VHOST_USER_REM_MEM_REG = 38,
	VHOST_USER_SET_STATUS = 39,
	VHOST_USER_GET_STATUS = 40,
	VHOST_USER_REQUEST_MAX = 41,
};

/* Requests that the back-end sends on the backend channel. */
enum vhost_user_backend_request {
	VHOST_USER_BACKEND_IOTLB_MSG = 1,
	VHOST_USER_BACKEND_CONFIG_CHANGE_MSG = 2,
	VHOST_USER_BACKEND_VRING_HOST_NOTIFIER_MSG = 3,
	VHOST_USER_BACKEND_VRING_CALL = 4,
	VHOST_USER_BACKEND_VRING_ERR = 5,
};

/* Bits of the 64-bit feature word beside the virtio ones (linux/virtio_config.h). */
#define VHOST_F_LOG_ALL 26
#define VHOST_USER_F_PROTOCOL_FEATURES 30

#define VHOST_USER_PROTOCOL_F_MQ 0
#define VHOST_USER_PROTOCOL_F_LOG_SHMFD 1
#define VHOST_USER_PROTOCOL_F_RARP 2
#define VHOST_USER_PROTOCOL_F_REPLY_ACK 3
#define VHOST_USER_PROTOCOL_F_MTU 4
#define VHOST_USER_PROTOCOL_F_BACKEND_REQ 5
#define VHOST_USER_PROTOCOL_F_CROSS_ENDIAN 6
#define VHOST_USER_PROTOCOL_F_CRYPTO_SESSION 7
#define VHOST_USER_PROTOCOL_F_PAGEFAULT 8
#define VHOST_USER_PROTOCOL_F_CONFIG 9
#define VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD 10
#define VHOST_USER_PROTOCOL_F_HOST_NOTIFIER 11
#define VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD 12
#define VHOST_USER_PROTOCOL_F_RESET_DEVICE 13
#define VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS 14
#define VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS 15
#define VHOST_USER_PROTOCOL_F_STATUS 16
#define VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT 20

/* struct vhost_user_header, flags */
#define VHOST_USER_VERSION 0x1u
#define VHOST_USER_VERSION_MASK 0x3u
#define VHOST_USER_REPLY_FLAG 0x4u
#define VHOST_USER_NEED_REPLY_FLAG 0x8u

struct vhost_user_header {
	uint32_t request;
	uint32_t flags;
	uint32_t size; /* of the payload, bytes */
};
_Static_assert(sizeof(struct vhost_user_header) == 12, "vhost-user header");

/* struct vhost_user_vring_addr, flags */
#define VHOST_VRING_F_LOG 0

/* SET_VRING_KICK, _CALL, _ERR: payload is a u64. */
#define VHOST_USER_VRING_INDEX_MASK 0xffu
#define VHOST_USER_VRING_NOFD_MASK (1u << 8)

struct vhost_user_vring_state {
	uint32_t index;
	uint32_t num;
};
_Static_assert(sizeof(struct vhost_user_vring_state) == 8, "vring state");

/* Ring addresses are user addresses of the front-end, not guest physical ones. */
struct vhost_user_vring_addr {
	uint32_t index;
	uint32_t flags; /* bits: VHOST_VRING_F_ */
	uint64_t descriptor;
	uint64_t used;
	uint64_t available;
	uint64_t log;
};
_Static_assert(sizeof(struct vhost_user_vring_addr) == 40, "vring addr");

struct vhost_user_memory_region {
	uint64_t guest_addr;
	uint64_t size_bytes;
	uint64_t user_addr;
	uint64_t mmap_offset;
};
_Static_assert(sizeof(struct vhost_user_memory_region) == 32, "memory region");

#define VHOST_USER_MEM_TABLE_REGIONS_MAX 8
struct vhost_user_memory {
	uint32_t region_count;
	uint32_t padding;
	struct vhost_user_memory_region regions[VHOST_USER_MEM_TABLE_REGIONS_MAX];
};
_Static_assert(sizeof(struct vhost_user_memory) == 8 + 8 * 32, "memory table");

/* ADD_MEM_REG and REM_MEM_REG */
struct vhost_user_single_region {
	uint64_t padding;
	struct vhost_user_memory_region region;
};
_Static_assert(sizeof(struct vhost_user_single_region) == 40, "single region");

#define VHOST_USER_CONFIG_MAX_BYTES 256
struct vhost_user_config {
	uint32_t offset;
	uint32_t size_bytes;
	uint32_t flags; /* 0: written by the driver; 1: by live migration */
	uint8_t region[VHOST_USER_CONFIG_MAX_BYTES];
};
#define VHOST_USER_CONFIG_HEADER_BYTES 12
_Static_assert(sizeof(struct vhost_user_config) == 12 + 256, "config");

struct vhost_user_inflight {
	uint64_t mmap_size_bytes;
	uint64_t mmap_offset;
	uint16_t queue_count;
	uint16_t queue_size;
	uint32_t padding;
};
_Static_assert(sizeof(struct vhost_user_inflight) == 24, "inflight");

struct vhost_user_log {
	uint64_t mmap_size_bytes;
	uint64_t mmap_offset;
};
_Static_assert(sizeof(struct vhost_user_log) == 16, "log");

union vhost_user_payload {
	uint64_t u64;
	struct vhost_user_vring_state state;
	struct vhost_user_vring_addr addr;
	struct vhost_user_memory memory;
	struct vhost_user_single_region region;
	struct vhost_user_config config;
	struct vhost_user_inflight inflight;
	struct vhost_user_log log;
};

/* A message in memory. On the wire it begins with the header; the word before it keeps the payload
 * aligned. */
struct vhost_user_message {
	uint32_t not_on_the_wire;
	struct vhost_user_header header;
	union vhost_user_payload payload;
};
_Static_assert(offsetof(struct vhost_user_message, payload) ==
		       offsetof(struct vhost_user_message, header) +
			       sizeof(struct vhost_user_header),
	       "payload follows header");

/* The answer to a request of ours that asked for one. */
struct vhost_user_backend_reply {
	struct vhost_user_header header;
	uint8_t payload[8]; /* a u64: 0 is success */
};
_Static_assert(sizeof(struct vhost_user_backend_reply) == 20, "backend reply");

#endif
