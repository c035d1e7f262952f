# SPDX-License-Identifier: Apache-2.0
"""Daemons under test: Sluice, and QEMU's storage daemon as the peer it is measured against.

    with Sluice([Backing("disk0", "file", 64 << 20, path=image)]) as target:
        target.socket("disk0")      # a vhost-user-blk socket

SLUICE_BIN names another binary than build/src/sluice.
"""
import dataclasses
import itertools
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

ROOT = pathlib.Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 30
RPC_TIMEOUT_S = 60
# What sanitizers print; a leak shows only at the end.
FAULTS = re.compile(r"(ERROR|WARNING): \w+Sanitizer|runtime error:")


class TargetError(Exception):
    """A daemon did not start, end or answer as it should."""


class RpcError(TargetError):
    """The daemon refused a JSON-RPC request."""

    def __init__(self, method, error):
        super().__init__(f"{method}: {error.get('message')} ({error.get('code')})")
        self.code = error.get("code")


@dataclasses.dataclass
class Backing:
    """What a disk is made of."""
    name: str
    kind: str                 # "null", "memory" or "file"
    size: int
    block_size: int = 512
    num_queues: int = 4
    readonly: bool = False
    serial: str = ""
    path: str = ""            # of a file
    packed: bool = False      # offer packed rings
    migratable: bool = False  # two daemons may have the file open, one serves it

    def make_file(self):
        """Creates the file of a file disk, all holes, if it is not there."""
        if self.kind == "file" and not os.path.exists(self.path):
            with open(self.path, "wb") as out:
                out.truncate(self.size)


class Target:
    """A daemon process with disks."""

    def __init__(self, disks, cores="0"):
        self.disks = disks
        self.cores = cores
        self.process = None
        self.dir = None

    def command(self):
        """The daemon's command line."""
        raise NotImplementedError

    def wait_started(self, deadline):
        """Returns when the daemon serves its disks."""
        raise NotImplementedError

    def start(self):
        """Starts the daemon (again), with its disks."""
        if not self.dir:
            self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sluice-target."))
        for disk in self.disks:
            disk.make_file()
        with open(self.dir / "log", "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True)
        self.wait_started(time.monotonic() + START_TIMEOUT_S)
        return self

    def check_alive(self, deadline=None):
        """Raises with the log's end if the daemon is gone."""
        if self.process.poll() is not None:
            raise TargetError(f"{self.command()[0]} ended with {self.process.returncode}\n"
                              f"{self.log()}")
        if deadline and time.monotonic() > deadline:
            raise TargetError(f"{self.command()[0]} did not start in time\n{self.log()}")

    def log(self):
        """What the daemon said."""
        return (self.dir / "log").read_text("utf-8", "replace")[-20000:]

    def socket(self, name):
        """The vhost-user-blk socket of a disk."""
        return str(self.dir / name)

    def kill(self):
        """kill -9."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def stop(self):
        """An orderly end; anything but exit status 0 is an error."""
        self.check_alive()
        self.process.terminate()
        try:
            status = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise TargetError(f"did not end on SIGTERM\n{self.log()}") from None
        if status != 0 or FAULTS.search(self.log()):
            raise TargetError(f"ended with {status} on SIGTERM\n{self.log()}")

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the daemon at once and removes its files."""
        self.kill()
        if self.dir:
            shutil.rmtree(self.dir, ignore_errors=True)
            self.dir = None


class Sluice(Target):
    """`sluice serve`, its disks made by JSON-RPC."""

    def __init__(self, disks, cores="0", poll="adaptive"):
        super().__init__(disks, cores)
        self.poll = poll
        self._ids = itertools.count(1)

    def start(self):
        if not self.dir:
            self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sluice-target."))
            (self.dir / "state").mkdir()
        return super().start()

    def command(self):
        binary = os.environ.get("SLUICE_BIN", str(ROOT / "build" / "src" / "sluice"))
        return [binary, "serve", "--run-dir", str(self.dir), "--state-dir", str(self.dir / "state"),
                "--cores", self.cores, "--poll", self.poll]

    def wait_started(self, deadline):
        while True:
            self.check_alive(deadline)
            try:
                self.rpc("spdk_get_version")
                break
            except OSError:
                time.sleep(0.02)
        # A daemon with a state directory comes back with its disks.
        known = {c["ctrlr"] for c in self.rpc("vhost_get_controllers")}
        for disk in self.disks:
            if disk.name not in known:
                self.add(disk)

    def add(self, disk):
        """Makes a bdev and a controller for it."""
        bdev = f"bdev_{disk.name}"
        if disk.kind == "file":
            self.rpc("bdev_uring_create", name=bdev, filename=disk.path,
                     block_size=disk.block_size,
                     **({"migratable": True} if disk.migratable else {}))
        else:
            method = {"null": "bdev_null_create", "memory": "bdev_malloc_create"}[disk.kind]
            self.rpc(method, name=bdev, num_blocks=disk.size // disk.block_size,
                     block_size=disk.block_size)
        options = {"serial": disk.serial} if disk.serial else {}
        if disk.packed:
            options["packed_ring"] = True
        self.rpc("vhost_create_blk_controller", ctrlr=disk.name, dev_name=bdev,
                 readonly=disk.readonly, num_queues=disk.num_queues, **options)

    def rpc(self, method, **params):
        """One JSON-RPC request; returns its result or raises RpcError."""
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method}
        if params:
            request["params"] = params
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(RPC_TIMEOUT_S)
            sock.connect(str(self.dir / "sluice.sock"))
            sock.sendall(json.dumps(request).encode())
            reply = b""
            while True:
                data = sock.recv(1 << 16)
                reply += data
                try:
                    answer = json.loads(reply)
                    break
                except ValueError:
                    if not data:
                        raise TargetError(f"{method}: the daemon closed the connection\n"
                                          f"{self.log()}") from None
        if "error" in answer:
            raise RpcError(method, answer["error"])
        return answer["result"]


