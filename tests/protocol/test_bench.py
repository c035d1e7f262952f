# SPDX-License-Identifier: Apache-2.0
"""`sluice bench` against the real server: both ring formats, polling and sleeping, one queue and
several, every block proved."""

import json
import os
import signal
import subprocess

import pytest

from daemon import BINARY, MIB, wait_until
from vhost_user import TIMEOUT_S

SERVER_OPTIONS = {"cores": "0,1"}
WAITING = {"polling": [], "sleeping": ["--sleep"], "events": ["--sleep", "--event-idx"],
           "polling-events": ["--event-idx"]}
pytestmark = pytest.mark.skipif(os.environ.get("SLUICE_PROTOCOL_TARGET", "sluice") != "sluice",
                                reason="packed rings and journals are asked of Sluice")


def bench(disk, *options, code=0):
    """(its JSON, what it said on stderr)"""
    done = subprocess.run([BINARY, "bench", f"vhost-blk:{disk.socket}", "--json", *options],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=6 * TIMEOUT_S, check=False)
    assert done.returncode == code, f"{options}: {done.returncode}\n{done.stderr}"
    return json.loads(done.stdout) if code == 0 else None, done.stderr


@pytest.mark.parametrize("waiting", WAITING)
@pytest.mark.parametrize("queues", [1, 4])
@pytest.mark.parametrize("ring", ["split", "packed"])
@pytest.mark.parametrize("kind", ["memory", "file"])
def test_verify(request, kind, ring, queues, waiting):
    """16 MiB written, mixed and read back: every block is what was acknowledged last."""
    disk = request.getfixturevalue(f"{kind}_disk")
    result, _ = bench(disk, "--verify", "--rw", "randrw", "--ios", "3000", "--size", "4M",
                      "--queues", str(queues), "--ring", ring, *WAITING[waiting])
    assert result["errors"] == result["verify_errors"] == result["lost_requests"] == 0
    assert result["reads"] + result["writes"] == 3000
    # At least what was filled and is read back at the end, in blocks of the disk.
    assert result["verified_blocks"] >= 4 * MIB // disk.block_size
    assert result["unverified_reads"] == 0
    assert result["ring"] == ring
    assert result["indirect"] == (ring == "packed")


@pytest.mark.parametrize("ring", ["split", "packed"])
@pytest.mark.parametrize("options", [
    ["--bs", "64k", "--iodepth", "4"], ["--bs", "512", "--iodepth", "512"],
    ["--bs", "1M", "--iodepth", "2"], ["--iodepth", "1"], ["--flush-every", "3"],
    ["--inflight"], ["--inflight", "--queues", "4", "--sleep", "--event-idx"]],
    ids=" ".join)
def test_verify_shapes(file_disk, ring, options):
    """Long chains, deep and shallow rings, flushes, and a journal that the front-end keeps."""
    result, _ = bench(file_disk, "--verify", "--rw", "randrw", "--ios", "600", "--size", "8M",
                      "--ring", ring, *options)
    assert result["errors"] == result["verify_errors"] == result["lost_requests"] == 0
    assert result["reads"] + result["writes"] == 600


@pytest.mark.parametrize("ring", ["split", "packed"])
def test_pauses(memory_disk, ring):
    """A driver that goes quiet for longer than the server polls, polling and sleeping itself: the
    server sleeps, and each round wakes it with one kick."""
    for options in ([], ["--sleep", "--event-idx"]):
        result, _ = bench(memory_disk, "--verify", "--rw", "randwrite", "--ios", "100", "--size",
                          "1M", "--iodepth", "2", "--think-us", "5000", "--ring", ring, *options)
        assert result["errors"] == result["verify_errors"] == 0
        assert result["writes"] == 100
        assert result["runtime_ns"] > 49 * 5_000_000
        assert 40 <= result["kicks"] <= 100
        # Pauses are the driver's: they are neither latency nor gaps.
        assert result["latency_ns"]["p50"] < 5_000_000


def test_packed_that_is_not_offered(server, make_disk):
    """A disk made without packed rings: a usage error that says so, and no I/O."""
    disk = make_disk("malloc", size=MIB)
    server.delete_controller(disk.name)
    server.create_controller(disk.name, f"{disk.name}-bdev", packed_ring=False)
    bench(disk, "--ios", "10", "--ring", "split")
    _, said = bench(disk, "--ios", "10", "--ring", "packed", code=2)
    assert "does not offer packed rings" in said


@pytest.mark.parametrize("options, word", [
    (["--ring", "round"], "--ring"), (["--think-us", "0"], "--think-us"),
    (["--think-us", "6000000"], "--think-us")])
def test_wrong_options(null_disk, options, word):
    """Exit code 2 and the name of the option."""
    _, said = bench(null_disk, *options, code=2)
    assert word in said


@pytest.mark.parametrize("ring", ["split", "packed"])
def test_killed_under_load(server, memory_disk, ring):
    """kill -9 of the driver at full depth: the session ends, and the next one is served."""
    process = subprocess.Popen(
        [BINARY, "bench", f"vhost-blk:{memory_disk.socket}", "--queues", "4", "--iodepth", "128",
         "--rw", "randrw", "--runtime", "60", "--ring", ring],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: server.map_count("memfd:sluice-bench"), "the session's memory")
        process.wait(0.3)
    except subprocess.TimeoutExpired:
        pass  # As it should be: under load.
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    result, _ = bench(memory_disk, "--verify", "--ios", "500", "--size", "1M", "--ring", ring)
    assert result["errors"] == result["verify_errors"] == 0
