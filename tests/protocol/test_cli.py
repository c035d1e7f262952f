# SPDX-License-Identifier: Apache-2.0
"""The command line: verbs, help, exit codes, serving an image without any configuration."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time

import pytest

from control_daemon import ROOT, Daemon, sluice_binary

OK, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    with Daemon(tmp_path_factory.mktemp("cli")) as running:
        yield running


def sluice(*args, **options):
    return subprocess.run([sluice_binary(), *map(str, args)], text=True, capture_output=True,
                          timeout=60, **options)


def good(result):
    assert result.returncode == OK, result.stderr
    assert result.stderr == ""
    return result.stdout


def bad(result, code, says=""):
    assert result.returncode == code, (result.returncode, result.stdout, result.stderr)
    assert says in result.stderr, result.stderr
    return result.stderr


def test_reference_is_up_to_date():
    text = good(sluice("rpc", "--docs"))
    assert (ROOT / "docs" / "rpc.md").read_text() == text, "run: sluice rpc --docs > docs/rpc.md"


def test_version():
    assert re.fullmatch(r"sluice \d+\.\d+\.\d+\n", good(sluice("--version")))


@pytest.mark.parametrize("args", [
    ["--help"], ["help"], ["serve", "--help"], ["rpc", "--help"], ["bdev", "--help"],
    ["bdev", "create", "--help"], ["bdev", "create", "null", "--help"], ["bdev", "list", "-h"],
    ["vhost", "--help"], ["vhost", "create", "--help"], ["reactor", "--help"],
    ["status", "--help"], ["rpc", "--help", "bdev_null_create"],
])
def test_help(args):
    text = good(sluice(*args))
    assert "Usage:" in text or "Parameters:" in text
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize("args, says", [
    ([], "Usage:"),
    (["frobnicate"], "no such command"),
    (["bdev"], "bdev list"),
    (["bdev", "frobnicate"], "frobnicate"),
    (["bdev", "create"], "bdev create null"),
    (["bdev", "list", "--frobnicate"], "--frobnicate"),
    (["bdev", "list", "a", "b"], "too many"),
    (["bdev", "create", "null", "x"], "size is missing"),
    (["bdev", "create", "null", "x", "1G", "--block-size"], "--block-size"),
    (["bdev", "create", "null", "x", "1G", "--block-size", "y"], "block_size: must be"),
    (["vhost", "create", "v"], "dev_name is missing"),
    (["vhost", "create", "v", "d", "--readonly=maybe"], "readonly: must be"),
    (["rpc"], "METHOD"),
    (["rpc", "m", "{"], "not valid JSON"),
    (["rpc", "m", "[]"], "object"),
    (["rpc", "m", "{}", "{}"], "too many"),
    (["rpc", "--help", "nope"], "nope"),
    (["serve", "--cores", "x"], "--cores"),
    (["serve", "--poll", "sometimes"], "--poll"),
    (["serve", "--rebalance", "maybe"], "--rebalance"),
    (["vhost", "move", "v", "0"], "cpu is missing"),
    (["vhost", "coalesce", "v", "0"], "iops_threshold is missing"),
    (["serve", "--queues", "4"], "--queues"),
    (["serve", "--queues", "257", "x.img"], "--queues"),
    (["serve", "--create", "x", "x.img"], "--create"),
    (["serve", "--log-level", "loud"], "--log-level"),
    (["serve", "--state-dir", "x", "x.img"], "--state-dir"),
    (["serve", "--frobnicate"], "--frobnicate"),
    (["serve", "-x"], "-x"),
    (["serve", "dir/"], "dir/"),
])
def test_usage_errors(tmp_path, args, says):
    bad(sluice(*args, cwd=tmp_path), USAGE, says)
    assert list(tmp_path.iterdir()) == []


def test_unreachable(tmp_path):
    for args in (["status"], ["bdev", "list"], ["rpc", "spdk_get_version"]):
        bad(sluice(*args, "--rpc-socket", tmp_path / "none.sock"), UNREACHABLE, "none.sock")


def test_timeout(tmp_path):
    """Something listens, but does not answer; or does not even accept."""
    path = tmp_path / "deaf.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(0)
        for args in (["status"], ["rpc", "spdk_get_version"], ["bdev", "list"]):
            began = time.monotonic()
            bad(sluice(*args, "--rpc-socket", path, "--timeout", "1"), UNREACHABLE,
                "did not answer within 1 s")
            assert 0.9 < time.monotonic() - began < 20
    for text in ("-1", "x", "86401", "1s"):
        bad(sluice("status", "--timeout", text), USAGE, "--timeout: must be")


def test_verbs(daemon, tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    assert good(daemon.cli("bdev", "create", "null", "n0", "10G", "--block-size", "4k")) == "n0\n"
    assert good(daemon.cli("bdev", "create", "memory", "m0", "64M")) == "m0\n"
    # A relative path is one of the client's directory.
    assert good(daemon.cli("bdev", "create", "file", "f0", "disk.img", cwd=tmp_path)) == "f0\n"
    table = good(daemon.cli("bdev", "list")).splitlines()
    assert [line.split()[0] for line in table] == ["NAME", "n0", "m0", "f0"]
    assert " 10G " in table[1] and " 64M " in table[2] and " 1M " in table[3]
    listed = json.loads(good(daemon.cli("bdev", "list", "--json", "n0")))
    assert listed[0]["block_size"] == 4096 and listed[0]["num_blocks"] == (10 << 30) // 4096

    assert good(daemon.cli("vhost", "create", "v0", "m0", "--num-queues=2", "--readonly")) == ""
    assert "v0" in good(daemon.cli("vhost", "list"))
    (controller,) = json.loads(good(daemon.cli("vhost", "list", "--json")))
    assert controller["num_queues"] == 2 and controller["backend_specific"]["block"]["readonly"]
    assert good(daemon.cli("vhost", "create", "v1", "f0", "--json")) == "true\n"

    assert good(daemon.cli("vhost", "coalesce", "v0", "20", "50000")) == ""
    (core,) = json.loads(good(daemon.cli("status", "--json")))["cores"]
    assert good(daemon.cli("vhost", "cpumask", "v0", str(core))) == ""
    (controller, _) = json.loads(good(daemon.cli("vhost", "list", "--json")))
    assert (controller["delay_base_us"], controller["iops_threshold"]) == (20, 50000)
    assert controller["cpumask"] == hex(1 << core)
    bad(daemon.cli("vhost", "move", "v0", "0", str(core)), FAILED, "no queue 0 of v0")
    for switch, enabled in (("off", False), ("on", True)):
        assert good(daemon.cli("reactor", "rebalance", switch)) == ""
        reactors = json.loads(good(daemon.cli("reactor", "list", "--json")))
        assert reactors["rebalance"]["enabled"] is enabled

    assert "n0" in good(daemon.cli("bdev", "stat"))
    assert "tick_rate" in json.loads(good(daemon.cli("bdev", "stat", "--json")))
    for verb in (["reactor", "list"], ["reactors"]):
        assert "CORE" in good(daemon.cli(*verb))
        assert json.loads(good(daemon.cli(*verb, "--json")))["reactors"]
    assert re.search(r"controllers +2\n", good(daemon.cli("status")))
    assert json.loads(good(daemon.cli("status", "--json")))["controllers"] == 2

    bad(daemon.cli("bdev", "delete", "m0"), FAILED, "v0")
    for args in (["vhost", "delete", "v0"], ["vhost", "delete", "v1"], ["bdev", "delete", "n0"],
                 ["bdev", "delete", "m0"], ["bdev", "delete", "f0"]):
        assert good(daemon.cli(*args)) == ""
    bad(daemon.cli("bdev", "delete", "n0"), FAILED, "name: ")
    bad(daemon.cli("bdev", "create", "null", "-"), USAGE)
    bad(daemon.cli("bdev", "create", "null", "a/b", "1G"), FAILED, "name: must be")


def test_rpc(daemon):
    assert json.loads(good(daemon.cli("rpc", "bdev_get_bdevs"))) == []
    assert json.loads(good(daemon.cli("rpc", "bdev_malloc_create", '{"num_blocks": 8}'))) == \
        "Malloc0"
    assert json.loads(good(daemon.cli("rpc", "bdev_malloc_delete", "-",
                                      input='{"name": "Malloc0"}'))) is True
    bad(daemon.cli("rpc", "bdev_malloc_delete", '{"name": "Malloc0"}'), FAILED, "code -19")
    bad(daemon.cli("rpc", "no_such_method"), FAILED, "no_such_method")
    bad(daemon.cli("rpc", "bdev_null_create", '{"name": "x", "num_blocks": 0}'), FAILED,
        "num_blocks: must be")


def serve_images(tmp_path, args=(), images=("disk.img",)):
    return Daemon(tmp_path, args, [tmp_path / name for name in images])


def test_serve_image(tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    daemon = serve_images(tmp_path, ["--queues", "2"])
    with daemon:
        assert (tmp_path / "disk.img.sock").is_socket()
        assert (tmp_path / "disk.img.rpc").is_socket()
        assert daemon.rpc("bdev_get_bdevs")[0]["name"] == "disk.img"
        assert daemon.rpc("sluice_get_status")["state_dir"] is None
        daemon.rpc("bdev_null_create", name="more", num_blocks=8)
        daemon.rpc("vhost_create_blk_controller", ctrlr="more", dev_name="more")
        assert (tmp_path / "more").is_socket()
        assert daemon.stop() == 0
        assert f"socket,id=c0,path={image}.sock" in daemon.output
        assert "vhost-user-blk-pci,chardev=c0,num-queues=2" in daemon.output
        assert daemon.output.count("queues='2'") == 1
        assert "memory-backend-memfd,id=mem,size=1G,share=on" in daemon.output
        assert f"<source type='unix' path='{image}.sock'/>" in daemon.output
        assert "<access mode='shared'/>" in daemon.output
        assert sorted(p.name for p in tmp_path.iterdir()) == ["disk.img", "sluice.log"]
        daemon.start()


@pytest.mark.parametrize("args, queues", [([], 4), (["--queues", "256"], 256)])
def test_hint_agrees_with_what_is_served(tmp_path, args, queues):
    daemon = serve_images(tmp_path, ["--create", "1M", *args], ["a.img", "b.img"])
    with daemon:
        assert [c["num_queues"] for c in daemon.rpc("vhost_get_controllers")] == [queues] * 2
        daemon.stop()
        assert daemon.output.count(f"num-queues={queues}") == 2
        assert daemon.output.count(f"queues='{queues}'") == 2
        daemon.start()


@pytest.fixture
def short_path():
    """For long names: a socket's path has 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="sluice-") as path:
        yield pathlib.Path(path)


