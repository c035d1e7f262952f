# SPDX-License-Identifier: Apache-2.0
"""Disks and memory that come and go in a running guest while another disk is under load."""
import time

import pytest

from guest import Disk, Guest

FIO = "--direct=1 --ioengine=libaio --verify=crc32c --verify_fatal=1 --rw=randwrite "
ROUNDS = 3
MIB = 1 << 20
DIMM_MIB = 256


@pytest.fixture(scope="module")
def target(target_class, backing):
    """The disk that stays, and two that come and go."""
    disks = [backing("stays", "file", num_queues=2), backing("hot0", "file", num_queues=2),
             backing("hot1", "memory", packed=True)]
    with target_class(disks) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def guest(target):
    """A guest with two free PCIe ports, and room for more memory."""
    with Guest([Disk(target.socket("stays"), num_queues=2)], smp=2, hotplug_ports=2,
               extra=["-m", "slots=2,maxmem=2G"]) as machine:
        yield machine
        machine.power_off()
    target.check_alive()
    target.stop()


def start_load(guest):
    """Verified I/O on the disk that stays, until `end_load`."""
    guest.run("rm -f /tmp/load.status /tmp/stop; (cd /tmp; s=0; while [ ! -e /tmp/stop ] && "
              f"[ $s = 0 ]; do fio --name=load --filename=/dev/vda --bs=4k --iodepth=32 --size=4M "
              f"{FIO} >/tmp/load.log 2>&1; s=$?; done; echo $s >/tmp/load.status) "
              ">/dev/null 2>&1 &")


def end_load(guest):
    """Not one of its I/Os failed."""
    status = guest.run("touch /tmp/stop; until [ -s /tmp/load.status ]; do sleep 0.1; done; "
                       "cat /tmp/load.status").strip()
    assert status == "0", guest.run("cat /tmp/load.log")


def plug(guest, target, number, **properties):
    """Hot-plugs a disk; returns when the guest has it."""
    name = f"hot{number}"
    guest.qmp("chardev-add", id=f"c{name}", backend={"type": "socket", "data": {
        "server": False, "addr": {"type": "unix", "data": {"path": target.socket(name)}}}})
    guest.qmp("device_add", driver="vhost-user-blk-pci", id=name, chardev=f"c{name}",
              bus=f"port{number}", **properties)
    guest.run("for i in $(seq 300); do [ -b /dev/vdb ] && exit 0; sleep 0.1; done; exit 1")


def unplug(guest, number):
    """Asks the guest to let the disk go, and waits until it is gone."""
    name = f"hot{number}"
    guest.events.clear()
    guest.qmp("device_del", id=name)
    while guest.wait_event("DEVICE_DELETED")["data"].get("device") != name:
        pass
    guest.qmp("chardev-remove", id=f"c{name}")
    guest.run("for i in $(seq 100); do [ -b /dev/vdb ] || exit 0; sleep 0.1; done; exit 1")


def wait_sessions(target, ctrlr, count):
    """The daemon has so many front-ends on a controller."""
    deadline = time.monotonic() + 10
    while True:
        found = next(c for c in target.rpc("vhost_get_controllers") if c["ctrlr"] == ctrlr)
        if len(found["sessions"]) == count:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def test_disks(guest, target):
    """In and out, quiet and with I/O of its own in flight; split rings and packed ones."""
    start_load(guest)
    for number, properties in ((0, {"num-queues": 2}), (1, {"packed": True, "num-queues": 1})):
        for turn in range(ROUNDS):
            plug(guest, target, number, **properties)
            wait_sessions(target, f"hot{number}", 1)
            guest.fio(f"--name=t --filename=/dev/vdb --bs=16k --iodepth=16 --size=4M {FIO}")
            if turn > 0:
                guest.run("fio --name=hot --filename=/dev/vdb --direct=1 --ioengine=libaio "
                          "--rw=randrw --bs=4k --iodepth=64 --runtime=60 --time_based "
                          ">/dev/null 2>&1 & echo $! >/tmp/hot.pid; until "
                          "awk '{ exit $1 + $2 == 0 }' /sys/block/vdb/inflight; do :; done")
            unplug(guest, number)
            if turn > 0:  # Its I/O ends with errors; else it would write to the next disk.
                guest.run("while kill -0 $(cat /tmp/hot.pid) 2>/dev/null; do sleep 0.1; done")
            wait_sessions(target, f"hot{number}", 0)
    end_load(guest)
    target.check_alive()


def regions(target):
    """How many memory regions the guest of the disk that stays has."""
    return wait_sessions(target, "stays", 1)["sessions"][0]["memory_regions"]


def test_memory(guest, target):
    """Memory comes, carries I/O, and goes, with I/O in flight all the time."""
    start_load(guest)
    before = regions(target)
    for turn in range(2):
        guest.qmp("object-add", **{"qom-type": "memory-backend-memfd", "id": "dimm-memory",
                                   "size": DIMM_MIB * MIB, "share": True})
        guest.qmp("device_add", driver="pc-dimm", id="dimm", memdev="dimm-memory")
        assert regions(target) == before + 1
        # Movable memory is what user space gets first: buffers of the next fio lie there.
        guest.run("for i in $(seq 50); do grep -l offline /sys/devices/system/memory/memory*/state "
                  ">/tmp/offline && break; sleep 0.1; done; "
                  "for m in $(cat /tmp/offline); do echo online_movable >$m || exit 1; done")
        free = "awk '/zone *Movable/{z=1} z&&/nr_free_pages/{print $2; exit}' /proc/zoneinfo"
        unused = int(guest.run(free))
        assert unused > DIMM_MIB * 200
        hog = guest.send(f"cd /tmp && fio --name=t --filename=/dev/vda --bs=1M --iodepth=32 "
                         f"--offset=32M --size=32M --loops=2 {FIO}")
        status, out, err = guest.result(hog)
        assert status == 0, out + err
        guest.events.clear()
        guest.qmp("device_del", id="dimm")
        event = guest.wait_event("DEVICE_DELETED", "MEM_UNPLUG_ERROR",
                                 "DEVICE_UNPLUG_GUEST_ERROR")
        assert event["event"] == "DEVICE_DELETED", (turn, event)
        guest.qmp("object-del", id="dimm-memory")
        assert regions(target) == before
    end_load(guest)
    target.check_alive()
