# SPDX-License-Identifier: Apache-2.0
"""The guides tell the truth: every block of shell in them is run, in order, as a reader would."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree

import pytest

from control_daemon import ROOT, Daemon, sluice_binary

GUIDES = {name: (ROOT / "docs" / f"{name}.md").read_text()
          for name in ("getting-started", "troubleshooting")}


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def sandbox():
    """An empty directory with a short name, and an environment in which sluice is installed."""
    with tempfile.TemporaryDirectory(prefix="sluice-") as path:
        path = pathlib.Path(path)
        for name in ("bin", "home", "work"):
            (path / name).mkdir()
        (path / "bin" / "sluice").symlink_to(pathlib.Path(sluice_binary()).resolve())
        qemu = shutil.which("qemu-system-x86_64")
        if qemu:
            # The real one, with the reader's arguments; it ends when all devices are there.
            wrapper = path / "bin" / "qemu-system-x86_64"
            wrapper.write_text(f'#!/bin/sh\necho quit | exec {qemu} "$@" -S -monitor stdio\n')
            wrapper.chmod(0o755)
        env = {key: value for key, value in os.environ.items()
               if not key.startswith(("SLUICE_", "XDG_"))}
        env.update(PATH=f"{path}/bin:{env['PATH']}", HOME=str(path / "home"))
        yield path / "work", env


# Readers type more slowly than a daemon starts.
WAIT = 'for _ in $(seq 600); do [ -S "{0}" ] && break; sleep 0.05; done; [ -S "{0}" ]\n'


def daemon_socket(block):
    """The RPC socket of the daemon that a block starts, or None."""
    match = re.search(r"^sluice serve (.*) &$", block, re.MULTILINE)
    if not match:
        return None
    run_dir = re.search(r"--run-dir (\S+)", match.group(1))
    return f"{run_dir.group(1)}/sluice.sock" if run_dir else f"{match.group(1).split()[-1]}.rpc"


def script(texts):
    lines = ["set -eu\n"]
    for block in texts:
        lines.append(block)
        socket_path = daemon_socket(block)
        if socket_path:
            # Left over from the block before, a socket would end the wait too early; serve
            # replaces it, and a client that comes too early waits in its backlog.
            lines.append(WAIT.format(socket_path))
    return "".join(lines)


def run(text, directory, env):
    """Runs a script in a session of its own, all of which ends with it."""
    process = subprocess.Popen(["bash", "-c", text], cwd=directory, env=env, text=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=180)
    finally:
        for pid in session_members(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, output
    return output


def session_members(session):
    members = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session:
            members.append(int(stat.parent.name))
    return members


def test_getting_started(sandbox):
    directory, env = sandbox
    texts = blocks(GUIDES["getting-started"], "sh")
    assert len(texts) >= 15
    if not shutil.which("qemu-system-x86_64"):
        texts = [text for text in texts if "qemu-system" not in text]
        print("no QEMU here: its block is NOT tested")
    output = run(script(texts), directory, env)
    print(output)
    for code in (1, 2, 3):
        assert f"exit code {code}\n" in output, output
    assert "disk.img is in use" in output
    assert '"name": "Malloc0"' in (directory / "saved.json").read_text()
    assert (directory / "golden.img").stat().st_size == 1 << 30


def test_libvirt_xml_is_what_serve_prints(tmp_path):
    (text,) = blocks(GUIDES["getting-started"], "xml")
    guide = ElementTree.fromstring(text)
    daemon = Daemon(tmp_path, images=[tmp_path / "disk.img"], args=["--create", "1M"])
    with daemon:
        daemon.stop()
        printed = daemon.output.split("libvirt:\n")[1].split("Control:")[0]
        daemon.start()
    hint = ElementTree.fromstring(f"<domain>{printed}</domain>")
    for path in ("memoryBacking/source", "memoryBacking/access"):
        assert guide.find(path).attrib == hint.find(path).attrib
    for path in ("driver", "target"):
        assert guide.find(f"devices/disk/{path}").attrib == hint.find(f"disk/{path}").attrib
    assert guide.find("devices/disk").attrib == hint.find("disk").attrib


def test_troubleshooting(sandbox):
    directory, env = sandbox
    start = "sluice serve --create 1M disk.img &\n"
    texts = [start, "export SLUICE_RPC_SOCKET=disk.img.rpc\n",
             *blocks(GUIDES["troubleshooting"], "sh"), "kill %1; wait\n"]
    if "/" not in (shutil.which("ss") or ""):
        pytest.skip("no ss here")
    run(script(texts), directory, env)


def test_quoted_messages_exist():
    """A heading in quotes is a part of something that the daemon says."""
    sources = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.c"))
    sources = re.sub(r'"\s*\n\s*"', "", sources)
    quoted = re.findall(r'^### "(.*?)"$|^### ("[^\n]*")$', GUIDES["troubleshooting"], re.MULTILINE)
    messages = [m for group in quoted for m in re.findall(r'[^"]+', "".join(group))
                if m.strip(", ")]
    messages = [m for m in messages if not m.startswith("session N")]
    assert len(messages) >= 10
    for message in messages:
        # What follows a colon is the kernel's own text, put in at run time.
        assert message in sources or message.split(": ")[0] + ": %s" in sources, message
    assert "session %lu ended: %s" in sources


def test_links():
    for name, text in GUIDES.items():
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            assert (ROOT / "docs" / link).exists(), f"{name}: {link}"
