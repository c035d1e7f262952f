# SPDX-License-Identifier: Apache-2.0
"""docs/benchmarks.md from a result of bench/run."""

HEAD = """# Benchmarks

Written by `bench/run --summary` from one run of `make bench`; do not edit.

"""

REPEAT = """## How to repeat

    make bench                      # the quick profile, a few minutes
    make bench ARGS=--full          # the whole matrix, about two hours
    make bench ARGS='--only null/.*/4k/qd128 --runtime 3'
    make bench ARGS='--peer NAME@memory=SOCKET'   # any other vhost-user-blk target, in turn
    bench/run --summary             # this page from the last run

Results are in `build/bench/` as JSON, with plots (SVG and PNG) of each back-end.
"""

EXPLANATION = """One core serves (pinned), another drives; `sluice bench` is the front-end of
all vhost-user targets, fio drives the file itself. In each round every target has its turn; numbers
are medians over the rounds, *best* is the best round.

- **busy cycles**: the reactors' busy ticks (`framework_get_reactors`) per I/O. Ticks run on while
  the kernel or the hypervisor gives the core to somebody else, so on a shared machine the best round
  is nearest to what the code costs, and the median shows what was to be had.
- **CPU cycles**: all CPU time of the serving process, per I/O, in ticks; time in which somebody else
  had the core is not in it, polling for nothing is. It is all that peers can be asked for; fio's is
  that of a driver and its I/O in one.
- **scaled**: CPU cycles times the share of busy ticks in all ticks awake: what a busy cycle count
  would be without neighbours. Best round.
- **at p50**: I/Os outstanding over the median latency: the rate while both sides ran at once, which on
  a shared machine is only part of the time.
- **cores**: CPU time over wall time, of the server and of the driver.
- The driver writes descriptors and status bytes for every request, as a guest's does, so that their
  cache lines move between the cores.
- **spread**: (best - worst) / median of the IOPS over the rounds.
"""


def number(value, digits=0):
    """With thousands separated; a dash for nothing."""
    return "-" if value is None else f"{value:,.{digits}f}"


