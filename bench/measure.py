# SPDX-License-Identifier: Apache-2.0
"""Loads on targets, and what they cost: `sluice bench`, fio, counters of processes."""
import json
import math
import os
import pathlib
import resource
import socket
import struct
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
for folder in ("guest", "protocol"):
    sys.path.insert(0, str(ROOT / "tests" / folder))

# pylint: disable=wrong-import-position
from target import Backing, Sluice, StorageDaemon, TargetError  # noqa: E402

MIB = 1 << 20
DISK_SIZE = 512 * MIB
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
BINARY = os.environ.get("SLUICE_BIN", str(ROOT / "build" / "src" / "sluice"))
COPY_LOOP = ROOT / "build" / "bench" / "copy_loop"


class Peer:
    """A target that somebody else has started: known by its socket only."""

    def __init__(self, name, backend, path):
        self.name = name
        self.backend = backend
        self.path = path
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(path)
            except OSError as error:
                raise TargetError(f"peer {name}: {path}: {error.strerror}") from None
            creds = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.pid = struct.unpack("3i", creds)[0]


def target_pid(target):
    """The process that serves. With a keeper or the like before it: the one that uses the most."""
    if isinstance(target, Peer):
        return target.pid
    pids, todo = [], [target.process.pid]
    while todo:
        pid = todo.pop()
        pids.append(pid)
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            todo += map(int, (task / "children").read_text("ascii").split())
    return max(pids, key=cpu_seconds)


def cpu_seconds(pid):
    """User and system time of a process."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def scheduled_ns(pid):
    """(time run, time runnable but not running) of all threads of a process."""
    sums = [0, 0]
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        fields = (task / "schedstat").read_text("ascii").split()
        sums[0] += int(fields[0])
        sums[1] += int(fields[1])
    return sums


def rss_bytes(pid):
    """{"VmRSS": ..., "RssAnon": ...} of a process, in bytes."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines
            if line.startswith(("VmRSS", "RssAnon"))}


def reactors(target):
    """(busy ticks, ticks awake, ticks a second) of all data reactors; nothing for a peer."""
    if not isinstance(target, Sluice):
        return 0, 0, None
    reply = target.rpc("framework_get_reactors")
    busy, idle, sleep = (sum(r[key] for r in reply["reactors"]) for key in ("busy", "idle", "sleep"))
    return busy, busy + idle - sleep, reply["tick_rate"]


def ios_done(target):
    """Reads and writes of all disks, as Sluice counts them; 0 for a peer."""
    if not isinstance(target, Sluice):
        return 0
    return sum(stat["num_read_ops"] + stat["num_write_ops"]
               for stat in target.rpc("bdev_get_iostat")["bdevs"])


def check_count(target, ios, options):
    """Raises if daemon and driver do not agree on what was done. The last batch is answered after
    the driver has stopped counting."""
    depths = [int(after) for option, after in zip(options, options[1:])
              if option in ("--iodepth", "--queues")]
    if isinstance(target, Sluice) and abs(ios_done(target) - target.ios_before - ios) > max(
            ios // 100, 2 * math.prod(depths)):
        raise TargetError(f"the driver counted {ios} I/Os, the daemon "
                          f"{ios_done(target) - target.ios_before}")


class Counters:
    """What a process has used since a moment."""

    def __init__(self, target):
        self.target = target
        self.pid = target_pid(target)
        self.start = self.read()

    def read(self):
        """All counters now."""
        run_ns, delay_ns = scheduled_ns(self.pid)
        client = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy, awake, _ = reactors(self.target)
        return {"run_ns": run_ns, "delay_ns": delay_ns, "busy": busy, "awake": awake,
                "client_s": client.ru_utime + client.ru_stime}

    def since(self):
        """The differences to the start."""
        now = self.read()
        return {name: now[name] - self.start[name] for name in now}


def load(path, *options):
    """`sluice bench` against a socket; its JSON."""
    command = [BINARY, "bench", f"vhost-blk:{path}", "--json", *map(str, options)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise TargetError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}")
    result = json.loads(done.stdout)
    if result["errors"]:
        raise TargetError(f"{result['errors']} I/O errors under {' '.join(command)}")
    return result


def fill_memory(path):
    """Writes every page of a memory disk: one that was never written is not there to be read."""
    load(path, "--rw", "write", "--iodepth", 4, "--bs", "1M", "--ios", DISK_SIZE // MIB)


def fill_file(path):
    """A file whose blocks are all allocated and on the disk: no holes, no unwritten extents."""
    data = os.urandom(MIB)
    with open(path, "wb") as out:
        for _ in range(DISK_SIZE // MIB):
            out.write(data)
        os.fsync(out.fileno())


def loaded(target, path, tick_rate, *options):
    """A load and its price: {iops, latency_us, busy_cycles, ran_cycles, cpu_cycles, ...} an I/O.

    busy_cycles are the reactors' busy ticks, which go on while somebody else has the CPU;
    cpu_cycles is all CPU time of the process, polling for nothing included; ran_cycles is the part
    of that time that was busy, by the share of busy ticks in all ticks awake."""
    target.ios_before = ios_done(target)
    counters = Counters(target)
    result = load(path, "--warmup", 0, *options)
    used = counters.since()
    ios = max(1, result["reads"] + result["writes"])
    check_count(target, ios, options)
    cpu_cycles = used["run_ns"] / 1e9 * tick_rate / ios
    seconds = result["runtime_ns"] / 1e9
    return {
        "iops": result["iops"],
        "latency_us": {name: ns / 1000 for name, ns in result["latency_ns"].items()},
        "busy_cycles": used["busy"] / ios,
        "ran_cycles": cpu_cycles * used["busy"] / max(1, used["awake"]),
        "cpu_cycles": cpu_cycles,
        "server_cores": used["run_ns"] / 1e9 / seconds,
        "client_cores": used["client_s"] / seconds,
        "client_cycles": result["client_cycles_per_io"],
        "ran_share": used["run_ns"] / max(1, used["run_ns"] + used["delay_ns"]),
    }


def fio(path, options, tick_rate, rw, bs, depth, runtime):
    """fio with io_uring on a file, as loaded() has it."""
    command = ["fio", "--name=peer", f"--filename={path}", f"--size={DISK_SIZE}", "--direct=1",
               "--ioengine=io_uring", f"--rw={rw}", f"--bs={bs}", f"--iodepth={depth}",
               "--time_based", f"--runtime={max(1, round(runtime))}", "--output-format=json",
               f"--cpus_allowed={options.client_cpu}", "--norandommap", "--randrepeat=0"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise TargetError(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}")
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    side = job["write" if "write" in rw else "read"]
    seconds = side["runtime"] / 1000
    cores = (job["usr_cpu"] + job["sys_cpu"]) / 100
    spread = side["clat_ns"].get("percentile", {})
    return {
        "iops": side["iops"],
        "latency_us": {"mean": side["lat_ns"]["mean"] / 1000, "max": side["lat_ns"]["max"] / 1000,
                       **{name: spread.get(key, 0) / 1000 for name, key in (
                           ("p50", "50.000000"), ("p99", "99.000000"), ("p999", "99.900000"))}},
        "busy_cycles": 0, "ran_cycles": 0,
        "cpu_cycles": cores * seconds * tick_rate / max(1, side["total_ios"]),
        "server_cores": 0, "client_cores": cores, "client_cycles": 0, "ran_share": 1,
    }
