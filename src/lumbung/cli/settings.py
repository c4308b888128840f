"""`lumbung settings`: every setting, what it is now, and what it means."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated

import typer

from lumbung.cli import output
from lumbung.settings import PREFIX, Settings, help_of, load

SECRET = frozenset({"database_url"})  # may hold a password


def settings(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference page with the defaults.")] = False,
) -> None:
    """List every setting with its value and its meaning. Each is set by an environment variable."""
    if markdown:
        print(reference_page(), end="")
        return
    now = load(data_dir=context.obj.data_dir)
    rows = [
        {
            "variable": PREFIX + f.name.upper(),
            "value": "(set)" if f.name in SECRET and getattr(now, f.name) else str(getattr(now, f.name)),
            "default": default_of(f.name),
            "meaning": help_of(f.name),
        }
        for f in fields(Settings)
    ]
    columns = {"variable": "Variable", "value": "Value", "default": "Default", "meaning": "Meaning"}
    output.listing(rows, columns, as_json=json)


def default_of(name: str) -> str:
    """A field's default as text; folders of this machine are named by what they are."""
    default = next(f.default for f in fields(Settings) if f.name == name)
    assert default is not MISSING
    return "the platform's user data folder" if isinstance(default, Path) else str(default)


def reference_page() -> str:
    """docs/reference/settings.md"""
    lines = [
        "# Settings",
        "",
        "Environment variables. Printed by `lumbung settings --markdown`; a test keeps this page equal to it.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    lines += [
        f"| `{PREFIX}{f.name.upper()}` | {default_of(f.name) or '(empty)'} | {help_of(f.name)} |"
        for f in fields(Settings)
    ]
    return "\n".join(lines) + "\n"
