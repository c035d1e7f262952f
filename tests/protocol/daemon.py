# SPDX-License-Identifier: Apache-2.0
"""The server under test, as a process: start, JSON-RPC, what it holds, what it logged, stop.

Two servers have the same face here: Sluice, and qemu-storage-daemon, against which the
well-behaved tests can be tried themselves (SLUICE_PROTOCOL_TARGET=qsd).
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from vhost_user import TIMEOUT_S

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("SLUICE_BIN", str(REPOSITORY / "build" / "src" / "sluice"))
MIB = 1 << 20

# What a sanitizer, an assertion or the C library prints when the server has a bug.
FAULTS = re.compile(
    r"ERROR: \w+Sanitizer|WARNING: \w+Sanitizer|runtime error:|SUMMARY: \w+Sanitizer"
    r"|[Aa]ssert(ion)?\b.*failed|malloc\(\)|free\(\):|double free|stack smashing|Segmentation fault")


def wait_until(condition, what, timeout_s=TIMEOUT_S):
    """Poll a condition of another process for which there is no event to wait on."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.001
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_s} s")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.05)
    return value


class RpcError(Exception):
    def __init__(self, error):
        super().__init__(error)
        self.code = error.get("code")
        self.message = error.get("message", "")


class RpcClient:
    """JSON-RPC 2.0 over a Unix stream socket; one request at a time."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        try:
            self.sock.connect(str(path))
        except OSError:
            self.sock.close()
            raise
        self._buffer = ""
        self._next_id = 1

    def close(self):
        self.sock.close()

    def read_object(self):
        while True:
            text = self._buffer.lstrip()
            try:
                value, end = json.JSONDecoder().raw_decode(text)
                self._buffer = text[end:]
                return value
            except json.JSONDecodeError:
                pass
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("the RPC socket was closed")
            self._buffer = text + data.decode()

    def call(self, method, **params):
        request = {"jsonrpc": "2.0", "id": self._next_id, "method": method}
        if params:
            request["params"] = params
        self.sock.sendall(json.dumps(request).encode())
        reply = self.read_object()
        assert reply["id"] == self._next_id
        self._next_id += 1
        if "error" in reply:
            raise RpcError(reply["error"])
        return reply["result"]


@dataclasses.dataclass
class Disk:
    """A controller and the bdev behind it."""
    name: str
    socket: str
    kind: str  # null, malloc, uring
    block_size: int
    num_blocks: int
    num_queues: int
    readonly: bool = False
    serial: str | None = None
    file: pathlib.Path | None = None
    bdev_gone: bool = False  # deleted by the test

    @property
    def bdev(self):
        return f"{self.name}-bdev"

    @property
    def size(self):
        return self.block_size * self.num_blocks

    @property
    def sectors(self):
        return self.size // 512


class Server:
    """A server process and the directory in which it lives."""

    name = ""
    many_sessions = True  # one controller serves several front-ends at a time

    def __init__(self):
        # Short, for the 107 bytes of a socket's path.
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sluice-"))
        self.log_path = self.dir / "log"
        self.process = None
        self.starts = 0
        self.on_restart = []  # what to set up again, in order

    # -- life -----------------------------------------------------------------------------------

    def start(self):
        raise NotImplementedError

    def restart_if_dead(self):
        """After a test that killed the server: a new one with the same disks at the same
        sockets, so that one crash fails one test."""
        if self.process.poll() is None and not FAULTS.search(self.log()):
            return
        self.process.kill()
        self.process.wait()
        self.client.close()
        self.log_path.rename(self.dir / f"log.{self.starts}")
        self.start()
        for set_up in self.on_restart:
            set_up()

    def spawn(self, command, env=None):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)

    def connect(self, path):
        """An RpcClient, or None while nobody listens yet."""
        self.assert_alive()
        try:
            return RpcClient(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None

    def stop(self):
        """A clean end: exit code 0 on SIGTERM, and nothing bad in the log."""
        try:
            self.assert_healthy()
            self.process.send_signal(signal.SIGTERM)
            try:
                code = self.process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                raise AssertionError(f"{self.name} does not stop on SIGTERM") from error
            assert code == 0, f"{self.name} ended with {code}\n{self.log_tail()}"
            self.assert_log_clean()
        finally:
            self.destroy()

    def destroy(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    # -- what it holds --------------------------------------------------------------------------

    @property
    def pid(self):
        return self.process.pid

    def fd_list(self):
        """Targets of the open fds, sorted: comparable, and readable in a failure."""
        targets = []
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                targets.append(os.readlink(f"/proc/{self.pid}/fd/{fd}"))
            except FileNotFoundError:
                continue
        return sorted(re.sub(r"socket:\[\d+\]", "socket", target) for target in targets)

    def fd_count(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def map_count(self, what="memfd:guest"):
        """Mappings of guest memory."""
        with open(f"/proc/{self.pid}/maps", encoding="ascii", errors="replace") as maps:
            return sum(what in line for line in maps)

    def rss_anon(self):
        """Bytes of private memory; guest memory, being shared, does not count."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
        raise AssertionError("no RssAnon")

    def is_sanitized(self):
        """Under a sanitizer freed memory stays for a while: leaks are its own to find."""
        with open(f"/proc/{self.pid}/maps", encoding="ascii", errors="replace") as maps:
            return any("libasan" in line or "libtsan" in line for line in maps)

    def cpu_ticks(self):
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    # -- what it said ---------------------------------------------------------------------------

    def log(self):
        return self.log_path.read_text(errors="replace")

    def log_lines(self):
        return self.log().count("\n")

    def log_tail(self, count=40):
        return "\n".join(self.log().splitlines()[-count:])

    def assert_log_clean(self):
        found = FAULTS.search(self.log())
        assert not found, f"{self.name} reports a fault:\n{self.log()[found.start():][:6000]}"

    def assert_alive(self):
        code = self.process.poll()
        assert code is None, f"{self.name} died with {code}\n{self.log_tail()}"

    def assert_healthy(self):
        self.assert_alive()
        self.assert_log_clean()


