from __future__ import annotations

from pathlib import Path

import pytest

from tests.world import stock_update

from .conftest import Operator


@pytest.fixture
def toko(operator: Operator) -> Operator:
    operator.done("tenant", "add", "Toko")
    return operator


def variants(operator: Operator) -> list[tuple[str, str]]:
    return [(row["sku"], row["name"]) for row in operator.rows("SELECT sku, name FROM variant ORDER BY sku")]


def refused(operator: Operator, content: str | bytes, *more: str) -> str:
    path = operator.file("v.csv", content)
    return operator.refused("variant", "import", path, *more).replace(str(Path(path).parent) + "/", "")


@pytest.mark.parametrize(
    "content",
    [
        "sku,name\nA,Apple\nB,Bear\n",
        "Name;SKU\r\nApple;A\r\n\r\n;\r\nBear;B\r\n",
        "\ufeffsku\tname\nA\tApple\nB\tBear",
        '\n"sku","name"\n"A","Apple"\n"B","Bear"\n',
    ],
)
def test_a_file_may_come_from_any_spreadsheet(toko: Operator, content: str) -> None:
    imported = toko.done("variant", "import", toko.file("v.csv", content))

    assert imported == "Imported 2 variants: 2 new, 0 there already\n"
    assert variants(toko) == [("A", "Apple"), ("B", "Bear")]


def test_importing_again_renames_and_changes_nothing_else(toko: Operator) -> None:
    toko.done("variant", "import", toko.file("v.csv", "sku,name\nA,Apple\nB,Bear\n"))

    again = toko.done("variant", "import", toko.file("v.csv", "sku,name\nA,Apple\nB,Bär\nC,\n"))

    assert again == "Imported 3 variants: 1 new, 2 there already\n"
    assert variants(toko) == [("A", "Apple"), ("B", "Bär"), ("C", "")]
    assert toko.audit()[-1] == (
        "variant.import",
        "v.csv",
        {"first_line": 2, "last_line": 4, "added": 1, "kept": 2},
    )


def test_quoted_values_keep_their_delimiters(toko: Operator) -> None:
    toko.done("variant", "import", toko.file("v.csv", 'sku,name\n"A,1","He said ""hi"""\n'))

    assert variants(toko) == [("A,1", 'He said "hi"')]


WRONG = f"sku,name\nA,Apple\n,Nobody\n{'x' * 256},Long\nB,a\x07b\nA,Again\nD\n"
PROBLEMS = """\
  line 2: the same sku as line 6
  line 3: sku must have 1 to 255 characters
  line 4: sku must have 1 to 255 characters
  line 5: name must not hold control characters
  line 6: the same sku as line 2
  line 7: expected 2 values, found 1
"""


def test_nothing_is_imported_when_a_row_is_wrong(toko: Operator) -> None:
    expected = f"lumbung: v.csv: 6 of 6 rows are wrong, nothing was imported\n{PROBLEMS}"
    assert refused(toko, WRONG) == expected
    assert refused(toko, WRONG, "--all-or-nothing") == expected


def test_the_good_rows_are_imported_when_that_is_wanted(toko: Operator) -> None:
    path = toko.file("v.csv", WRONG + "E,Egg\n")

    result = toko("variant", "import", path, "--good-rows")

    assert result.exit == 1
    assert result.out == "Imported 1 variants: 1 new, 0 there already\n"
    assert result.err == f"lumbung: {path}: 6 of 7 rows were skipped\n{PROBLEMS}"
    assert variants(toko) == [("E", "Egg")]


