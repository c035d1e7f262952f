# SPDX-License-Identifier: Apache-2.0
"""JSON-RPC: every method, well and badly called, and clients that mean harm."""

import json
import socket
import time

import pytest

from control_daemon import Daemon, RpcError

PARSE, REQUEST, METHOD, PARAMS = -32700, -32600, -32601, -32602
EEXIST, ENODEV, EBUSY, ENOENT = -17, -19, -16, -2


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    with Daemon(tmp_path_factory.mktemp("rpc")) as running:
        yield running
        assert "runtime error" not in running.log()


@pytest.fixture
def client(daemon):
    with daemon.client() as connected:
        yield connected


@pytest.fixture
def null0(client):
    client.call("bdev_null_create", name="null0", num_blocks=1024, block_size=512)
    yield "null0"
    client.call("sluice_bdev_delete", name="null0")


def fails(client, code, method, params=None, says=""):
    with pytest.raises(RpcError) as caught:
        client.call(method, params)
    assert caught.value.code == code, caught.value
    assert says in caught.value.message, caught.value
    return caught.value.message


# ---- methods -------------------------------------------------------------------------------------

def test_version(client):
    version = client.call("spdk_get_version")
    assert version["version"].startswith("Sluice v")
    assert set(version["fields"]) >= {"major", "minor", "patch", "suffix"}


def test_methods(client):
    names = client.call("rpc_get_methods")
    for name in ("bdev_null_create", "bdev_malloc_create", "bdev_uring_create", "bdev_aio_create",
                 "bdev_null_delete", "bdev_malloc_delete", "bdev_uring_delete", "bdev_aio_delete",
                 "bdev_null_resize", "bdev_uring_rescan", "bdev_aio_rescan", "sluice_bdev_resize",
                 "bdev_get_bdevs", "bdev_get_iostat", "vhost_create_blk_controller",
                 "vhost_get_controllers", "vhost_delete_controller", "framework_get_reactors",
                 "rpc_get_methods", "spdk_get_version", "save_config", "load_config",
                 "framework_wait_init", "framework_start_init", "sluice_get_status"):
        assert name in names
    assert "get_rpc_methods" not in names
    assert "get_rpc_methods" in client.call("rpc_get_methods", include_aliases=True)
    assert client.call("get_rpc_methods", current=True) == names


def test_every_method_refuses_unknown_parameters(client):
    for name in client.call("rpc_get_methods"):
        fails(client, PARAMS, name, {"no_such_thing": 1}, "no_such_thing: unknown parameter")
        fails(client, PARAMS, name, [1, 2], "params: must be an object")


def test_reactors(client):
    reactors = client.call("framework_get_reactors")
    assert reactors["tick_rate"] > 1000000
    for reactor in reactors["reactors"]:
        assert {"lcore", "busy", "idle", "in_interrupt", "lw_threads"} <= set(reactor)
        assert int(reactor["lw_threads"][0]["cpumask"], 16) == 1 << reactor["lcore"]
    assert reactors["control"]["lcore"] == -1


def test_status(client, null0):
    status = client.call("sluice_get_status")
    assert status["bdevs"] == 1 and status["controllers"] == 0
    assert status["failed_entries"] == []
    assert status["engine_pid"] > 1


def test_init(client):
    assert client.call("framework_start_init") is True
    assert client.call("framework_wait_init") is True
    assert client.call("bdev_wait_for_examine") is True


def test_null(client):
    uuid = "8a1b8d9c-6d1f-4a3e-9d55-0123456789ab"
    assert client.call("bdev_null_create", name="n1", num_blocks=2048, block_size=4096,
                       physical_block_size=4096, uuid=uuid, md_size=0) == "n1"
    (bdev,) = client.call("bdev_get_bdevs", name="n1")
    assert (bdev["num_blocks"], bdev["block_size"], bdev["uuid"]) == (2048, 4096, uuid)
    assert bdev["aliases"] == [uuid] and bdev["claimed"] is False and bdev["zoned"] is False
    assert bdev["supported_io_types"]["read"] is True
    assert bdev["assigned_rate_limits"]["rw_ios_per_sec"] == 0
    assert client.call("bdev_get_bdevs", name=uuid) == [bdev]
    fails(client, EEXIST, "bdev_null_create", {"name": "n1", "num_blocks": 1}, "name: ")
    fails(client, EEXIST, "bdev_null_create", {"name": "n2", "num_blocks": 1, "uuid": uuid},
          "uuid: ")
    fails(client, ENODEV, "bdev_malloc_delete", {"name": "n1"}, "bdev_null_delete")
    assert client.call("bdev_null_delete", name="n1") is True
    fails(client, ENODEV, "bdev_null_delete", {"name": "n1"}, "n1")


