# SPDX-License-Identifier: Apache-2.0
"""The matrix: depth, queues, ring format, block size, back-end, poll mode; Sluice and its peers."""
import dataclasses
import itertools
import statistics

from measure import (DISK_SIZE, Backing, Peer, Sluice, StorageDaemon, fill_file, fill_memory, fio,
                     loaded)

DEPTHS = (1, 32, 128)
QUEUES = (1, 2)
MATRIX_QUEUES = 4


@dataclasses.dataclass(frozen=True)
class Case:
    """One cell of the matrix for one target."""
    target: str  # "sluice", "qsd", "fio", or a peer's name
    backend: str
    poll: str    # of Sluice; "" for others
    rw: str
    bs: str
    depth: int
    queues: int
    ring: str

    @property
    def name(self):
        """As --only matches it."""
        parts = [self.target, self.backend, self.poll, self.rw, self.bs, f"qd{self.depth}",
                 f"q{self.queues}", self.ring]
        return "/".join(part for part in parts if part)


def sluice_cases(backend, full):
    """All combinations; the quick profile varies the other dimensions around 4 KiB reads."""
    combinations = itertools.product(("adaptive", "always"), ("randread", "randwrite"),
                                     ("4k", "64k"), DEPTHS, QUEUES, ("split", "packed"))
    for poll, rw, bs, depth, queues, ring in combinations:
        base = (poll == "adaptive", rw == "randread", bs == "4k", ring == "split")
        wanted = full or (
            all(base) or (base[0] and base[1] and base[2] and queues == 2)
            or (not base[0] and base[1] and base[2] and base[3] and queues == 2)
            or (base[0] and not base[1] and base[2] and base[3]
                and (queues == 2 or backend == "file"))
            or (base[0] and base[1] and not base[2] and depth == 32 and queues == 1))
        if wanted:
            yield Case("sluice", backend, poll, rw, bs, depth, queues, ring)


def peer_cases(name, backend, full):
    """What is asked of others: split rings, as not all of them have packed ones."""
    for rw, bs, depth, queues in itertools.product(("randread", "randwrite"), ("4k", "64k"), DEPTHS,
                                                   QUEUES):
        if full or bs == "4k" and (queues == 2 or backend == "file") or (
                rw == "randread" and bs == "64k" and depth == 32 and queues == 1):
            yield Case(name, backend, "", rw, bs, depth, queues, "split")


def fio_cases(full):
    """fio on the file itself; it has one queue."""
    for rw, bs, depth in itertools.product(("randread", "randwrite"), ("4k", "64k"), DEPTHS):
        if full or bs == "4k":
            yield Case("fio", "file", "", rw, bs, depth, 1, "")


def groups(options):
    """[(back-end, target, poll mode, cases)] in the order of one round: peers between ours."""
    found = []
    for backend in options.backends:
        ours = list(sluice_cases(backend, options.full))
        found.append((backend, "sluice", "adaptive", [c for c in ours if c.poll == "adaptive"]))
        found.append((backend, "qsd", "", list(peer_cases("qsd", backend, options.full))))
        found.append((backend, "sluice", "always", [c for c in ours if c.poll == "always"]))
        for peer in options.peers:
            if peer.backend == backend:
                found.append((backend, peer, "",
                              list(peer_cases(peer.name, backend, options.full))))
        if backend == "file":
            found.append((backend, "fio", "", list(fio_cases(options.full))))
    for backend, target, poll, cases in found:
        cases = [c for c in cases if options.only.search(c.name)]
        if cases:
            yield backend, target, poll, cases


def run_case(options, target, path, case):
    """One measurement of a case on a target that runs."""
    return loaded(target, path, options.tick_rate, "--rw", case.rw, "--bs", case.bs, "--iodepth",
                  case.depth, "--queues", case.queues, "--ring", case.ring, "--runtime",
                  options.runtime, "--cpu", options.client_cpu,
                  *(("--sleep",) if options.driver == "sleep" else ()))


def run_group(options, group, image):
    """{case: measurement} of one target with one back-end."""
    backend, target, poll, cases = group
    if target == "fio":
        return {c: fio(image, options, options.tick_rate, c.rw, c.bs, c.depth, options.runtime)
                for c in cases}
    if isinstance(target, Peer):
        return {c: run_case(options, target, target.path, c) for c in cases}
    disk = Backing("disk", backend, DISK_SIZE, num_queues=MATRIX_QUEUES, path=str(image))
    daemon = (Sluice([disk], cores=options.server_cpu, poll=poll) if target == "sluice"
              else StorageDaemon([disk], cores=options.server_cpu))
    with daemon as running:
        path = running.socket("disk")
        if backend == "memory":
            fill_memory(path)
        found = {case: run_case(options, running, path, case) for case in cases}
        running.stop()
    return found


def combine(runs):
    """Medians of all numbers of repeated runs, the best IOPS and cycles, and the spread."""
    result = {}
    for name, value in runs[0].items():
        if isinstance(value, dict):
            result[name] = {key: statistics.median(r[name][key] for r in runs) for key in value}
        else:
            result[name] = statistics.median(r[name] for r in runs)
    rates = [r["iops"] for r in runs]
    result["iops_best"] = max(rates)
    result["iops_spread"] = (max(rates) - min(rates)) / result["iops"] if result["iops"] else 0
    for name in ("busy_cycles", "ran_cycles", "cpu_cycles"):
        result[f"{name}_best"] = min(r[name] for r in runs)
    result["runs"] = len(runs)
    return result


def run(options, folder):
    """The whole matrix: rounds of all groups, so that peers alternate. Prints as it goes."""
    image = folder / "disk.img"
    todo = list(groups(options))
    found = {}
    if any(backend == "file" for backend, *_ in todo):
        fill_file(image)
    for number in range(options.repeat):
        for group in todo:
            label = getattr(group[1], "name", group[1])
            print(f"round {number + 1} of {options.repeat}: {label} {group[2]} {group[0]}: "
                  f"{len(group[3])} cases", flush=True)
            for case, result in run_group(options, group, image).items():
                found.setdefault(case, []).append(result)
    table = []
    for case, runs in sorted(found.items(), key=lambda item: item[0].name):
        table.append({**dataclasses.asdict(case), "name": case.name, **combine(runs)})
    for row in table:
        print(f"{row['name']:<48}{row['iops']:>12,.0f} IOPS{row['latency_us']['p50']:>9.1f} us p50"
              f"{row['latency_us']['p99']:>10.1f} p99"
              f"{row['busy_cycles'] or row['cpu_cycles']:>10,.0f} cycles/IO "
              f"(spread {row['iops_spread'] * 100:.0f} %)")
    return table
