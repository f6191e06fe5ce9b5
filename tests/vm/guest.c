/* A guest's process 1 for the tests of builder/vm: speaks the protocol badly on purpose.
 *
 * Built static by the test and put into an initrd with the file /mode, which says "<channel> <behaviour>": the channel is
 * port, serial or console, the behaviours are listed in main(). */
#include "initrd/protocol.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static FILE *channel;
static const char *prefix = "";
static char nonce[NONCE_HEX_LEN + 1];

static void nap_ms(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

static void power_off(void)
{
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void load(const char *module)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/%s.ko", module);
	fd = open(path, O_RDONLY);
	if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0)
		perror(path);
	close(fd);
}

static FILE *open_raw(const char *path)
{
	struct termios t;
	int fd = open(path, O_RDWR | O_NOCTTY);

	if (fd < 0)
		return NULL;
	if (tcgetattr(fd, &t) == 0) {
		cfmakeraw(&t);
		tcsetattr(fd, TCSANOW, &t);
	}
	return fdopen(fd, "r+");
}

static void open_channel(const char *kind)
{
	static const char *const modules[] = { "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio",
		"virtio_pci", "virtio_console" };

	if (strcmp(kind, "serial") == 0) {
		channel = open_raw("/dev/ttyS1");
	} else if (strcmp(kind, "console") == 0) {
		channel = open_raw("/dev/console");
		prefix = CONSOLE_FRAME_PREFIX;
	} else {
		for (size_t i = 0; i < sizeof(modules) / sizeof(modules[0]); i++)
			load(modules[i]);
		for (int i = 0; i < 50 && !channel; i++) {
			channel = open_raw("/dev/vport0p1");
			if (!channel)
				channel = open_raw("/dev/vport1p1");
			nap_ms(100);
		}
	}
	if (!channel) {
		puts("no channel");
		power_off();
	}
	setvbuf(channel, NULL, _IOFBF, 4096);
}

static void say(const char *text)
{
	fprintf(channel, "%s%s\n", prefix, text);
	fflush(channel);
}

/* The value of a string member in the next line that has it. */
static void hear(const char *member, char *value, size_t size)
{
	char line[1024], *at;

	while (fgets(line, sizeof(line), channel)) {
		at = strstr(line, member);
		if (!at)
			continue;
		if (value)
			snprintf(value, size, "%.*s", (int)size - 1, at + strlen(member));
		return;
	}
}

static void greet(void)
{
	say("{\"v\":1,\"type\":\"hello\",\"release\":\"test\",\"machine\":\"x86_64\",\"mem_kib\":1}");
	hear("\"nonce\":\"", nonce, sizeof(nonce));
	fseek(channel, 0, SEEK_CUR);
}

static void verdict(const char *with, const char *rest)
{
	char line[512];

	snprintf(line, sizeof(line), "{\"v\":1,\"type\":\"verdict\",\"nonce\":\"%s\",%s}", with, rest);
	say(line);
	hear("\"ack\"", NULL, 0);
}

static void step(void)
{
	say("{\"v\":1,\"type\":\"step\",\"name\":\"setup\",\"title\":\"set up\",\"state\":\"begin\"}");
	say("{\"v\":1,\"type\":\"output\",\"step\":\"setup\",\"data\":\"first line\\nsecond \"}");
	say("{\"v\":1,\"type\":\"output\",\"step\":\"setup\",\"data\":\"line\\n\"}");
	say("{\"v\":1,\"type\":\"progress\",\"step\":\"setup\",\"done\":1,\"total\":2,\"what\":\"half\"}");
	say("{\"v\":1,\"type\":\"something-new\",\"x\":1}");
}

static void step_end(int status)
{
	char line[128];

	snprintf(line, sizeof(line), "{\"v\":1,\"type\":\"step\",\"name\":\"setup\",\"state\":\"end\",\"exit\":%d,\"signal\":0,\"ms\":1}",
		status);
	say(line);
}

int main(void)
{
	char kind[16] = "", what[32] = "";
	FILE *mode = fopen("/mode", "r");

	if (!mode || fscanf(mode, "%15s %31s", kind, what) != 2)
		power_off();
	mkdir("/dev", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, "");
	puts("test guest is up");
	if (strcmp(what, "poweroff") == 0)
		power_off();
	if (strcmp(what, "exit") == 0)
		return 3;
	if (strcmp(what, "mute") == 0)
		for (;;)
			pause();
	open_channel(kind);
	if (strcmp(what, "not-json") == 0)
		say("{\"v\":1,");
	greet();
	if (strcmp(what, "reset") == 0)
		reboot(RB_AUTOBOOT);
	if (strcmp(what, "huge") == 0)
		for (;;)
			fputs("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", channel);
	step();
	if (strcmp(what, "hang") == 0)
		for (;;)
			pause();
	if (strcmp(what, "fail") == 0) {
		step_end(7);
		verdict(nonce, "\"result\":\"failed\",\"step\":\"setup\",\"reason\":\"exit\",\"exit\":7,\"signal\":0,\"text\":\"it broke\"");
		power_off();
	}
	if (strcmp(what, "eat") == 0)
		for (;;) {
			char *bytes = malloc(1 << 20);

			if (bytes)
				memset(bytes, 1, 1 << 20);
		}
	step_end(0);
	if (strcmp(what, "flood") == 0) {
		for (int i = 0; i < 2000; i++)
			say("{\"v\":1,\"type\":\"output\",\"step\":\"\",\"data\":\"yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\\n\"}");
		for (int i = 0; i < 2000; i++)
			puts("\033[31mflood on the console");
	}
	if (strcmp(what, "nonce") == 0)
		verdict("00000000000000000000000000000000", "\"result\":\"passed\"");
	verdict(nonce, "\"result\":\"passed\"");
	if (strcmp(what, "linger") == 0)
		for (;;)
			pause();
	power_off();
}
