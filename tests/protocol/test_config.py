# SPDX-License-Identifier: Apache-2.0
"""Durable configuration: across restarts, kill -9, missing files, bad files, failing disks."""

import json
import os
import pathlib
import stat
import subprocess
import time

import pytest

from control_daemon import Daemon, RpcError


def disk(path, size=1 << 20):
    path.write_bytes(bytes(size))
    return path


def fill(daemon, tmp_path):
    """One of everything, with every parameter that is part of a configuration."""
    disk(tmp_path / "a.img")
    disk(tmp_path / "b.img")
    daemon.rpc("bdev_null_create", name="null0", num_blocks=4096, block_size=4096,
               physical_block_size=4096)
    daemon.rpc("bdev_malloc_create", name="mem0", num_blocks=4096, block_size=512, hugetlb=True)
    daemon.rpc("bdev_uring_create", name="file0", filename=str(tmp_path / "a.img"),
               block_size=512, buffered=True)
    daemon.rpc("bdev_aio_create", name="file1", filename=str(tmp_path / "b.img"), readonly=True)
    daemon.rpc("vhost_create_blk_controller", ctrlr="v0", dev_name="mem0", num_queues=3,
               serial="SERIAL", packed_ring=True, writeback=False)
    daemon.rpc("vhost_controller_set_coalescing", ctrlr="v0", delay_base_us=50,
               iops_threshold=60000)
    daemon.rpc("vhost_create_blk_controller", ctrlr="v1", dev_name="file1", readonly=True)


def state(daemon):
    bdevs = daemon.rpc("bdev_get_bdevs")
    controllers = daemon.rpc("vhost_get_controllers")
    return bdevs, [(c["ctrlr"], c["socket"], c["num_queues"], c["backend_specific"])
                   for c in controllers]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_restart(tmp_path, end):
    daemon = Daemon(tmp_path)
    with daemon:
        fill(daemon, tmp_path)
        before, config = state(daemon), daemon.rpc("save_config")
        assert daemon.config() == config
        getattr(daemon, end)()
        for _ in range(2):
            daemon.start()
            assert state(daemon) == before
            assert daemon.rpc("save_config") == config == daemon.config()
            getattr(daemon, end)()
        daemon.start()


def test_every_reply_is_durable(tmp_path):
    """Killed right after a reply, whatever it was: the next one finds it done."""
    daemon = Daemon(tmp_path).start()
    for i in range(10):
        assert daemon.rpc("bdev_null_create", name=f"n{i}", num_blocks=8) == f"n{i}"
        if i >= 2:
            assert daemon.rpc("bdev_null_delete", name=f"n{i - 2}") is True
        daemon.kill()
        daemon.start()
        names = [b["name"] for b in daemon.rpc("bdev_get_bdevs")]
        assert names == [f"n{n}" for n in range(max(0, i - 1), i + 1)]
    assert daemon.stop() == 0


def test_killed_while_changing(tmp_path):
    """The file is always a whole configuration, and lags behind replies never."""
    daemon = Daemon(tmp_path).start()
    done = 0
    for _ in range(5):
        pid = daemon.pid
        killer = subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -9 {pid}"])
        try:
            with daemon.client() as client:
                while True:
                    client.call("bdev_null_create", name=f"n{done}", num_blocks=8)
                    done += 1
        except (AssertionError, ConnectionError):
            pass
        killer.wait()
        daemon.kill()
        daemon.start()
        names = [b["name"] for b in daemon.rpc("bdev_get_bdevs")]
        assert len(names) in (done, done + 1)
        assert names[:done] == [f"n{n}" for n in range(done)]
        done = len(names)
    assert done > 5
    assert daemon.stop() == 0