def test_serve_create_and_names(short_path):
    tmp_path = short_path
    (tmp_path / "sub").mkdir()
    names = ["a b,c'd.img", "sub/same.img", "same.img", ".hidden", "x" * 80]
    daemon = serve_images(tmp_path, ["--create", "1M", "--read-only"], names)
    with daemon:
        for name in names:
            assert (tmp_path / name).stat().st_size == 1 << 20
        assert [b["name"] for b in daemon.rpc("bdev_get_bdevs")] == [
            "a_b_c_d.img", "same.img", "same.img-2", "_hidden", "x" * 55]
        assert all(b["read_only"] for b in daemon.rpc("bdev_get_bdevs"))
        daemon.stop()
        assert "a b,,c'\\''d.img.sock'" in daemon.output
        assert "a b,c&apos;d.img.sock" in daemon.output
        daemon.start()


def test_serve_errors(tmp_path):
    code, log = serve_images(tmp_path).start_fails()
    assert code == FAILED and "disk.img" in log
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    with serve_images(tmp_path):
        code, log = serve_images(tmp_path).start_fails()
        assert code == FAILED and "in use" in log
        code, log = serve_images(tmp_path, ["--rpc-socket", tmp_path / "x.rpc"]).start_fails()
        assert code == FAILED and "disk.img" in log
    image.write_bytes(bytes(100))
    code, _ = serve_images(tmp_path).start_fails()
    assert code == FAILED
    assert not (tmp_path / "disk.img.sock").exists()
    assert not (tmp_path / "disk.img.rpc").exists()
    code, log = serve_images(tmp_path, ["--cores", "1023"]).start_fails()
    assert code == FAILED and "--cores: CPU 1023" in log


