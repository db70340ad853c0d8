"""A real PostgreSQL for tests: the Debian package's programs, a folder of its own, loopback, stopped by its own pid."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.fakes import free_port

USER = "postgres"  # whose account runs the server when we are root, which PostgreSQL refuses to be


def programs() -> Path | None:
    """Where initdb and postgres are; None when the package is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [
        Path(path) for path in [shutil.which("initdb")] if path
    ]
    return found[-1].parent if found else None


class Postgres:
    """One server, made for a test and gone with it."""

    def __init__(self, bin_folder: Path) -> None:
        self._bin = bin_folder
        self._root = os.geteuid() == 0
        self._folder = Path(tempfile.mkdtemp(prefix="memrelay-pg-"))
        self.port = free_port()
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{self._user}@127.0.0.1:{self.port}/postgres"

    @property
    def _user(self) -> str:
        return USER if self._root else getpass.getuser()

    def __enter__(self) -> Postgres:
        if self._root:
            shutil.chown(self._folder, USER, USER)
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-A", "trust", "--no-sync", "-U", self._user)
        options = ["-D", data, "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self._folder), "-F"]
        with (self._folder / "log").open("wb") as log:
            self._server = subprocess.Popen([*self._as_user("postgres"), *options], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while self._ask("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)) != 0:
            assert time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)  # a fast shutdown
            self._server.wait(30)
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self, name: str) -> str:
        """The URL of one more, empty database."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", self._user, name)
        return self.url.removesuffix("postgres") + name

    def _as_user(self, program: str) -> list[str]:
        path = str(self._bin / program)
        return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", path] if self._root else [path]

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run([*self._as_user(program), *arguments], capture_output=True, cwd=self._folder, check=False)
        assert done.returncode == 0, done.stderr.decode()

    def _ask(self, program: str, *arguments: str) -> int:
        return subprocess.run([*self._as_user(program), *arguments], capture_output=True, check=False).returncode
