/* manifest.json of an entry: what went in, what came out, and how long it took.
 *
 * It is one JSON object, read back as a json_t by `imgbuild show` and by people's scripts. Members:
 *
 *   version          MANIFEST_VERSION
 *   key, epoch, arch, name (or null), imgbuild
 *   inputs           the canonical key document: every input with its digest, every setting
 *   base             {sha256, url?, partition, distribution, trust, checksums?}; trust is what stood behind it: "plan", "signature",
 *                    "checksums", "first-use" or "local"; checksums {url, sha256, signer?} is the publisher's list that had it
 *   kernel           {release, format, sha256}
 *   installed        [{name, version, arch, sha256}]   what the plan brought
 *   removed          [name]                            what it took away
 *   packages         [{name, version, arch}]           all that dpkg has installed in the image
 *   fstab_dropped    [line]
 *   notes            [text]                            what the guest remarked
 *   image            {file, size_bytes, stored_bytes, chunk_bytes, chunks: [SHA-256 of each chunk]}
 *   files            {name: {size_bytes, sha256}}      of kernel, initrd and what is kept of the plan (builder/companions)
 *   boot             {cmdline, memory_mib}
 *   build            {accelerator, channel, boot_ms, total_ms, steps: [{name, ms}], stages: [{name, ms}]}
 *
 * A failed build's manifest has "failure": {outcome, step, reason, exit, signal, message} and may lack what never came to
 * be. SOURCE: DESIGN, "The store". */
#ifndef IMGBUILD_BUILDER_MANIFEST_H
#define IMGBUILD_BUILDER_MANIFEST_H

#include "cache/store.h"
#include "lib/digest.h"
#include "lib/err.h"

#include <jansson.h>

#define MANIFEST_VERSION 1
#define MANIFEST_MAX_BYTES (64u << 20)
#define MANIFEST_CHUNK_BYTES (4u << 20)

/* Read and check the manifest of the folder `path`. Returns 0 with a new reference; -EBADMSG it is none. */
int manifest_load(const char *path, json_t **ret, struct err *e) _must_check_;

/* Make the text of a manifest: sorted keys, indented, with a final newline. malloc'ed; NULL when out of memory. */
char *manifest_format(const json_t *manifest, size_t *ret_len);

/* Digest a file in chunks of MANIFEST_CHUNK_BYTES, several at a time, holes known without reading them.
 * fd          lent, a regular file
 * ret_chunks  a new JSON array of hexadecimal SHA-256 */
int manifest_digest_chunks(int fd, json_t **ret_chunks, struct err *e) _must_check_;

/* A member of an object as text: "" when it is not there or no string. Borrowed from the object. */
const char *manifest_text(const json_t *object, const char *name);

#endif