def test_malloc_names_itself(client):
    assert client.call("bdev_malloc_create", num_blocks=128, block_size=512) == "Malloc0"
    assert client.call("bdev_malloc_create", num_blocks=128, block_size=512) == "Malloc1"
    assert client.call("bdev_malloc_delete", name="Malloc0") is True
    assert client.call("bdev_malloc_create", size="64k") == "Malloc0"
    assert client.call("bdev_get_bdevs", name="Malloc0")[0]["num_blocks"] == 128
    for name in ("Malloc0", "Malloc1"):
        client.call("bdev_malloc_delete", name=name)


@pytest.mark.parametrize("kind", ["uring", "aio"])
def test_file(client, tmp_path, kind):
    image = tmp_path / "disk.img"
    fails(client, ENOENT, f"bdev_{kind}_create", {"name": "f", "filename": str(image)}, str(image))
    image.write_bytes(bytes(1 << 20))
    params = {"name": "f", "filename": str(image), "block_size": 512}
    assert client.call(f"bdev_{kind}_create", params) == "f"
    (bdev,) = client.call("bdev_get_bdevs", name="f")
    assert bdev["num_blocks"] * bdev["block_size"] == 1 << 20
    assert bdev["driver_specific"][kind]["filename"] == str(image)
    fails(client, EBUSY, f"bdev_{kind}_create", dict(params, name="g"))
    other = "aio" if kind == "uring" else "uring"
    fails(client, ENODEV, f"bdev_{other}_delete", {"name": "f"})
    assert client.call(f"bdev_{kind}_delete", name="f") is True
    assert image.exists()


@pytest.mark.parametrize("params, says", [
    ({}, "name: is required"),
    ({"name": "x"}, "num_blocks: is required"),
    ({"name": "", "num_blocks": 1}, "name: must be"),
    ({"name": "-x", "num_blocks": 1}, "name: must be"),
    ({"name": "a/b", "num_blocks": 1}, "name: must be"),
    ({"name": "x" * 64, "num_blocks": 1}, "name: must be"),
    ({"name": 7, "num_blocks": 1}, "name: must be"),
    ({"name": None, "num_blocks": 1}, "name: must be"),
    ({"name": "x", "num_blocks": 0}, "num_blocks: must be a whole number from 1 to"),
    ({"name": "x", "num_blocks": -1}, "num_blocks: must be"),
    ({"name": "x", "num_blocks": 1.5}, "num_blocks: must be"),
    ({"name": "x", "num_blocks": "1"}, "num_blocks: must be"),
    ({"name": "x", "num_blocks": 1 << 62}, "num_blocks: must be"),
    ({"name": "x", "num_blocks": 1 << 63}, "num_blocks: must be"),
    ({"name": "x", "num_blocks": 1 << 200}, "num_blocks: must be"),
    ({"name": "x", "num_blocks": 1, "block_size": 511}, "block_size: must be"),
    ({"name": "x", "num_blocks": 1, "block_size": 1024}, "block_size: must be 512 or 4096"),
    ({"name": "x", "num_blocks": 1, "block_size": 1 << 32}, "block_size: must be"),
    ({"name": "x", "num_blocks": 1, "physical_block_size": 513}, "physical_block_size: must be"),
    ({"name": "x", "num_blocks": 1, "uuid": "nonsense"}, "uuid: must be"),
    ({"name": "x", "num_blocks": 1, "md_size": 8}, "md_size: must be the number 0"),
    ({"name": "x", "num_blocks": 1, "size": "1G"}, "size: "),
    ({"name": "x", "size": "1000"}, "size: must be a multiple"),
    ({"name": "x", "size": "1Q"}, "size: must be"),
])
def test_null_bounds(client, params, says):
    fails(client, PARAMS, "bdev_null_create", params, says)
    assert client.call("bdev_get_bdevs") == []


