"""The documentation holds: pages written from the code are current, links lead somewhere, nothing is told that is not there."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest
import typer.main

from penstock.cli import application, reference
from penstock.services import SERVICES
from penstock.settings import Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = reference.pages()
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(ROOT)) for page in pages]


@pytest.mark.parametrize("path", GENERATED)
def test_a_page_written_from_the_code_is_current(path: str) -> None:
    assert (DOCS / path).read_text() == GENERATED[path], "run `make docs`"


def test_there_is_a_page_for_each_service_and_no_other() -> None:
    assert {page.stem for page in (DOCS / "services").glob("*.md")} == {"index", *SERVICES}


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_link_leads_to_a_file(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page not in seen and page.suffix == ".md" and page.exists():
            seen.add(page)
            waiting += [page.parent / target for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text())]
    assert not set(DOCS.rglob("*.md")) - seen


def test_every_setting_has_a_heading_and_is_read_somewhere() -> None:
    text = (DOCS / "settings.md").read_text()
    code = "\n".join(
        path.read_text() for path in (ROOT / "src" / "penstock").rglob("*.py") if path.name not in ("settings.py",)
    )
    for knob in dataclasses.fields(Settings):
        assert f"\n## {knob.name}\n" in text
        assert re.search(rf"settings\.{knob.name}\b", code), f"nothing reads the setting {knob.name}"


def test_every_command_that_a_page_names_exists() -> None:
    root = typer.main.get_command(application())
    known = {tuple(words.split()[1:]) for words, _ in reference.commands(root, "penstock")}
    groups = {words[0] for words in known if len(words) > 1}
    for page in PAGES:
        for words in re.findall(r"(?:`|^|\bbin/|\(|\")penstock ((?:[a-z]+ ?){1,2})", page.read_text(), re.M):
            first, *rest = words.split()
            command = (first, *rest[:1]) if first in groups and rest else (first,)
            assert command in known or first in groups, f"{page.name}: penstock {words}"


def test_the_readme_and_the_example_are_of_one_screen() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 45
    assert len((ROOT / "examples" / "quality-gate" / "README.md").read_text().splitlines()) <= 65


def test_the_layers_of_the_house_have_a_page_each() -> None:
    text = (DOCS / "how-it-works.md").read_text()
    for page in (DOCS / "how-it-works").glob("*.md"):
        assert f"(how-it-works/{page.name})" in text


def test_files_that_pages_name_in_the_tree_are_there() -> None:
    for page in PAGES:
        for path in re.findall(r"`((?:tests|src|docs|examples)/[A-Za-z0-9_./-]+)`", page.read_text()):
            assert (ROOT / path).exists() or path.endswith("state.py"), f"{page.name} names {path}"


def test_the_tree_names_no_folder_of_a_developers_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    texts = [ROOT / name for name in listed.stdout.split("\0") if name.endswith((".md", ".py", ".toml", "Makefile"))]
    own = re.compile(r"(?<![\w.])/(?:work|home/\w+)/\w")  # a job's own folders begin with /opt, /root and /tmp
    wrong = [str(path.relative_to(ROOT)) for path in texts if path.exists() and own.search(path.read_text())]
    assert not wrong