def test_missing_file_is_kept(tmp_path):
    daemon = Daemon(tmp_path)
    with daemon:
        fill(daemon, tmp_path)
        config = daemon.config()
        daemon.stop()
        (tmp_path / "b.img").rename(tmp_path / "away")
        daemon.start()
        assert "b.img" in daemon.log()
        assert [b["name"] for b in daemon.rpc("bdev_get_bdevs")] == ["null0", "mem0", "file0"]
        failed = daemon.rpc("sluice_get_status")["failed_entries"]
        assert [f["name"] for f in failed] == ["file1", "v1"]
        # The next save has them still.
        daemon.rpc("bdev_null_create", name="null1", num_blocks=8)
        saved = daemon.config()
        assert config["subsystems"][0]["config"][3] in saved["subsystems"][0]["config"]
        assert config["subsystems"][1]["config"][1] in saved["subsystems"][1]["config"]
        # And they come back with the file.
        (tmp_path / "away").rename(tmp_path / "b.img")
        assert daemon.rpc("sluice_retry_config") == {"failed": 0}
        assert daemon.rpc("sluice_get_status")["failed_entries"] == []
        assert [c["ctrlr"] for c in daemon.rpc("vhost_get_controllers")] == ["v0", "v1"]


def test_kept_entry_can_be_deleted_or_replaced(tmp_path):
    image = disk(tmp_path / "a.img")
    daemon = Daemon(tmp_path)
    with daemon:
        for name in ("a", "b"):
            daemon.rpc("bdev_uring_create", name=name, filename=str(image))
            daemon.rpc("bdev_uring_delete", name=name)
        daemon.rpc("bdev_uring_create", name="a", filename=str(image))
        disk(tmp_path / "b.img")
        daemon.rpc("bdev_uring_create", name="b", filename=str(tmp_path / "b.img"))
        daemon.stop()
        image.unlink()
        (tmp_path / "b.img").unlink()
        daemon.start()
        assert len(daemon.rpc("sluice_get_status")["failed_entries"]) == 2
        assert daemon.rpc("bdev_uring_delete", name="a") is True
        daemon.rpc("bdev_null_create", name="b", num_blocks=8)
        assert daemon.rpc("sluice_get_status")["failed_entries"] == []
        entries = daemon.config()["subsystems"][0]["config"]
        assert [(e["method"], e["params"]["name"]) for e in entries] == [("bdev_null_create", "b")]
        with pytest.raises(RpcError):
            daemon.rpc("bdev_uring_delete", name="a")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"subsystems": 5}', '{"subsystems": [{}]}',
                                  '{"subsystems": [{"subsystem": "bdev", "config": [7]}]}',
                                  '{"subsystems": [], "subsystems": []}', "\0"])
def test_bad_configuration_stops_the_start(tmp_path, text):
    daemon = Daemon(tmp_path)
    daemon.state_dir.mkdir()
    daemon.config_path.write_text(text)
    code, log = daemon.start_fails()
    assert code == 1
    assert str(daemon.config_path) in log
    assert daemon.config_path.read_text() == text
    # The same with --config.
    daemon = Daemon(tmp_path / "other", ["--config", str(tmp_path / "state" / "config.json")])
    daemon.directory.mkdir()
    code, log = daemon.start_fails()
    assert code == 1 and "config.json" in log
    assert not daemon.config_path.exists()


def test_config_file_missing(tmp_path):
    code, log = Daemon(tmp_path, ["--config", str(tmp_path / "none.json")]).start_fails()
    assert code == 1 and "none.json" in log


SPDK_CONFIG = {"subsystems": [
    {"subsystem": "iobuf", "config": [{"method": "iobuf_set_options",
                                       "params": {"small_pool_count": 8192}}]},
    {"subsystem": "sock", "config": None},
    {"subsystem": "bdev", "config": [
        {"method": "bdev_set_options", "params": {"bdev_io_pool_size": 65535}},
        {"method": "bdev_malloc_create", "params": {
            "name": "Malloc0", "num_blocks": 131072, "block_size": 512,
            "physical_block_size": 512, "uuid": "f3a9f7a4-4b5b-4d1c-8a8c-3d5e1a2b3c4d",
            "optimal_io_boundary": 0, "md_size": 0, "dif_type": 0,
            "dif_is_head_of_md": False, "dif_pi_format": 0}},
        {"method": "bdev_nvme_attach_controller", "params": {"name": "Nvme0", "trtype": "PCIe",
                                                             "traddr": "0000:00:04.0"}},
        {"method": "bdev_wait_for_examine"}]},
    {"subsystem": "scheduler", "config": [{"method": "framework_set_scheduler",
                                           "params": {"name": "static"}}]},
    {"subsystem": "vhost_blk", "config": [
        {"method": "vhost_create_blk_controller", "params": {
            "ctrlr": "vhost.0", "dev_name": "Malloc0", "cpumask": "1", "readonly": False,
            "transport": "vhost_user_blk"}}]},
    {"subsystem": "vhost_scsi", "config": []}]}


