"""Named queries: how they are called, and that every one of them is tested."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from lumbung.db import stores, tenants
from lumbung.db.pool import Pool
from lumbung.db.query import Queries, Query

SQL_FILES = sorted(Path(stores.__file__).parent.glob("*.sql"))
TESTS = Path(__file__).parent


def named() -> dict[str, str]:
    """Every named query, with its file."""
    return {
        name: file.stem
        for file in SQL_FILES
        for name in re.findall(r"^-- name: (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }


def covered(test_file: Path) -> set[str]:
    """The `COVERS` of a test file, read without importing it."""
    for node in ast.parse(test_file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["COVERS"]:
            found = ast.literal_eval(node.value)
            assert isinstance(found, set)
            return found
    return set()


def test_every_named_query_is_covered_by_a_test_file_and_no_other_name_is() -> None:
    covers = {file.stem: covered(file) for file in TESTS.glob("test_*.py")}
    claimed = set[str]().union(*covers.values())
    assert sorted(named().keys() - claimed) == []
    assert sorted(claimed - named().keys()) == []


@pytest.mark.parametrize("file", SQL_FILES, ids=lambda file: file.stem)
def test_every_named_query_is_called_by_its_own_module(file: Path) -> None:
    text = file.with_suffix(".py").read_text(encoding="utf-8")
    if file.stem == "stock":  # runs some of its queries by names that are passed in
        text += (file.parents[1] / "inventory/stock.py").read_text(encoding="utf-8")
    assert [name for name, stem in named().items() if stem == file.stem and f'"{name}"' not in text] == []


@pytest.mark.parametrize("file", SQL_FILES, ids=lambda file: file.stem)
def test_query_names_are_unique_and_what_the_loader_finds(file: Path) -> None:
    names = re.findall(r"^-- name: (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) == len(set(names))
    assert sorted(query.name for query in Queries(str(file.with_suffix(".py")))) == sorted(names)


def test_parameters_are_known_by_name_in_the_order_in_which_they_are_sent() -> None:
    query = Queries(tenants.__file__)["add_audit"]
    assert query.parameters == ("tenant_id", "actor", "action", "subject", "detail")
    assert "$5" in query.sql


async def test_a_query_gives_rows_a_row_a_value_or_the_command_tag(pool: Pool) -> None:
    query = Query("numbers", "SELECT n FROM generate_series(1, $1::int) AS n", ("count",))
    async with pool.connection() as connection:
        assert [row["n"] for row in await query.all(connection, count=3)] == [1, 2, 3]
        first = await query.one(connection, count=3)
        assert first is not None
        assert first["n"] == 1
        assert await query.one(connection, count=0) is None
        assert await query.value(connection, count=2) == 1
        assert await query.value(connection, count=0) is None
        tag = await query.run(connection, count=4)
    assert tag == "SELECT 4"


async def test_a_value_too_many_too_few_or_with_another_name_is_an_error(pool: Pool) -> None:
    query = Query("sum", "SELECT $1::int - $2::int", ("a", "b"))
    async with pool.connection() as connection:
        assert await query.value(connection, b=1, a=5) == 4
        with pytest.raises(TypeError, match="sum takes"):
            await query.value(connection, a=1)
        with pytest.raises(TypeError, match="sum takes"):
            await query.value(connection, a=1, b=2, c=3)
        with pytest.raises(KeyError):
            await query.value(connection, a=1, c=3)


async def test_arrays_of_numbers_arrive_as_they_are_also_empty_ones_and_with_nothing_in_them(pool: Pool) -> None:
    """They are sent as text."""
    sql = "SELECT $1::bigint[] AS a, $2::smallint[] AS b, $3::int[] AS c, $4::bool[] AS d, $5::text[] AS e"
    query = Query("arrays", sql, ("a", "b", "c", "d", "e"))
    values = {"a": [2**53, -1, None], "b": (1, 2), "c": [], "d": [True, None, False], "e": ["a,b", '"{}\\', None]}
    async with pool.connection() as connection:
        row = await query.one(connection, **values)
        nothing = await query.one(connection, **dict.fromkeys(values))
    assert row is not None and nothing is not None  # noqa: PT018
    assert dict(row) == {**values, "b": [1, 2]}
    assert dict(nothing) == dict.fromkeys(values)


async def test_a_parameter_that_is_an_array_here_and_not_there_is_sent_as_it_is(pool: Pool) -> None:
    query = Query("both", "SELECT $1::bigint[] AS a, cardinality($1) AS n, $11 AS last", (*"abcdefghijk",))
    assert query.sql == "SELECT $1::bigint[] AS a, cardinality($1) AS n, $11 AS last"
    query = Query("filter", "SELECT 1 FROM generate_series(1, 2) n WHERE n <> ALL($1::bigint[])", ("busy",))
    assert "$1::bigint[]" in query.sql
    query = Query("lane", "SELECT $1::smallint[] AS a, $1::smallint[] AS b", ("lanes",))
    assert query.sql == "SELECT $1::text::smallint[] AS a, $1::text::smallint[] AS b"


@pytest.mark.parametrize("wrong", [2.7, "12"])
async def test_what_is_no_whole_number_is_refused_in_an_array_of_such(pool: Pool, wrong: object) -> None:
    query = Query("numbers", "SELECT $1::bigint[]", ("numbers",))
    async with pool.connection() as connection:
        with pytest.raises(TypeError):
            await query.value(connection, numbers=[1, wrong])
