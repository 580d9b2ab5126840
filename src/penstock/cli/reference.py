"""The pages of the documentation that follow from the code: `python -m penstock.cli.reference docs` writes them.

cli.md                 every command and option
settings.md            every knob
services/index.md      coverage, and what differs from AWS everywhere
services/<name>.md     what is served and what differs: packages' docstrings, `Differs:` lines, botocore's model
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import botocore
import typer.main

import penstock
from penstock import cli
from penstock.kernel.app import PACKAGES, App
from penstock.kernel.clock import SystemClock
from penstock.services import SERVICES
from penstock.settings import Settings
from penstock.wire import models

SOURCE = Path(penstock.__file__).parent
NOTE = "<!-- Written by `make docs` from the code. -->\n"
DIFFERS = re.compile(r"(?:^|(?<=[.\s]))Differs: *(.*?)(?=\n\s*\n|\n\s*(?:Takes|Gives|Raises|Source|Differs):|\Z)", re.S)
PROMISE = re.compile(r"(?:^|(?<=\s))(Real|Only kept and shown|Only kept|Kept and shown only|Kept and shown): ")
EVERYWHERE = {
    "wire/validate.py": "Checks of parameters",
    "kernel/buckets.py": "Buckets",
    "kernel/staging.py": "Inputs of jobs",
    "runs/images/indexes.py": "Packages that jobs install",
    "runs/logs.py": "Logs of jobs",
    "containers/algorithm_xgboost": "The built-in XGBoost algorithm",
    "containers/shims": "The modules that AWS's images let scripts import",
}
"""Places below all services, and what they are to a reader."""
BELOW = ("wire", "store", "blobs", "runs", "kernel", "containers")
KINDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "a truth value", "Path": "a path"}
UP_OPTIONS = ("data", "host", "port", "doorway_port", "fronts")
UNITS = {"_bytes": "bytes", "_s": "seconds"}


def pages() -> dict[str, str]:
    """Every page, by its path below docs/."""
    found = {"cli.md": cli_page(), "settings.md": settings_page(), "services/index.md": index_page()}
    return found | {f"services/{name}.md": service_page(name) for name in SERVICES}


def main() -> None:
    """Writes the pages into the folder named, and says which have changed."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    for path, text in pages().items():
        target = folder / path
        if not target.exists() or target.read_text() != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            print(f"{target}: written")


# --- settings
def settings_page() -> str:
    hints = get_type_hints(Settings)
    parts = [
        NOTE,
        "# Settings\n",
        "Each is read from the environment as `PENSTOCK_<NAME>`. Those of `penstock up`'s options that are given win over it. "
        "Truth values are `1`, `true`, `yes`, `on` and `0`, `false`, `no`, `off`.\n",
    ]
    for knob in dataclasses.fields(Settings):
        unit = next((f", in {name}" for suffix, name in UNITS.items() if knob.name.endswith(suffix)), "")
        default = (
            "`$XDG_DATA_HOME/penstock`, else `~/.local/share/penstock`"
            if knob.name == "data"
            else f"`{shown_value(knob.default)}`"
        )
        option = f" Option of `penstock up`: `--{knob.name.replace('_', '-')}`." if knob.name in UP_OPTIONS else ""
        parts.append(
            f"## {knob.name}\n\n{knob.metadata['meaning']}\n\n"
            f"`PENSTOCK_{knob.name.upper()}`, {KINDS[hints[knob.name].__name__]}{unit}; default {default}.{option}\n"
        )
    return "\n".join(parts)


def shown_value(value: Any) -> str:
    return str(int(value) if isinstance(value, bool) or value == 0 else value)


