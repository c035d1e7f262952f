/* SPDX-License-Identifier: Apache-2.0 */
/* The table of verbs that are one RPC each, and how their results are shown. */
#include "cli/verbs.h"

#include "base/clock.h"
#include "base/compiler.h"

static uint64_t field(const json_t *row, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(row, key));
}

/* ---- bdev list --------------------------------------------------------------------------- */

static void cell_size(const json_t *row, const json_t *root, char *text)
{
	table_bytes_text(field(row, "num_blocks") * field(row, "block_size"), text);
}

static void cell_owners(const json_t *row, const json_t *root, char *text)
{
	const json_t *owners = json_object_get(row, "owners");
	size_t len = 0;
	size_t i;
	json_t *owner;

	snprintf(text, TABLE_CELL_BYTES, "-");
	json_array_foreach (owners, i, owner) {
		int n = snprintf(text + len, TABLE_CELL_BYTES - len, "%s%s", i ? "," : "",
				 json_string_value(owner));
		len = MIN(len + (size_t)n, (size_t)TABLE_CELL_BYTES - 1);
	}
}

static const struct table_column bdev_columns[] = {
	{"NAME", NULL, "name", false},           {"PRODUCT", NULL, "product_name", false},
	{"SIZE", cell_size, NULL, true},         {"BLOCK", NULL, "block_size", true},
	{"READ-ONLY", NULL, "read_only", false}, {"USED BY", cell_owners, NULL, false},
	{"UUID", NULL, "uuid", false},
};

/* ---- bdev stat --------------------------------------------------------------------------- */

static void bytes_cell(const json_t *row, const char *key, char *text)
{
	table_bytes_text(field(row, key), text);
}

static void cell_bytes_read(const json_t *row, const json_t *root, char *text)
{
	bytes_cell(row, "bytes_read", text);
}

static void cell_bytes_written(const json_t *row, const json_t *root, char *text)
{
	bytes_cell(row, "bytes_written", text);
}

static void latency_cell(const json_t *row, const json_t *root, const char *ticks_key,
			 const char *ops_key, char *text)
{
	uint64_t ops = field(row, ops_key);
	uint64_t rate = field(root, "tick_rate");

	if (ops == 0 || rate == 0)
		snprintf(text, TABLE_CELL_BYTES, "-");
	else
		snprintf(text, TABLE_CELL_BYTES, "%.1f",
			 (double)field(row, ticks_key) * 1e6 / (double)rate / (double)ops);
}

static void cell_read_latency(const json_t *row, const json_t *root, char *text)
{
	latency_cell(row, root, "read_latency_ticks", "num_read_ops", text);
}

static void cell_write_latency(const json_t *row, const json_t *root, char *text)
{
	latency_cell(row, root, "write_latency_ticks", "num_write_ops", text);
}

static const struct table_column stat_columns[] = {
	{"NAME", NULL, "name", false},
	{"READS", NULL, "num_read_ops", true},
	{"READ", cell_bytes_read, NULL, true},
	{"MEAN us", cell_read_latency, NULL, true},
	{"WRITES", NULL, "num_write_ops", true},
	{"WRITTEN", cell_bytes_written, NULL, true},
	{"MEAN us", cell_write_latency, NULL, true},
	{"FLUSHES", NULL, "num_flush_ops", true},
	{"DISCARDS", NULL, "num_unmap_ops", true},
	{"ERRORS", NULL, "num_errors", true},
};

/* ---- vhost list -------------------------------------------------------------------------- */

static const json_t *block_of(const json_t *row)
{
	return json_object_get(json_object_get(row, "backend_specific"), "block");
}

static void cell_bdev(const json_t *row, const json_t *root, char *text)
{
	table_value_text(json_object_get(block_of(row), "bdev"), text);
}

static void cell_readonly(const json_t *row, const json_t *root, char *text)
{
	table_value_text(json_object_get(block_of(row), "readonly"), text);
}

static void cell_sessions(const json_t *row, const json_t *root, char *text)
{
	snprintf(text, TABLE_CELL_BYTES, "%zu", json_array_size(json_object_get(row, "sessions")));
}

static const struct table_column vhost_columns[] = {
	{"NAME", NULL, "ctrlr", false},
	{"BDEV", cell_bdev, NULL, false},
	{"READ-ONLY", cell_readonly, NULL, false},
	{"QUEUES", NULL, "num_queues", true},
	{"SESSIONS", cell_sessions, NULL, true},
	{"CPUMASK", NULL, "cpumask", false},
	{"SOCKET", NULL, "socket", false},
};

/* ---- reactor list ------------------------------------------------------------------------ */