def test_vhost(daemon, client, null0):
    path = daemon.run_dir / "v0"
    assert client.call("vhost_create_blk_controller", ctrlr="v0", dev_name=null0, num_queues=2,
                       serial="S1", readonly=False, packed_ring=False,
                       transport="vhost_user_blk") is True
    assert path.is_socket()
    (described,) = client.call("vhost_get_controllers", name="v0")
    assert described["ctrlr"] == "v0" and described["socket"] == str(path)
    block = described["backend_specific"]["block"]
    assert (block["bdev"], block["readonly"], block["transport"]) == (null0, False,
                                                                      "vhost_user_blk")
    assert client.call("bdev_get_bdevs", name=null0)[0]["claimed"] is True
    fails(client, EEXIST, "vhost_create_blk_controller", {"ctrlr": "v0", "dev_name": null0})
    fails(client, EBUSY, "vhost_create_blk_controller", {"ctrlr": "v1", "dev_name": null0})
    fails(client, EBUSY, "sluice_bdev_delete", {"name": null0}, "v0")
    assert client.call("vhost_delete_controller", ctrlr="v0") is True
    assert not path.exists()
    fails(client, ENODEV, "vhost_delete_controller", {"ctrlr": "v0"}, "v0")
    fails(client, ENODEV, "vhost_get_controllers", {"name": "v0"}, "v0")


@pytest.mark.parametrize("params, code, says", [
    ({"dev_name": "null0"}, PARAMS, "ctrlr: is required"),
    ({"ctrlr": "v"}, PARAMS, "dev_name: is required"),
    ({"ctrlr": "v", "dev_name": "none"}, ENODEV, "dev_name: "),
    ({"ctrlr": "../v", "dev_name": "null0"}, PARAMS, "ctrlr: must be"),
    ({"ctrlr": "v", "dev_name": "null0", "num_queues": 0}, PARAMS, "num_queues: must be"),
    ({"ctrlr": "v", "dev_name": "null0", "num_queues": 257}, PARAMS, "from 1 to 256"),
    ({"ctrlr": "v", "dev_name": "null0", "serial": "x" * 21}, PARAMS, "serial: must be"),
    ({"ctrlr": "v", "dev_name": "null0", "cpumask": "zz"}, PARAMS, "cpumask: must be"),
    ({"ctrlr": "v", "dev_name": "null0", "cpumask": ""}, PARAMS, "cpumask: must be"),
    ({"ctrlr": "v", "dev_name": "null0", "cpumask": "0x0"}, PARAMS, "cpumask: must be"),
    ({"ctrlr": "v", "dev_name": "null0", "cpumask": "[1023]"}, -22, ""),
    ({"ctrlr": "v", "dev_name": "null0", "readonly": 1}, PARAMS, "readonly: must be true or"),
    ({"ctrlr": "v", "dev_name": "null0", "transport": "tcp"}, PARAMS, "transport: must be one"),
])
def test_vhost_bounds(client, null0, params, code, says):
    fails(client, code, "vhost_create_blk_controller", params, says)
    assert client.call("vhost_get_controllers") == []


def test_iostat(client, null0):
    stats = client.call("bdev_get_iostat")
    assert stats["tick_rate"] > 0 and stats["ticks"] > 0
    (entry,) = stats["bdevs"]
    assert entry["name"] == null0
    for key in ("bytes_read", "num_read_ops", "bytes_written", "num_write_ops", "bytes_unmapped",
                "num_unmap_ops", "read_latency_ticks", "max_read_latency_ticks",
                "write_latency_ticks"):
        assert entry[key] == 0
    assert client.call("bdev_get_iostat", name=null0, per_channel=True)["bdevs"][0][
        "channels"] == []
    fails(client, PARAMS, "bdev_get_iostat", {"per_channel": True}, "name: is required")
    fails(client, PARAMS, "bdev_get_iostat", {"reset_mode": "all"}, "reset_mode: must be one of")
    fails(client, ENODEV, "bdev_get_iostat", {"name": "none"})


