# SPDX-License-Identifier: Apache-2.0
"""Many disks, and large guests, on one server: what they cost each other."""

import os
import time

from daemon import MIB, wait_until
from guest_memory import GuestMemory, Region

DISKS = 100
SERVER_OPTIONS = {"cores": "0,1"}  # queues of one session on two reactors


def test_100_idle_disks(server, make_disk, connect):
    """Issue 2: 100 connected idle disks cost under 1 % of a core; each still answers."""
    drivers = [connect(make_disk("malloc", size=MIB), queue_size=16,
                       memory=GuestMemory([Region(MIB, MIB)])) for _ in range(DISKS)]
    content = []
    for driver in drivers:
        content.append(os.urandom(512))
        driver.write(0, content[-1])

    def quiet():
        before = server.cpu_ticks()
        time.sleep(1)
        return server.cpu_ticks() - before <= 1  # of 100
    wait_until(quiet, "under 1 % of a core", 30)
    for driver, data in zip(drivers, content):
        assert driver.read(0, 512) == data


def test_disks_do_not_mix(make_disk, connect, rng):
    """Requests on 20 disks interleaved, of all kinds and block sizes: data stays where it
    belongs."""
    drivers = []
    for i in range(20):
        disk = make_disk(("malloc", "uring")[i % 2], (512, 4096)[i // 2 % 2], MIB)
        drivers.append(connect(disk, memory=GuestMemory([Region(MIB, MIB)])))
    model = {}
    for _ in range(30):
        pending = []
        for number in rng.sample(range(20), 20):
            sector = rng.randrange(256) * 8
            model[number, sector] = rng.randbytes(4096)
            pending.append((drivers[number], drivers[number].submit(
                1, sector, model[number, sector])))
        for driver, request in pending:
            assert driver.finish(request).status == 0
    for (number, sector), data in model.items():
        assert drivers[number].read(sector, 4096) == data


def test_mapping_a_large_guest_stalls_nobody(neighbour, memory_disk, connect):
    """spdk#3867: the memory table of a large guest stopped every disk of the reactor for
    seconds. 8 GiB, mapped and unmapped over and over."""
    large = [Region(1 << 40, 8 << 30)]
    driver = connect(memory_disk)
    neighbour.check()
    neighbour.longest_s = 0.0
    try:
        for _ in range(20):
            driver.conn.set_mem_table([*driver.mem.regions, *large])
            driver.conn.set_mem_table(driver.mem.regions)
        neighbour.check(20)
    finally:
        large[0].close()
    assert neighbour.longest_s < 2, f"the neighbour waited {neighbour.longest_s:.2f} s"


def test_controllers_come_and_go(server, neighbour, make_disk, connect):
    """Disks created, used and deleted in a loop, beside one that works; nothing stays."""
    before = None
    for i in range(60):
        disk = make_disk(("null", "malloc", "uring")[i % 3], size=MIB, num_queues=1 + i % 4)
        driver = connect(disk, queues=disk.num_queues)
        driver.read(0, 4096, queue=disk.num_queues - 1)
        driver.close()
        make_disk.close()
        if i == 20:
            before = server.rss_anon()
    assert server.rss_anon() - before < 8 * MIB
    neighbour.check()
