# SPDX-License-Identifier: Apache-2.0
"""Questions beside the matrix: waking up, idle disks, a busy disk beside idle ones, two reactors,
the usual fio lines, and the price of copying."""
import contextlib
import json
import statistics
import subprocess
import time

from measure import (COPY_LOOP, DISK_SIZE, MIB, ROOT, Backing, Sluice, StorageDaemon, TargetError,
                     fill_memory, load, loaded, rss_bytes, scheduled_ns, target_pid)
from matrix import combine

WAKE_THINK_US = 20000  # far more than the quiet spell after which a reactor sleeps


def sluice(options, disks, poll="adaptive", cores=None):
    """A daemon on the server's CPU."""
    return Sluice(disks, cores=cores or options.server_cpu, poll=poll)


def null_disk(name="disk", queues=2):
    """The usual null disk."""
    return Backing(name, "null", DISK_SIZE, num_queues=queues)


def reference_lines(options):
    """numjobs=4 iodepth=128, and psync, on memory disks; one reactor, both daemons in turn."""
    lines = (("4 jobs x 128", 4, 128), ("depth 1", 1, 1))
    found = {}
    for _ in range(options.repeat):
        for name, make in (("sluice", sluice), ("qsd", lambda o, d: StorageDaemon(
                d, cores=o.server_cpu))):
            disk = Backing("disk", "memory", DISK_SIZE, num_queues=4)
            with make(options, [disk]) as target:
                fill_memory(target.socket("disk"))
                for line, queues, depth in lines:
                    for rw in ("randread", "randwrite"):
                        found.setdefault((line, rw, name), []).append(loaded(
                            target, target.socket("disk"), options.tick_rate, "--rw", rw,
                            "--iodepth", depth, "--queues", queues, "--runtime", options.runtime,
                            "--cpu", options.client_cpu))
                target.stop()
    return [{"line": line, "rw": rw, "target": name, **combine(runs)}
            for (line, rw, name), runs in found.items()]


def waking(options):
    """Latency of a single I/O after a pause, polled and slept through, driver polling."""
    found = {}
    ios = 300 if options.full else 80
    for _ in range(options.repeat):
        for poll in ("adaptive", "always"):
            with sluice(options, [null_disk()], poll) as target:
                for ring, extra in (("split", ()), ("packed", ("--event-idx",))):
                    result = load(target.socket("disk"), "--iodepth", 1, "--ios", ios, "--think-us",
                                  WAKE_THINK_US, "--ring", ring, "--cpu", options.client_cpu,
                                  *extra)
                    found.setdefault((poll, ring), []).append(
                        {name: ns / 1000 for name, ns in result["latency_ns"].items()})
                target.stop()
    return [{"poll": poll, "ring": ring, "think_us": WAKE_THINK_US,
             **{key: statistics.median(run[key] for run in runs) for key in runs[0]},
             "p50_best": min(run["p50"] for run in runs)}
            for (poll, ring), runs in found.items()]


@contextlib.contextmanager
def connected(target, names):
    """Front-ends of the protocol tests, brought up and idle."""
    from blk import Driver
    from guest_memory import GuestMemory, Region
    drivers = []
    try:
        for name in names:
            drivers.append(Driver(target.socket(name), queue_size=16,
                                  memory=GuestMemory([Region(MIB, MIB)])).start_up())
        yield
    finally:
        for driver in drivers:
            driver.close()


def idle_share(pid, seconds):
    """Cores that a process uses while nothing happens."""
    began, ran_ns = time.monotonic(), scheduled_ns(pid)[0]
    time.sleep(seconds)
    return (scheduled_ns(pid)[0] - ran_ns) / 1e9 / (time.monotonic() - began)


def add_disks(target, first, count):
    """Null disks with a queue each; their names."""
    disks = [null_disk(f"idle{i}", 1) for i in range(first, first + count)]
    for disk in disks:
        target.add(disk)
    return [disk.name for disk in disks]


def idle_disks(options):
    """CPU and memory of 100 and 1,000 connected disks, and what they cost one that is busy: two
    daemons that take turns, one of them with the 1,000."""
    result = {"counts": [], "busy_alone": [], "busy_beside": []}

    def busy(target):
        return loaded(target, target.socket("disk"), options.tick_rate, "--iodepth", 32, "--queues",
                      2, "--runtime", options.runtime, "--cpu", options.client_cpu)

    with sluice(options, [null_disk()]) as alone, sluice(options, [null_disk()]) as crowded:
        pid = target_pid(crowded)
        time.sleep(0.5)
        start = rss_bytes(pid)
        result["rss_start_bytes"], result["anon_start_bytes"] = start["VmRSS"], start["RssAnon"]
        with contextlib.ExitStack() as stack:
            have = 0
            for count in (100, 1000):
                names = add_disks(crowded, have, count - have)
                stack.enter_context(connected(crowded, names))
                have = count
                time.sleep(1)
                now = rss_bytes(pid)
                result["counts"].append({
                    "disks": count, "cpu_cores": idle_share(pid, options.idle_time),
                    "rss_per_disk_bytes": (now["VmRSS"] - start["VmRSS"]) / count,
                    "anon_per_disk_bytes": (now["RssAnon"] - start["RssAnon"]) / count})
            for _ in range(max(3, options.repeat)):
                result["busy_alone"].append(busy(alone))
                result["busy_beside"].append(busy(crowded))
        crowded.stop()
        alone.stop()
    for name in ("busy_alone", "busy_beside"):
        result[name] = combine(result[name])
    return result


def two_reactors(options):
    """Cycles per I/O of one disk with two queues on one reactor and on two. The driver shares a
    core with the second reactor when there are no three, so only cycles count, not IOPS."""
    found = {}
    for _ in range(max(3, options.repeat)):
        for cores in (options.server_cpu, f"{options.server_cpu},{options.client_cpu}"):
            with sluice(options, [null_disk()], cores=cores) as target:
                found.setdefault(cores.count(",") + 1, []).append(loaded(
                    target, target.socket("disk"), options.tick_rate, "--iodepth", 128, "--queues",
                    2, "--runtime", options.runtime, "--cpu", options.client_cpu))
                target.stop()
    return [{"reactors": count, **combine(runs)} for count, runs in found.items()]


def copying(options):
    """The bare copy loop over as much memory, on the reactor's CPU."""
    runs = []
    for _ in range(max(3, options.repeat)):
        done = subprocess.run(
            [COPY_LOOP, str(DISK_SIZE // MIB), "256", str(min(1, options.runtime)),
             options.server_cpu], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise TargetError(f"{COPY_LOOP.relative_to(ROOT)} ended with {done.returncode}")
        runs.append(json.loads(done.stdout))
    return {f"{side}_cycles{suffix}": choose(run[f"{side}_cycles"] for run in runs)
            for side in ("read", "write")
            for suffix, choose in (("", statistics.median), ("_best", min))}


QUESTIONS = {"reference": reference_lines, "wake": waking, "idle": idle_disks,
             "reactors": two_reactors, "copy": copying}


def run(options):
    """Those that --only asks for."""
    found = {}
    for name, ask in QUESTIONS.items():
        if options.only.search(name):
            print(f"question: {name}", flush=True)
            found[name] = ask(options)
    return found
