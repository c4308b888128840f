"""`lumbung key`: the keys that encrypt secrets at rest."""

from __future__ import annotations

import typer

from lumbung.cli import output, session
from lumbung.keyring import Keyring

app = typer.Typer(help="The keys that encrypt secrets at rest.", no_args_is_help=True)


@app.command("new")
def new(context: typer.Context) -> None:
    """Put a new key first in the key file: it encrypts from now on, the others still decrypt.

    Where the key file is missing it is made. What was encrypted with keys that are lost must be given anew:
    `lumbung partner rotate`, `app credentials`, `store credentials`, `store authorize`; `lumbung doctor` names them.
    """
    path = session.settings_of(context).key_path
    if path.exists():
        Keyring.add_key(path)
        output.say(f"A new key is first in {path}: make a new copy of the file")
    else:
        Keyring.load(path, create=True)
        output.say(f"{path} was made: keep a copy of it, apart from the copies of the database")
