/* SPDX-License-Identifier: Apache-2.0 */
/*
 * File descriptors: memfds, eventfds, Unix sockets and passing descriptors over them. All are
 * close-on-exec. Any thread.
 */
#ifndef SLUICE_BASE_FD_H
#define SLUICE_BASE_FD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Closes *fd if it is open and sets it to -1. errno is kept. */
void fd_close(int *fd);

/* 0, or -errno. */
int fd_set_nonblocking(int fd, bool nonblocking);

/* A memfd of len_bytes, sealed against shrinking. Returns the fd, owned by the caller, or -errno.
 */
int fd_memfd_create(const char *name, uint64_t len_bytes, unsigned int memfd_flags);

/* A non-blocking eventfd with count 0: the fd, owned by the caller, or -errno. */
int fd_eventfd_create(void);

/* Signals an eventfd; never blocks on a non-blocking one. */
void fd_eventfd_signal(int fd);

/* True for an eventfd. Control thread: looks into /proc. */
bool fd_is_eventfd(int fd);

/* True for an end of a connected Unix socket pair: not of a connection to a listening socket, ours
 * among them, which would never close while we hold both its ends. */
bool fd_is_socketpair_end(int fd);

/* Creates a listening Unix stream socket at path with the mode given. A socket file that nobody
 * listens on is replaced; -EADDRINUSE if somebody does; -ENAMETOOLONG if path does not fit
 * sun_path (107 bytes); -EEXIST if path is no socket. Returns a non-blocking fd. */
int fd_unix_listen(const char *path, mode_t mode);

/* Connects to a Unix stream socket: a blocking fd, or -errno. */
int fd_unix_connect(const char *path);

/* Sends len bytes and fd_count fds (at most FD_PASS_MAX) with the first of them. Returns the
 * count of bytes sent, or -errno (-EAGAIN on a full non-blocking socket). Never raises SIGPIPE. */
#define FD_PASS_MAX 32
ssize_t fd_send(int sock, const void *buf, size_t len, const int *fds, size_t fd_count);

/* Receives up to len bytes. Fds that came along are stored in fds (at most fd_max, the rest are
 * closed) and counted in *fd_count; the caller owns them. Returns bytes, 0 at end of stream, or
 * -errno. flags as recvmsg(2). */
ssize_t fd_recv(int sock, void *buf, size_t len, int flags, int *fds, size_t fd_max,
		size_t *fd_count);

#endif