def test_path_too_long_for_a_socket(tmp_path):
    code, log = serve_images(tmp_path, ["--create", "1M"], ["x" * 100]).start_fails()
    assert code == FAILED and "too long" in log


def test_run_dir_takes_the_sockets(tmp_path):
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    daemon = serve_images(tmp_path, ["--run-dir", tmp_path / "run"])
    daemon.socket = tmp_path / "run" / "sluice.sock"
    with daemon:
        assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["disk.img", "sluice.sock"]


@pytest.mark.parametrize("mode", ["adaptive", "always", "never"])
def test_poll_modes(tmp_path, mode):
    with Daemon(tmp_path, ["--poll", mode]) as daemon:
        reactors = daemon.rpc("framework_get_reactors")
        assert reactors["reactors"][0]["poll_mode"] == mode
        assert reactors["reactors"][0]["in_interrupt"] is (mode != "always")


def test_every_allowed_core(tmp_path):
    cpus = sorted(os.sched_getaffinity(0))
    with Daemon(tmp_path, ["--cores", ",".join(map(str, cpus))]) as daemon:
        reactors = daemon.rpc("framework_get_reactors")["reactors"]
        assert [r["lcore"] for r in reactors] == cpus


def test_default_core_is_not_the_first(tmp_path):
    cpus = sorted(os.sched_getaffinity(0))
    wanted = next((c for c in cpus if c != 0), 0)
    with Daemon(tmp_path) as daemon:
        assert daemon.rpc("sluice_get_status")["cores"] == [wanted]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals(tmp_path, number):
    daemon = Daemon(tmp_path).start()
    daemon.process.send_signal(number)
    assert daemon.process.wait(20) == 0
    daemon.process = None


def test_signal_right_after_the_start(tmp_path):
    """However early it comes, a stop is clean."""
    for i in range(10):
        daemon = Daemon(tmp_path)
        daemon.spawn()
        while not daemon.socket.exists() and daemon.process.poll() is None:
            pass
        time.sleep(0.001 * i)
        assert daemon.stop() in (0, -signal.SIGTERM)


def test_file_limit_is_raised(tmp_path):
    with Daemon(tmp_path) as daemon:
        limits = pathlib.Path(f"/proc/{daemon.pid}/limits").read_text()
        soft, hard = re.search(r"Max open files +(\d+) +(\d+)", limits).groups()
        assert soft == hard
