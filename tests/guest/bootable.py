# SPDX-License-Identifier: Apache-2.0
"""Makes a disk that BIOS and UEFI firmware boot: the guest's kernel behind two small loaders.

One FAT partition holds the kernel and the initramfs once, and both loaders: syslinux, which reads
them through the BIOS, and systemd-boot, which reads them through UEFI. No root is needed.
"""
import gzip
import os
import subprocess
import tempfile

from guest import MACHINES, build_image, kernel_arguments

MIB = 1 << 20
SECTOR = 512
PARTITION_START = 1 * MIB
PARTITION_SIZE = 79 * MIB
DATA_START = PARTITION_START + PARTITION_SIZE  # From here on the disk is the test's.
DISK_SIZE = 128 * MIB

MBR_CODE = "/usr/lib/syslinux/mbr/mbr.bin"
SYSTEMD_BOOT = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi"

SYSLINUX_CONFIG = """DEFAULT sluice
PROMPT 0
LABEL sluice
  LINUX /vmlinuz
  INITRD /initrd
  APPEND {arguments} sluice.loader=syslinux
"""
SYSTEMD_BOOT_CONFIG = "timeout 0\ndefault sluice.conf\n"
SYSTEMD_BOOT_ENTRY = """title sluice
linux /vmlinuz
initrd /initrd
options {arguments} sluice.loader=systemd-boot
"""


def _run(*args):
    subprocess.run(args, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                   env={**os.environ, "MTOOLS_SKIP_CHECK": "1"})


def _mbr():
    """The first sector: a loader of the active partition, and one partition for BIOS and UEFI."""
    with open(MBR_CODE, "rb") as file:
        code = file.read()
    any_chs = b"\xfe\xff\xff"
    entry = (b"\x80" + any_chs + b"\xef" + any_chs
             + (PARTITION_START // SECTOR).to_bytes(4, "little")
             + (PARTITION_SIZE // SECTOR).to_bytes(4, "little"))
    return code.ljust(446, b"\0") + entry.ljust(64, b"\0") + b"\x55\xaa"


def build(path):
    """Writes the disk to `path`."""
    image = build_image()
    tty = MACHINES["x86_64"][2]
    arguments = kernel_arguments(tty)
    with open(path, "wb") as out:
        out.write(_mbr())
        out.truncate(DISK_SIZE)
    fat = f"{path}@@{PARTITION_START}"
    _run("mformat", "-i", fat, "-F", "-v", "SLUICE", "-T", str(PARTITION_SIZE // SECTOR),
         "-H", str(PARTITION_START // SECTOR), "-h", "255", "-s", "63", "::")
    _run("syslinux", "--offset", str(PARTITION_START), "--install", path)
    _run("mmd", "-i", fat, "::EFI", "::EFI/BOOT", "::loader", "::loader/entries")
    with tempfile.TemporaryDirectory() as tmp:
        def put(name, data):
            source = os.path.join(tmp, "file")
            with open(source, "wb") as out:
                out.write(data)
            _run("mcopy", "-i", fat, source, f"::{name}")
        put("syslinux.cfg", SYSLINUX_CONFIG.format(arguments=arguments).encode())
        put("loader/loader.conf", SYSTEMD_BOOT_CONFIG.encode())
        put("loader/entries/sluice.conf", SYSTEMD_BOOT_ENTRY.format(arguments=arguments).encode())
        with open(SYSTEMD_BOOT, "rb") as file:
            put("EFI/BOOT/BOOTX64.EFI", file.read())
        put("vmlinuz", (image / "vmlinuz").read_bytes())
        # Uncompressed it is three times as long for the firmware to read.
        put("initrd", gzip.compress((image / "initrd").read_bytes(), compresslevel=1))
