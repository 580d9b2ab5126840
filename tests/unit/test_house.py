"""The shape of the code: who imports whom, what an `api.py` holds, where everything may be caught. Read by ast, nothing is run."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from penstock.kernel.app import PACKAGES
from penstock.services import SERVICES
from penstock.wire import models

SOURCE = Path(__file__).parents[2] / "src"
PENSTOCK = SOURCE / "penstock"

ROOT = "penstock"  # Refused and the version
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "wire": (ROOT,),
    "store": (ROOT,),
    "blobs": (ROOT,),
    "runs": (ROOT,),
    "search": (ROOT,),
    "functions": (ROOT, "guests", "runs.base", "runs.handout"),
    "serving": (ROOT, "store.records", "runs.base", "blobs.base"),
    "kernel": (ROOT, "wire", "store.base", "store.records"),
    "services": (
        *(ROOT, "kernel", "store.records", "runs.base", "blobs.base", "blobs.checksums", "serving.base", "search.base"),
        "functions.base",
    ),
    "console": (ROOT, "kernel"),
    "settings": (ROOT,),
    "hosts": (),
    "presence": (ROOT,),
    "authority": (ROOT, "hosts"),
    "guests": (ROOT, "connections", "runs.handout"),
    "doorway": (ROOT, "authority", "guests", "hosts", "settings"),
    "connections": (),
    "intake": (ROOT, "blobs.base", "connections", "settings", "kernel", "wire"),
    "porter": (ROOT, "blobs.base", "connections", "intake", "runs.handout", "store.records"),
    "posts": (ROOT, "kernel", "wire"),
    "front": (
        ROOT,
        "connections",
        "hosts",
        "intake",
        "porter",
        "posts",
        "settings",
        "kernel",
        "wire",
        "store.records",
        "blobs.checksums",
    ),
    "testing": (ROOT, "settings"),
}
"""What each part may import beside itself. Parts that are not named here (server, keeper, cli) are where all others meet."""
MEETING = {"server", "keeper", "cli", "__main__", "__init__"}
NEVER_IMPORTED = {"penstock.server", "penstock.keeper", "penstock.cli"}

INSIDE_FUNCTIONS = {
    "penstock.runs.serve": {"penstock"},  # an extra, and larger than all else of a supervisor
    "penstock.runs.network": {"pyroute2"},  # in a forked child only: it takes longer to import than a run to start
}
"""Lazy imports, each with its reason; drivers in server.py may be lazy too."""

CAUGHT = {
    "penstock.front": {
        "reply_of": 1,
    },  # the dispatcher
    "penstock.intake": {"keep": 1},  # the upload's file is given up and all is raised again
    "penstock.kernel.engine": {"_loop": 1, "_run": 1, "_retry": 1},  # the engine loop, and its one step
    "penstock.keeper": {"_start": 1},  # the top of a forked child
    "penstock.store.writer": {
        "_attempt": 1,
        "open_writing": 1,
    },  # a job's error is its asker's; closed and raised again
    "penstock.store.schema": {"migrate": 1},  # rolled back and raised again
    "penstock.runs.runner": {"_become_supervisor": 1},  # the top of a forked child
    "penstock.runs.supervisor": {"supervise": 1},  # a sandbox that could not be made is the run's end
    "penstock.runs.network": {"wire": 1},  # the top of a forked child
}
"""Where everything may be caught (`except Exception`, `except BaseException`), by function, and how often."""


@dataclass(frozen=True)
class Import:
    """One name that a module imports from Penstock."""

    by: str
    what: str
    line: int
    typing_only: bool


def part_of(module: str) -> str:
    """The part of the house that a module is of: "wire"; "services" for all of them."""
    return module.split(".")[1] if "." in module else "__init__"


def service_of(module: str) -> str:
    return module.split(".")[2] if module.count(".") > 1 else ""


@cache
def modules() -> dict[str, ast.Module]:
    """Every module by name; what runs inside sandboxes is looked at apart."""
    found = {}
    for path in sorted(PENSTOCK.rglob("*.py")):
        if "containers" not in path.relative_to(PENSTOCK).parts:
            name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
            found[name] = ast.parse(path.read_text())
    return found


def named(node: ast.Import | ast.ImportFrom, module: str) -> list[str]:
    """The modules (or names in them) that an import statement means, in full."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, f"{module}:{node.lineno} imports by a relative name"
    return [f"{node.module}.{alias.name}" for alias in node.names]


