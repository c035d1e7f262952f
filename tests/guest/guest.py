# SPDX-License-Identifier: Apache-2.0
"""A small Linux guest under QEMU, with vhost-user disks, that runs shell scripts for the host.

    with Guest([Disk("/run/sluice/vhost.0", num_queues=2)], smp=2) as guest:
        print(guest.run("cat /sys/block/vda/size"))
        print(guest.fio("--name=t --filename=/dev/vda --rw=randread --runtime=3 --time_based"))
        guest.qmp("system_reset"); guest.wait_ready()

QEMU connects to three sockets of ours: the serial port of the guest's agent (see `init`), QMP, and
the disks. The console goes to a file, whose end is part of every error.
"""
import base64
import dataclasses
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import platform
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "guest"

ACPI_OFF_TIMEOUT_S = 20
# Emulated guests on a busy machine are slow; a working one is never near these.
BOOT_TIMEOUT_S = 180
RUN_TIMEOUT_S = 120
KVM_PROBE_TIMEOUT_S = 10

# Of each block that fio found wrong: how many bytes of each of its sectors differ.
COMPARE_DUMPS = """cd /tmp; for f in *.received; do [ -e "$f" ] || continue
echo "$f, wrong bytes by sector: $(cmp -l "$f" "${f%received}expected" |
	awk '{ n[int(($1 - 1) / 512)]++ } END { for (s in n) printf "%d:%d ", s, n[s] }')"
done"""

MACHINES = {
    "x86_64": ("qemu-system-x86_64", "q35", "ttyS0", "max"),
    "aarch64": ("qemu-system-aarch64", "virt", "ttyAMA0", "max"),
}


class GuestError(Exception):
    """The guest did not do what it was asked."""


@dataclasses.dataclass
class Disk:
    """A disk served on a vhost-user socket."""
    socket: str
    num_queues: int = 1
    queue_size: int = 128
    reconnect_s: int = 0  # QEMU connects again this long after the socket closed; 0: never.
    options: str = ""     # More device properties, e.g. "bootindex=1".