def test_get_bdevs_waits(daemon, client):
    fails(client, ENODEV, "bdev_get_bdevs", {"name": "late", "timeout": 50})
    with daemon.client() as waiting:
        waiting.send_raw(json.dumps(waiting.request("bdev_get_bdevs",
                                                    {"name": "late", "timeout": 10000})))
        time.sleep(0.1)
        client.call("bdev_null_create", name="late", num_blocks=1)
        assert waiting.receive()["result"][0]["name"] == "late"
    # A client that leaves while it is waited for.
    with daemon.client() as leaving:
        leaving.send_raw(json.dumps(leaving.request("bdev_get_bdevs",
                                                    {"name": "never", "timeout": 300})))
        time.sleep(0.05)
    time.sleep(0.4)
    assert client.call("bdev_null_delete", name="late") is True


def test_config_methods(client, null0):
    saved = client.call("save_config")
    assert [s["subsystem"] for s in saved["subsystems"]] == ["bdev", "vhost_blk"]
    entries = client.call("framework_get_config", name="bdev")
    assert entries == saved["subsystems"][0]["config"]
    assert entries[0]["method"] == "bdev_null_create"
    fails(client, ENOENT, "framework_get_config", {"name": "nvmf"})
    names = [s["subsystem"] for s in client.call("framework_get_subsystems")]
    assert names == ["bdev", "vhost_blk"]


# ---- envelopes -----------------------------------------------------------------------------------

def raw(client, text):
    client.send_raw(text)
    return client.receive()


@pytest.mark.parametrize("text, code", [
    ('{}', REQUEST),
    ('{"id": 1}', REQUEST),
    ('{"id": 1, "method": 5}', REQUEST),
    ('{"id": {}, "method": "spdk_get_version"}', REQUEST),
    ('{"jsonrpc": "1.0", "id": 1, "method": "spdk_get_version"}', REQUEST),
    ('{"jsonrpc": 2.0, "id": 1, "method": "spdk_get_version"}', REQUEST),
    ('[]', REQUEST),
    ('{"id": 1, "method": "nope"}', METHOD),
    ('{"id": 1, "method": ""}', METHOD),
    ('{"id": 1, "method": "' + "\u20ac" * 100 + '"}', METHOD),
])
def test_bad_envelopes_keep_the_connection(client, text, code):
    assert raw(client, text)["error"]["code"] == code
    client.call("spdk_get_version")


@pytest.mark.parametrize("text", [
    'x', '5', '"text"', '}', ']', 'null', '{]', '{"a"}', '{"a":1,}', '{"a":1,"a":2}', '\0',
    '{"id":1,"method":"spdk_get_version","params":{"x":1e999}}', '{"a":"\\ud800"}',
    b'{"a":"\xff\xfe"}', '{"a":tru}',
])
def test_bad_json_ends_the_connection(daemon, text):
    with daemon.client() as client:
        assert raw(client, text)["error"]["code"] == PARSE
        assert client.receive() is None
    daemon.rpc("spdk_get_version")


@pytest.mark.parametrize("identity", [1, -5, 0, "text", 1.5, 1 << 53])
def test_ids_come_back(client, identity):
    answer = raw(client, json.dumps({"jsonrpc": "2.0", "id": identity,
                                     "method": "spdk_get_version"}))
    assert answer["id"] == identity and "result" in answer


def test_notification_has_no_answer(client):
    client.send_raw('{"jsonrpc":"2.0","method":"spdk_get_version"}')
    client.send_raw('{"jsonrpc":"2.0","method":"no_such_method"}')
    client.call("spdk_get_version")


def test_batch(client):
    requests = [client.request("bdev_null_create", {"name": "b0", "num_blocks": 8}),
                client.request("bdev_get_bdevs"),
                {"jsonrpc": "2.0", "method": "spdk_get_version"},
                5,
                client.request("bdev_null_delete", {"name": "b0"}),
                client.request("bdev_get_bdevs")]
    answers = raw(client, json.dumps(requests))
    assert [a["id"] for a in answers] == [requests[0]["id"], requests[1]["id"], None,
                                          requests[4]["id"], requests[5]["id"]]
    assert answers[0]["result"] == "b0"
    assert len(answers[1]["result"]) == 1
    assert answers[2]["error"]["code"] == REQUEST
    assert answers[4]["result"] == []
    notification = {"jsonrpc": "2.0", "method": "spdk_get_version"}
    client.send_raw(json.dumps([notification] * 3))
    client.call("spdk_get_version")
    too_many = raw(client, json.dumps([notification] * 1025))
    assert too_many["error"]["code"] == REQUEST


