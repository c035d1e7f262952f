/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration: generated from fake objects, entries that are kept, the file. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/compiler.h"
#include "control/config.h"
#include "control/config_file.h"

/* ---- objects that are names ---------------------------------------------------------------- */

static const char *live[4];

static json_t *live_generate(const char *skip)
{
	json_t *entries = json_array();

	for (size_t i = 0; i < ARRAY_COUNT(live) && live[i] != NULL; i++) {
		if (skip == NULL || strcmp(skip, live[i]) != 0)
			json_array_append_new(entries, json_pack("{s:s, s:{s:s}}", "method", "make",
								 "params", "name", live[i]));
	}
	return entries;
}

static json_t *none_generate(const char *skip)
{
	return json_array();
}

static const struct config_source sources[] = {
	{"thing", live_generate},
	{"other", none_generate},
};

static char dir[] = "/tmp/sluice-test-XXXXXX";
static char path[64];

static int setup(void **state)
{
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	if (mkdtemp(dir) == NULL)
		return -1;
	snprintf(path, sizeof(path), "%s/config.json", dir);
	memset(live, 0, sizeof(live));
	return 0;
}

static int teardown(void **state)
{
	char command[96];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static json_t *make_entry(const char *name)
{
	return json_pack("{s:s, s:{s:s}}", "method", "make", "params", "name", name);
}

/* "a b c": names of the entries of a subsystem, in order. */
static void expect_names(struct config *config, const char *skip, size_t subsystem,
			 const char *names)
{
	json_t *root = config_generate(config, "thing", skip);
	char text[128] = "";
	char error[256];
	size_t i;
	json_t *entry;

	assert_int_equal(config_check(root, error, sizeof(error)), 0);
	json_t *entries = json_object_get(
		json_array_get(json_object_get(root, "subsystems"), subsystem), "config");
	json_array_foreach (entries, i, entry) {
		strcat(text, i > 0 ? " " : "");
		strcat(text, config_entry_name(entry));
	}
	assert_string_equal(text, names);
	json_decref(root);
}

static void test_generate(void **state)
{
	struct config config;

	assert_int_equal(config_init(&config, sources, ARRAY_COUNT(sources), NULL), 0);
	live[0] = "a";
	live[1] = "b";
	expect_names(&config, NULL, 0, "a b");
	expect_names(&config, "a", 0, "b");
	expect_names(&config, NULL, 1, "");
	config_fini(&config);
}

static void test_kept(void **state)
{
	struct config config;
	json_t *a = make_entry("a"), *x = make_entry("x"), *y = make_entry("y");

	assert_int_equal(config_init(&config, sources, ARRAY_COUNT(sources), NULL), 0);
	live[0] = "a";
	config_keep(&config, "thing", x, "its file is missing");
	config_keep(&config, "thing", x, "its file is missing still");
	config_keep(&config, "unknown", y, "no such method");
	expect_names(&config, NULL, 0, "a x");
	expect_names(&config, NULL, 2, "y");
	assert_true(config_is_kept(&config, "thing", "x"));
	assert_false(config_is_kept(&config, "thing", "y"));
	expect_names(&config, "x", 0, "a");
	/* A live object takes an entry's place. */
	config_keep(&config, "thing", a, "");
	expect_names(&config, NULL, 0, "a x");
	config_forget(&config, "thing", "x");
	expect_names(&config, NULL, 0, "a");
	expect_names(&config, NULL, 2, "y");
	config_fini(&config);
	json_decref(a);
	json_decref(x);
	json_decref(y);
}

/* ---- the file ------------------------------------------------------------------------------ */

static void test_round_trip(void **state)
{
	struct config config;
	char error[256];
	json_t *back;

	assert_int_equal(config_init(&config, sources, ARRAY_COUNT(sources), path), 0);
	live[0] = "a";
	live[1] = "\xe2\x82\xac \"\\\n";
	json_t *root = config_generate(&config, NULL, NULL);
	char *text = json_dumps(root, JSON_INDENT(2));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(config_file_write(path, text, strlen(text)), 0);
		assert_int_equal(config_file_read(path, &back, error, sizeof(error)), 0);
		assert_true(json_equal(root, back));
		json_decref(back);
	}
	free(text);
	json_decref(root);
	config_fini(&config);
}

static void test_bad_files(void **state)
{
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"{}",
		"{\"subsystems\":{}}",
		"{\"subsystems\":[5]}",
		"{\"subsystems\":[{\"subsystem\":5}]}",
		"{\"subsystems\":[{\"subsystem\":\"a\",\"config\":{}}]}",
		"{\"subsystems\":[{\"subsystem\":\"a\",\"config\":[{}]}]}",
		"{\"subsystems\":[{\"subsystem\":\"a\",\"config\":[{\"method\":0}]}]}",
		"{\"subsystems\":[]} more",
	};
	char error[256];
	json_t *root;

	assert_int_equal(config_file_read(path, &root, error, sizeof(error)), -ENOENT);
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
		assert_int_equal(config_file_write(path, bad[i], strlen(bad[i])), 0);
		assert_int_equal(config_file_read(path, &root, error, sizeof(error)), -EINVAL);
		assert_non_null(strstr(error, path));
	}
}

/* A write that fails leaves the old file, and nothing else. */
static void test_failed_write(void **state)
{
	static const char text[] = "{\"subsystems\":[]}";
	char blocker[96];
	char error[256];
	json_t *root;

	assert_int_equal(config_file_write(path, text, strlen(text)), 0);
	snprintf(blocker, sizeof(blocker), "%s.new", path);
	assert_int_equal(mkdir(blocker, 0700), 0);
	assert_int_equal(config_file_write(path, "x", 1), -EISDIR);
	assert_int_equal(config_file_read(path, &root, error, sizeof(error)), 0);
	json_decref(root);
	assert_int_equal(config_file_write("/nonexistent/config.json", "x", 1), -ENOENT);
}

static void test_lock(void **state)
{
	pid_t holder;
	int fd = config_dir_lock(dir, &holder);

	assert_true(fd >= 0);
	assert_int_equal(config_dir_lock(dir, &holder), -EBUSY);
	assert_int_equal(holder, getpid());
	close(fd);
	fd = config_dir_lock(dir, &holder);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(config_dir_lock("/nonexistent", &holder), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_generate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failed_write, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lock, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
