/* SPDX-License-Identifier: Apache-2.0 */
/* `sluice bench`: the load generator. Called once, on the program's main thread. */
#ifndef SLUICE_CLI_BENCH_H
#define SLUICE_CLI_BENCH_H

enum bench_exit {
	BENCH_EXIT_OK = 0,
	BENCH_EXIT_IO = 1,        /* I/O or verify errors, or requests that never came back */
	BENCH_EXIT_USAGE = 2,     /* a wrong option, or one that does not fit the disk */
	BENCH_EXIT_CONNECTION = 3 /* no connection, no agreement, or the connection was lost */
};

/* argv[0] is "bench". Returns the process's exit code, an enum bench_exit. */
int bench_main(int argc, char **argv);

#endif
