/* What the host and the guest's init say to each other: the job in the initrd, and the records on the channel.
 *
 * Both sides include this file and nothing else of each other's. A change of meaning here bumps the epoch
 * (plan/epoch.h), since the same plan may then give other bytes.
 *
 * THE JOB is the file /imgbuild/job in the initrd: text, one verb a line, run from top to bottom. Fields are separated by
 * one space and percent-encoded (every byte that is not printable ASCII, and space and '%'; an empty field is "%"). The first
 * line is JOB_MAGIC. Verbs:
 *
 *   clock SECONDS                   set the wall clock (seconds since 1970), so that no host time gets into the image
 *   module NAME PATH                insert the kernel module at PATH of the initrd; "already there" is fine
 *   root DEVICE FSTYPE              wait for the block device and mount it at /target, read-write, nodev
 *   grow                            grow the mounted ext4 to the size of its device
 *   label TEXT                      give the mounted ext4 this label: 1 to 16 bytes
 *   step NAME TITLE                 a step begins: all verbs up to the next `step` are its parts, run inside the target,
 *                                   in namespaces of their own where the kernel has them; the first that fails ends the job
 *   dpkg-remove PKG…                dpkg --force-depends --remove PKG… (what a conflict asks for)
 *   dpkg-purge PKG…                 dpkg --force-depends --purge PKG… (what the plan asks for)
 *   dpkg-unpack PATH…               dpkg --unpack, PATH of the initrd
 *   dpkg-configure PKG…             dpkg --configure PKG…; without PKG: --configure --pending, and then no package may be left
 *                                   half-installed, unpacked, half-configured or waiting for triggers
 *   tree DEST SRC                   copy the folder SRC of the initrd to DEST, adding to what is there, modes and links kept, root:root
 *   file DEST MODE OWNER SRC        write SRC of the initrd to DEST: MODE octal, OWNER "user:group" by name or number; parents are made 0755
 *   depmod RELEASE                  write the module indexes for /lib/modules/RELEASE; a target without depmod gets a note
 *   enable UNIT… / disable UNIT… / mask UNIT…     services, by systemctl (else rc-update); a unit that is not there can be disabled
 *   password USER locked|empty|HASH
 *   authorized-keys USER SRC        the lines of SRC into USER's ~/.ssh/authorized_keys, replacing it
 *   run SRC                         execute SRC of the initrd as a script (it has a #! line, else /bin/sh), cwd /
 *   remove PATTERN                  remove what the absolute glob PATTERN matches, recursively; no match is fine
 *   forget-identity                 empty /etc/machine-id where there is one, remove random seeds; and what tells when this very boot
 *                                   was: empty the logs of dpkg, apt and update-alternatives, remove ldconfig's cache of inodes
 *   boot                            (alone, for an entry's own initrd) mount root= of the kernel command line and become its init
 *
 * Every PATH and SRC lies beneath /imgbuild of the initrd, has no "..", and what `run` executes is mode 0755. Inside a step all of
 * /imgbuild but the inputs is visible read-only at /run/imgbuild/initrd. A .deb is removed from memory once it is unpacked.
 *
 * Everything under /imgbuild/inputs of the initrd is visible read-only at /imgbuild/inputs in the step named "setup".
 *
 * RECORDS are lines of JSON on the channel, each an object with "v":PROTOCOL_VERSION and "type", at most RECORD_MAX_BYTES long
 * with the newline. An unknown type is ignored; anything that is not such an object is an error of the guest's.
 *
 *   guest -> host   {"v":1,"type":"hello","release":"6.1.0-…","machine":"x86_64","mem_kib":N}     once the channel is open
 *   host -> guest   {"v":1,"type":"greeting","nonce":"<NONCE_HEX_LEN hex digits>"}
 *   guest -> host   {"v":1,"type":"step","name":"packages","title":"…","state":"begin"}
 *                   {"v":1,"type":"output","step":"packages","data":"text of stdout and stderr"}
 *                   {"v":1,"type":"progress","step":"packages","done":12,"total":44,"what":"unpacking podman"}
 *                                          what is "removing", "unpacking" or "configuring" and a package; each of the three counts
 *                                          for itself. total is 0 while unknown
 *                   {"v":1,"type":"step","name":"packages","state":"end","exit":0,"signal":0,"ms":N}
 *                   {"v":1,"type":"note","text":"…"}                                              for the person and the manifest
 *                   {"v":1,"type":"verdict","nonce":"…","result":"passed"}                        after a clean unmount, or
 *                   {"v":1,"type":"verdict","nonce":"…","result":"failed","step":"setup","reason":REASON,"exit":1,"signal":0,"text":"…"}
 *   host -> guest   {"v":1,"type":"ack"}                                                          then the guest powers off
 *
 * A failed verdict outside any step has "step":"". REASON is one of: "exit" (a command ended with a status), "signal", "oom" (the
 * kernel killed for memory: always a failure, since memory is not in the key), "enospc" (the target is full), "mount", "module",
 * "unmount", "internal".
 *
 * THE CHANNEL is the virtio-serial port named CHANNEL_PORT_NAME; where the kernel offers none within CHANNEL_WAIT_MS, the second
 * serial port of the machine (/dev/ttyS1); where there is only one, the console, each record prefixed by CONSOLE_FRAME_PREFIX and
 * the kernel's own messages turned down. Init says which one it took on the console. The guest waits GREETING_WAIT_MS for the
 * greeting and ACK_WAIT_MS for the acknowledgement, and powers off when they do not come.
 *
 * THE COMMAND LINE of the kernel carries "rootfstype=ramfs" (else the initrd may fill only half of the memory) and "panic=-1" (a
 * panic then resets the machine at once, and QEMU, started with -no-reboot, ends). Init reads nothing else from it, but for
 * `boot`: root= (/dev/…, UUID=…, LABEL=…), rootfstype=, rootflags=, rootwait, ro, rw, init=. */
#ifndef IMGBUILD_INITRD_PROTOCOL_H
#define IMGBUILD_INITRD_PROTOCOL_H

#define PROTOCOL_VERSION 1
#define JOB_MAGIC "imgbuild-job 1"
#define JOB_PATH "/imgbuild/job"
#define INPUTS_PATH "/imgbuild/inputs"
#define RECORD_MAX_BYTES 16384
#define OUTPUT_DATA_MAX_BYTES 2048 /* of step output in one record, before JSON escaping */
#define NONCE_HEX_LEN 32
#define GREETING_WAIT_MS 120000
#define ACK_WAIT_MS 30000
#define VERDICT_TEXT_MAX_BYTES 1500 /* before JSON escaping */
#define CHANNEL_PORT_NAME "org.imgbuild.channel.0"
#define CHANNEL_WAIT_MS 5000
#define CONSOLE_FRAME_PREFIX "@imgbuild@ "

#endif