def test_spdk_configuration(tmp_path):
    """A file saved by SPDK. What we cannot serve is said once, and not lost."""
    cpu = min(os.sched_getaffinity(0))
    seed = json.loads(json.dumps(SPDK_CONFIG))
    seed["subsystems"][4]["config"][0]["params"]["cpumask"] = hex(1 << cpu)[2:]
    path = tmp_path / "spdk.json"
    path.write_text(json.dumps(seed))
    daemon = Daemon(tmp_path, ["--config", str(path), "--cores", str(cpu)])
    with daemon:
        for _ in range(3):
            assert [b["name"] for b in daemon.rpc("bdev_get_bdevs")] == ["Malloc0"]
            assert [c["ctrlr"] for c in daemon.rpc("vhost_get_controllers")] == ["vhost.0"]
            (failed,) = daemon.rpc("sluice_get_status")["failed_entries"]
            assert failed["method"] == "bdev_nvme_attach_controller"
            saved = daemon.config()
            assert seed["subsystems"][2]["config"][2] in saved["subsystems"][0]["config"]
            daemon.stop()
            daemon.start()


def test_config_file_is_imported_once(tmp_path):
    """What it does not name does not multiply, what was deleted stays so, and nobody misses it."""
    path = tmp_path / "seed.json"
    path.write_text(json.dumps({"subsystems": [{"subsystem": "bdev", "config": [
        {"method": "bdev_malloc_create", "params": {"num_blocks": 8, "block_size": 512}},
        {"method": "bdev_null_create", "params": {"name": "n0", "num_blocks": 8}}]}]}))
    daemon = Daemon(tmp_path, ["--config", str(path)])
    with daemon:
        for _ in range(3):
            assert [b["name"] for b in daemon.rpc("bdev_get_bdevs")] == ["Malloc0", "n0"]
            assert len(daemon.config()["subsystems"][0]["config"]) == 2
            daemon.kill()
            daemon.start()
        assert "not read" in daemon.log()
        daemon.rpc("bdev_malloc_delete", name="Malloc0")
        daemon.stop()
        path.unlink()
        daemon.start()
        assert [b["name"] for b in daemon.rpc("bdev_get_bdevs")] == ["n0"]


def test_config_file_beside_images(tmp_path):
    """Nothing is kept then, so it is read at every start."""
    path = tmp_path / "seed.json"
    path.write_text(json.dumps({"subsystems": [{"subsystem": "bdev", "config": [
        {"method": "bdev_malloc_create", "params": {"num_blocks": 8, "block_size": 512}},
        {"method": "bdev_null_create", "params": {"name": "disk.img", "num_blocks": 8}}]}]}))
    daemon = Daemon(tmp_path, ["--config", path], [disk(tmp_path / "disk.img")])
    with daemon:
        for _ in range(2):
            assert [b["name"] for b in daemon.rpc("bdev_get_bdevs")] == ["disk.img", "Malloc0"]
            daemon.stop()
            daemon.start()


