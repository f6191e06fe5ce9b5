/* The syntax of names and quantities in plans and locks: pure checks on strings, each with the source of its rule.
 *
 * All take NUL-terminated text that the caller knows to hold no NUL inside. They never allocate. */
#ifndef IMGBUILD_PLAN_SYNTAX_H
#define IMGBUILD_PLAN_SYNTAX_H

#include "lib/cleanup.h"

#include <stdbool.h>
#include <stdint.h>

#define SYNTAX_NAME_MAX_BYTES 255

/* A binary package's name: at least two of a-z 0-9 + - ., a letter or digit first. SOURCE: Debian Policy 5.6.7. */
bool syntax_is_package_name(const char *s);

/* A package's version: [epoch:]upstream[-revision]. SOURCE: Debian Policy 5.6.12. */
bool syntax_is_package_version(const char *s);

/* A package's architecture in a lock: "all" or letters, digits and -. SOURCE: Debian Policy 5.6.8. */
bool syntax_is_package_arch(const char *s);

/* A unit's name, with or without its suffix. SOURCE: systemd.unit(5), "valid unit names". */
bool syntax_is_unit_name(const char *s);

/* Does the unit's name end in one of systemd's suffixes? */
bool syntax_unit_has_suffix(const char *s);

/* A user's or group's name as useradd(8) takes it: a-z or _ first, then a-z 0-9 _ -, at most 32. */
bool syntax_is_user_name(const char *s);

/* A decimal user or group number below 2^32 - 1. */
bool syntax_is_user_number(const char *s);

/* "locked", "empty" or a crypt(5) hash "$id$…". */
bool syntax_is_password(const char *s);

/* Labels of letters, digits and - with dots between, at most 64 bytes. SOURCE: RFC 1123 2.1; HOST_NAME_MAX. */
bool syntax_is_hostname(const char *s);

/* One line of printable text, 1 to max_bytes bytes. */
bool syntax_is_line(const char *s, size_t max_bytes);

/* Non-empty, [A-Za-z0-9] then also . _ - : names of inputs. */
bool syntax_is_plain_name(const char *s);

/* A suite or component of a repository: printable without spaces, no "..", not absolute. */
bool syntax_is_suite(const char *s);

/* An http or https URL with a host, printable, without spaces, at most URL_MAX_BYTES. */
bool syntax_is_http_url(const char *s);

/* An OpenPGP key's fingerprint: 40 (version 4) or 64 hexadecimal digits, in upper case. SOURCE: RFC 9580 5.5.4. */
bool syntax_is_fingerprint(const char *s);

/* "20261101T000000Z", a time that exists. *ret_seconds (may be NULL) gets it as seconds since 1970. */
bool syntax_parse_snapshot(const char *s, int64_t *ret_seconds);

/* "10G": a number and an optional K, M, G or T (powers of 1024; "KiB" and so on too). */
bool syntax_parse_size(const char *s, uint64_t *ret_bytes);

/* "120s": a number and ms, s, m or h. */
bool syntax_parse_duration(const char *s, uint64_t *ret_ms);

/* "0644": one to four octal digits, or five with a leading 0. */
bool syntax_parse_mode(const char *s, unsigned *ret);

/* Would this relative path climb out of where it starts, judged by its text alone? Absolute paths do. */
bool syntax_path_leaves(const char *s);

/* A relative path without empty, "." and ".." parts. */
bool syntax_is_normal_relative(const char *s);

#endif