class Sluice(Server):
    name = "sluice"

    def __init__(self, cores="0", poll="adaptive"):
        super().__init__()
        self.run_dir = self.dir / "run"
        self.rpc_path = self.run_dir / "sluice.sock"
        self.cores = cores
        self.poll = poll
        self.start()

    def start(self):
        self.starts += 1
        state_dir = self.dir / f"state{self.starts}"
        self.run_dir.mkdir(exist_ok=True)
        state_dir.mkdir()
        env = dict(os.environ)
        env.setdefault("ASAN_OPTIONS", "abort_on_error=1:detect_leaks=1:quarantine_size_mb=8")
        env.setdefault("TSAN_OPTIONS", f"suppressions={pathlib.Path(__file__).parent}/tsan.supp")
        env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1")
        self.spawn([BINARY, "serve", "--run-dir", self.run_dir, "--state-dir",
                    state_dir, "--cores", self.cores, "--poll", self.poll], env)
        self.client = wait_until(lambda: self.connect(self.rpc_path), "sluice's RPC socket")
        self.rpc("spdk_get_version")  # accepted by now, so that fds can be counted

    def stop(self):
        self.client.close()
        super().stop()

    def rpc(self, method, **params):
        return self.client.call(method, **params)

    def create_bdev(self, name, kind, num_blocks, block_size, file):
        if kind == "uring":
            self.rpc("bdev_uring_create", name=name, filename=str(file), block_size=block_size)
        else:
            self.rpc(f"bdev_{kind}_create", name=name, num_blocks=num_blocks,
                     block_size=block_size)

    def create_controller(self, name, bdev, **options):
        self.rpc("vhost_create_blk_controller", ctrlr=name, dev_name=bdev, **options)
        return str(self.run_dir / name)

    def delete_controller(self, name):
        self.rpc("vhost_delete_controller", ctrlr=name)

    def delete_bdev(self, name, kind):
        self.rpc(f"bdev_{kind}_delete", name=name)


