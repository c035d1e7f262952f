/* SPDX-License-Identifier: Apache-2.0 */
/* The arithmetic of the balancer: when is a reactor hot, and does a move help. Pure, any thread. */
#ifndef SLUICE_VHOST_BALANCE_H
#define SLUICE_VHOST_BALANCE_H

#include <stdbool.h>

#include "base/compiler.h"

/* Busy for more than this share of a period is hot; for so many periods in a row, too hot. */
#define BALANCE_HOT_PERMILLE 900u
#define BALANCE_HOT_PERIODS 3u
/* Below this a reactor has nothing that would be worth a look. */
#define BALANCE_BUSY_PERMILLE 500u
/* A reactor that takes a queue in is no busier than this, */
#define BALANCE_COOL_PERMILLE 500u
/* and the busier one of the two gains at least this much. */
#define BALANCE_GAIN_PERMILLE 150u

struct balance_reactor {
	unsigned int busy_permille; /* of the last period */
	unsigned int hot_periods;   /* in a row */
	unsigned int rest_periods;  /* until what is seen counts again */
};

/* The next period has passed. */
static inline void balance_note(struct balance_reactor *reactor, unsigned int busy_permille)
{
	reactor->busy_permille = busy_permille;
	if (reactor->rest_periods > 0) {
		reactor->rest_periods--;
		reactor->hot_periods = 0;
		return;
	}
	reactor->hot_periods = busy_permille > BALANCE_HOT_PERMILLE ? reactor->hot_periods + 1 : 0;
}

/* A queue has come or gone: the next periods say nothing of what is to stay. */
static inline void balance_rest(struct balance_reactor *reactor, unsigned int period_count)
{
	reactor->rest_periods = period_count;
	reactor->hot_periods = 0;
}

static inline bool balance_is_hot(const struct balance_reactor *reactor)
{
	return reactor->hot_periods >= BALANCE_HOT_PERIODS;
}

/* Whether a queue that makes for load_permille of a hot reactor's time should go to another one;
 * *peak_permille is then how busy the busier one of the two will be. */
static inline bool balance_improves(const struct balance_reactor *hot,
				    const struct balance_reactor *cool, unsigned int load_permille,
				    unsigned int *peak_permille)
{
	unsigned int left = hot->busy_permille - MIN(load_permille, hot->busy_permille);
	unsigned int joined = cool->busy_permille + load_permille;

	*peak_permille = MAX(left, joined);
	return cool->rest_periods == 0 && cool->busy_permille <= BALANCE_COOL_PERMILLE &&
	       *peak_permille + BALANCE_GAIN_PERMILLE <= hot->busy_permille;
}

#endif
