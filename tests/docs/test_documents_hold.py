"""README, docs/ and CONTRIBUTING: generated parts are current, links work, commands parse."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path

import generated
import pytest

import sensprobe
from sensprobe.cli import reference
from sensprobe.cli.parser import build_parser

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("docs", "sensprobe", "studies", "app", "kernels")
PAGES = sorted(
    {*ROOT.glob("*.md"), *(page for room in ROOMS for page in (ROOT / room).rglob("*.md"))}
)
OWN = [
    page for page in PAGES if page.parent in (ROOT, ROOT / "docs") and page.name != "CHANGELOG.md"
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"(?:^|`)((?:sensprobe|kernels|app|tests|docs|studies)/[\w./-]+)", re.MULTILINE)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    found = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def broken_links(page: Path) -> list[str]:
    """Return the relative links of a page that lead to no file, or to no heading of one."""
    broken = []
    for link in LINK.findall(text_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def commands(page: Path) -> list[str]:
    """Return the sensprobe commands that a page shows in blocks of text, without comments."""
    blocks = re.findall(r"^```(?:text|sh)\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"sensprobe (?!.*\.\.\.)[a-z]+ ", line)]


def test_readme_is_short_and_its_layers_are_those_of_the_contract() -> None:
    text = text_of(ROOT / "README.md")
    assert len(text.splitlines()) <= 220
    assert generated.picture() in text


def test_the_picture_follows_the_contract(tmp_path: Path) -> None:
    (tmp_path / "sensprobe" / "below").mkdir(parents=True)
    (tmp_path / "sensprobe" / "above.py").write_text('"""Stands above. It is long."""\n')
    (tmp_path / "sensprobe" / "below" / "__init__.py").write_text('"""Stands below:\n\n    x\n"""')
    contract = '[[tool.importlinter.contracts]]\ntype = "layers"\nlayers = ["above", "below"]\n'
    (tmp_path / "pyproject.toml").write_text(contract)
    lines = generated.picture(tmp_path).splitlines()
    assert lines[2].split() == ["1", "above", "Stands", "above."]
    assert lines[3].split() == ["2", "below", "Stands", "below"]
    (tmp_path / "sensprobe" / "above.py").write_text("")
    with pytest.raises(ValueError, match=r"above\.py has no docstring"):
        generated.picture(tmp_path)


def test_the_contract_has_at_most_eighteen_layers() -> None:
    contracts = tomllib.loads(text_of(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (house,) = [contract for contract in contracts if contract["type"] == "layers"]
    assert len(house["layers"]) <= 18


def test_stale_commands_are_told_and_written_anew(monkeypatch, tmp_path, capsys) -> None:
    page = tmp_path / "commands.md"
    text = text_of(ROOT / "docs" / "commands.md")
    page.write_text(text.replace("every site: ", ""))
    monkeypatch.setattr("sys.argv", ["x", "--check", str(page)])
    assert reference.main() == 1
    assert "run `make docs`" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["x", "--write", str(page)])
    assert reference.main() == 0
    assert page.read_text(encoding="utf-8") == text
    monkeypatch.setattr("sys.argv", ["x", "--check", str(page)])
    assert reference.main() == 0


def test_stale_parts_are_told_and_written_anew(monkeypatch, tmp_path, capsys) -> None:
    pages = {page: text_of(ROOT / page) for page, _ in generated.PARTS.values()}
    (tmp_path / "docs").mkdir()
    for page, text in pages.items():
        (tmp_path / page).write_text(text.replace("The command line", "").replace("`sym`", ""))
    monkeypatch.setattr("sys.argv", ["x", "--check"])
    assert generated.main(tmp_path) == 1
    told = "out of date: README.md: layers, docs/schemes.md: options; run `make docs`.\n"
    assert capsys.readouterr().err == told
    monkeypatch.setattr("sys.argv", ["x", "--write"])
    assert generated.main(tmp_path) == 0
    assert {page: text_of(tmp_path / page) for page in pages} == pages
    monkeypatch.setattr("sys.argv", ["x", "--check"])
    assert generated.main(tmp_path) == 0


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A word, or two\n[a](#a-word-or-two) [b](#c) [d](e.md) [f](https://g.h)")
    assert broken_links(page) == ["#c", "e.md"]


def test_links_lead_somewhere() -> None:
    broken = {name_of(page): broken_links(page) for page in PAGES}
    assert {name: links for name, links in broken.items() if links} == {}


def test_files_that_are_named_exist() -> None:
    named = {(name_of(page), name) for page in OWN for name in FILE.findall(text_of(page))}
    yours = re.compile("NAME")  # what a recipe tells to write
    lost = {at for at in named if not (yours.search(at[1]) or (ROOT / at[1]).exists())}
    assert lost == set()


def test_commands_that_are_shown_parse() -> None:
    parser = build_parser()
    shown = [command for page in OWN for command in commands(page)]
    assert len(shown) > 20
    for command in shown:
        parser.parse_args(shlex.split(command, comments=True)[1:])


def test_make_has_what_is_told_to_be_made() -> None:
    told = {name for page in OWN for name in re.findall(r"`?make ([a-z][\w-]+)`", text_of(page))}
    made = set(re.findall(r"^([a-z][\w-]*):", text_of(ROOT / "Makefile"), re.MULTILINE))
    assert {"test", "check", "docs"} <= told <= made


def test_python_that_is_shown_parses_and_imports_what_there_is() -> None:
    blocks = [block for page in OWN for block in PYTHON.findall(text_of(page))]
    assert len(blocks) > 3
    for node in (node for block in blocks for node in ast.walk(ast.parse(block))):
        if isinstance(node, ast.ImportFrom):
            exec(ast.unparse(node), {})


def test_every_page_of_docs_is_reached_from_the_readme() -> None:
    links = LINK.findall(text_of(ROOT / "README.md"))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= set(links)


def test_the_changelog_has_the_version_and_a_line_a_change() -> None:
    text = text_of(ROOT / "CHANGELOG.md")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", text, re.MULTILINE)
    assert released[0] == sensprobe.__version__
    sections = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert sections <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert not [line for line in text.splitlines() if line.startswith((" ", "\t"))]
