"""Files as spreadsheets write them, and files that none wrote: what is taken, and what is said of the rest."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest

from tests.cli.conftest import Operator

ROWS = [("A", "Apel"), ("B", "Kopi Réal")]


@pytest.fixture
def toko(operator: Operator) -> Operator:
    operator.done("tenant", "add", "Toko")
    return operator


def variants(operator: Operator) -> list[tuple[str, str]]:
    return [(row["sku"], row["name"]) for row in operator.rows("SELECT sku, name FROM variant ORDER BY sku")]


CUT = "after line 2: cut off, or not the UTF-16 that it begins as: save it anew"
TEXT = "sku;name\r\nA;Apel\r\nB;Kopi Réal\r\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        codecs.BOM_UTF16_LE + TEXT.replace(";", "\t").encode("utf-16-le"),
        TEXT.replace("\r\n", "\r").encode(),
        TEXT.replace("\r\n", "\n").encode(),
        b"sep=;\r\n" + TEXT.encode(),
        b"\r\nSEP=;\r\n" + TEXT.encode(),
        TEXT.replace("\r\n", ";;\r\n").encode(),
        b"sku;name\r\nA;Apel\r\nB;Kopi R\xc3\xa9al;; \r\n;;;\r\n",
        b"sku;name;\r\nA; Apel \r\nB;Kopi R\xc3\xa9al\r\n\r\n",
        b'"sku";"name"\r\n"A";"Apel"\r\n"B";"Kopi R\xc3\xa9al"',
    ],
    ids=[
        "UTF-8", "UTF-8 with mark", "UTF-16 LE with mark", "UTF-16 BE with mark", "UTF-16 LE", "UTF-16 BE",
        "Unicode text of Excel", "CR", "LF", "separator named", "blank line before", "empty columns",
        "empty cells behind", "empty column in the header", "quoted",
    ],
)  # fmt: skip
def test_what_spreadsheets_write_is_taken(toko: Operator, content: bytes) -> None:
    imported = toko.done("variant", "import", toko.file("v.csv", content))
    assert imported == "Imported 2 variants: 2 new, 0 there already\n"
    assert variants(toko) == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sku;name\nA;x;y\n", "line 2: expected 2 values, found 3"),
        (b"sku;name\nA;x;;y\n", "line 2: expected 2 values, found 4"),
        (b"sku,name\nA\0,x\n", "line 2: sku must not hold control characters"),
        (b"sku,name\nA,x\0\n", "line 2: name must not hold control characters"),
        (b"sku,name\nA ,x\n", "line 2: sku must not begin or end with a space"),
        ("sku,name\n\u00a0A,x\n".encode(), "line 2: sku must not begin or end with a space"),
        (TEXT.encode("cp1252"), "line 3: not UTF-8. Save the file as UTF-8"),
        (codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le")[:-1], CUT),
        (b"\0\0\0\0", "line 1: the first line must name the columns sku,name"),
        (b"PK\x03\x04\x14\x00\x06\x00\x08\x00", "line 1: the first line must name the columns sku,name"),
        (b"sku;name\n" + b'A;"x\n' * 3, "line 2: a quote that begins here is not closed"),
        (b"sku;name\nA;" + b"x" * 200_000 + b"\n", "line 2: not CSV (field larger than field limit (131072))"),
        (b"sku;name\nA;" + b"x" * 2_000_000, "line 2: longer than 1048576 characters"),
        (b"sku;sku;name\n", "line 1: the first line must name the columns sku,name; sku is there twice"),
        (b"sku;;name\n", "line 1: the first line must name the columns sku,name; '' is unknown"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_cannot_be_meant_is_refused_with_its_line(toko: Operator, content: bytes, message: str) -> None:
    assert message in toko.refused("variant", "import", toko.file("v.csv", content))


def test_a_pipe_is_refused_without_waiting_for_who_writes(toko: Operator, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/full")):
        said = toko.refused("variant", "import", str(path))
        assert said == f"lumbung: {path} must be a file, not a pipe or a device: it is read twice\n"


def test_a_line_that_is_longer_than_memory_should_hold_is_refused(toko: Operator, tmp_path: Path) -> None:
    with (tmp_path / "v.csv").open("wb") as file:
        file.write(b"sku,name\n")
        file.truncate(100_000_000)  # zeros, which take no room
    said = toko.refused("variant", "import", str(tmp_path / "v.csv"))
    assert said == f"lumbung: {tmp_path}/v.csv, line 2: longer than 1048576 characters\n"