def build_image():
    """The folder with the guest's vmlinuz and initrd."""
    loader = importlib.machinery.SourceFileLoader("guest_image", str(HERE / "image"))
    spec = importlib.util.spec_from_loader("guest_image", loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module.build()


def kernel_arguments(tty):
    """What every guest's kernel is told."""
    return f"console={tty} quiet panic=-1 mitigations=off nokaslr random.trust_cpu=on"


def backports_qemu():
    """Debian 13's newer QEMU, fetched into .cache if need be."""
    fetched = subprocess.run([HERE / "fetch-qemu"], stdout=subprocess.PIPE, text=True, check=True)
    return fetched.stdout.strip()


def _version(binary):
    out = subprocess.run([binary, "--version"], stdout=subprocess.PIPE, text=True, check=True)
    return out.stdout.split("\n")[0]


def _is_newer(binary):
    """Whether this QEMU calls `reconnect` by its new name, which came before the old one went."""
    major = re.search(r"version (\d+)\.", _version(binary))
    return major is not None and int(major.group(1)) >= 10


def kvm_works(qemu):
    """Whether KVM runs a whole guest here. That /dev/kvm opens says little (nested, filtered), so
    this boots one; the answer is kept until the host boots anew or QEMU changes."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    boot_id = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    key = f"{boot_id} {_version(qemu)}"
    answer = CACHE / "kvm-works"
    try:
        known = json.loads(answer.read_text(encoding="ascii"))
        if known["key"] == key:
            return known["works"]
    except (OSError, ValueError, KeyError):
        pass
    guest = Guest([], accel="kvm", memory_mib=256, qemu=qemu)
    try:
        guest.start(KVM_PROBE_TIMEOUT_S)
        works = guest.run("echo works", timeout_s=5) == "works\n"
    except GuestError:
        works = False
    finally:
        guest.kill()
    CACHE.mkdir(parents=True, exist_ok=True)
    tmp = answer.with_suffix(f".{os.getpid()}")
    tmp.write_text(json.dumps({"key": key, "works": works}), encoding="ascii")
    tmp.rename(answer)
    return works


class Guest:
    """One virtual machine. `start()` returns when its agent answers."""

    # pylint: disable=too-many-instance-attributes
    def __init__(self, disks, smp=1, memory_mib=512, accel=None, qemu=None, extra=(), append="",
                 hotplug_ports=0, firmware_boot=False, incoming=()):
        """`firmware_boot`: no kernel is given to QEMU, its firmware finds one on a disk.
        `incoming`: it waits for another guest to migrate here (see `adopt`); QEMU's arguments."""
        machine = platform.machine()
        if machine not in MACHINES:
            raise GuestError(f"no guest is prepared for {machine}; there is one for "
                             + " and ".join(MACHINES))
        binary, self.machine, self.tty, self.cpu = MACHINES[machine]
        self.qemu = qemu or binary
        self.disks = disks
        self.smp = smp
        self.memory_mib = memory_mib
        self.extra = list(extra)
        self.append = append
        self.hotplug_ports = hotplug_ports
        self.firmware_boot = firmware_boot
        self.incoming = list(incoming)
        self._listeners = []
        self.events = []  # Of QMP, not yet waited for.
        self.accel = accel
        self.boots = 0
        self.process = None
        self._agent = self._qmp = None
        self._agent_bytes = b""
        self._qmp_bytes = b""
        self._request = 0
        self.dir = None

    # Life --------------------------------------------------------------------------------------

    def command(self, image):
        """QEMU's command line."""
        args = [self.qemu, "-nodefaults", "-no-user-config", "-display", "none",
                "-accel", "kvm" if self.accel == "kvm" else "tcg,thread=multi",
                "-machine", f"{self.machine},memory-backend=mem",
                "-cpu", "host" if self.accel == "kvm" else self.cpu,
                "-smp", str(self.smp), "-m", f"{self.memory_mib}M",
                "-object", f"memory-backend-memfd,id=mem,size={self.memory_mib}M,share=on",
                "-serial", f"file:{self.dir}/console",
                "-chardev", f"socket,id=agent,path={self.dir}/agent",
                "-device", "virtio-serial-pci",
                "-device", "virtserialport,chardev=agent,name=sluice.agent",
                "-chardev", f"socket,id=qmp,path={self.dir}/qmp",
                "-mon", "chardev=qmp,mode=control"]
        if not self.firmware_boot:
            args += ["-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd"),
                     "-append", kernel_arguments(self.tty) + " " + self.append]
        for channel in self.incoming:
            args += ["-incoming", channel]
        for i in range(self.hotplug_ports):
            args += ["-device", f"pcie-root-port,id=port{i},chassis={i + 1},slot={i + 1}"]
        for i, disk in enumerate(self.disks):
            chardev = f"socket,id=disk{i},path={disk.socket}"
            if disk.reconnect_s:
                chardev += (f",reconnect-ms={disk.reconnect_s * 1000}" if _is_newer(self.qemu)
                            else f",reconnect={disk.reconnect_s}")
            device = (f"vhost-user-blk-pci,chardev=disk{i},id=blk{i},num-queues={disk.num_queues},"
                      f"queue-size={disk.queue_size}")
            args += ["-chardev", chardev,
                     "-device", device + ("," + disk.options if disk.options else "")]
        return args + self.extra

    def start(self, timeout_s=BOOT_TIMEOUT_S):
        """Boots and waits until the agent is ready, or until QEMU waits for a migration."""
        self.launch()
        deadline = time.monotonic() + timeout_s
        self.connect(timeout_s)
        if not self.incoming:
            self.wait_ready(deadline - time.monotonic())
        return self

    def launch(self):
        """Starts QEMU and waits for nothing."""
        if not shutil.which(self.qemu):
            raise GuestError(f"{self.qemu} is not installed: run scripts/install-deps check")
        if self.accel is None:
            self.accel = "kvm" if kvm_works(self.qemu) else "tcg"
        image = build_image()
        self.dir = tempfile.mkdtemp(prefix="sluice-guest.")
        self.listen()
        with open(f"{self.dir}/qemu.log", "wb") as log:
            # A group of its own: Ctrl-C reaches us, and we end the guest.
            self.process = subprocess.Popen(self.command(image), stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)

    def listen(self):
        """Makes the sockets that QEMU connects to when it starts, or starts anew."""
        self._listeners = [self._listen("agent"), self._listen("qmp")]

    def connect(self, timeout_s=BOOT_TIMEOUT_S):
        """Waits for QEMU's connections."""
        deadline = time.monotonic() + timeout_s
        for sock in (self._agent, self._qmp):
            if sock:
                sock.close()
        self._agent, self._qmp = (self._accept(s, deadline) for s in self._listeners)
        self._agent_bytes = self._qmp_bytes = b""
        self._qmp_line(deadline)  # The greeting.
        self.qmp("qmp_capabilities")

    def _listen(self, name):
        path = pathlib.Path(self.dir, name)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(1)
        return listener

    def _accept(self, listener, deadline):
        with listener:
            while not select.select([listener], [], [], 0.1)[0]:
                self._check_alive(deadline, "QEMU to start")
            return listener.accept()[0]

    def power_off(self):
        """An orderly end of QEMU: the guest has synced, its devices are torn down."""
        self.run("sync")
        try:
            self.qmp("quit")
        except GuestError:
            pass  # It may be gone before it answers.
        try:
            self.process.wait(ACPI_OFF_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise self._error("QEMU did not end after `quit`") from None
        finally:
            self.kill()

    def kill(self):
        """kill -9 QEMU, and forget all about it."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        for sock in (self._agent, self._qmp):
            if sock:
                sock.close()
        self._agent = self._qmp = None
        if self.dir:
            shutil.rmtree(self.dir, ignore_errors=True)
            self.dir = None

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *_):
        self.kill()

    # Talking -----------------------------------------------------------------------------------

    def console(self):
        """What the guest's kernel said."""
        try:
            return pathlib.Path(self.dir, "console").read_text("utf-8", "replace")
        except (OSError, TypeError):
            return ""

    def qemu_log(self):
        """What QEMU itself said."""
        try:
            return pathlib.Path(self.dir, "qemu.log").read_text("utf-8", "replace")
        except (OSError, TypeError):
            return ""

    def _error(self, message):
        tail = "\n".join(self.console().splitlines()[-25:])
        return GuestError(f"{message}\n--- QEMU said:\n{self.qemu_log()}\n--- console:\n{tail}")

    def _check_alive(self, deadline, waiting_for):
        if self.process.poll() is not None:
            raise self._error(f"QEMU ended with {self.process.returncode}, waiting for "
                              f"{waiting_for}")
        if time.monotonic() > deadline:
            raise self._error(f"timeout waiting for {waiting_for}")

    def _line(self, sock, pending, deadline, waiting_for):
        """One line from `sock`; returns it and the bytes after it."""
        while b"\n" not in pending:
            if select.select([sock], [], [], 0.5)[0]:
                data = sock.recv(1 << 16)
                if not data:
                    time.sleep(0.05)
                    self._check_alive(deadline, waiting_for)
                    raise self._error(f"QEMU closed its end, waiting for {waiting_for}")
                pending += data
            else:
                self._check_alive(deadline, waiting_for)
        line, _, rest = pending.partition(b"\n")
        return line, rest

    def _agent_line(self, deadline, waiting_for):
        line, self._agent_bytes = self._line(self._agent, self._agent_bytes, deadline, waiting_for)
        return line.decode("ascii", "replace").split()

    def wait_ready(self, timeout_s=BOOT_TIMEOUT_S):
        """Waits for the agent of a (re)booted guest."""
        deadline = time.monotonic() + timeout_s
        while self._agent_line(deadline, "the guest to boot")[:1] != ["ready"]:
            pass
        self.boots += 1

    def send(self, script):
        """Starts a shell script in the guest and returns its number for `result`."""
        self._request += 1
        encoded = base64.b64encode(script.encode()).decode()
        self._agent.sendall(f"{self._request} {encoded}\n".encode())
        return self._request

    def result(self, request, script="", timeout_s=RUN_TIMEOUT_S):
        """(status, stdout, stderr) of a script that was sent."""
        deadline = time.monotonic() + timeout_s
        while True:
            words = self._agent_line(deadline, f"the guest to run: {script}")
            if words[:1] == ["ready"]:
                raise self._error(f"the guest rebooted under: {script}")
            if words[:1] == [str(request)]:
                break
        texts = ["" if w == "-" else base64.b64decode(w).decode("utf-8", "replace")
                 for w in words[2:4]]
        return int(words[1]), texts[0], texts[1]

    def try_run(self, script, timeout_s=RUN_TIMEOUT_S):
        """Runs a shell script in the guest: (status, stdout, stderr)."""
        return self.result(self.send(script), script, timeout_s)

    def run(self, script, timeout_s=RUN_TIMEOUT_S):
        """Runs a shell script that must succeed; returns what it printed."""
        status, out, err = self.try_run(script, timeout_s)
        if status != 0:
            raise self._error(f"the guest's `{script}` ended with {status}:\n{out}{err}")
        return out

    def fio(self, options, timeout_s=RUN_TIMEOUT_S):
        """Runs fio in the guest; returns its first job's results, from fio's JSON."""
        status, out, err = self.try_run("cd /tmp && fio --output-format=json --verify_dump=1 "
                                        f"{options}", timeout_s)
        try:
            job = json.loads(out[out.index("{"):])["jobs"][0]
        except (ValueError, LookupError):
            raise self._error(f"fio {options} said:\n{out}{err}") from None
        if status != 0 or job["error"] != 0:
            raise self._error(f"fio {options} failed: {status}, {err}{self.run(COMPARE_DUMPS)}")
        return job

    def _qmp_line(self, deadline):
        line, self._qmp_bytes = self._line(self._qmp, self._qmp_bytes, deadline, "QMP")
        return json.loads(line)

    def qmp(self, command, **arguments):
        """Runs a QMP command and returns its result; events are kept for `wait_event`."""
        deadline = time.monotonic() + RUN_TIMEOUT_S
        request = {"execute": command, "arguments": arguments}
        self._qmp.sendall(json.dumps(request).encode() + b"\n")
        while True:
            message = self._qmp_line(deadline)
            if "error" in message:
                raise self._error(f"QMP {command}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]
            self.events.append(message)

    def wait_event(self, *names, timeout_s=RUN_TIMEOUT_S):
        """The next QMP event of one of these names; those before it are forgotten."""
        deadline = time.monotonic() + timeout_s
        while True:
            while self.events:
                event = self.events.pop(0)
                if event["event"] in names:
                    return event
            self.events.append(self._qmp_line(deadline))

    def adopt(self, source):
        """Goes on where `source` was, whose guest migrated here."""
        self._request, self.boots = source._request, source.boots

    def reset(self):
        """The reset button: the guest starts anew, QEMU and its connections stay."""
        self.qmp("system_reset")
        self.wait_ready()