class QemuStorageDaemon(Server):
    name = "qemu-storage-daemon"
    many_sessions = False

    def __init__(self, cores="0", poll="adaptive"):
        super().__init__()
        self.block_sizes = {}
        self.start()

    def start(self):
        self.starts += 1
        for socket_path in (*self.dir.glob("*.sock"), self.dir / "qmp"):
            socket_path.unlink(missing_ok=True)
        self.spawn(["qemu-storage-daemon", "--chardev",
                    f"socket,id=c,path={self.dir}/qmp,server=on,wait=off", "--monitor",
                    "chardev=c"])
        self.client = wait_until(lambda: self.connect(self.dir / "qmp"),
                                 "qemu-storage-daemon's monitor")
        self.client.read_object()
        self.qmp("qmp_capabilities")

    def qmp(self, command, **arguments):
        self.client.sock.sendall(json.dumps({"execute": command, "arguments": arguments})
                                 .encode())
        while True:
            reply = self.client.read_object()
            if "error" in reply:
                raise RpcError(reply["error"])
            if "return" in reply:
                return reply["return"]

    def stop(self):
        self.client.close()
        super().stop()

    def create_bdev(self, name, kind, num_blocks, block_size, file):
        self.block_sizes[name] = block_size
        if kind == "null":
            self.qmp("blockdev-add", **{"node-name": name, "driver": "null-co",
                                        "size": num_blocks * block_size, "read-zeroes": True})
            return
        if file is None:
            file = self.dir / f"{name}.img"
            with open(file, "wb") as image:
                image.truncate(num_blocks * block_size)
        self.qmp("blockdev-add", **{"node-name": name, "driver": "file", "filename": str(file),
                                    "discard": "unmap"})

    def create_controller(self, name, bdev, readonly=False, num_queues=1, serial=None):
        path = str(self.dir / f"{name}.sock")
        self.qmp("block-export-add", **{
            "type": "vhost-user-blk", "id": name, "node-name": bdev, "writable": not readonly,
            "num-queues": num_queues, "logical-block-size": self.block_sizes[bdev],
            "addr": {"type": "unix", "path": path}})
        return path

    def delete_controller(self, name):
        self.qmp("block-export-del", id=name, mode="hard")

    def delete_bdev(self, name, kind):
        def gone():
            try:
                self.qmp("blockdev-del", **{"node-name": name})
            except RpcError:
                return False
            return True
        wait_until(gone, "blockdev-del")


def start_server(**options):
    kind = os.environ.get("SLUICE_PROTOCOL_TARGET", "sluice")
    return {"sluice": Sluice, "qsd": QemuStorageDaemon}[kind](**options)


class DiskFactory:
    """Makes disks on a server and takes them away again."""

    _count = 0

    def __init__(self, server):
        self.server = server
        self.disks = []

    def create(self, disk):
        """On the server, from what the disk says of itself."""
        options = {"num_queues": disk.num_queues}
        if disk.readonly:
            options["readonly"] = True
        if disk.serial is not None:
            options["serial"] = disk.serial
        bdev = disk.bdev
        self.server.create_bdev(bdev, disk.kind, disk.num_blocks, disk.block_size, disk.file)
        return self.server.create_controller(disk.name, bdev, **options)

    def create_again(self):
        for disk in self.disks:
            self.create(disk)

    def __call__(self, kind="malloc", block_size=512, size=8 * MIB, num_queues=1,
                 readonly=False, serial=None, prefix="disk", content=None, directory=None):
        DiskFactory._count += 1
        name = f"{prefix}{DiskFactory._count}"
        file = None
        if kind == "uring":
            file = (directory or self.server.dir) / f"{name}.img"
            with open(file, "wb") as image:
                image.truncate(size)
                if content:
                    image.write(content)
        disk = Disk(name, "", kind, block_size, size // block_size, num_queues, readonly, serial,
                    file)
        disk.socket = self.create(disk)
        self.disks.append(disk)
        return disk

    def close(self):
        for disk in reversed(self.disks):
            self.server.delete_controller(disk.name)
            if not disk.bdev_gone:
                self.server.delete_bdev(disk.bdev, disk.kind)
        self.disks = []
