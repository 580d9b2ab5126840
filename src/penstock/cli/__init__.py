"""The commands a person types.

Exit codes: 0 done; 1 what was asked for failed (an execution, a job) or had come to its end before (`stop` of what is stopped); 2 Penstock
was used wrongly or refused; 3 the server stopped answering, and what was asked for may go on; 130 Ctrl-C: an execution that `run` looks at
goes on; of `exec`, the program's.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import signal
import sys
from typing import Any

import typer
from typer.main import get_command

from penstock import Refused, __version__

COMMANDS = {
    "up": "family.up",
    "down": "family.down",
    "demo": "demo.demo",
    "run": "pipelines.run",
    "plan": "plan.plan",
    "cost": "costs.cost",
    "executions": "executions.executions",
    "stop": "executions.stop",
    "explain": "explain.explain",
    "exec": "world.exec_",
    "env": "world.env",
    "logs": "logs.logs",
    "doctor": "family.doctor",
    "reset": "family.reset",
    "coverage": "coverage.coverage",
    "fault": "faults.app",
    "image": "images.app",
    "account": "accounts.app",
    "serve": "serve.serve",
}
"""Each command and where it is: only the module of the one that was typed is imported, so that `exec` costs no more than it must."""
HIDDEN = ("serve",)
PASSED_ON = {"exec": {"ignore_unknown_options": True, "allow_interspersed_args": False}}
"""Commands whose options are a program's own."""


def application(only: str | None = None) -> typer.Typer:
    """The command line: with all commands, or with one."""
    app = typer.Typer(
        name="penstock",
        help="Amazon SageMaker pipelines, executed for real on this machine.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(options)
    gc.disable()  # imports make no garbage; looking for it takes a tenth of their time
    for name in [only] if only else COMMANDS:
        module, _, what = COMMANDS[name].partition(".")
        found = getattr(importlib.import_module(f"penstock.cli.{module}"), what)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name, hidden=name in HIDDEN, context_settings=PASSED_ON.get(name))(found)
    gc.enable()
    return app


def put_help_right(command: Any) -> None:
    """Has --help show no type beside flags, which take no value, and break lines where the terminal ends, not the source."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs) or None
    context = typer.Context(command, help_option_names=["-h", "--help"])
    for option in [*command.params, command.get_help_option(context)]:
        if getattr(option, "is_flag", False):
            option.metavar = ""
    for inner in getattr(command, "commands", {}).values():
        put_help_right(inner)


def version(wanted: bool) -> None:
    if wanted:
        print(f"penstock {__version__}")
        raise typer.Exit


def options(
    shown: bool = typer.Option(False, "--version", callback=version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Runs the command line; a refusal is one sentence on stderr."""
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        if first != "serve":  # the server's processes have ways of their own
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the terminal is put right
        command = get_command(application(first if first in COMMANDS else None))
        put_help_right(command)
        command()
    except Refused as no:
        print(f"penstock: {no}", file=sys.stderr)
        sys.exit(no.code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
