#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the stages of `make check`, quick ones first, and counts tests.

Usage: scripts/check [--list | --full] [STAGE...]

When none is named, all stages but the `tsan-` ones and `guest-full` are run. --full (`make
check-full`) runs `guest-full` in place of `guest`: every guest test on both QEMUs, for longer.

Each stage logs to build/check-logs/STAGE.log. The last line says `N passed, N failed`, and
`, N skipped` if any; a stage that cannot run counts as one failure. The exit status is 0 only if
nothing failed.
"""
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[1]
LOGS = ROOT / "build" / "check-logs"
PYTHON = "/usr/bin/python3"
STAGE_TIMEOUT_S = 1800
TAIL_LINES = 30

SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:halt_on_error=1:abort_on_error=0:strict_string_checks=1"
                    ":quarantine_size_mb=8",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
    "SLUICE_TEST_TIMEOUT_SCALE": "2",
}


@dataclasses.dataclass
class Result:
    """What a stage came to."""
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    trouble: str = ""  # Why it could not run to its end.

    def add(self, other):
        """Sums up; a stage in trouble has at least one failure."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def line(self):
        """The last line of a check."""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


@dataclasses.dataclass
class Stage:
    """A name, what to say about it, and how to run it."""
    name: str
    title: str
    run: object
    default: bool = True


def command(stage, *args, env=None):
    """Runs a command with its output in the stage's log; returns its exit status."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with open(LOGS / f"{stage}.log", "ab") as log:
        log.write(f"$ {' '.join(map(str, args))}\n".encode())
        log.flush()
        process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
                                   env={**os.environ, **(env or {})}, start_new_session=True)
        try:
            return process.wait(STAGE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.write(f"\nno end after {STAGE_TIMEOUT_S} s\n".encode())
            return -signal.SIGKILL
        finally:
            # What the command left running goes with it.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def build(folder, compiler, *options):
    """A stage that configures (if need be) and builds a folder with -Werror."""
    def run(stage):
        first = not (ROOT / folder / "build.ninja").exists()
        setup = ["meson", "setup", folder] if first else ["meson", "configure", folder]
        for step in ([*setup, "-Dwerror=true", *options], ["ninja", "-C", folder]):
            if command(stage, *step, env={"CC": compiler}) != 0:
                return Result(trouble="the build failed")
        return Result()
    return run


def tap_counts(text):
    """(passed, failed, skipped) of a TAP text."""
    counts = [0, 0, 0]
    for line in text.splitlines():
        match = re.match(r"(not )?ok\b(.*)", line)
        if match:
            skip = re.search(r"#\s*skip", match.group(2), re.IGNORECASE)
            counts[2 if skip else 1 if match.group(1) else 0] += 1
    return counts


def unit(folder, prefix=(), env=None):
    """A stage that runs meson's tests, counted by their TAP lines."""
    def run(stage):
        report = ROOT / folder / "meson-logs" / "testlog.json"
        report.unlink(missing_ok=True)
        status = command(stage, *prefix, "meson", "test", "-C", folder, "--print-errorlogs",
                         env=env)
        result = Result()
        if report.exists():
            for line in report.read_text("utf-8").splitlines():
                test = json.loads(line)
                passed, failed, skipped = tap_counts(test.get("stdout") or "")
                if test["result"] == "SKIP":
                    skipped = max(skipped, 1)
                elif test["result"] == "OK":
                    passed = max(passed, 1 - skipped)
                else:  # It may have died after its last line.
                    failed = max(failed, 1)
                result.add(Result(passed, failed, skipped))
        if result.passed + result.failed == 0:
            result.trouble = "no test was run"
        elif status != 0 and result.failed == 0:
            result.trouble = f"meson test ended with {status}"
        return result
    return run


def pytest(folder, prefix=(), env=None, options=()):
    """A stage that runs the tests of a folder by pytest, counted by its JUnit report."""
    def run(stage):
        report = LOGS / f"{stage}.xml"
        report.unlink(missing_ok=True)
        status = command(stage, *prefix, PYTHON, "-m", "pytest", "-v", "-p", "no:cacheprovider",
                         "--durations=10", f"--junit-xml={report}", *options, folder,
                         env={"PYTHONDONTWRITEBYTECODE": "1", **(env or {})})
        result = Result()
        if report.exists():
            for suite in ElementTree.parse(report).getroot().iter("testsuite"):
                count = {key: int(suite.get(key, 0))
                         for key in ("tests", "failures", "errors", "skipped")}
                failed = count["failures"] + count["errors"]
                # A test that passed and failed to clean up is in both: it is no pass.
                result.add(Result(max(count["tests"] - failed - count["skipped"], 0), failed,
                                  count["skipped"]))
        if result.passed + result.failed == 0:
            result.trouble = f"no test was run (pytest ended with {status})"
        elif status != 0 and result.failed == 0:
            result.trouble = f"pytest ended with {status}"
        return result
    return run