static void share_cell(const json_t *row, const char *key, char *text)
{
	uint64_t total = field(row, "busy") + field(row, "idle");

	snprintf(text, TABLE_CELL_BYTES, "%.2f",
		 total == 0 ? 0.0 : 100.0 * (double)field(row, key) / (double)total);
}

static void cell_busy(const json_t *row, const json_t *root, char *text)
{
	share_cell(row, "busy", text);
}

static void cell_asleep(const json_t *row, const json_t *root, char *text)
{
	share_cell(row, "sleep", text);
}

static const struct table_column reactor_columns[] = {
	{"CORE", NULL, "lcore", true},
	{"NAME", NULL, "name", false},
	{"MODE", NULL, "poll_mode", false},
	{"BUSY %", cell_busy, NULL, true},
	{"ASLEEP %", cell_asleep, NULL, true},
	{"POLLERS", NULL, "pollers", true},
	{"ACTIVE", NULL, "active_pollers", true},
	{"MOVED IN", NULL, "moves_in", true},
	{"MOVED OUT", NULL, "moves_out", true},
	{"MESSAGES", NULL, "messages", true},
	{"SLEEPS", NULL, "sleeps", true},
};

/* ---- table ------------------------------------------------------------------------------- */

#define VERB_COLUMNS(table) .columns = (table), .column_count = ARRAY_COUNT(table)

const struct verb verbs[] = {
	{.words = "bdev list",
	 .method = "bdev_get_bdevs",
	 .help = "show disks",
	 .positionals = {"name"},
	 VERB_COLUMNS(bdev_columns)},
	{.words = "bdev stat",
	 .method = "bdev_get_iostat",
	 .help = "show the I/O counters of disks",
	 .positionals = {"name"},
	 .rows_key = "bdevs",
	 VERB_COLUMNS(stat_columns)},
	{.words = "bdev create null",
	 .method = "bdev_null_create",
	 .help = "create a disk that stores nothing",
	 .positionals = {"name", "size"},
	 .required_count = 2},
	{.words = "bdev create memory",
	 .method = "bdev_malloc_create",
	 .help = "create a disk in memory",
	 .positionals = {"name", "size"},
	 .required_count = 2},
	{.words = "bdev create file",
	 .method = "bdev_uring_create",
	 .help = "make a disk of a file or block device",
	 .positionals = {"name", "filename"},
	 .required_count = 2},
	{.words = "bdev resize",
	 .method = "sluice_bdev_resize",
	 .help = "give a disk another size, in use or not",
	 .positionals = {"name", "size"},
	 .required_count = 1},
	{.words = "bdev delete",
	 .method = "sluice_bdev_delete",
	 .help = "delete a disk that is not in use (or is: --force)",
	 .positionals = {"name"},
	 .required_count = 1},
	{.words = "vhost list",
	 .method = "vhost_get_controllers",
	 .help = "show controllers",
	 .positionals = {"name"},
	 VERB_COLUMNS(vhost_columns)},
	{.words = "vhost create",
	 .method = "vhost_create_blk_controller",
	 .help = "serve a disk to a VM",
	 .positionals = {"ctrlr", "dev_name"},
	 .required_count = 2},
	{.words = "vhost delete",
	 .method = "vhost_delete_controller",
	 .help = "stop serving a disk",
	 .positionals = {"ctrlr"},
	 .required_count = 1},
	{.words = "vhost move",
	 .method = "sluice_vhost_move_queue",
	 .help = "move a running queue to another reactor",
	 .positionals = {"ctrlr", "queue", "cpu"},
	 .required_count = 3},
	{.words = "vhost coalesce",
	 .method = "vhost_controller_set_coalescing",
	 .help = "set when calls to the driver are held back",
	 .positionals = {"ctrlr", "delay_base_us", "iops_threshold"},
	 .required_count = 3},
	{.words = "vhost cpumask",
	 .method = "sluice_vhost_set_cpumask",
	 .help = "change which cores may serve a disk",
	 .positionals = {"ctrlr", "cpumask"},
	 .required_count = 1},
	{.words = "reactor rebalance",
	 .method = "sluice_set_rebalance",
	 .help = "switch the balancer of queues",
	 .positionals = {"enabled"},
	 .required_count = 1},
	{.words = "reactor list",
	 .method = "framework_get_reactors",
	 .help = "show the data reactors",
	 .rows_key = "reactors",
	 VERB_COLUMNS(reactor_columns)},
	{.words = "reactors",
	 .method = "framework_get_reactors",
	 .help = "the same as reactor list",
	 .rows_key = "reactors",
	 VERB_COLUMNS(reactor_columns)},
	{.words = "status",
	 .method = "sluice_get_status",
	 .help = "show version, uptime, options and counts"},
};
const size_t verb_count = ARRAY_COUNT(verbs);