class StorageDaemon(Target):
    """qemu-storage-daemon with the same disks, as far as it has them."""

    def command(self):
        # An iothread polls before it sleeps, the main loop does not: the faster of the two.
        args = ["taskset", "-c", self.cores, "qemu-storage-daemon", "--object", "iothread,id=data"]
        for disk in self.disks:
            if disk.kind == "null":
                node = f"driver=null-co,size={disk.size},read-zeroes=off"
            elif disk.kind == "memory":  # It has none: a file in tmpfs is the nearest.
                path = self.dir / f"{disk.name}.memory"
                with open(path, "ab") as out:
                    out.truncate(disk.size)
                node = f"driver=file,filename={path}"
            else:
                node = (f"driver=file,filename={disk.path},cache.direct=on,aio=io_uring,"
                        "discard=unmap")
            node += f",read-only={'on' if disk.readonly else 'off'}"
            args += ["--blockdev", f"{node},node-name={disk.name}",
                     "--export", f"type=vhost-user-blk,id={disk.name},node-name={disk.name},iothread=data,"
                     f"addr.type=unix,addr.path={self.socket(disk.name)},"
                     f"writable={'off' if disk.readonly else 'on'},"
                     f"num-queues={disk.num_queues},logical-block-size={disk.block_size}"]
        return args

    def start(self):
        # memory disks live under /dev/shm, not on a disk's file system.
        if not self.dir:
            self.dir = pathlib.Path(tempfile.mkdtemp(prefix="sluice-target.", dir="/dev/shm"))
        return super().start()

    def wait_started(self, deadline):
        while not all(os.path.exists(self.socket(d.name)) for d in self.disks):
            self.check_alive(deadline)
            time.sleep(0.02)

    def stop(self):
        # QEMU 7.2 does not end on SIGTERM when an iothread serves; the peer's end is not our test.
        self.check_alive()
        self.kill()