@cache
def imports() -> list[Import]:
    found = []
    for module, tree in modules().items():
        typing = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                for what in named(node, module):
                    if what.split(".")[0] == "penstock":
                        found.append(Import(module, what, node.lineno, id(node) in typing))
    return found


def allowed(each: Import) -> bool:
    part, what = part_of(each.by), each.what.removeprefix("penstock.")
    if part in MEETING:
        return True
    if part == "services" and what.startswith("services."):
        return service_of(each.by) in ("", service_of(each.what))  # never another service
    if what.split(".")[0] == part:
        return True
    if each.typing_only and what.startswith("settings."):
        return True  # App.settings has a type
    known = {*modules(), "penstock"}
    holder = each.what if each.what in known else each.what.rpartition(".")[0]
    bare = holder.removeprefix("penstock.")
    return any(bare == may or bare.startswith(f"{may}.") for may in MAY_IMPORT.get(part, ()))


def test_each_part_imports_only_what_it_may() -> None:
    wrong = [f"{each.by}:{each.line} imports {each.what}" for each in imports() if not allowed(each)]
    assert not wrong, "\n".join(wrong)


def test_a_part_of_the_house_is_known_here() -> None:
    unknown = {part_of(module) for module in modules()} - set(MAY_IMPORT) - MEETING
    assert not unknown, f"say in MAY_IMPORT what they may import: {unknown}"


def test_nothing_below_imports_the_places_where_parts_meet() -> None:
    wrong = [
        f"{each.by}:{each.line} imports {each.what}"
        for each in imports()
        if part_of(each.by) not in MEETING and any(f"{each.what}.".startswith(f"{top}.") for top in NEVER_IMPORTED)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_rules_find_what_is_forbidden() -> None:
    for by, what in (
        ("penstock.wire.rest", "penstock.store.records.Change"),
        ("penstock.kernel.app", "penstock.store.sqlite.SqliteStore"),
        ("penstock.services.s3.objects", "penstock.services.iam.state.ROLE"),
        ("penstock.services.s3.objects", "penstock.wire.models"),
        ("penstock.services.sagemaker.jobs", "penstock.runs.local.LocalExecutor"),
        ("penstock.runs.local", "penstock.settings.Settings"),
    ):
        assert not allowed(Import(by, what, 1, False)), f"{by} may import {what}"


def test_modules_import_in_no_circle() -> None:
    known = set(modules())
    graph: dict[str, set[str]] = {name: set() for name in known}
    for each in imports():
        holder = each.what if each.what in known else each.what.rpartition(".")[0]
        if not each.typing_only and holder != each.by:
            graph[each.by].add(holder)
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as circle:
        pytest.fail(" <- ".join(circle.args[1]))


def test_imports_inside_functions_are_the_lazy_ones_that_are_known() -> None:
    wrong = []
    for module, tree in modules().items():
        for function in functions(tree):
            for node in ast.walk(function):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    for what in named(node, module):
                        if module != "penstock.server" and what.split(".")[0] not in INSIDE_FUNCTIONS.get(module, ()):
                            wrong.append(f"{module}:{node.lineno} imports {what} inside {function.name}")
    assert not wrong, "\n".join(wrong)


def test_api_and_engine_of_a_package_do_not_import_each_other() -> None:
    wrong = []
    for each in imports():
        package, _, noun = each.by.rpartition(".")
        other = {"api": "engine", "engine": "api"}.get(noun)
        if other and f"{each.what}.".startswith(f"{package}.{other}."):
            wrong.append(f"{each.by}:{each.line} imports {each.what}")
    assert not wrong, "\n".join(wrong)


def test_what_runs_inside_sandboxes_imports_nothing_of_penstock() -> None:
    wrong = []
    for path in sorted((PENSTOCK / "containers").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            wrong += [f"{path.name}:{node.lineno} imports {name}" for name in names if name.split(".")[0] == "penstock"]
    assert not wrong, "\n".join(wrong)


def test_the_runner_needs_the_standard_library_alone() -> None:
    code = (
        "import json, sys; import penstock.runs.runner;"
        "own = {m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names) - {'penstock', '__main__'};"
        "print(json.dumps(sorted(own)))"
    )
    # -I -S: neither site hooks nor what a developer's environment preloads
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(SOURCE)!r}); {code}"],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == []


# --- services


def api_modules(service: str) -> list[str]:
    package = f"penstock.services.{PACKAGES.get(service, service.replace('-', '_'))}"
    folders = getattr(importlib.import_module(package), "FOLDERS", ())
    return [
        name for name in (f"{package}.api", *(f"{package}.{folder}.api" for folder in folders)) if name in modules()
    ]


