#include "initrd/init/services.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const unit_folders[] = {
	"/etc/systemd/system",
	"/usr/local/lib/systemd/system",
	"/usr/lib/systemd/system",
	"/lib/systemd/system",
}; /* SOURCE: systemd.unit(5), unit search path */

static bool is_file(const char *folder, const char *name)
{
	char path[512];
	struct stat st;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	return lstat(path, &st) == 0 && !S_ISDIR(st.st_mode);
}

/* Whether systemd would know the unit: its file, its template's, or an old init script. */
static bool unit_exists(const char *unit)
{
	char name[256], template_name[256];
	const char *at, *dot = strrchr(unit, '.');

	(void)snprintf(name, sizeof(name), "%s%s", unit, dot ? "" : ".service");
	at = strchr(name, '@');
	dot = strrchr(name, '.');
	(void)snprintf(template_name, sizeof(template_name), "%.*s@%s", (int)(at ? at - name : 0), name,
		dot ? dot : "");
	for (size_t i = 0; i < ARRAY_SIZE(unit_folders); i++) {
		if (is_file(unit_folders[i], name) || (at && is_file(unit_folders[i], template_name)))
			return true;
	}
	if (dot && strcmp(dot, ".service") == 0)
		name[dot - name] = '\0';
	return is_file("/etc/init.d", name);
}

static int change_by_systemctl(struct step_context *s, enum service_change change, char *unit, struct fail *f)
{
	static const char *const verbs[] = { "enable", "disable", "mask" };
	char *argv[] = { (char *)(uintptr_t) "systemctl", (char *)(uintptr_t)verbs[change], unit, NULL };
	int status;

	if (change == SERVICE_DISABLE && !unit_exists(unit)) {
		command_note(s, "the service `%s` is not in the image, so it need not be disabled", unit);
		return 0;
	}
	if (change == SERVICE_ENABLE && !unit_exists(unit)) {
		f->exit = 1;
		return fail_set(
			f, "exit", "cannot enable the service `%s`: no such unit is in the image", unit);
	}
	status = command_run(s, argv, -1, NULL, NULL, f);
	if (status < 0)
		return -1;
	if (status == 0)
		return 0;
	(void)fail_from_status(f, status, "systemctl");
	(void)snprintf(f->text, sizeof(f->text),
		"systemctl could not %s the service `%s` (status %d); its words are in the output",
		verbs[change], unit, f->exit);
	return -1;
}

/* OpenRC knows no masking: a service that is in no runlevel does not start. */
static int change_by_rc_update(struct step_context *s, enum service_change change, char *unit, struct fail *f)
{
	char name[256];
	char *add[] = { (char *)(uintptr_t) "rc-update", (char *)(uintptr_t) "add", name,
		(char *)(uintptr_t) "default", NULL };
	char *delete[] = { (char *)(uintptr_t) "rc-update", (char *)(uintptr_t) "--all",
		(char *)(uintptr_t) "del", name, NULL };
	char *dot;
	int status;

	(void)snprintf(name, sizeof(name), "%s", unit);
	dot = strrchr(name, '.');
	if (dot && strcmp(dot, ".service") == 0)
		*dot = '\0';
	if (change == SERVICE_ENABLE) {
		if (!is_file("/etc/init.d", name)) {
			f->exit = 1;
			return fail_set(f, "exit",
				"cannot enable the service `%s`: no /etc/init.d/%s is in the image", unit,
				name);
		}
		return command_must(s, add, f);
	}
	/* A service that is in no runlevel is a failure to rc-update and what was asked to us. */
	status = command_run(s, delete, -1, NULL, NULL, f);
	return status < 0 ? -1 : 0;
}

int services_change(
	struct step_context *s, enum service_change change, char *const *units, size_t n, struct fail *f)
{
	bool systemctl = command_exists("systemctl"), rc_update = !systemctl && command_exists("rc-update");
	int r = 0;

	if (!systemctl && !rc_update) {
		f->exit = 1;
		return fail_set(f, "exit",
			"cannot change the service `%s`: the image has neither systemctl nor rc-update",
			units[0]);
	}
	for (size_t i = 0; i < n && r == 0; i++)
		r = systemctl ? change_by_systemctl(s, change, units[i], f)
			      : change_by_rc_update(s, change, units[i], f);
	return r;
}