def table(head, rows):
    """A markdown table; the first column is text."""
    lines = ["| " + " | ".join(head) + " |",
             "|---|" + "---:|" * (len(head) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n\n"


def find(cases, **wanted):
    """The case with these values, or None."""
    return next((c for c in cases if all(c[k] == v for k, v in wanted.items())), None)


def describe(result):
    """Machine, date, noise."""
    about = result["machine"]
    spreads = sorted(c["iops_spread"] for c in result["cases"]) or [0]
    shares = sorted(c["server_cores"] for c in result["cases"] if c["poll"] == "always") or [1]
    peers = [p for p in (about["qsd"], about["fio"]) if p]
    return (
        f"{about['date']}, commit {about['commit']}. {about['cpu']}, {about['cpus']} CPUs"
        f"{' (a virtual machine)' if about['virtual'] else ''} at "
        f"{about['tick_rate'] / 1e9:.2f} GHz, Linux {about['kernel']}. Peers: {'; '.join(peers)}. "
        f"Profile {result['profile']}: {result['runtime_s']:g} s a case, {result['rounds']} "
        f"rounds.\n\n**Noise**: the load average was {about['load_before']:.1f} before and "
        f"{about['load_after']:.1f} after the run, on {about['cpus']} CPUs of which the run itself "
        f"keeps two busy; the spread of the IOPS over the rounds had a median of "
        f"{spreads[len(spreads) // 2] * 100:.0f} % and a worst case of {spreads[-1] * 100:.0f} %. "
        f"A reactor that polls always, and wants all of its core, got "
        f"{shares[len(shares) // 2] * 100:.0f} % of it (median). Where that is far from 100 %, IOPS say "
        f"more about the neighbours than about any target, and a target that needs two cores at "
        f"once, as every vhost-user pair does, loses more than fio, which needs one.\n\n")


def at_p50(case):
    """The rate that the median latency stands for."""
    p50 = case["latency_us"]["p50"]
    return case["depth"] * case["queues"] * 1e6 / p50 if p50 else 0


def case_row(case):
    """One row of a back-end's table."""
    latency = case["latency_us"]
    label = f"{case['target']} {case['poll']}".strip()
    return [f"{label}, {case['rw']} {case['bs']}, {case['queues']}q {case['ring']}".strip(),
            str(case["depth"]), number(case["iops"]), number(case["iops_best"]),
            number(at_p50(case)), number(latency["p50"], 1), number(latency["p99"], 1), number(latency["p999"], 1),
            number(case["busy_cycles"]) if case["busy_cycles"] else "-",
            number(case["busy_cycles_best"]) if case["busy_cycles"] else "-",
            number(case["ran_cycles_best"]) if case["busy_cycles"] else "-",
            number(case["cpu_cycles"]), f"{case['server_cores']:.2f}", f"{case['client_cores']:.2f}",
            f"{case['iops_spread'] * 100:.0f} %"]


CASE_HEAD = ["target, load", "depth", "IOPS", "best", "at p50", "p50 us", "p99", "p99.9", "busy cyc/IO", "best",
             "scaled", "CPU cyc/IO", "server cores", "driver cores", "spread"]


def order(case):
    """Cases side by side that are to be compared."""
    return (case["rw"], len(case["bs"]), case["bs"], case["depth"], case["queues"],
            case["target"] != "sluice", case["target"], case["poll"], case["ring"] == "packed")


def matrix(result):
    """A table a back-end."""
    text = ""
    for backend in ("null", "memory", "file"):
        cases = sorted((c for c in result["cases"] if c["backend"] == backend), key=order)
        if cases:
            text += f"## Back-end: {backend}\n\n" + table(CASE_HEAD, map(case_row, cases))
    return text


def ratio(cases, value, ours, theirs):
    """value(ours) / value(theirs), or None when one of them was not measured."""
    one, other = find(cases, **ours), find(cases, **theirs)
    return value(one) / value(other) if one and other and value(other) else None


def comparisons(result):
    """Ratios that the project has bars for."""
    cases, rows = result["cases"], []
    base = {"rw": "randread", "bs": "4k", "queues": 2}
    adaptive = {"target": "sluice", "poll": "adaptive", "ring": "split"}

    def add(what, value, ours, theirs):
        found = ratio(cases, value, ours, theirs)
        if found is not None:
            rates = ratio(cases, at_p50, ours, theirs) if "IOPS" in what else None
            rows.append([what, f"{found:.2f}", number(rates, 2)])

    for depth in (1, 32, 128):
        for backend in ("null", "memory", "file"):
            here = {**base, "backend": backend, "depth": depth}
            add(f"{backend}, depth {depth}: IOPS, adaptive / always",
                lambda c: c["iops_best"], {**here, **adaptive},
                {**here, **adaptive, "poll": "always"})
            add(f"{backend}, depth {depth}: scaled cycles, packed / split",
                lambda c: c["ran_cycles_best"], {**here, **adaptive, "ring": "packed"},
                {**here, **adaptive})
            add(f"{backend}, depth {depth}: IOPS, sluice / qemu-storage-daemon",
                lambda c: c["iops_best"], {**here, **adaptive}, {**here, "target": "qsd"})
        for rw in ("randread", "randwrite"):
            here = {**base, "rw": rw, "backend": "file", "depth": depth, "queues": 1}
            theirs = {**here, "target": "fio"}
            for ours in ({**here, **adaptive}, {**here, "target": "qsd"}):
                add(f"file, {rw}, depth {depth}: IOPS, {ours['target']} / fio io_uring (medians)",
                    lambda c: c["iops"], ours, theirs)
                add(f"file, {rw}, depth {depth}: CPU cycles, {ours['target']} / fio",
                    lambda c: c["cpu_cycles_best"], ours, theirs)
    return "## Ratios, of the best rounds unless said\n\n" + table(["what", "ratio", "at p50"], rows) if rows else ""


def reference(rows):
    """fio's usual lines."""
    return ("## fio's usual lines, by `sluice bench`\n\n4 KiB on a 512 MiB memory disk (the peer: a "
            "file in tmpfs), one reactor; 4 queues x 128 for `numjobs=4 iodepth=128`, one queue of "
            "depth 1 for `psync`.\n\n" + table(
                ["line", "target", "IOPS", "best", "mean us", "p99 us", "cores"],
                [[f"{r['line']}, {r['rw']}", r["target"], number(r["iops"]), number(r["iops_best"]),
                  number(r["latency_us"]["mean"], 1), number(r["latency_us"]["p99"], 1),
                  f"{r['server_cores']:.2f}"] for r in rows]))


def wake(rows):
    """Waking up."""
    text = (f"## Waking up\n\nA single read of a null disk after {rows[0]['think_us'] / 1000:g} ms of "
            "quiet; the driver polls for the answer. Caches and clocks are as cold in both modes.\n\n"
            + table(["poll mode", "ring", "p50 us", "p50, best round", "mean us", "p99 us"],
                    [[r["poll"], r["ring"] + (", EVENT_IDX" if r["ring"] == "packed" else ""),
                      number(r["p50"], 1), number(r["p50_best"], 1), number(r["mean"], 1),
                      number(r["p99"], 1)] for r in rows]))
    for ring in ("split", "packed"):
        slept, polled = find(rows, poll="adaptive", ring=ring), find(rows, poll="always", ring=ring)
        if slept["p50_best"] < polled["p50_best"]:
            text += (f"On {ring} rings the one that polls was kept from its core for longer than the "
                     "other took to wake: this run cannot tell.  \n")
            continue
        text += (f"Waking adds {slept['p50'] - polled['p50']:.1f} us (median), "
                 f"{slept['p50_best'] - polled['p50_best']:.1f} us (best round) on {ring} rings.  \n")
    return text + "\n"


def idle(found):
    """Idle disks."""
    alone, beside = found["busy_alone"], found["busy_beside"]
    mib = 1 << 20
    return (
        "## Idle disks\n\n" + table(
            ["connected idle disks", "share of a core", "RSS a disk, KiB", "anonymous, KiB"],
            [[str(c["disks"]),
              f"{c['cpu_cores'] * 100:.4f} %" if c["cpu_cores"] else "none seen",
              number(c["rss_per_disk_bytes"] / 1024, 1), number(c["anon_per_disk_bytes"] / 1024, 1)]
             for c in found["counts"]])
        + f"RSS after start: {found['rss_start_bytes'] / mib:.1f} MiB, "
        f"{found['anon_start_bytes'] / mib:.1f} MiB of it anonymous.\n\n"
        "One busy null disk (2 queues x 32) alone, and beside 1,000 connected idle ones:\n\n"
        + table(["", "IOPS", "best", "busy cyc/IO", "best"],
                [[name, number(r["iops"]), number(r["iops_best"]), number(r["busy_cycles"]),
                  number(r["busy_cycles_best"])]
                 for name, r in (("alone", alone), ("beside 1,000", beside))])
        + f"Ratio of the best rounds: {beside['iops_best'] / alone['iops_best']:.2f} in IOPS, "
        f"{beside['busy_cycles_best'] / alone['busy_cycles_best']:.2f} in cycles.\n\n")


def two_reactors(rows, tick_rate):
    """Scaling, in cycles."""
    one, two = (find(rows, reactors=count) for count in (1, 2))
    name = "ran_cycles_best"
    return (
        "## One disk, two queues, two reactors\n\nNull, depth 128 a queue. Where there is no "
        "third core the driver shares one with the second reactor: scaled cycles count.\n\n" + table(
            ["reactors", "IOPS", "busy cyc/IO", "scaled, best", "IOPS if cycles were the limit"],
            [[str(r["reactors"]), number(r["iops"]), number(r["busy_cycles"]), number(r[name]),
              number(r["reactors"] * tick_rate / r[name])] for r in (one, two)])
        + f"Cycles-limited throughput of two over one: {2 * one[name] / two[name]:.2f}.\n\n")


def copy(found, result):
    """The memory back-end beside memcpy."""
    rows = [["bare copy loop", number(found["read_cycles"]), number(found["read_cycles_best"]),
             number(found["write_cycles"]), number(found["write_cycles_best"])]]
    for backend in ("memory", "null"):
        sides = [find(result["cases"], target="sluice", backend=backend, poll="adaptive", rw=rw,
                      bs="4k", depth=128, queues=2, ring="split") for rw in ("randread", "randwrite")]
        if all(sides):
            rows.append([f"{backend} back-end, depth 128, 2 queues"] + [
                number(s[key]) for s in sides for key in ("busy_cycles", "busy_cycles_best")])
    return ("## Where the cycles of the memory back-end go\n\nThe loop copies 4 KiB between random "
            "places of 512 MiB and 256 buffers with `memcpy`, on the reactor's core, its data touched "
            "by no other core.\n\n"
            + table(["", "read", "best", "write", "best"], rows))


def markdown(result):
    """The page."""
    asked = result["questions"]
    text = HEAD + describe(result) + EXPLANATION + "\n" + comparisons(result) + matrix(result)
    if "reference" in asked:
        text += reference(asked["reference"])
    if "wake" in asked:
        text += wake(asked["wake"])
    if "idle" in asked:
        text += idle(asked["idle"])
    if "reactors" in asked:
        text += two_reactors(asked["reactors"], result["machine"]["tick_rate"])
    if "copy" in asked:
        text += copy(asked["copy"], result)
    return text + REPEAT