def test_half_a_request(client):
    text = json.dumps(client.request("spdk_get_version"))
    for byte in text:
        client.send_raw(byte)
        time.sleep(0.001)
    assert "result" in client.receive()
    client.send_raw(text + text[:10])
    assert "result" in client.receive()
    client.send_raw(text[10:] + "\n\n \t")
    assert "result" in client.receive()


def test_end_of_stream(daemon):
    with daemon.client() as client:
        client.send_raw(json.dumps(client.request("spdk_get_version")))
        client.sock.shutdown(socket.SHUT_WR)
        assert "result" in client.receive()
        assert client.receive() is None
    with daemon.client() as client:
        client.send_raw('{"jsonrpc":')
        client.sock.shutdown(socket.SHUT_WR)
        assert client.receive()["error"]["code"] == PARSE
        assert client.receive() is None


# ---- harm ----------------------------------------------------------------------------------------

def test_deep_nesting(daemon):
    for opening in ("[", '{"a":'):
        with daemon.client() as client:
            try:
                client.send_raw(opening * 100000)
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert client.receive()["error"]["code"] == PARSE
            assert client.receive() is None


def test_huge_request(daemon):
    with daemon.client() as client:
        try:
            client.send_raw('{"a":"' + "x" * (3 << 20))
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert client.receive()["error"]["code"] == REQUEST
        assert client.receive() is None


def test_largest_request(client):
    name = "x" * ((1 << 20) - 200)
    fails(client, PARAMS, "bdev_null_create", {"name": name, "num_blocks": 1}, "name: must be")


def test_slow_bytes_of_a_large_request_cost_little(daemon):
    """Each byte is looked at once, so small pieces are no way to keep the control thread busy."""
    with daemon.client() as slow:
        slow.send_raw('{"a":"')
        start = time.monotonic()
        for _ in range(2000):
            slow.send_raw("x" * 100)
        daemon.rpc("spdk_get_version")
        assert time.monotonic() - start < 5


def test_ten_thousand_requests_in_one_write(daemon, client):
    count = 10000
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "rpc_get_methods"})
    with daemon.client() as flooding:
        flooding.sock.setblocking(False)
        data = memoryview((request * count).encode())
        got = b""
        deadline = time.monotonic() + 60
        while got.count(b'"result"') < count and time.monotonic() < deadline:
            try:
                data = data[flooding.sock.send(data):]
            except BlockingIOError:
                pass
            try:
                got += flooding.sock.recv(1 << 20)
            except BlockingIOError:
                time.sleep(0.001)
            if len(got) % 7 == 0:
                client.call("spdk_get_version")
        assert got.count(b'"result"') == count


def test_ten_thousand_changes_in_one_write(daemon):
    """Failing changes end inside their handlers; that must not nest."""
    count = 10000
    request = '{"jsonrpc":"2.0","id":1,"method":"bdev_null_delete","params":{"name":"none"}}'
    with daemon.client() as one, daemon.client() as other:
        other.send_raw(json.dumps(other.request("bdev_null_create",
                                                {"name": "a", "num_blocks": 1})))
        one.send_raw(request * count)
        for _ in range(count):
            assert one.receive()["error"]["code"] == ENODEV
        assert other.receive()["result"] == "a"
    daemon.rpc("bdev_null_delete", name="a")


def test_client_that_does_not_read(daemon, client):
    request = '{"jsonrpc":"2.0","id":1,"method":"rpc_get_methods"}'
    before = daemon.rss_kib()
    with daemon.client() as silent:
        silent.sock.setblocking(False)
        sent = 0
        deadline = time.monotonic() + 20
        closed = False
        while time.monotonic() < deadline and not closed:
            try:
                sent += silent.sock.send(request.encode() * 1000)
            except BlockingIOError:
                client.call("spdk_get_version")
                time.sleep(0.1)
            except (BrokenPipeError, ConnectionResetError):
                closed = True
        assert closed, "still connected"
        # A sanitizer keeps freed memory for a while.
        assert daemon.is_sanitized() or daemon.rss_kib() - before < 16 << 10
    assert "does not read its answer" in daemon.log()


