"""What the sandbox refuses on purpose.

SandboxError
|-- RefusedError    400   a request to the control API that cannot be carried out as it stands
|-- UnknownError    404   a channel, store or listing that is not there
`-- StartError            the address is taken, or a log file cannot be opened
"""

from __future__ import annotations

from typing import ClassVar


class SandboxError(Exception):
    """The root. `str(error)` is one line for a person and says what to do."""

    status: ClassVar[int] = 500


class RefusedError(SandboxError):
    status = 400


class UnknownError(SandboxError):
    status = 404


class StartError(SandboxError):
    """The sandbox did not start; nothing is left behind."""
