"""Whom the embedded PostgreSQL runs as. It refuses to run as root, so then it gets a system user of its own, which is
let through to its files."""

from __future__ import annotations

import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from lumbung.errors import ConfigurationError

if sys.platform != "win32":
    import pwd

POLL_SECONDS = 0.05
ROOT_RUNS_AS = "pgserver"
USERADD = ("useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin")


def let_through(path: Path) -> None:
    """Let other users pass through every folder on the way to `path`, without letting them read those."""
    for folder in path.parents:
        mode = stat.S_IMODE(folder.stat().st_mode)
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def let_read(path: Path) -> None:
    """Let other users read and run all of what is in `path`."""
    for each in [path, *path.rglob("*")]:
        if each.exists() and not each.is_symlink():
            mode = stat.S_IMODE(each.stat().st_mode)
            runs = each.is_dir() or mode & stat.S_IXUSR
            each.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if runs else 0))


def system_user() -> tuple[int, int]:
    """The ids of the user that PostgreSQL runs as when we are root; the user is made where there is none."""
    problem = ""
    for _ in range(100):  # /etc/passwd is locked while another process adds a user, perhaps this one
        with suppress(KeyError):
            entry = pwd.getpwnam(ROOT_RUNS_AS)
            return entry.pw_uid, entry.pw_gid
        try:
            made = subprocess.run(
                [*USERADD, ROOT_RUNS_AS],
                capture_output=True,
                text=True,
                check=False,
            )
        except OSError as error:
            problem = f"useradd: {error.strerror}"
            break
        problem = " ".join(made.stderr.split())
        if made.returncode != 0:
            time.sleep(POLL_SECONDS)
    raise ConfigurationError(
        f"PostgreSQL does not run as root and the user {ROOT_RUNS_AS} cannot be made ({problem}): "
        "run Lumbung as an ordinary user"
    )


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
