# SPDX-License-Identifier: Apache-2.0
"""libvirt starts a domain on our disk: a libvirtd of our own, in private folders, gone afterwards."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import pytest

from guest import Guest, build_image, kernel_arguments

START_TIMEOUT_S = 60
BOOT_TIMEOUT_S = 180
# The folders that a libvirtd of root's keeps in fixed places.
FIXED = ("/run/libvirt", "/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt",
         "/var/log/libvirt")
FIO = ("--name=t --filename=/dev/vda --direct=1 --ioengine=libaio --bs=4k --iodepth=16 "
       "--rw=randwrite --size=8M --verify=crc32c --verify_fatal=1 --randseed=7 "
       "--verify_state_save=0 ")
CONFIG = '''user = "root"
group = "root"
remember_owner = 0
stdio_handler = "file"
security_driver = "none"
'''
USER = {"/etc/passwd": "libvirt-qemu:x:64055:64055::/nonexistent:/bin/false\n",
        "/etc/group": "libvirt-qemu:x:64055:\n"}
DOMAIN = """<domain type='qemu'>
  <name>sluice-test</name>
  <memory unit='MiB'>512</memory>
  <vcpu>2</vcpu>
  <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
  <os>
    <type machine='q35'>hvm</type>
    <kernel>{image}/vmlinuz</kernel>
    <initrd>{image}/initrd</initrd>
    <cmdline>{arguments}</cmdline>
  </os>
  <cpu mode='maximum'/>
  <on_poweroff>destroy</on_poweroff>
  <devices>
    <emulator>{qemu}</emulator>
    <disk type='vhostuser' device='disk'>
      <driver name='qemu' type='raw' queues='2'/>
      <source type='unix' path='{socket}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <serial type='file'><source path='{folder}/console'/></serial>
    <channel type='unix'>
      <source mode='connect' path='{folder}/agent'/>
      <target type='virtio' name='sluice.agent'/>
    </channel>
    <memballoon model='none'/>
    <controller type='usb' model='none'/>
  </devices>
</domain>
"""


class Libvirt:
    """A libvirtd in the foreground, and `virsh` connected to it."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="sluice-libvirt.")
        self.env = {**os.environ, "HOME": self.folder}
        for name in ("CONFIG", "CACHE", "DATA"):
            self.env[f"XDG_{name}_HOME"] = f"{self.folder}/{name.lower()}"
        self.env["XDG_RUNTIME_DIR"] = f"{self.folder}/run"
        self.root = os.geteuid() == 0
        self.made = []  # Folders that are there for our mounts only.
        self.daemon = None

    def start(self):
        """Starts it; root's gets a mount namespace, in which its fixed places are empty."""
        os.mkdir(f"{self.folder}/run", 0o700)
        command = ["libvirtd"]
        if self.root:
            script = "set -e; mount --make-rprivate /; "
            for path in FIXED:
                if not os.path.exists(path):
                    os.makedirs(path)
                    self.made.append(path)
                script += f"mount -t tmpfs none {path}; "
            # It looks for the user that Debian's package of the system service makes.
            for name, line in USER.items():
                with open(name, encoding="utf-8") as file:
                    pathlib.Path(self.folder, name[5:]).write_text(file.read() + line, "utf-8")
                script += f"mount --bind {self.folder}/{name[5:]} {name}; "
            script += "printf '%s' \"$1\" >/etc/libvirt/qemu.conf; exec libvirtd"
            command = ["unshare", "--mount", "sh", "-c", script, "sh", CONFIG]
        with open(f"{self.folder}/log", "wb") as log:
            self.daemon = subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL,
                                           stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.virsh("list", check=False).returncode != 0:
            assert self.daemon.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.2)

    def said(self):
        """What the daemon said."""
        with open(f"{self.folder}/log", encoding="utf-8", errors="replace") as file:
            return file.read()[-4000:]

    def virsh(self, *args, check=True):
        """Runs virsh where the daemon lives."""
        enter = ["nsenter", "-m", "-t", str(self.daemon.pid)] if self.root else []
        uri = "qemu:///system" if self.root else "qemu:///session"
        result = subprocess.run([*enter, "virsh", "-c", uri, *args], env=self.env, check=False,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert not check or result.returncode == 0, f"virsh {args}: {result.stdout}{self.said()}"
        return result

    def close(self):
        """Ends the domain and the daemon."""
        if self.daemon and self.daemon.poll() is None:
            self.virsh("destroy", "sluice-test", check=False)
            self.daemon.terminate()
            try:
                self.daemon.wait(20)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in self.made:
            os.rmdir(path)


@pytest.fixture(name="libvirt")
def private_libvirt():
    """A libvirtd for this test."""
    daemon = Libvirt()
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


class Domain(Guest):
    """The guest of a domain: libvirt starts its QEMU, the agent is ours as ever."""

    def __init__(self, libvirt, disk_socket):
        super().__init__([], accel="tcg")
        self.libvirt = libvirt
        self.disk_socket = disk_socket

    def start(self, timeout_s=BOOT_TIMEOUT_S):
        """`virsh create` of a domain that vanishes when it ends."""
        self.dir, self.process = self.libvirt.folder, self.libvirt.daemon
        listener = self._listen("agent")
        path = f"{self.dir}/domain.xml"
        with open(path, "w", encoding="ascii") as out:
            out.write(DOMAIN.format(image=build_image(), arguments=kernel_arguments(self.tty),
                                    qemu=shutil.which(self.qemu), socket=self.disk_socket,
                                    folder=self.dir))
        self.libvirt.virsh("create", path)
        deadline = time.monotonic() + timeout_s
        self._agent = self._accept(listener, deadline)
        self.wait_ready(deadline - time.monotonic())
        return self


def test_domain(libvirt, target_class, backing):
    """The disk is there with its queues, does I/O, survives `virsh reset`; the domain is destroyed."""
    with target_class([backing("disk", "file", num_queues=2, serial="by-libvirt")]) as target:
        guest = Domain(libvirt, target.socket("disk")).start()
        assert guest.run("ls /sys/block/vda/mq | wc -l; cat /sys/block/vda/serial") \
            == "2\nby-libvirt"
        guest.fio(FIO)
        assert "vda" in libvirt.virsh("domblklist", "sluice-test").stdout
        libvirt.virsh("reset", "sluice-test")
        guest.wait_ready()
        guest.fio(FIO + "--verify_only=1")
        libvirt.virsh("destroy", "sluice-test")
        assert "sluice-test" not in libvirt.virsh("list", "--all").stdout
        target.stop()
