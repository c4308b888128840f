"""What the documents name is there: tests, files, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.md")])
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/*.py"))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "reference" not in page.parts], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"\btest_\w+(?=`)", text))
    assert [name for name in sorted(names) if f"def {name}(" not in TESTS] == []
    files = set(re.findall(r"\btests/[\w/]+\.py", text))
    assert [name for name in sorted(files) if not (ROOT / name).is_file()] == []


def test_every_test_that_the_page_on_delivery_names_is_in_the_file_that_it_names() -> None:
    text = (ROOT / "docs/explanation/delivery.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b(tests/[\w/]+\.py)::(\w+)", text))
    assert len(named) > 100
    assert [f"{file}::{name}" for file, name in sorted(named) if not _holds(ROOT / file, name)] == []


def _holds(file: Path, name: str) -> bool:
    """A function, a method or a class of it (`TestX = X.TestCase` too)."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return re.search(rf"^ *(?:(?:async )?def|class) {name}\b|^{name} = ", text, re.MULTILINE) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_module_that_architecture_names_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("## What is absent")[0]
    modules = set(re.findall(r"[\w/]+\.(?:py|sql)\b", text)) - {"x.py", "x.sql"}
    package = {path.relative_to(ROOT / "src/lumbung").as_posix() for path in (ROOT / "src/lumbung").rglob("*.*")}
    known = package | {Path(name).name for name in package} | {"tests/conftest.py", "tests/channels/contract.py"}
    assert sorted(modules - known) == []
    assert len(text.splitlines()) < 150