def test_at_most_fifty_problems_are_shown(toko: Operator) -> None:
    said = refused(toko, "sku,name\n" + ",x\n" * 60).splitlines()

    assert said[0] == ("lumbung: v.csv: 60 of 60 rows are wrong, nothing was imported (10 more problems are not shown)")
    assert len(said) == 51
    assert said[-1] == "  line 51: sku must have 1 to 255 characters"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "v.csv is empty: the first line must name the columns sku,name"),
        ("\n \n", "v.csv is empty: the first line must name the columns sku,name"),
        ("sku\nA\n", "v.csv, line 1: the first line must name the columns sku,name; name is missing"),
        (
            "\nSKUs,name,Price\n",
            "v.csv, line 2: the first line must name the columns sku,name; sku is missing, 'SKUs' is unknown, "
            "'Price' is unknown",
        ),
        ("sku,name,SKU\n", "v.csv, line 1: the first line must name the columns sku,name; sku is there twice"),
        ('sku,name\nA,x\nB,"open\n', "v.csv, line 3: a quote that begins here is not closed"),
        ('sku,name\nA,"open\nB,x\nC,"y"\n', "v.csv, line 2: a quote that begins here is not closed"),
        ('sku,name\nA,"x"y\nB,z\n', "v.csv, line 2: not CSV (',' expected after '\"')"),
        ('sku,name\nA,"x"y', "v.csv, line 2: not CSV (',' expected after '\"')"),
    ],
)
def test_a_file_of_another_shape_is_refused(toko: Operator, content: str, message: str) -> None:
    assert refused(toko, content) == f"lumbung: {message}\n"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("sku,name\nA,Käse\n".encode("latin-1"), 2),
        ("sku;name\r\nA;Apple\r\nB;Teh\x92\r\n".encode("latin-1"), 3),
        (b"sku,name\n" + b"A,Apple\n" * 5000 + b"B,\xff\n", 5002),
    ],
)
def test_another_encoding_is_refused_with_what_to_do(toko: Operator, content: bytes, line: int) -> None:
    assert refused(toko, content) == (
        f"lumbung: v.csv, line {line}: not UTF-8. Save the file as UTF-8: in Excel as "
        '"CSV UTF-8 (Comma delimited)", in LibreOffice with the character set "Unicode (UTF-8)"\n'
    )


def test_a_file_that_cannot_be_read_is_refused(toko: Operator) -> None:
    gone = toko.refused("variant", "import", "/nowhere/v.csv")
    assert gone == "lumbung: /nowhere/v.csv: No such file or directory\n"
    assert toko.refused("variant", "import", str(toko.folder)) == f"lumbung: {toko.folder}: Is a directory\n"


def test_a_line_without_end_is_refused(toko: Operator) -> None:
    assert refused(toko, "sku,name\nA," + "x" * 1_048_576) == "lumbung: v.csv, line 2: longer than 1048576 characters\n"


def test_a_header_without_rows_imports_nothing(toko: Operator) -> None:
    imported = toko.done("variant", "import", toko.file("v.csv", "sku,name\n"))

    assert imported == "Imported 0 variants: 0 new, 0 there already\n"
    assert len(toko.audit()) == 1


def test_a_long_file_goes_in_chunks(toko: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMBUNG_CHUNK_ROWS_MAX", "2")

    toko.done("variant", "import", toko.file("v.csv", "sku,name\nA,\nB,\n\nC,\nD,\nE,\n"))

    lines = [(detail["first_line"], detail["last_line"]) for _, _, detail in toko.audit()[1:]]
    assert lines == [(2, 3), (5, 6), (7, 7)]
    assert [sku for sku, _ in variants(toko)] == ["A", "B", "C", "D", "E"]


def test_rows_that_say_the_same_are_found_across_chunks(toko: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMBUNG_CHUNK_ROWS_MAX", "2")

    said = refused(toko, "sku,name\nA,\nB,\nC,\nA,x\n")

    assert said == (
        "lumbung: v.csv: 2 of 4 rows are wrong, nothing was imported\n"
        "  line 2: the same sku as line 5\n"
        "  line 5: the same sku as line 2\n"
    )


def test_each_of_three_rows_that_say_the_same_is_named_once(toko: Operator) -> None:
    said = refused(toko, "sku,name\nA,\nA,x\nA,y\n")

    assert said == (
        "lumbung: v.csv: 3 of 3 rows are wrong, nothing was imported\n"
        "  line 2: the same sku as line 3\n"
        "  line 3: the same sku as line 2\n"
        "  line 4: the same sku as line 2\n"
    )


def test_unknown_skus_are_shown_most_often_asked_for_first(toko: Operator) -> None:
    for sku in ("A", "B", "B", "C", "C", "C"):
        toko.work(lambda world, sku=sku: world.accept(stock_update(sku, 1)))  # type: ignore[misc]

    rows = toko.json("variant", "unknown", "--limit", "2")

    assert [(row["sku"], row["times"]) for row in rows] == [("C", 3), ("B", 2)]
    assert list(rows[0]) == ["sku", "times", "first_at", "last_at"]
    shown = toko.done("variant", "unknown", "--tenant", "Toko").split()
    assert shown[:4] == ["SKU", "TIMES", "FIRST", "LAST"]
    assert [word for word in shown if word in {"A", "B", "C"}] == ["C", "B", "A"]


def test_unknown_skus_are_those_of_one_tenant(toko: Operator) -> None:
    toko.work(lambda world: world.accept(stock_update("A", 1)))
    toko.done("tenant", "add", "Other")

    none = toko("variant", "unknown", "--tenant", "Other")

    assert (none.exit, none.out, none.err) == (0, "", "None.\n")
    assert toko.refused("variant", "unknown").startswith("lumbung: There are 2 tenants; say which with --tenant")
