"""PostgreSQL, from the system's package or PyPI's pgserver, as an unprivileged user."""

import os
import pwd
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from ouroboros.parts.process import PartFailed, PartMissing, Process, answers, free_port, launch

SYSTEM = Path("/usr/lib/postgresql")  # Debian keeps the server's programs off PATH


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL whose user `ouroboros` may do all."""

    folder: Path
    port: int
    process: list[Process] = field(repr=False, compare=False)
    password: str = field(default="", repr=False)  # local clients need none

    @property
    def url(self) -> str:
        """What `OUROBOROS_RECORDS_URL` takes; the database that is always there."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        user = f"ouroboros:{self.password}" if self.password else "ouroboros"
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        return self.process[0].pid

    def kill(self) -> None:
        """kill -9 of the server and all that it started."""
        self.process[0].kill()

    def restart(self) -> None:
        """Start again on the same port and data."""
        self.kill()
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        self.process[0] = run_postgres(self.folder, self.port)

    def stop(self) -> None:
        # SIGINT is PostgreSQL's fast shutdown: it does not wait for clients to leave.
        self.process[0].stop(10, signal.SIGINT)


def start_postgres(folder: Path, port: int | None = None) -> Postgres:
    """Start PostgreSQL on `folder`'s data, made where there is none; local clients are trusted.

    As root the server runs as `postgres` or `nobody`, who must be able to reach the folder.
    Raises PartMissing, PartFailed.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    user = unprivileged()
    if user:
        shut = closed(folder.parent)
        if shut:
            raise PartFailed(f"as root PostgreSQL runs as another user, whom {shut} keeps out")
        os.chown(folder, *user)
    if not (folder / "data" / "PG_VERSION").exists():
        initialise(folder, user)
    port = port or free_port()
    return Postgres(folder, port, [run_postgres(folder, port)])


def initialise(folder: Path, user: tuple[int, int] | None) -> None:
    options = ["-A", "trust", "-U", "ouroboros", "-E", "UTF8", "--locale=C", "--no-sync"]
    uid, gid = user or (None, None)
    done = subprocess.run(
        [str(programs(folder, user) / "initdb"), *options, "-D", str(folder / "data")],
        cwd=folder,
        capture_output=True,
        text=True,
        user=uid,
        group=gid,
        extra_groups=[] if user else None,
    )
    if done.returncode:
        raise PartFailed(f"initdb failed:\n{done.stderr[-2000:]}")


def run_postgres(folder: Path, port: int) -> Process:
    data = ["-D", str(folder / "data"), "-p", str(port), "-h", "127.0.0.1"]
    # No socket file: its path could be too long. Data here is not worth a sync to disk.
    settings = ["-c", "unix_socket_directories=", "-c", "fsync=off"]
    user = unprivileged()
    command = [str(programs(folder, user) / "postgres"), *data, *settings]
    process = launch("postgres", command, folder, user=user)
    ready = "database system is ready to accept connections"
    process.wait_until(lambda: process.said(ready) and answers(port), 30)
    return process


def programs(folder: Path, user: tuple[int, int] | None) -> Path:
    """The folder of PostgreSQL's programs, where `user` can reach it. Raises PartMissing."""
    found = installed()
    if user is None or not closed(found):
        return found
    # Only PyPI's lie so deep; they find their libraries beside them, so both are copied.
    package, copies = found.parents[1], folder / "server"
    for source in (package / "pginstall", package.with_name("pgserver.libs")):
        target = copies / source.relative_to(package.parent)
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    return copies / "pgserver" / "pginstall" / "bin"


def installed() -> Path:
    """The folder of PostgreSQL's programs. Raises PartMissing."""
    places = [p for p in os.environ.get("PATH", "").split(os.pathsep) if p]
    places += [str(p) for p in sorted(SYSTEM.glob("*/bin"), key=newest)]
    places += [str(Path(package, "pginstall", "bin")) for package in pgserver()]
    found = shutil.which("initdb", path=os.pathsep.join(places))
    if found is None:
        raise PartMissing(
            "PostgreSQL's server is not installed: apt install postgresql, "
            "brew install postgresql@17, or pip install pgserver"
        )
    return Path(found).parent


def closed(folder: Path) -> Path | None:
    """The first folder on the way that keeps others out."""
    return next((f for f in (folder, *folder.parents) if not f.stat().st_mode & 0o001), None)


def pgserver() -> list[str]:
    """The folder of PyPI's pgserver, where that is installed."""
    spec = find_spec("pgserver")
    return list(spec.submodule_search_locations or ()) if spec else []


def newest(folder: Path) -> int:
    return -int(folder.parent.name.split(".")[0])


def unprivileged() -> tuple[int, int] | None:
    """(uid, gid) to drop to where we are root."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise PartMissing("PostgreSQL will not run as root, and there is no user postgres or nobody")
