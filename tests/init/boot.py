"""Boots init in QEMU (TCG) and plays the host of initrd/protocol.h. For tests only: judged by its own, independent reading of
the protocol."""
import json
import os
import socket
import subprocess
import time

NONCE = "0123456789abcdef0123456789abcdef"
MODULES = ["virtio/virtio_ring", "virtio/virtio_pci_modern_dev", "virtio/virtio_pci_legacy_dev", "virtio/virtio",
           "virtio/virtio_pci", "block/virtio_blk", "char/virtio_console"]


class Result:
    """What one boot said: the records in order, the console, and how QEMU ended."""

    def __init__(self):
        self.records = []
        self.console = ""
        self.status = None
        self.seconds = 0.0

    def of_type(self, kind):
        return [r for r in self.records if r.get("type") == kind]

    @property
    def verdict(self):
        found = [r for r in self.of_type("verdict") if r.get("nonce") == NONCE]
        return found[-1] if found else None

    @property
    def output(self):
        return "".join(r["data"] for r in self.of_type("output"))


def qemu_argv(arch, kernel, initrd, disk, cmdline, memory_mib, console_path, channel_fd, channel):
    argv = {
        "amd64": ["qemu-system-x86_64", "-M", "q35", "-cpu", "max", "-accel", "tcg,tb-size=512"],
        "arm64": ["qemu-system-aarch64", "-M", "virt", "-cpu", "max,pauth-impdef=on", "-accel", "tcg,tb-size=512"],
    }[arch]
    console = {"amd64": "ttyS0", "arm64": "ttyAMA0"}[arch]
    argv += ["-nodefaults", "-no-reboot", "-display", "none", "-m", str(memory_mib), "-kernel", kernel, "-initrd", initrd,
             "-append", f"console={console} rootfstype=ramfs panic=-1 mitigations=off no_timer_check {cmdline}"]
    if disk:
        argv += ["-drive", f"file={disk},format=raw,if=none,id=d,cache=unsafe", "-device", "virtio-blk-pci,drive=d"]
    if channel == "console":
        return argv + ["-chardev", f"socket,id=c,fd={channel_fd}", "-serial", "chardev:c"]
    argv += ["-chardev", f"file,id=con,path={console_path}", "-serial", "chardev:con"]
    if channel_fd is None:
        return argv
    argv += ["-chardev", f"socket,id=c,fd={channel_fd}"]
    if channel == "serial":
        return argv + ["-serial", "chardev:c"]
    return argv + ["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=c,name=org.imgbuild.channel.0"]


def boot(arch, kernel, initrd, disk, workdir, cmdline="", memory_mib=512, timeout_s=120, channel="virtio", greet=True,
         stop=None):
    """Boot to the end. stop: a function of the result so far; the guest is ended when it says True."""
    result = Result()
    console_path = os.path.join(workdir, "console.log")
    open(console_path, "w").close()
    ours, theirs = socket.socketpair() if channel else (None, None)
    argv = qemu_argv(arch, kernel, initrd, disk, cmdline, memory_mib, console_path, theirs.fileno() if theirs else None, channel)
    start = time.monotonic()
    qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()] if theirs else [])
    if theirs:
        theirs.close()
        ours.settimeout(0.2)
    pending = b""
    try:
        while time.monotonic() - start < timeout_s:
            data = None
            if ours:
                try:
                    data = ours.recv(65536)
                except socket.timeout:
                    pass
                except ConnectionError:
                    data = b""
            else:
                time.sleep(0.2)
            if data:
                pending += data
                *lines, pending = pending.split(b"\n")
                for line in lines:
                    take_line(result, line, ours, channel, greet)
            if channel != "console":
                result.console = open(console_path, errors="replace").read()
            if qemu.poll() is not None and not data:
                break
            if stop and stop(result):
                break
    finally:
        if qemu.poll() is None:
            qemu.kill()
            result.console += "\n(the test ended the guest)\n"
        qemu.wait()
        if ours:
            ours.close()
    result.status = qemu.returncode
    result.seconds = time.monotonic() - start
    return result


def take_line(result, line, ours, channel, greet):
    if channel == "console":
        prefix = b"@imgbuild@ "
        if prefix not in line:
            result.console += line.decode(errors="replace") + "\n"
            return
        line = line[line.index(prefix) + len(prefix):]
    record = json.loads(line)
    assert isinstance(record, dict) and record["v"] == 1 and len(line) < 16384, line
    result.records.append(record)
    try:
        if record["type"] == "hello" and greet:
            # Something of a type that does not exist comes first: it must be ignored.
            ours.sendall(b'{"v":1,"type":"weather","x":[1,{"y":"z"}]}\n')
            ours.sendall(json.dumps({"v": 1, "type": "greeting", "nonce": NONCE}).encode() + b"\n")
        elif record["type"] == "verdict" and record.get("nonce") == NONCE:
            ours.sendall(b'{"v":1,"type":"ack"}\n')
    except OSError:
        pass