def offered(module: str) -> set[str]:
    """What an `api.py` says it serves: its public functions, and its `__all__`."""
    tree = modules()[module]
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"}
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names |= set(ast.literal_eval(node.value))
    return names


@pytest.mark.parametrize("service", SERVICES)
def test_every_public_function_of_an_api_is_an_operation_of_that_service(service: str) -> None:
    operations = {operation.python_name for operation in models.service(service).operations.values()}
    assert api_modules(service), f"{service} has no api.py"
    for module in api_modules(service):
        assert offered(module) <= operations, f"{module}: {sorted(offered(module) - operations)}"


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_is_served_by_accident_or_twice(service: str) -> None:
    operations = {operation.python_name for operation in models.service(service).operations.values()}
    served: dict[str, str] = {}
    for module in api_modules(service):
        there = {name for name in vars(importlib.import_module(module)) if name in operations}
        assert there <= offered(module), f"{module} imports a helper that has an operation's name"
        for name in there:
            assert name not in served, f"{name} is in {served[name]} and in {module}"
            served[name] = module


def test_every_folder_of_a_service_is_listed_and_every_listed_one_is_there() -> None:
    there = {path.name for path in (PENSTOCK / "services").iterdir() if (path / "__init__.py").exists()}
    assert there == {PACKAGES.get(name, name.replace("-", "_")) for name in SERVICES}
    for service in sorted(there):
        package = importlib.import_module(f"penstock.services.{service}")
        assert package.__doc__, f"{service} does not say what is real in it"
        folders = {p.name for p in (PENSTOCK / "services" / service).iterdir() if (p / "api.py").exists()}
        assert folders == set(getattr(package, "FOLDERS", ()))


def _package_of(service: str) -> str:
    return PACKAGES.get(service, service.replace("-", "_"))


def test_every_step_of_an_engine_is_for_a_kind_of_its_own_service() -> None:
    for module in modules():
        if module.startswith("penstock.services.") and module.endswith(".engine"):
            for kind in importlib.import_module(module).STEPS:
                assert _package_of(kind.partition(".")[0]) == service_of(module), f"{module}: {kind}"


# --- habits


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def broad_handlers(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(function, line) of each handler that catches everything."""
    for function in functions(tree):
        inner = {id(node) for other in functions(function) if other is not function for node in ast.walk(other)}
        for node in ast.walk(function):
            if isinstance(node, ast.ExceptHandler) and id(node) not in inner:
                caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                if any(each is None or ast.unparse(each) in ("Exception", "BaseException") for each in caught):
                    yield function.name, node.lineno


def test_everything_is_caught_only_where_it_may_be() -> None:
    wrong = []
    for module, tree in modules().items():
        left = dict(CAUGHT.get(module, {}))
        for function, line in broad_handlers(tree):
            if not left.get(function):
                wrong.append(f"{module}:{line} catches everything in {function}")
            else:
                left[function] -= 1
        wrong += [
            f"{module}.{function} catches everything no more: take it off the list" for function, n in left.items() if n
        ]
    assert not wrong, "\n".join(wrong)


def test_no_function_writes_a_global() -> None:
    wrong = [
        f"{module}:{node.lineno} global {', '.join(node.names)}"
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Global)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_and_package_says_what_it_is() -> None:
    bare = [
        module for module, tree in modules().items() if not ast.get_docstring(tree) and module != "penstock.__main__"
    ]
    assert not bare


def test_names_are_of_no_empty_kind() -> None:
    empty = ("Manager", "Helper", "Utils", "Util", "Base", "Impl")
    wrong = [
        f"{module}:{node.lineno} {node.name}"
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith(empty)
    ]
    assert not wrong, "\n".join(wrong)


def test_modules_stay_of_a_size_to_feel_at_home_with() -> None:
    lines = {str(path.relative_to(PENSTOCK)): len(path.read_text().splitlines()) for path in PENSTOCK.rglob("*.py")}
    large = {name: count for name, count in lines.items() if count > 600}
    assert not large, f"more than two of the usual modules each: {large}"
    assert sorted(lines.values())[len(lines) // 2] < 300


def test_few_functions_are_long() -> None:
    lengths = [
        (function.end_lineno or 0) - function.lineno + 1 for tree in modules().values() for function in functions(tree)
    ]
    assert sum(length > 50 for length in lengths) <= 0.03 * len(lengths)
