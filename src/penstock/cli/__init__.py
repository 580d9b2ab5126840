"""The commands a person types.

Exit codes: 0 done; 1 what was asked for failed (an execution, a job); 2 Penstock was used wrongly or refused; of `exec`, the program's.
"""

from __future__ import annotations

import sys

import typer

from penstock import Refused, __version__
from penstock.cli import accounts, coverage, demo, family, images, logs, pipelines, world

app = typer.Typer(
    name="penstock",
    help="Amazon SageMaker pipelines, executed for real on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def version(wanted: bool) -> None:
    if wanted:
        print(f"penstock {__version__}")
        raise typer.Exit


@app.callback()
def options(
    shown: bool = typer.Option(False, "--version", callback=version, is_eager=True, help="Print the version."),
) -> None:
    pass


for command in (
    family.up,
    family.down,
    demo.demo,
    pipelines.run,
    world.exec_,
    world.env,
    logs.logs,
    family.doctor,
    family.reset,
    coverage.coverage,
):
    settings = {"ignore_unknown_options": True, "allow_interspersed_args": False} if command is world.exec_ else {}
    app.command(name=command.__name__.rstrip("_"), context_settings=settings)(command)
app.add_typer(images.app, name="image")
app.add_typer(accounts.app, name="account")


def main() -> None:
    """Runs the command line; a refusal is one sentence on stderr."""
    try:
        app()
    except Refused as no:
        print(f"penstock: {no}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)
