"""What of a Dockerfile is read, what is refused by its line, and which files a COPY means."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.runs.base import ImageError
from penstock.runs.images import dockerfile
from penstock.runs.images.context import Context
from penstock.runs.images.dockerfile import Instruction, Refusal

VARIABLES = {"A": "one", "B": "two words", "EMPTY": ""}


def read(text: str) -> list[tuple[int, str, str]]:
    return [(one.line, one.name, one.rest) for one in dockerfile.parse(text)]


def read_through(text: str) -> None:
    for one in dockerfile.parse(text):
        if one.name in ("COPY", "ADD"):
            dockerfile.paths(one, {})


def words(text: str, split: bool = True) -> list[str]:
    return dockerfile.expand(Instruction(1, "COPY", text), text, VARIABLES, split)


def test_lines_are_joined_and_comments_between_them_left_out() -> None:
    text = "# syntax=docker/dockerfile:1\n\nfrom python:3.11\nRUN a \\\n  # why\n\n  && b\nCMD x\n"
    assert read(text) == [(3, "FROM", "python:3.11"), (4, "RUN", "a  && b"), (8, "CMD", "x")]


def test_what_says_nothing_of_how_an_image_runs_passes_with_a_warning_that_names_its_line() -> None:
    text = "FROM a\nLABEL x=y\nEXPOSE 8080\nMAINTAINER me\nUSER root\nCMD z"
    assert [name for _, name, _ in read(text)] == ["FROM", "CMD"]
    warnings = dockerfile.warnings(text)
    assert [warning.split(":")[1:3] for warning in warnings] == [
        [" line 2", " LABEL x=y"], [" line 3", " EXPOSE 8080"], [" line 4", " MAINTAINER me"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("FROM a\nVOLUME /x", 2, "VOLUME /x"),
        ("FROM a\nSHELL [\"bash\"]", 2, "SHELL"),
        ("FROM a\nHEALTHCHECK CMD true", 2, "are read"),
        ("FROM a\nONBUILD RUN true", 2, "are read"),
        ("FROM a\nSTOPSIGNAL SIGINT", 2, "are read"),
        ("FROM a\n\nUSER app", 3, "USER app"),
        ("FROM a\nFROM b", 2, "second FROM"),
        ("FROM a\nCOPY --from=builder /x /y", 2, "--from"),
        ("FROM a\nCOPY --chown=app:app x /y", 2, "other users"),
        ("FROM a\nRUN --mount=type=secret,id=x cat", 2, "--mount"),
        ("FROM a\nRUN apt-get update && apt-get install -y gcc", 2, "machine's own"),
        ("FROM a\nRUN true && \\\n apt -y install gcc", 2, "machine's own"),
        ("FROM a\nRUN cat <<EOF\nhello\nEOF", 2, "COPY it"),
        ("RUN x\nFROM a", 1, "before FROM"),
        ("FROM a\nCOPY x", 2, "a source and a destination"),
        ("FROM a\nADD https://example.com/x /x", 2, "in the folder"),
        ("FROM a\nCOPY a b /c", 2, "ends with /"),
    ],
)  # fmt: skip
def test_a_line_that_is_not_taken_is_told_by_number_and_text(text: str, line: int, words: str) -> None:
    with pytest.raises(Refusal) as refusal:
        read_through(text)
    told = str(refusal.value)
    assert told.startswith(f"line {line}: {text.splitlines()[line - 1].partition(' ')[0]}")
    assert words in told


def test_words_are_parted_as_docker_parts_them() -> None:
    assert words(r"""a "b c" 'd $A' e\ f "$A" ${B}""") == ["a", "b c", "d $A", "e f", "one", "two words"]
    assert words(r"${NONE:-x$A}${EMPTY:-y}${A:-z} ${A:+set}${NONE:+unset} \$A $") == ["xoneyone", "set", "$A", "$"]
    assert words("x $B", split=False) == ["x two words"]
    for text in ('"open', "${A", "${A#x}"):
        with pytest.raises(Refusal):
            words(text)


def test_an_env_sets_one_variable_or_several() -> None:
    assert dockerfile.pairs(Instruction(1, "ENV", "PATH /x:$A b"), VARIABLES) == {"PATH": "/x:one b"}
    assert dockerfile.pairs(Instruction(1, "ENV", 'X=1 Y="a b" Z=$A'), VARIABLES) == {"X": "1", "Y": "a b", "Z": "one"}


def test_a_command_is_a_list_or_a_shells_text() -> None:
    assert Instruction(1, "CMD", '["python", "x.py"]').command() == ["python", "x.py"]
    assert Instruction(1, "CMD", "python x.py").command() == ["/bin/sh", "-c", "python x.py"]


# --- the folder
@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "context"
    for name in ("a.py", "b.py", "docs/x.md", "docs/keep.md", "src/m/one.py", "src/m/.env", ".git/config"):
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (made / "src" / "link").symlink_to("m")
    (made / "out").symlink_to("/etc")
    (made / ".dockerignore").write_text("# not these\n.git\n**/.env\ndocs/*.md\n!docs/keep.md\n")
    return made


def names(context: Context, pattern: str) -> list[str]:
    return sorted(name for source in context.find(pattern) for name, _ in context.files(source))


def test_what_dockerignore_names_is_left_out_and_exceptions_are_kept(folder: Path) -> None:
    context = Context(folder, folder / "Dockerfile")
    found = names(context, ".")
    assert {"a.py", "docs/keep.md", "src/m/one.py", "src/link"} <= set(found)
    assert not {"docs/x.md", "src/m/.env", ".git", ".git/config"} & set(found)


def test_the_dockerfiles_own_ignore_file_wins(folder: Path) -> None:
    (folder / "other.dockerfile.dockerignore").write_text("*.py\n")
    assert "docs/x.md" in names(Context(folder, folder / "other.dockerfile"), ".")


def test_patterns_mean_what_lies_there(folder: Path) -> None:
    context = Context(folder, folder / "Dockerfile")
    assert [source.name for source in context.find("*.py")] == ["a.py", "b.py"]
    assert [source.name for source in context.find("src/*/one.py")] == ["src/m/one.py"]
    assert names(context, "/docs") == ["keep.md"]


@pytest.mark.parametrize("pattern", ["../x", "src/../../x", "out", "out/passwd", "none", "docs/x.md", "*.none"])
def test_paths_never_leave_the_folder_and_must_be_there(folder: Path, pattern: str) -> None:
    (folder.parent / "x").write_text("outside")
    with pytest.raises(ImageError):
        Context(folder, folder / "Dockerfile").find(pattern)


def test_links_below_a_folder_are_copied_as_links(folder: Path, tmp_path: Path) -> None:
    context = Context(folder, folder / "Dockerfile")
    [source] = context.find("src")
    context.copy(source, tmp_path / "copied")
    assert (tmp_path / "copied" / "link").readlink() == Path("m")
    assert (tmp_path / "copied" / "m" / "one.py").read_text() == "src/m/one.py"


def test_a_digest_tells_of_bytes_modes_and_names(folder: Path) -> None:
    context = Context(folder, folder / "Dockerfile")
    [source] = context.find("src")
    seen = {context.digest(source)}
    (folder / "src" / "m" / "one.py").chmod(0o755)
    seen.add(context.digest(source))
    (folder / "src" / "m" / "one.py").write_text("other")
    seen.add(context.digest(source))
    (folder / "src" / "m" / "one.py").rename(folder / "src" / "m" / "two.py")
    seen.add(context.digest(source))
    assert len(seen) == 4