def test_load_config(tmp_path):
    source = Daemon(tmp_path / "a")
    source.directory.mkdir()
    with source:
        fill(source, source.directory)
        config = source.rpc("save_config")
    target = Daemon(tmp_path / "b")
    target.directory.mkdir()
    with target:
        assert target.rpc("load_config", config) is True
        assert target.rpc("save_config") == config == target.config()
        with pytest.raises(RpcError) as caught:
            target.rpc("load_config", config)
        assert caught.value.code == -17 and "null0" in caught.value.message
        for bad in ({}, {"subsystems": 1}, {"subsystems": [1]},
                    {"subsystems": [{"subsystem": "bdev", "config": [{}]}]}):
            with pytest.raises(RpcError) as caught:
                target.rpc("load_config", bad)
            assert caught.value.code == -32602
        nested = {"subsystems": [{"subsystem": "bdev", "config": [
            {"method": "load_config", "params": {"subsystems": []}}]}]}
        with pytest.raises(RpcError):
            target.rpc("load_config", nested)
        assert target.rpc("sluice_get_status")["failed_entries"] == []


def test_save_that_fails_changes_nothing(tmp_path):
    daemon = Daemon(tmp_path)
    with daemon:
        daemon.rpc("bdev_null_create", name="n0", num_blocks=8)
        daemon.rpc("bdev_null_create", name="n1", num_blocks=8)
        daemon.rpc("vhost_create_blk_controller", ctrlr="v0", dev_name="n0")
        before, text = state(daemon), daemon.config_path.read_text()
        # A directory where the temporary file would be: writing it fails, even for root.
        blocker = pathlib.Path(f"{daemon.config_path}.new")
        blocker.mkdir()
        for method, params in (
                ("bdev_null_create", {"name": "n2", "num_blocks": 8}),
                ("bdev_null_delete", {"name": "n1"}),
                ("vhost_create_blk_controller", {"ctrlr": "v1", "dev_name": "n1"}),
                ("vhost_delete_controller", {"ctrlr": "v0"})):
            with pytest.raises(RpcError) as caught:
                daemon.rpc(method, params)
            assert "could not be saved" in caught.value.message
            assert caught.value.code == -21
            assert state(daemon) == before
            assert daemon.config_path.read_text() == text
        blocker.rmdir()
        assert daemon.rpc("bdev_null_delete", name="n1") is True
        assert len(daemon.config()["subsystems"][0]["config"]) == 1


def test_second_daemon(tmp_path):
    with Daemon(tmp_path) as first:
        code, log = Daemon(tmp_path).start_fails()
        assert code == 1 and "state directory" in log and str(first.pid) in log
        # Another state directory, the same run directory.
        other = Daemon(tmp_path / "other", ["--rpc-socket", str(first.socket)])
        other.directory.mkdir()
        code, log = other.start_fails()
        assert code == 1 and str(first.socket) in log and "in use" in log
        first.rpc("spdk_get_version")


def test_stale_socket_is_replaced_and_a_file_is_not(tmp_path):
    daemon = Daemon(tmp_path).start()
    daemon.kill()
    assert daemon.socket.is_socket()
    daemon.start()
    assert daemon.stop() == 0
    assert not daemon.socket.exists()
    daemon.socket.write_text("precious")
    code, log = daemon.start_fails()
    assert code == 1 and "not a socket" in log
    assert daemon.socket.read_text() == "precious"


def test_modes(tmp_path):
    with Daemon(tmp_path) as daemon:
        daemon.rpc("bdev_null_create", name="n0", num_blocks=8)
        assert stat.S_IMODE(daemon.state_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE(daemon.run_dir.stat().st_mode) == 0o755
        assert stat.S_IMODE(daemon.config_path.stat().st_mode) == 0o600
        assert sorted(p.name for p in daemon.state_dir.iterdir()) == ["config.json", "lock"]


def test_stop_leaves_no_sockets(tmp_path):
    with Daemon(tmp_path) as daemon:
        fill(daemon, tmp_path)
    assert list(daemon.run_dir.iterdir()) == []


def test_clients_see_the_whole_configuration(tmp_path):
    """A client that connects during the start is answered when everything is there."""
    daemon = Daemon(tmp_path)
    with daemon:
        for i in range(200):
            daemon.rpc("bdev_null_create", name=f"n{i}", num_blocks=8)
        daemon.stop()
        daemon.spawn()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                assert len(daemon.rpc("bdev_get_bdevs")) == 200
                break
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(0.001)
        else:
            pytest.fail("no answer")
