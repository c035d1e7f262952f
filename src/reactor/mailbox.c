/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages to a reactor: a lock-free list that any thread pushes to and the reactor takes whole.
 * Taken newest first and reversed, so that messages of one sender run in the order sent.
 */
#include "base/fd.h"
#include "reactor/reactor_impl.h"

void reactor_send(struct reactor *reactor, struct reactor_msg *msg)
{
	struct reactor_msg *head = load_relaxed(&reactor->mailbox);

	do {
		msg->next = head;
	} while (!__atomic_compare_exchange_n(&reactor->mailbox, &head, msg, true, __ATOMIC_SEQ_CST,
					      __ATOMIC_RELAXED));
	/* Partner: reactor_begin_sleep() stores sleeping, then loads mailbox. In the one order of
	 * all sequentially consistent operations either it sees our message or we see it sleep. */
	if (__atomic_load_n(&reactor->sleeping, __ATOMIC_SEQ_CST))
		fd_eventfd_signal(reactor->wake_watch.fd);
}

bool reactor_begin_sleep(struct reactor *reactor)
{
	__atomic_store_n(&reactor->sleeping, true, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&reactor->mailbox, __ATOMIC_SEQ_CST) == NULL &&
	    !load_relaxed(&reactor->stopping))
		return true;
	reactor_end_sleep(reactor);
	return false;
}

void reactor_end_sleep(struct reactor *reactor)
{
	store_relaxed(&reactor->sleeping, false);
}

unsigned int reactor_run_messages(struct reactor *reactor)
{
	unsigned int count = 0;

	if (likely(load_relaxed(&reactor->mailbox) == NULL))
		return 0;
	struct reactor_msg *msg = __atomic_exchange_n(&reactor->mailbox, NULL, __ATOMIC_ACQUIRE);
	struct reactor_msg *first = NULL;
	while (msg != NULL) {
		struct reactor_msg *next = msg->next;
		msg->next = first;
		first = msg;
		msg = next;
	}
	while (first != NULL) {
		msg = first;
		first = msg->next;
		msg->fn(msg);
		count++;
	}
	counter_add(&reactor->stats.message_count, count);
	return count;
}
