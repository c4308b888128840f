"""Every error that Lumbung raises on purpose; each knows the HTTP status that the API answers with.

    LumbungError                      500
    |-- BadRequest                    400   all problems at once, each naming its field
    |-- NotFound                      404
    |-- Conflict                      409   an idempotency key used again with another body
    |-- Unauthenticated               401   says nothing about why
    |-- Forbidden                     403
    |-- TooLarge                      413
    |-- TooMany                       429
    |-- Unavailable                   503   the database is away, or the queue is full
    |   |-- LockBusy                        a row lock was not had within lock_timeout
    |   `-- CommitUnknown                   the connection was lost while COMMIT was under way
    |-- ConfigurationError            500   a setting, file or credential that an operator must mend
    `-- UsageError                    400   a command that cannot be carried out as given

Anything else that is raised is a bug and is not caught.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a request: the field as a path (`channel_stock[1].qty`) and what to do."""

    field: str
    message: str


class LumbungError(Exception):
    """The root. `str(error)` is one line for an operator; `public` is what a partner is told, the same unless it would
    show something of the inside; `problems` name the fields concerned."""

    status: ClassVar[int] = 500

    def __init__(
        self,
        message: str,
        problems: tuple[Problem, ...] = (),
        *,
        retry_after_seconds: int | None = None,
        public: str | None = None,
    ):
        super().__init__(message)
        self.problems = problems
        self.retry_after_seconds = retry_after_seconds
        self.public = message if public is None else public


class BadRequest(LumbungError):
    status = 400


class UsageError(LumbungError):
    status = 400


class Unauthenticated(LumbungError):
    status = 401


class Forbidden(LumbungError):
    status = 403


class NotFound(LumbungError):
    status = 404


class Conflict(LumbungError):
    status = 409


class TooLarge(LumbungError):
    status = 413


class TooMany(LumbungError):
    status = 429


class Unavailable(LumbungError):
    status = 503


class LockBusy(Unavailable):
    """A row lock was not had in time; the transaction was rolled back and may be tried again."""


class CommitUnknown(Unavailable):
    """The connection was lost while COMMIT was under way: it may or may not have taken effect."""


class ConfigurationError(LumbungError):
    """A setting, file or credential that an operator must mend; the message says how."""
