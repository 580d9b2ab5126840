"""account add|list: further accounts, with keys of their own."""

from __future__ import annotations

import json
import re
from typing import Annotated

import typer

from penstock import Refused, server
from penstock.cli import world
from penstock.cli.world import DataOption

app = typer.Typer(help="Further accounts and their keys.", no_args_is_help=True)


@app.command()
def add(
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 1,
    account: Annotated[
        str | None, typer.Option("--id", help="The 12-digit id; by default a new one.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    data: DataOption = None,
) -> None:
    """Add accounts: each has a role, and keys that act as it."""
    if account is not None and not re.fullmatch(r"[0-9]{12}", account):
        raise Refused(f"An account's id has 12 digits: {account!r} has not.")
    if account is not None and count > 1:
        raise Refused("One id is one account: leave out --count or --id.")
    settings = world.settings_of(data)
    world.ensure_up(settings, quiet=True)
    if account in server.list_accounts(settings):
        raise Refused(f"The account {account} is there already.")
    for keys in server.add_accounts(settings, count, account):
        if as_json:
            print(
                json.dumps(
                    {
                        "AccountId": keys["account"],
                        "AccessKeyId": keys["access_key_id"],
                        "SecretAccessKey": keys["secret_access_key"],
                        "SessionToken": None,
                        "RoleArn": keys["role_arn"],
                    }
                )
            )
        else:
            print(
                f"account {keys['account']}\n  AWS_ACCESS_KEY_ID={keys['access_key_id']}\n"
                f"  AWS_SECRET_ACCESS_KEY={keys['secret_access_key']}\n  role {keys['role_arn']}"
            )


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON list.")] = False, data: DataOption = None
) -> None:
    """List the accounts."""
    settings = world.settings_of(data)
    world.ensure_up(settings, quiet=True)
    found = server.list_accounts(settings)
    print(json.dumps(found) if as_json else "\n".join(found))
