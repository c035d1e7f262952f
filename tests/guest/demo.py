#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`make demo`: a Linux guest does I/O on a file served by `sluice serve disk.img`."""
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from guest import Disk, Guest, GuestError

ROOT = pathlib.Path(__file__).resolve().parents[2]
DISK_SIZE = 256 << 20
RUNTIME_S = 4
MARKER = b"Written by the guest, read from the file by the host."
MARKER_OFFSET = 200 << 20

FIO = "--name=demo --filename=/dev/vda --direct=1 --ioengine=libaio --bs=4k --randrepeat=1 "
RUNS = [
    ("4 KiB random read, depth 1", "read", "--rw=randread --iodepth=1"),
    ("4 KiB random read, depth 32", "read", "--rw=randread --iodepth=32"),
    ("4 KiB random write, depth 1", "write", "--rw=randwrite --iodepth=1"),
    ("4 KiB random write, depth 32", "write", "--rw=randwrite --iodepth=32"),
]


class DemoError(Exception):
    """The demo did not show what it promises."""


def step(text):
    """Says what happens next."""
    print(f"\n\033[1m==> {text}\033[0m" if sys.stdout.isatty() else f"\n==> {text}", flush=True)


def start_daemon(image):
    """`sluice serve IMAGE`; returns the process and what it printed until its socket was there."""
    binary = os.environ.get("SLUICE_BIN", str(ROOT / "build" / "src" / "sluice"))
    vhost_socket = f"{image}.sock"
    process = subprocess.Popen([binary, "serve", image], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
    said = b""
    deadline = time.monotonic() + 20
    settled = None
    while settled is None or time.monotonic() < settled:
        if select.select([process.stdout], [], [], 0.1)[0]:
            data = os.read(process.stdout.fileno(), 1 << 16)
            said += data
            if not data and process.wait(5) is not None:
                raise DemoError(f"sluice serve ended with {process.returncode}:\n"
                                f"{said.decode('utf-8', 'replace')}")
        if settled is None and os.path.exists(vhost_socket):
            settled = time.monotonic() + 0.5  # The hints follow the socket.
        if time.monotonic() > deadline:
            process.kill()
            raise DemoError(f"sluice serve made no socket:\n{said.decode('utf-8', 'replace')}")
    return process, vhost_socket, said.decode("utf-8", "replace")


def row(name, result):
    """A line of the table for one direction of a fio run."""
    latency = result["clat_ns"]
    return (f"  {name:<30} {result['iops']:>10,.0f} {latency['mean'] / 1000:>11,.0f} "
            f"{latency['percentile']['99.000000'] / 1000:>11,.0f}")


def measure(guest):
    """The table: fio in the guest."""
    print(f"  {'':<30} {'IOPS':>10} {'mean µs':>11} {'p99 µs':>11}")
    for name, direction, options in RUNS:
        job = guest.fio(f"{FIO} {options} --runtime={RUNTIME_S} --time_based --size=128M")
        print(row(name, job[direction]), flush=True)
        if job[direction]["total_ios"] == 0:
            raise DemoError(f"{name}: no I/O was done")


def verify(guest):
    """fio writes blocks with checksums and reads every one back."""
    job = guest.fio(f"{FIO} --rw=randwrite --iodepth=32 --size=32M --verify=crc32c "
                    "--verify_fatal=1 --do_verify=1")
    written, read = job["write"]["total_ios"], job["read"]["total_ios"]
    if written != 8192 or read < written:
        raise DemoError(f"verify wrote {written} blocks of 8192 and read {read}")
    print(f"  {written:,} blocks written, {read:,} read back and right")


def show_marker(guest, image):
    """What the guest writes is in the file."""
    block = MARKER_OFFSET // 4096
    guest.run(f"printf '%s' '{MARKER.decode()}' >/tmp/marker && truncate -s 4096 /tmp/marker && "
              f"dd if=/tmp/marker of=/dev/vda bs=4096 seek={block} oflag=direct conv=fsync 2>&1")
    with open(image, "rb") as file:
        file.seek(MARKER_OFFSET)
        found = file.read(len(MARKER))
    if found != MARKER:
        raise DemoError(f"the file holds {found!r} at {MARKER_OFFSET}, not the guest's bytes")
    print(f"  at byte {MARKER_OFFSET} of the file: \"{found.decode()}\"")


def demo(folder):
    """Everything, in `folder`."""
    image = os.path.join(folder, "disk.img")
    with open(image, "wb") as out:
        out.truncate(DISK_SIZE)

    step(f"sluice serve {os.path.basename(image)}      ({DISK_SIZE >> 20} MiB file)")
    daemon, vhost_socket, said = start_daemon(image)
    try:
        print("\n".join("  " + line for line in said.rstrip().splitlines()))
        step("Booting Debian's kernel in QEMU with this disk as vhost-user-blk, 2 queues")
        began = time.monotonic()
        with Guest([Disk(vhost_socket, num_queues=2)], smp=2) as guest:
            emulated = guest.accel != "kvm"
            print(f"  up in {time.monotonic() - began:.0f} s "
                  + ("under EMULATION: KVM does not work here, so the guest is slow"
                     if emulated else "under KVM"))
            print("  " + guest.run("uname -sr; echo \"/dev/vda: "
                                   "$(cat /sys/block/vda/size) sectors, "
                                   "$(ls /sys/block/vda/mq | wc -l) queues\""
                                   ).strip().replace("\n", "\n  "))
            step("fio in the guest")
            measure(guest)
            if emulated:
                print("  These are the speed of the emulated CPU, not of Sluice: "
                      "`make bench` measures that.")
            step("fio with verify in the guest")
            verify(guest)
            step("The guest's data is in the file")
            show_marker(guest, image)
            guest.power_off()
        if daemon.poll() is not None:
            raise DemoError(f"sluice ended early with {daemon.returncode}")
        daemon.terminate()
        status = daemon.wait(20)
        if status != 0:
            raise DemoError(f"sluice ended with {status} on SIGTERM")
        if os.path.exists(vhost_socket):
            raise DemoError("sluice left its socket behind")
    finally:
        if daemon.poll() is None:
            daemon.kill()
            daemon.wait()


def main():
    """Runs the demo and leaves nothing behind, whatever happens."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))
    # Not /tmp, which may be a tmpfs: the file should be on a disk, and its path short for a socket.
    folder = tempfile.mkdtemp(prefix="sluice-demo.", dir="/var/tmp")
    try:
        demo(folder)
    except (DemoError, GuestError, OSError, subprocess.SubprocessError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    step("Done: the disk worked, and everything was cleaned up")
    return 0


if __name__ == "__main__":
    sys.exit(main())