# gcc 12's ThreadSanitizer cannot live with the address layouts of new kernels.
NO_ASLR = ("setarch", "-R")


def binary(folder):
    """The environment that puts another build under test."""
    return {"SLUICE_BIN": str(ROOT / folder / "src" / "sluice"), **SANITIZERS}


STAGES = [
    Stage("build", "gcc, release, -Werror",
          build("build", "gcc", "--buildtype=release", "-Ddebug=true")),
    Stage("unit", "unit and structure tests", unit("build")),
    Stage("build-clang", "clang, -Werror",
          build("build-clang", "clang", "--buildtype=debugoptimized")),
    Stage("protocol", "protocol tests over real sockets", pytest("tests/protocol")),
    Stage("thirdparty", "libblkio as front-end: back-ends x block sizes x queues",
          pytest("tests/thirdparty")),
    Stage("build-asan", "gcc with AddressSanitizer and UBSan",
          build("build-asan", "gcc", "--buildtype=debugoptimized",
                "-Db_sanitize=address,undefined", "-Db_lundef=false")),
    Stage("asan-unit", "unit tests under ASan and UBSan", unit("build-asan", env=SANITIZERS)),
    Stage("asan-protocol", "protocol tests under ASan and UBSan",
          pytest("tests/protocol", env=binary("build-asan"))),
    Stage("asan-thirdparty", "libblkio under ASan and UBSan",
          pytest("tests/thirdparty", env=binary("build-asan"))),
    Stage("guest", "Linux guests under QEMU", pytest("tests/guest")),
    Stage("guest-full", "the same with all variants, on both QEMUs",
          pytest("tests/guest", options=["--full"]), default=False),
    Stage("build-tsan", "gcc with ThreadSanitizer",
          build("build-tsan", "gcc", "--buildtype=debugoptimized", "-Db_sanitize=thread",
                "-Db_lundef=false"), default=False),
    Stage("tsan-unit", "unit tests under TSan", unit("build-tsan", NO_ASLR, SANITIZERS),
          default=False),
    Stage("tsan-protocol", "protocol tests under TSan",
          pytest("tests/protocol", NO_ASLR, binary("build-tsan")), default=False),
    Stage("tsan-thirdparty", "libblkio under TSan",
          pytest("tests/thirdparty", NO_ASLR, binary("build-tsan")), default=False),
]


def chosen(names):
    """The stages to run."""
    known = {stage.name: stage for stage in STAGES}
    if "--full" in names:
        names = [name for name in names if name != "--full"] or \
            [stage.name for stage in STAGES if stage.default]
        names = ["guest-full" if name == "guest" else name for name in names]
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"check: no stage {unknown[0]}; there are {', '.join(known)}")
    return [known[name] for name in names] or [s for s in STAGES if s.default]


def main():
    """Runs the stages and prints the sum."""
    if "--list" in sys.argv[1:]:
        for stage in STAGES:
            print(f"{stage.name:<16} {stage.title}")
        return 0
    total = Result()
    for stage in chosen(sys.argv[1:]):
        print(f"==> {stage.name}: {stage.title}", flush=True)
        (LOGS / f"{stage.name}.log").unlink(missing_ok=True)
        began = time.monotonic()
        result = stage.run(stage.name)
        if result.trouble:
            result.failed += 1
        if result.failed:
            log = (LOGS / f"{stage.name}.log").read_text("utf-8", "replace").splitlines()
            print("\n".join("    " + line for line in log[-TAIL_LINES:]))
        counts = "done" if result == Result() else result.line()
        trouble = f"  ({result.trouble})" if result.trouble else ""
        print(f"    {counts}{trouble}  [{time.monotonic() - began:.0f} s]", flush=True)
        total.add(result)
    if total.failed:
        print(f"Logs: {LOGS.relative_to(ROOT)}")
    print(total.line())
    return 1 if total.failed else 0


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):  # Stages run in groups of their own: end them.
        signal.signal(number, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
