"""The command `lumbung`. Errors are one line on stderr: exit 1; 78 for a configuration that must be mended."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from lumbung.errors import LumbungError

EXIT_WRONG = 1
EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h
EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command line of this process and exit."""
    from lumbung.cli.app import app
    from lumbung.cli.signals import orderly_end
    from lumbung.errors import ConfigurationError, LumbungError

    _open_closed_streams()
    try:
        with orderly_end():
            try:
                app(prog_name="lumbung")
            finally:
                sys.stdout.flush()
    except ConfigurationError as error:
        _tell(error)
        sys.exit(EXIT_CONFIGURATION)
    except LumbungError as error:
        _tell(error)
        sys.exit(EXIT_WRONG)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _give_up(sys.stdout)
        print(f"lumbung: {error.strerror}: output is missing, but the command may have taken effect", file=sys.stderr)
        sys.exit(EXIT_WRONG)
    finally:
        # Python ends with 120 when the log's last lines find no room: that says nothing of what was done.
        try:
            sys.stderr.flush()
        except (OSError, ValueError):
            _give_up(sys.stderr)


def _tell(error: LumbungError) -> None:
    from lumbung.cli import output

    output.note(f"lumbung: {error}")
    for problem in error.problems:
        output.note(f"  {problem.field}: {problem.message}")


def _open_closed_streams() -> None:
    """Who is started with `>&-` has no stdout at all."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for as long as we run)


def _give_up(stream: TextIO) -> None:
    """What is left in its buffer would be tried, and complained of, once more at the exit."""
    with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
