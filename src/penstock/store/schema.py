"""Brings a database to the schema that this Penstock knows, by the numbered SQL files under `migrations/`."""

from __future__ import annotations

import sqlite3
from importlib import resources

from penstock import Refused

META = "CREATE TABLE IF NOT EXISTS meta (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
READ = "SELECT value FROM meta WHERE name = 'schema'"
WRITE = """
INSERT INTO meta (name, value) VALUES ('schema', :version) ON CONFLICT (name) DO UPDATE SET value = excluded.value"""


def steps(database: str) -> list[tuple[int, str]]:
    """The migrations of a kind of database: number and SQL text, in order."""
    folder = resources.files("penstock.store.migrations") / database
    files = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return [(int(name.partition("_")[0]), (folder / name).read_text("utf-8")) for name in files]


def migrate(connection: sqlite3.Connection, wanted: list[tuple[int, str]] | None = None) -> int:
    """Applies what is missing, all of it in one transaction, and gives the version reached.

    Raises: Refused, when a newer Penstock wrote the database.
    """
    wanted = steps("sqlite") if wanted is None else wanted
    newest = wanted[-1][0]
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(META)
        row = connection.execute(READ).fetchone()
        found = int(row[0]) if row else 0
        if found > newest:
            raise Refused(
                f"The data folder was written by a newer Penstock (schema {found}; this one knows up to {newest}): "
                "upgrade Penstock, or give it another folder with --data."
            )
        for number, text in wanted:
            if number > found:
                for statement in _statements(text):
                    connection.execute(statement)
        if newest > found:
            connection.execute(WRITE, {"version": str(newest)})
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return newest


def _statements(text: str) -> list[str]:
    """The single statements of a file (`executescript` would commit before it begins)."""
    found, statement = [], ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement)
            statement = ""
    if any(line.strip() and not line.lstrip().startswith("--") for line in statement.splitlines()):
        found.append(statement)
    return found
