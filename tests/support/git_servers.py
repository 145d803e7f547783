"""Real git servers for tests: sshd, and nginx with git's own http-backend, each on a free port of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.components import used

READY = 10.0
SSHD = "/usr/sbin/sshd"
NGINX = "/usr/sbin/nginx"
FCGIWRAP = "/usr/sbin/fcgiwrap"
HTTP_BACKEND = "/usr/lib/git-core/git-http-backend"


@dataclass(frozen=True, slots=True)
class GitServer:
    """A running server: `url(path)` addresses a bare repository below its root; `env` is what a client needs."""

    version: str
    root: Path
    prefix: str
    env: dict[str, str] = field(default_factory=dict)

    def url(self, repository: Path) -> str:
        return self.prefix + (str(repository) if self.env else "/" + str(repository.relative_to(self.root)))


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, ready: Path | int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server, and what it starts, until the block ends; ready when its port answers or its socket file is
    there."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + READY
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text(errors='replace')}")
            time.sleep(0.01)
        yield process
    finally:
        # fcgiwrap ends without ending its workers.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=10)


def _answers(ready: Path | int) -> bool:
    if isinstance(ready, Path):
        return ready.exists()
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", ready)) == 0


def _version(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[0]


@contextlib.contextmanager
def ssh_server(home: Path, root: Path) -> Iterator[GitServer]:
    """An sshd with keys made for it; the client knows its host key and nothing else."""
    home.mkdir(parents=True, exist_ok=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / name], check=True)
    (home / "authorized").write_bytes((home / "client.pub").read_bytes())
    port = free_port()
    host_key = " ".join((home / "host.pub").read_text().split()[:2])
    (home / "known").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    (home / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host\nAuthorizedKeysFile {home}/authorized\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
    )
    options = f"-F none -i {home}/client -o IdentitiesOnly=yes -o UserKnownHostsFile={home}/known"
    env = {"GIT_SSH_COMMAND": f"ssh {options} -o StrictHostKeyChecking=yes"}
    with running([SSHD, "-D", "-e", "-f", str(home / "sshd_config")], home / "sshd.log", port):
        version = _version(["ssh", "-V"])
        used("openssh", version)
        yield GitServer(version, root, f"ssh://root@127.0.0.1:{port}", env)


@contextlib.contextmanager
def http_server(home: Path, root: Path, port: int = 0) -> Iterator[GitServer]:
    """nginx in front of git http-backend; repositories below `root` need http.receivepack=true to be pushed to.

    `port` 0 takes a free one.
    """
    home.mkdir(parents=True, exist_ok=True)
    port, wrap = port or free_port(), home / "fcgi.sock"
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"{kind}_temp_path {home}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (home / "nginx.conf").write_text(
        f"""{user}
daemon off; master_process on; worker_processes 1; pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off;
  {temporary}
  server {{
    listen 127.0.0.1:{port};
    client_max_body_size 0;
    location / {{
      fastcgi_pass unix:{wrap};
      fastcgi_param SCRIPT_FILENAME {HTTP_BACKEND};
      fastcgi_param GIT_PROJECT_ROOT {root};
      fastcgi_param GIT_HTTP_EXPORT_ALL 1;
      fastcgi_param PATH_INFO $uri;
      fastcgi_param QUERY_STRING $query_string;
      fastcgi_param REQUEST_METHOD $request_method;
      fastcgi_param CONTENT_TYPE $content_type;
      fastcgi_param CONTENT_LENGTH $content_length;
      fastcgi_param REMOTE_ADDR $remote_addr;
    }}
  }}
}}
"""
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(running([FCGIWRAP, "-c", "2", "-s", f"unix:{wrap}"], home / "fcgiwrap.log", wrap))
        command = [NGINX, "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")]
        stack.enter_context(running(command, home / "nginx.log", port))
        version = _version([NGINX, "-v"])
        used("nginx", version)
        yield GitServer(version, root, f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """An address that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/silent.git"