def test_many_connections(daemon):
    before = daemon.fd_count_at_rest()
    clients = [daemon.client() for _ in range(128)]
    for connected in clients[:100]:
        connected.call("spdk_get_version")
    with daemon.client() as surplus:
        assert surplus.receive()["error"]["code"] == EBUSY
        assert surplus.receive() is None
    for connected in clients:
        connected.close()
    assert daemon.fd_count_settles_at(before) == before
    daemon.rpc("spdk_get_version")


def test_no_fds_leak(daemon, tmp_path):
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 16))
    daemon.rpc("spdk_get_version")

    def everything():
        with daemon.client() as client:
            client.call("bdev_uring_create", name="f", filename=str(image))
            client.call("bdev_malloc_create", name="m", num_blocks=64)
            client.call("vhost_create_blk_controller", ctrlr="vf", dev_name="f")
            client.call("vhost_create_blk_controller", ctrlr="vm", dev_name="m")
            fails(client, EBUSY, "vhost_create_blk_controller", {"ctrlr": "x", "dev_name": "m"})
            fails(client, ENOENT, "bdev_uring_create", {"name": "g", "filename": "/nowhere"})
            client.call("vhost_delete_controller", ctrlr="vf")
            client.call("vhost_delete_controller", ctrlr="vm")
            client.call("bdev_uring_delete", name="f")
            client.call("bdev_malloc_delete", name="m")
        with daemon.client() as client:
            client.send_raw("nonsense")
        with daemon.client() as client:
            client.send_raw('{"half')

    everything()
    before = daemon.fd_count_at_rest()
    for _ in range(20):
        everything()
    assert daemon.fd_count_settles_at(before) == before


def test_clients_that_leave_in_the_middle(daemon):
    """A change goes on without the one who asked for it."""
    for i in range(50):
        with daemon.client() as leaving:
            leaving.send_raw(json.dumps(leaving.request("bdev_null_create",
                                                        {"name": f"l{i}", "num_blocks": 1})))
            if i % 2:
                time.sleep(0.002)
    deadline = time.monotonic() + 10
    while len(daemon.rpc("bdev_get_bdevs")) < 50 and time.monotonic() < deadline:
        time.sleep(0.02)
    names = [b["name"] for b in daemon.rpc("bdev_get_bdevs")]
    assert sorted(names) == sorted(f"l{i}" for i in range(50))
    for name in names:
        daemon.rpc("bdev_null_delete", name=name)


def test_socket_mode(daemon):
    assert daemon.socket.stat().st_mode & 0o777 == 0o600


def test_delete_with_a_session(daemon, client, null0):
    """The front-end is there, the deletion ends its session; whether or not the client waits."""
    for waits in (True, False) * 5:
        client.call("vhost_create_blk_controller", ctrlr="v0", dev_name=null0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as front_end:
            front_end.connect(str(daemon.run_dir / "v0"))
            # VHOST_USER_GET_FEATURES, so that the session is surely there.
            front_end.sendall(bytes([1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]))
            assert len(front_end.recv(20)) == 20
            if waits:
                assert client.call("vhost_delete_controller", ctrlr="v0") is True
            else:
                with daemon.client() as leaving:
                    leaving.send_raw(json.dumps(leaving.request("vhost_delete_controller",
                                                                {"ctrlr": "v0"})))
                deadline = time.monotonic() + 10
                while client.call("vhost_get_controllers") and time.monotonic() < deadline:
                    time.sleep(0.01)
            assert client.call("vhost_get_controllers") == []
            front_end.settimeout(10)
            try:
                assert front_end.recv(1) == b""
            except ConnectionResetError:
                pass


def test_stop_with_a_session(tmp_path):
    with Daemon(tmp_path) as daemon:
        daemon.rpc("bdev_null_create", name="n0", num_blocks=8)
        daemon.rpc("vhost_create_blk_controller", ctrlr="v0", dev_name="n0")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as front_end:
            front_end.connect(str(daemon.run_dir / "v0"))
            with daemon.client() as idle, daemon.client() as waiting:
                waiting.send_raw(json.dumps(waiting.request(
                    "bdev_get_bdevs", {"name": "never", "timeout": 60000})))
                time.sleep(0.1)
                start = time.monotonic()
                assert daemon.stop() == 0
                assert time.monotonic() - start < 5
                assert idle.receive() is None
                assert (answer := waiting.receive()) is None or "error" in answer
