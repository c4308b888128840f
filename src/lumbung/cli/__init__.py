"""The command `lumbung`. Errors are one line on stderr: exit 1; 78 for a configuration that must be mended."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

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

    try:
        with orderly_end():
            app(prog_name="lumbung")
    except ConfigurationError as error:
        _tell(error)
        sys.exit(EXIT_CONFIGURATION)
    except LumbungError as error:
        _tell(error)
        sys.exit(EXIT_WRONG)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _tell(error: LumbungError) -> None:
    from lumbung.cli import output

    output.note(f"lumbung: {error}")
    for problem in error.problems:
        output.note(f"  {problem.field}: {problem.message}")
