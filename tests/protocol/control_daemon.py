# SPDX-License-Identifier: Apache-2.0
"""A sluice daemon under test, and a JSON-RPC client that speaks to it byte by byte if wanted."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def sluice_binary():
    given = os.environ.get("SLUICE_BIN")
    return given if given else str(ROOT / "build" / "src" / "sluice")


class RpcError(Exception):
    def __init__(self, error):
        super().__init__(f"{error['code']}: {error['message']}")
        self.code = error["code"]
        self.message = error["message"]


class RpcClient:
    """One connection. call() for well-behaved requests, send_raw() and receive() for the others."""

    def __init__(self, path, timeout=20):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(path))  # blocking: waits for its place in a full backlog
        self.sock.settimeout(timeout)
        self.buffer = ""
        self.decoder = json.JSONDecoder()
        self.next_id = 1

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    def send_raw(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode())

    def receive(self):
        """The next JSON value, or None at the end of the stream."""
        while True:
            text = self.buffer.lstrip()
            if text:
                try:
                    value, end = self.decoder.raw_decode(text)
                    self.buffer = text[end:]
                    return value
                except json.JSONDecodeError:
                    pass
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.buffer += data.decode()

    def request(self, method, params=None):
        request = {"jsonrpc": "2.0", "id": self.next_id, "method": method}
        if params is not None:
            request["params"] = params
        self.next_id += 1
        return request

    def call(self, method, params=None, **more):
        request = self.request(method, params if params is not None else (more or None))
        self.send_raw(json.dumps(request))
        answer = self.receive()
        assert answer is not None, f"connection closed instead of an answer to {method}"
        assert answer["id"] == request["id"]
        if "error" in answer:
            raise RpcError(answer["error"])
        return answer["result"]


class Daemon:
    """`sluice serve` in a directory of its own. args are added to the command line; images, if
    there are any, replace run and state directory."""

    def __init__(self, directory, args=(), images=(), env=None):
        self.directory = pathlib.Path(directory)
        self.run_dir = self.directory / "run"
        self.state_dir = self.directory / "state"
        self.log_path = self.directory / "sluice.log"
        self.env = env
        self.process = None
        if images:
            self.socket = pathlib.Path(f"{images[0]}.rpc")
            self.command = [sluice_binary(), "serve", *map(str, images), *map(str, args)]
        else:
            self.socket = self.run_dir / "sluice.sock"
            self.command = [sluice_binary(), "serve", "--run-dir", str(self.run_dir),
                            "--state-dir", str(self.state_dir), *map(str, args)]

    @property
    def pid(self):
        return self.process.pid

    @property
    def config_path(self):
        return self.state_dir / "config.json"

    def config(self):
        return json.loads(self.config_path.read_text())

    def log(self):
        return self.log_path.read_text() if self.log_path.exists() else ""

    def spawn(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=log,
                                            env=self.env)

    def start(self, timeout=20):
        """Returns once the daemon answers."""
        self.spawn()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"exited with {self.process.returncode}:\n{self.log()}")
            try:
                with self.client() as client:
                    client.call("spdk_get_version")
                return self
            except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError,
                    AssertionError):
                time.sleep(0.02)
        raise RuntimeError(f"no answer in {timeout} s:\n{self.log()}")

    def start_fails(self, timeout=20):
        """Expects the start to fail; returns (exit code, log)."""
        self.spawn()
        self.process.communicate(timeout=timeout)
        return self.process.returncode, self.log()

    def _end(self, number, timeout):
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(number)
        output, _ = self.process.communicate(timeout=timeout)
        self.output = output.decode()
        code, self.process = self.process.returncode, None
        return code

    def stop(self, timeout=20):
        """A clean stop; returns the exit code."""
        return self._end(signal.SIGTERM, timeout)

    def kill(self):
        return self._end(signal.SIGKILL, 20)

    def __enter__(self):
        return self.start()

    def __exit__(self, *unused):
        if self.process is not None:
            code = self.stop()
            assert code == 0, f"exit code {code}:\n{self.log()}"

    def client(self, timeout=20):
        return RpcClient(self.socket, timeout)

    def rpc(self, method, params=None, **more):
        with self.client() as client:
            return client.call(method, params, **more)

    def fd_count(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def fd_count_at_rest(self, timeout=5):
        """The count once connections that clients have closed are closed here as well."""
        deadline = time.monotonic() + timeout
        counts = [self.fd_count()]
        while time.monotonic() < deadline and counts[-10:] != counts[-1:] * 10:
            time.sleep(0.02)
            counts.append(self.fd_count())
        return counts[-1]

    def fd_count_settles_at(self, wanted, timeout=5):
        deadline = time.monotonic() + timeout
        while self.fd_count() != wanted and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.fd_count()

    def is_sanitized(self):
        return "libasan" in pathlib.Path(f"/proc/{self.pid}/maps").read_text()

    def rss_kib(self):
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0

    def cli(self, *args, **options):
        """Runs a client verb; returns the completed process."""
        env = dict(os.environ, SLUICE_RPC_SOCKET=str(self.socket))
        return subprocess.run([sluice_binary(), *map(str, args)], env=env, text=True,
                              capture_output=True, timeout=60, **options)