# --- commands
def cli_page() -> str:
    root: Any = typer.main.get_command(cli.application())
    codes = inspect.getdoc(cli) or ""
    parts = [NOTE, "# Commands\n", codes.partition("\n\n")[2] + "\n"]
    for path, command in commands(root, "penstock"):
        words = [
            f"{name_of(p)}{' ...' if p.nargs == -1 else ''}"
            if p.required
            else f"[{name_of(p)}{' ...' if p.nargs == -1 else ''}]"
            for p in command.params
            if p.param_type_name == "argument"
        ]
        usage = " ".join([path, *(["[OPTIONS]"] if any(map(shown, command.params)) else []), *words])
        parts += [f"## {path}\n", f"```\n{usage}\n```\n", inspect.cleandoc(command.help or "") + "\n"]
        rows = [row(p) for p in command.params if p.param_type_name == "argument" or shown(p)]
        if rows:
            parts.append("\n".join(["| | |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Each command with its words, in the order of the help."""
    for name, command in group.commands.items():
        words = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from commands(command, words)
        elif not command.hidden:
            yield words, command


def shown(parameter: Any) -> bool:
    return parameter.param_type_name == "option" and not parameter.hidden and parameter.name != "help"


def name_of(argument: Any) -> str:
    return str(argument.metavar or argument.name).upper()


def row(parameter: Any) -> str:
    """A line of the table: the names, what it is for, its default."""
    if parameter.param_type_name == "argument":
        names = f"`{name_of(parameter)}`"
    else:
        names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    said = parameter.show_default
    default = (
        said if isinstance(said, str) else parameter.default if said and parameter.default not in (None, False) else ""
    )
    if default is True:
        default = parameter.opts[0]
    text = (parameter.help or "").replace("|", "\\|")
    return f"| {names} | {text}{f' Default: {default}.' if default != '' else ''} |"


# --- services
def bare_app() -> App:
    """An app that can only be asked what it serves."""
    nothing: Any = None
    return App(settings=Settings(), store=nothing, blobs=None, clock=SystemClock(), services=SERVICES)


def index_page() -> str:
    app = bare_app()
    parts = [
        NOTE,
        "# Services\n",
        "What is not served answers 501 with the operation's name. `penstock coverage SERVICE` prints the same list. "
        f"The counts are of botocore {botocore.__version__}'s models.\n",
        "| service | operations served | of |\n|---|---|---|",
    ]
    for name in SERVICES:
        every = models.service(name).operations.values()
        served = sum(app.function(operation) is not None for operation in every)
        parts.append(f"| [{title_of(name)}]({name}.md) (`{name}`) | {served} | {len(every)} |")
    parts.append("\n## What differs from AWS everywhere\n")
    parts += [f"- {label_of(path)}: {text}" for part in BELOW for path, _, text in differences(SOURCE / part)]
    return "\n".join(parts) + "\n"


def label_of(path: Path) -> str:
    """What a file below all services is to a reader: by its place, else its own name."""
    place = path.relative_to(SOURCE).as_posix()
    return next((label for start, label in EVERYWHERE.items() if place.startswith(start)), f"`{place}`")


def service_page(name: str) -> str:
    app = bare_app()
    package = importlib.import_module(f"penstock.services.{PACKAGES.get(name, name.replace('-', '_'))}")
    titles = {operation.python_name: operation.name for operation in models.service(name).operations.values()}
    absent = sorted(op.name for op in models.service(name).operations.values() if app.function(op) is None)
    parts = [
        NOTE,
        f"# {title_of(name)}\n",
        f"Served: {len(titles) - len(absent)} of {len(titles)} operations.\n",
        prose(package.__doc__) + "\n",
    ]
    folders: tuple[str, ...] = getattr(package, "FOLDERS", ())
    home = SOURCE / "services" / package.__name__.rpartition(".")[2]
    heading = "## For all of them\n" if folders else "## Operations\n"
    parts += section(heading, offered(app, name, f"{package.__name__}.api"), sorted(home.glob("*.py")), titles)
    for folder in folders:
        inner = importlib.import_module(f"{package.__name__}.{folder}")
        heading = f"## {folder}\n\n{prose(inner.__doc__)}\n"
        parts += section(
            heading, offered(app, name, f"{inner.__name__}.api"), sorted((home / folder).glob("*.py")), titles
        )
    if absent:
        listed = f"<details><summary>{len(absent)} operations</summary>\n\n{', '.join(absent)}.\n\n</details>\n"
        parts += ["## Not served\n", "These answer 501 with their name.\n", listed]
    return "\n".join(parts)


def section(heading: str, operations: set[str], files: list[Path], titles: dict[str, str]) -> list[str]:
    """A part of a page: what is served there, and in what it differs. Empty where there is neither."""
    told = [
        f"- `{titles[function]}`: {text}" if function in titles else f"- {text[:1].upper()}{text[1:]}"
        for path in files
        for _, function, text in differences(path)
    ]
    if not operations and not told:
        return []
    listed = ", ".join(f"`{titles[each]}`" for each in sorted(operations))
    parts = [heading, *([f"Served: {listed}.\n"] if operations else [])]
    return [*parts, *(["Differs from AWS:\n", *told, ""] if told else [])]


def offered(app: App, service: str, module: str) -> set[str]:
    """The operations that a module serves, by boto3's names."""
    found = next((each for each in app.modules(service, "api") if each.__name__ == module), None)
    return {op.python_name for op in models.service(service).operations.values() if hasattr(found, op.python_name)}


def title_of(name: str) -> str:
    return str(models.metadata(name).get("serviceFullName", name))


def differences(place: Path) -> Iterator[tuple[Path, str, str]]:
    """(file, function or "", sentence) of each `Differs:` in a file, or in the files of a folder: in docstrings, and in comments."""
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        text = path.read_text()
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                name = node.name if isinstance(node, ast.FunctionDef) else ""
                for found in DIFFERS.findall(ast.get_docstring(node) or ""):
                    yield path, name, flowing(found)
        for comment in re.findall(r"^# Differs: (.*)$", text, re.M):
            yield path, "", flowing(comment)


def flowing(text: str) -> str:
    return " ".join(text.split())


def prose(docstring: str | None) -> str:
    """A package's docstring as Markdown: what is real and what is only kept are items of a list."""
    paragraphs = []
    for paragraph in inspect.cleandoc(docstring or "").split("\n\n"):
        marked = PROMISE.sub(r"\n- \1: ", paragraph)
        lines = [flowing(line) for line in re.split(r"\n(?=- )", marked) if line.strip()]
        apart = "\n\n" if len(lines) > 1 and not lines[0].startswith("- ") else "\n"
        paragraphs.append(apart.join([*lines[:1], "\n".join(lines[1:])]).rstrip("\n"))
    return "\n\n".join(paragraphs)


if __name__ == "__main__":
    main()
