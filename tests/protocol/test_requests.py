# SPDX-License-Identifier: Apache-2.0
"""Good requests in every legal framing, on every back-end, from several queues and sessions."""

import os
import threading

import pytest

from blk import S_IOERR, S_OK, S_UNSUPP, WZ_UNMAP, Feature, Layout, Type
from daemon import MIB
from guest_memory import GuestMemory, Region
from rings import FORMATS

pytestmark = FORMATS


def cut(*lengths):
    """A stream cut at fixed lengths; the last piece takes the rest."""
    return lambda total: [*lengths, total - sum(lengths)]


def whole(total):
    return [total]


def bytewise_header(total):
    return [1] * 16 + [total - 16]


# Virtio 1.2, 2.7.4.1: the device must not assume anything about the framing (CVE-2022-2132).
LAYOUTS = [
    Layout("plain"),
    Layout("header_bytewise", readable=bytewise_header),
    Layout("header_and_data_share", readable=whole),
    Layout("header_in_three", readable=cut(4, 4)),
    Layout("header_tail_shares_with_data", readable=cut(9)),
    Layout("status_shares_with_data", writable=whole),
    Layout("status_shares_with_data_tail", writable=lambda total: [
        *([total // 2] if total > 1 else []), total - (total // 2 if total > 1 else 0)]),
    Layout("data_in_odd_pieces", readable=lambda total: odd_pieces(total, 16),
           writable=lambda total: odd_pieces(total, 0)),
    Layout("indirect", indirect=True),
    Layout("indirect_header_bytewise", readable=bytewise_header, indirect=True),
    Layout("indirect_all_shared", readable=whole, writable=whole, indirect=True),
]


def odd_pieces(total, first):
    """Pieces of 1, 3, 5, 7, ... bytes until 20 pieces, then the rest."""
    lengths = [first] if first else []
    for length in range(1, 40, 2):
        if sum(lengths) + length < total:
            lengths.append(length)
    return [*lengths, total - sum(lengths)]


@pytest.fixture(params=["memory_disk", "file_disk"])
def disk(request, memory_disk, file_disk):
    return {"memory_disk": memory_disk, "file_disk": file_disk}[request.param]


@pytest.mark.parametrize("layout", LAYOUTS, ids=repr)
@pytest.mark.parametrize("length", [512, 4096, 65536])
def test_any_framing(connect, disk, layout, length):
    driver = connect(disk)
    data = os.urandom(length)
    driver.write(40, data, layout=layout)
    assert driver.read(40, length) == data
    assert driver.read(40, length, layout=layout) == data
    driver.flush(layout=layout)
    assert driver.get_id(layout=layout) == driver.get_id()


@pytest.mark.parametrize("event_idx", [False, True], ids=["flags", "event_idx"])
def test_random_framing(connect, disk, rng, event_idx):
    """Both streams cut at random places, direct or indirect, at any alignment."""
    driver = connect(disk, queue_size=256, event_idx=event_idx)

    def random_cuts(total):
        count = min(rng.choice((1, 2, 3, 8, 40)), total)
        cuts = sorted(rng.sample(range(1, total), count - 1)) if count > 1 else []
        return [b - a for a, b in zip([0, *cuts], [*cuts, total])]

    model = bytearray(driver.read(0, 64 * 512))
    for _ in range(150):
        layout = Layout("random", random_cuts, random_cuts, rng.random() < 0.5)
        sectors = rng.randrange(1, 17)
        sector = rng.randrange(0, 64 - sectors)
        at, end = sector * 512, (sector + sectors) * 512
        if rng.random() < 0.5:
            model[at:end] = rng.randbytes(end - at)
            driver.write(sector, bytes(model[at:end]), layout=layout)
        else:
            assert driver.read(sector, end - at, layout=layout) == model[at:end]


@pytest.mark.parametrize("indirect", [False, True], ids=["direct", "indirect"])
def test_126_segments(connect, disk, indirect):
    """SEG_MAX data segments of one sector each, both ways."""
    driver = connect(disk)
    assert driver.config.seg_max >= 126
    layout = Layout("126", lambda total: [16] + [512] * ((total - 16) // 512),
                    lambda total: [512] * (total // 512) + [1], indirect)
    data = os.urandom(126 * 512)
    driver.write(0, data, layout=layout)
    assert driver.read(0, len(data), layout=layout) == data


def test_all_segments_that_seg_max_allows(connect, disk):
    driver = connect(disk, queue_size=1024)
    count = min(driver.config.seg_max, 1022)
    layout = Layout("max", lambda total: [16] + [512] * ((total - 16) // 512),
                    lambda total: [512] * (total // 512) + [1], indirect=True)
    data = os.urandom(count * 512)
    driver.write(0, data, layout=layout)
    assert driver.read(0, len(data), layout=layout) == data


@pytest.mark.parametrize("size", [2, 4, 16, 256, 1024])
def test_queue_sizes(connect, disk, size):
    """Powers of two to 1024, each filled with requests until no descriptor is left."""
    driver = connect(disk, queue_size=size)
    layout = Layout("indirect", indirect=True)
    depth = min(size, 512)
    data = [os.urandom(512) for _ in range(depth)]
    for first in (0, 1):
        pending = [driver.prepare(Type.IN if first else Type.OUT, i, b"" if first else data[i],
                                  512 if first else 0, layout=layout) for i in range(depth)]
        pending[0].queue.publish(*(p.head for p in pending))
        pending[0].queue.notify()
        results = [driver.finish(p) for p in pending]
        assert all(result.status == S_OK for result in results)
        if first:
            assert [result.data for result in results] == data


@pytest.mark.parametrize("start", [65531, 2, 7])
@pytest.mark.parametrize("event_idx", [False, True], ids=["flags", "event_idx"])
def test_indexes_wrap(connect, memory_disk, start, event_idx):
    """Avail and used indexes pass 65535; a ring of 4 starts 5 before the wrap. A packed one starts
    in the middle of its first, or its second, lap."""
    driver = connect(memory_disk, queue_size=4, start=start, event_idx=event_idx)
    for i in range(20):
        data = os.urandom(512)
        driver.write(i, data)
        assert driver.read(i, 512) == data


def test_large_request(connect, disk):
    """4 MiB in one chain of 64 KiB segments."""
    driver = connect(disk, memory=GuestMemory([Region(0x100000, 24 * MIB)]))
    length = 4 * MIB
    layout = Layout("large", lambda total: [16] + [65536] * ((total - 16) // 65536),
                    lambda total: [65536] * (total // 65536) + [1])
    data = os.urandom(length)
    driver.write(0, data, layout=layout)
    assert driver.read(0, length, layout=layout) == data


def test_last_sector(connect, disk):
    driver = connect(disk)
    data = os.urandom(512)
    driver.write(disk.sectors - 1, data)
    assert driver.read(disk.sectors - 1, 512) == data


def test_data_is_in_the_file_after_flush(connect, file_disk):
    driver = connect(file_disk)
    data = os.urandom(16384)
    driver.write(1000, data)
    driver.flush()
    with open(file_disk.file, "rb") as file:
        file.seek(1000 * 512)
        assert file.read(len(data)) == data


def test_another_session_sees_it(connect, disk):
    """Several sessions on one controller, at the same time and one after the other."""
    first, second = connect(disk), connect(disk)
    data = os.urandom(8192)
    first.write(2000, data)
    assert second.read(2000, 8192) == data
    second.write(2000, data[::-1])
    first.close()
    assert connect(disk).read(2000, 8192) == data[::-1]


def test_queues_concurrently(make_disk, connect, rng):
    """Requests outstanding on 16 queues at once; each queue has its own part of the disk."""
    driver = connect(make_disk("malloc", size=8 * MIB, num_queues=16), queues=16,
                     queue_size=64)
    written = {}
    for _ in range(4):
        pending = []
        for queue in range(16):
            for _ in range(8):
                sector = queue * 1024 + rng.randrange(64) * 8
                if (queue, sector) in [p[0] for p in pending]:
                    continue
                data = rng.randbytes(4096)
                pending.append(((queue, sector), data, driver.submit(
                    Type.OUT, sector, data, queue=queue)))
        for key, data, request in rng.sample(pending, len(pending)):
            assert driver.finish(request).status == S_OK
            written[key] = data
    for (queue, sector), data in written.items():
        assert driver.read(sector, 4096, queue=(queue + 1) % 16) == data


def test_sessions_in_threads(connect, file_disk):
    """Four front-ends at once, each verifying its own quarter."""
    errors = []

    def work(driver, base):
        try:
            for i in range(60):
                data = os.urandom(4096)
                driver.write(base + i * 8, data)
                assert driver.read(base + i * 8, 4096) == data
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(connect(file_disk), i * 8192))
               for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


# -- discard and write zeroes ------------------------------------------------------------------


def allocated(disk):
    return os.stat(disk.file).st_blocks * 512


def test_discard_makes_the_file_sparse(make_disk, connect):
    disk = make_disk("uring", size=4 * MIB)
    driver = connect(disk)
    for sector in range(0, 8192, 2048):
        driver.write(sector, os.urandom(MIB))
    driver.flush()
    before = allocated(disk)
    assert before >= 4 * MIB
    assert driver.discard((2048, 4096)) == S_OK
    driver.flush()
    assert before - allocated(disk) >= 2 * MIB * 9 // 10
    assert driver.read(0, 512) != bytes(512)


@pytest.mark.parametrize("kind", ["malloc", "uring"])
@pytest.mark.parametrize("flags", [0, WZ_UNMAP], ids=["keep", "unmap"])
def test_write_zeroes(make_disk, connect, kind, flags):
    """Reads give zeroes, exactly in the range; without UNMAP the space stays allocated."""
    disk = make_disk(kind, size=2 * MIB)
    driver = connect(disk)
    data = os.urandom(MIB)
    driver.write(0, data)
    driver.flush()
    assert driver.write_zeroes((8, 1024), flags=flags) == S_OK
    driver.flush()
    assert driver.read(0, MIB) == data[:4096] + bytes(1024 * 512) + data[4096 + 1024 * 512:]
    if kind == "uring":
        if flags and driver.config.write_zeroes_may_unmap:
            assert allocated(disk) <= MIB * 6 // 10 + 65536
        if not flags:
            assert allocated(disk) >= MIB


@pytest.mark.parametrize("kind", ["malloc", "uring"])
def test_write_zeroes_of_several_segments(make_disk, connect, kind):
    """Issue 2: several segments a request, with and without unmap in one."""
    driver = connect(make_disk(kind, size=2 * MIB))
    assert driver.config.max_write_zeroes_seg >= 2
    data = os.urandom(65536)
    driver.write(0, data)
    count = min(driver.config.max_write_zeroes_seg, 8)
    items = [(i * 16 + 8, 8, i % 2) for i in range(count)]
    assert driver.write_zeroes(*items) == S_OK
    expected = bytearray(data)
    for sector, sectors, _ in items:
        expected[sector * 512:(sector + sectors) * 512] = bytes(sectors * 512)
    assert driver.read(0, 65536) == expected


@pytest.mark.parametrize("kind", ["malloc", "uring"])
def test_discard_of_the_most_segments(make_disk, connect, kind):
    driver = connect(make_disk(kind, size=4 * MIB))
    count = min(driver.config.max_discard_seg, 256)
    data = os.urandom(512)
    driver.write(1, data)
    assert driver.discard(*((8 + i * 8, 8) for i in range(count))) == S_OK
    assert driver.read(1, 512) == data


@pytest.mark.parametrize("layout", [
    Layout("bytewise", readable=lambda total: [1] * total),
    Layout("shared", readable=whole),
    Layout("cut_in_segments", readable=cut(16, 7, 16)),
    Layout("indirect", indirect=True)], ids=repr)
def test_write_zeroes_framing(connect, disk, layout):
    """The list of segments, too, may be cut anywhere."""
    driver = connect(disk)
    driver.write(0, os.urandom(8192))
    assert driver.write_zeroes((0, 2), (4, 2), layout=layout) == S_OK
    data = driver.read(0, 8192)
    assert data[:1024] == bytes(1024) and data[2048:3072] == bytes(1024)
    assert data[1024:2048] != bytes(1024) and data[3072:4096] != bytes(1024)


def test_write_zeroes_of_the_whole_disk(make_disk, connect):
    disk = make_disk("malloc", size=2 * MIB)
    driver = connect(disk)
    driver.write(disk.sectors - 8, os.urandom(4096))
    step = min(driver.config.max_write_zeroes_sectors, disk.sectors)
    for sector in range(0, disk.sectors, step):
        assert driver.write_zeroes((sector, min(step, disk.sectors - sector))) == S_OK
    assert driver.read(disk.sectors - 8, 4096) == bytes(4096)


def test_null_disk_serves_everything(connect, null_disk):
    driver = connect(null_disk)
    driver.write(0, os.urandom(4096))
    driver.read(0, 4096)
    driver.flush()
    for feature, request in ((Feature.DISCARD, driver.discard),
                             (Feature.WRITE_ZEROES, driver.write_zeroes)):
        if driver.negotiated(feature):
            assert request((0, 8)) == S_OK


# -- bad requests in good chains: the request fails, the queue goes on -------------------------


def fails(driver, type_, sector=0, status=(S_IOERR, S_UNSUPP), **options):
    result = driver.request(type_, sector, **options)
    assert result.status in status, f"status {result.status}"


@pytest.mark.parametrize("type_", [2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 255, 0x80000000,
                                   0xFFFFFFFF])
def test_unknown_request_types(connect, memory_disk, type_):
    """Virtio 1.2, 5.2.6.2: UNSUPP for what the device does not know; also SCSI passthrough of
    old, zoned requests and lifetime, which are not offered."""
    driver = connect(memory_disk)
    fails(driver, type_, status=(S_UNSUPP,), in_len=512)
    fails(driver, type_, status=(S_UNSUPP,), out=bytes(512))
    fails(driver, type_, status=(S_UNSUPP,))
    driver.read(0, 512)


@pytest.mark.parametrize("sector, sectors", [
    (0, 0x10000 + 1), (-1, 1), (-8, 16), (-1, 2), (1 << 55, 1), ((1 << 55) - 1, 2), (1 << 63, 1),
    (0xFFFFFFFFFFFFFFFF, 8), (0x7FFFFFFFFFFFFFFF, 1)])
def test_out_of_range(connect, disk, sector, sectors):
    """Sectors beyond the end, across it, and sums that wrap in sectors or in bytes. A negative
    sector counts from the end of the disk."""
    driver = connect(disk, memory=GuestMemory([Region(0x100000, 80 * MIB)]))
    if -8 <= sector < 0:
        sector += disk.sectors
        sectors += 1
    length = sectors * 512
    fails(driver, Type.IN, sector, (S_IOERR,), in_len=length)
    fails(driver, Type.OUT, sector, (S_IOERR,), out=bytes(length))
    driver.read(0, 512)


@pytest.mark.parametrize("length", [1, 511, 513, 1000, 4095])
def test_length_not_of_sectors(connect, disk, length):
    driver = connect(disk)
    before = driver.read(0, 8192)
    fails(driver, Type.IN, in_len=length)
    fails(driver, Type.OUT, out=bytes(length))
    assert driver.read(0, 8192) == before


@pytest.mark.parametrize("sector, length", [(1, 4096), (0, 512), (0, 4096 + 512), (7, 512)])
@pytest.mark.parametrize("kind", ["null", "malloc", "uring"])
def test_not_of_the_block_size(make_disk, connect, kind, sector, length):
    """A 4096-byte-block disk refuses what is not of whole blocks."""
    driver = connect(make_disk(kind, block_size=4096, size=MIB))
    fails(driver, Type.IN, sector, (S_IOERR,), in_len=length)
    fails(driver, Type.OUT, sector, (S_IOERR,), out=bytes(length))
    if driver.negotiated(Feature.WRITE_ZEROES):
        assert driver.write_zeroes((sector, length // 512)) == S_IOERR
    driver.read(0, 4096)


@pytest.mark.parametrize("type_", [Type.IN, Type.OUT])
def test_no_data(connect, disk, type_):
    """A read or write of nothing ends; which way, the specification leaves open."""
    driver = connect(disk)
    assert driver.request(type_).status in (S_OK, S_IOERR)
    driver.read(0, 512)


def test_read_with_data_to_the_device(connect, memory_disk):
    """IN with a device-readable payload and OUT with a device-writable one move no bytes."""
    driver = connect(memory_disk)
    before = driver.read(0, 512)
    result = driver.request(Type.IN, out=bytes(512))
    assert result.status in (S_OK, S_IOERR)
    result = driver.request(Type.OUT, in_len=512)
    assert result.status in (S_OK, S_IOERR)
    assert driver.read(0, 512) == before


@pytest.mark.parametrize("length", [1, 19])
def test_get_id_into_too_little(connect, memory_disk, length):
    driver = connect(memory_disk)
    result = driver.request(Type.GET_ID, in_len=length)
    assert result.status in (S_OK, S_IOERR)
    driver.read(0, 512)


BAD_RANGES = {
    "beyond_the_end": lambda disk: ((disk.sectors, 1),),
    "across_the_end": lambda disk: ((disk.sectors - 1, 2),),
    "sum_wraps": lambda disk: (((1 << 64) - 1, 2),),
    "bytes_wrap": lambda disk: ((1 << 55, 8),),
    "unknown_flags": lambda disk: ((0, 8, 0x2),),
    "all_flags": lambda disk: ((0, 8, 0xFFFFFFFF),),
    "second_is_bad": lambda disk: ((0, 8), (disk.sectors, 8)),
    "most_sectors": lambda disk: ((0, 0xFFFFFFFF),),
}


@pytest.mark.parametrize("case", BAD_RANGES)
@pytest.mark.parametrize("type_", [Type.DISCARD, Type.WRITE_ZEROES], ids=["discard", "zeroes"])
def test_bad_ranges(connect, disk, type_, case):
    """Virtio 1.2, 5.2.6.2: ranges outside the disk, above the limits and unknown flags fail.
    UNMAP is for write zeroes alone."""
    driver = connect(disk)
    data = os.urandom(4096)
    driver.write(8, data)
    items = BAD_RANGES[case](disk)
    request = driver.discard if type_ == Type.DISCARD else driver.write_zeroes
    assert request(*items) in (S_IOERR, S_UNSUPP)
    assert driver.read(8, 4096) == data


def test_discard_with_unmap_flag(connect, memory_disk):
    """5.2.6.2: a discard with the unmap flag must be UNSUPP."""
    driver = connect(memory_disk)
    assert driver.discard((0, 8, WZ_UNMAP)) == S_UNSUPP


@pytest.mark.parametrize("type_", [Type.DISCARD, Type.WRITE_ZEROES], ids=["discard", "zeroes"])
@pytest.mark.parametrize("length", [0, 1, 15, 17, 31])
def test_bad_range_list(connect, memory_disk, type_, length):
    """No segment at all, or a part of one."""
    driver = connect(memory_disk)
    before = driver.read(0, 8192)
    fails(driver, type_, out=bytes([0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0] * 2)[:length])
    assert driver.read(0, 8192) == before


@pytest.mark.parametrize("type_", [Type.DISCARD, Type.WRITE_ZEROES], ids=["discard", "zeroes"])
def test_too_many_ranges(connect, memory_disk, type_):
    driver = connect(memory_disk)
    limit = (driver.config.max_discard_seg if type_ == Type.DISCARD
             else driver.config.max_write_zeroes_seg)
    data = os.urandom(4096)
    driver.write(0, data)
    request = driver.discard if type_ == Type.DISCARD else driver.write_zeroes
    assert request(*((0, 8) for _ in range(limit + 1))) in (S_IOERR, S_UNSUPP)
    assert request(*((0, 8) for _ in range(4096))) in (S_IOERR, S_UNSUPP)
    assert driver.read(0, 4096) == data


def test_empty_range(connect, memory_disk):
    """A segment of no sectors ends, and changes nothing."""
    driver = connect(memory_disk)
    data = os.urandom(4096)
    driver.write(0, data)
    assert driver.discard((0, 0)) in (S_OK, S_IOERR)
    assert driver.write_zeroes((0, 0)) in (S_OK, S_IOERR)
    assert driver.read(0, 4096) == data


def test_bad_requests_do_not_flood_the_log(server, connect, memory_disk):
    """STYLE 7: no log line that a guest can repeat at will."""
    driver = connect(memory_disk)
    before = server.log_lines()
    for i in range(500):
        fails(driver, (Type.IN, 99, Type.FLUSH + 1)[i % 3], disk_end(memory_disk), in_len=512)
    assert server.log_lines() - before < 20


def disk_end(disk):
    return disk.sectors


# -- a file that changes under us --------------------------------------------------------------


def test_file_that_shrinks(make_disk, connect):
    """Issue 2, "Bad input": reads and writes beyond the new end fail or are served as the file
    system has it, the rest goes on; nobody crashes."""
    disk = make_disk("uring", size=2 * MIB)
    driver = connect(disk)
    data = os.urandom(4096)
    driver.write(0, data)
    driver.flush()
    os.truncate(disk.file, MIB)
    assert driver.request(Type.IN, 3072, in_len=4096).status in (S_OK, S_IOERR)
    result = driver.request(Type.OUT, 3072, out=bytes(4096))
    assert result.status in (S_OK, S_IOERR)
    assert driver.read(0, 4096) == data
