/* SPDX-License-Identifier: Apache-2.0 */
/* What to tell the VMM: ready-to-paste arguments for QEMU and libvirt. Control thread. */
#include <stdio.h>
#include <string.h>

#include "cli/serve.h"

/* For a shell: in single quotes when there is anything that a shell would see. */
static void print_quoted(const char *prefix, const char *path, bool comma_option)
{
	bool plain = strspn(path, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				  "0123456789_./:@%+=-") == strlen(path);

	fputs(plain ? "" : "'", stdout);
	fputs(prefix, stdout);
	for (const char *p = path; *p != '\0'; p++) {
		if (*p == '\'')
			fputs("'\\''", stdout);
		else if (*p == ',' && comma_option) /* QEMU's escape */
			fputs(",,", stdout);
		else
			putchar(*p);
	}
	fputs(plain ? "" : "'", stdout);
}

static void print_xml(const char *text)
{
	static const struct {
		char c;
		const char *entity;
	} entities[] = {
		{'&', "&amp;"},
		{'<', "&lt;"},
		{'>', "&gt;"},
		{'\'', "&apos;"},
	};

	for (; *text != '\0'; text++) {
		const char *entity = NULL;
		for (size_t i = 0; i < sizeof(entities) / sizeof(entities[0]); i++) {
			if (entities[i].c == *text)
				entity = entities[i].entity;
		}
		if (entity != NULL)
			fputs(entity, stdout);
		else
			putchar(*text);
	}
}

static void qemu_print(const struct engine_options *options)
{
	printf("QEMU:\n"
	       "  -object memory-backend-memfd,id=mem,size=1G,share=on \\\n"
	       "  -machine q35,memory-backend=mem -m 1G");
	for (size_t i = 0; i < options->image_count; i++) {
		char prefix[48];
		snprintf(prefix, sizeof(prefix), "socket,id=c%zu,path=", i);
		printf(" \\\n  -chardev ");
		print_quoted(prefix, options->images[i].socket_path, true);
		printf(" \\\n  -device vhost-user-blk-pci,chardev=c%zu,num-queues=%u", i,
		       options->queue_count);
	}
	printf("\n\n");
}

static void libvirt_print(const struct engine_options *options)
{
	printf("libvirt:\n"
	       "  <memoryBacking>\n"
	       "    <source type='memfd'/>\n"
	       "    <access mode='shared'/>\n"
	       "  </memoryBacking>\n");
	for (size_t i = 0; i < options->image_count; i++) {
		printf("  <disk type='vhostuser' device='disk'>\n"
		       "    <driver name='qemu' type='raw' queues='%u'/>\n"
		       "    <source type='unix' path='",
		       options->queue_count);
		print_xml(options->images[i].socket_path);
		printf("'/>\n"
		       "    <target dev='vd%c' bus='virtio'/>\n"
		       "  </disk>\n",
		       (char)('a' + i % 26));
	}
	printf("\n");
}

void serve_hint_print(const struct engine_options *options)
{
	if (options->image_count == 0)
		return;
	for (size_t i = 0; i < options->image_count; i++)
		printf("Serving %s on %s\n", options->images[i].path,
		       options->images[i].socket_path);
	printf("\n");
	qemu_print(options);
	libvirt_print(options);
	printf("Control: sluice status --rpc-socket ");
	print_quoted("", options->rpc_socket, false);
	printf("\n");
	fflush(stdout);
}
