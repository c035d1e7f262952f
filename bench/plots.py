# SPDX-License-Identifier: Apache-2.0
"""Plots of a result: one figure a back-end, SVG and PNG. Without matplotlib there are none."""
import sys

DEPTHS = (1, 32, 128)
LINES = (("sluice", "split", "adaptive"), ("sluice", "packed", "adaptive"),
         ("sluice", "split", "always"))


def lines_of(cases):
    """[(label, cases by depth)] worth a line: Sluice in its variants, and each peer."""
    found = {}
    for case in cases:
        key = (case["target"], case["ring"], case["poll"])
        if case["target"] == "sluice" and key not in LINES:
            continue
        label = case["target"] if case["target"] != "sluice" else \
            f"sluice, {case['ring']}, {case['poll']}"
        found.setdefault(label, {})[case["depth"]] = case
    return sorted(found.items())


def cycles(case):
    """An I/O's price in cycles of the server: busy ones where they are known."""
    return case["busy_cycles_best"] or case["cpu_cycles_best"]


PANELS = (("IOPS", lambda case: case["iops"]),
          ("p99 latency, us", lambda case: case["latency_us"]["p99"]),
          ("cycles per I/O, best round", cycles))


def draw_backend(pyplot, cases, title):
    """A figure of three panels over the depth."""
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(14, 4.5))
    for axis, (name, value) in zip(axes, PANELS):
        for label, by_depth in lines_of(cases):
            depths = [d for d in DEPTHS if d in by_depth]
            axis.plot(depths, [value(by_depth[d]) for d in depths], marker="o", label=label)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(DEPTHS, [str(d) for d in DEPTHS])
        axis.set_xlabel("depth of each queue")
        axis.set_title(name)
        axis.grid(True, which="both", alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.suptitle(title)
    figure.tight_layout()
    return figure


def draw(result, folder):
    """The files written."""
    try:
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        print("no plots: python3-matplotlib is not installed", file=sys.stderr)
        return []
    written = []
    for backend in ("null", "memory", "file"):
        for rw in ("randread", "randwrite"):
            cases = [c for c in result["cases"]
                     if (c["backend"], c["rw"], c["bs"]) == (backend, rw, "4k")
                     and c["queues"] == (1 if c["target"] == "fio" else 2)]
            if not cases:
                continue
            figure = draw_backend(pyplot, cases, f"{backend}, 4 KiB {rw}, 2 queues, one core")
            for suffix in ("svg", "png"):
                written.append(folder / f"{backend}-{rw}.{suffix}")
                figure.savefig(written[-1])
            pyplot.close(figure)
    return written
