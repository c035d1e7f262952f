# SPDX-License-Identifier: Apache-2.0
"""Makes a disk that BIOS and UEFI firmware boot: the guest's kernel behind two small loaders.

A FAT file system holds the kernel and the initramfs once, and both loaders: syslinux, which reads
them through the BIOS, and systemd-boot, which reads them through UEFI. No root is needed.

There is no partition table, on purpose. The code of a master boot record reads the next loader
over itself; an emulating QEMU does not see what another process writes into guest memory and would
go on with its translation of the old code (qemu-storage-daemon's disks show the same).
"""
import gzip
import os
import subprocess
import tempfile

from guest import MACHINES, build_image, kernel_arguments

MIB = 1 << 20
SECTOR = 512
FAT_SIZE = 80 * MIB
DATA_START = FAT_SIZE  # From here on the disk is the test's.
DISK_SIZE = 128 * MIB

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


def build(path):
    """Writes the disk to `path`."""
    image = build_image()
    tty = MACHINES["x86_64"][2]
    arguments = kernel_arguments(tty)
    with open(path, "wb") as out:
        out.truncate(DISK_SIZE)
    _run("mformat", "-i", path, "-F", "-v", "SLUICE", "-T", str(FAT_SIZE // SECTOR),
         "-h", "255", "-s", "63", "::")
    _run("syslinux", "--install", path)
    _run("mmd", "-i", path, "::EFI", "::EFI/BOOT", "::loader", "::loader/entries")
    with tempfile.TemporaryDirectory() as tmp:
        def put(name, data):
            source = os.path.join(tmp, "file")
            with open(source, "wb") as out:
                out.write(data)
            _run("mcopy", "-i", path, source, f"::{name}")
        put("syslinux.cfg", SYSLINUX_CONFIG.format(arguments=arguments).encode())
        put("loader/loader.conf", SYSTEMD_BOOT_CONFIG.encode())
        put("loader/entries/sluice.conf", SYSTEMD_BOOT_ENTRY.format(arguments=arguments).encode())
        with open(SYSTEMD_BOOT, "rb") as file:
            put("EFI/BOOT/BOOTX64.EFI", file.read())
        put("vmlinuz", (image / "vmlinuz").read_bytes())
        # Uncompressed it is three times as long for the firmware to read.
        put("initrd", gzip.compress((image / "initrd").read_bytes(), compresslevel=1))
