"""Settings: where each value comes from, and which are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from penstock import Refused
from penstock.settings import Settings, data_folder


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"PENSTOCK_DATA": "/d", "XDG_DATA_HOME": "/x", "HOME": "/h"}, "/d"),
        ({"XDG_DATA_HOME": "/x", "HOME": "/h"}, "/x/penstock"),
        ({"HOME": "/h"}, "/h/.local/share/penstock"),
    ],
)
def test_the_folder_of_a_user(environ: dict[str, str], folder: str) -> None:
    assert data_folder(environ) == Path(folder)
    assert Settings.load(environ).data == Path(folder)


def test_an_option_wins_over_the_environment_and_that_over_the_default() -> None:
    environ = {"HOME": "/h", "PENSTOCK_PORT": "1", "PENSTOCK_REGION": "eu-west-1"}
    settings = Settings.load(environ, port=2, region=None)
    assert (settings.port, settings.region, settings.doorway_port) == (2, "eu-west-1", 4601)


@pytest.mark.parametrize(("text", "value"), [("1", True), ("Yes", True), ("off", False), (" false ", False)])
def test_a_truth_is_read(text: str, value: bool) -> None:
    assert Settings.load({"HOME": "/h", "PENSTOCK_INTERNET": text}).internet is value


@pytest.mark.parametrize("name", ["port", "doorway_port"])
@pytest.mark.parametrize("number", [-1, 65536, 99999])
def test_a_port_that_is_none_is_refused(name: str, number: int) -> None:
    with pytest.raises(Refused, match=f"{name.replace('_', ' ')} {number} is none: ports go from 0"):
        Settings.load({"HOME": "/h"}, **{name: number})


@pytest.mark.parametrize(("name", "text"), [("PORT", "many"), ("CPUS", "a few"), ("INTERNET", "maybe"), ("FRONTS", "")])
def test_a_value_of_the_wrong_type_is_refused_with_its_name(name: str, text: str) -> None:
    with pytest.raises(Refused, match=f"PENSTOCK_{name}='{text}'"):
        Settings.load({"HOME": "/h", f"PENSTOCK_{name}": text})


@pytest.mark.parametrize(("name", "text", "told"), [
    ("CACHE", "always", "must be one of aws, aws\\+guard, content"),
    ("QUOTAS", "ml.m5.large=2", "a quota is written `ml.m5.large for training job usage=2`"),
])  # fmt: skip
def test_a_value_that_is_none_is_refused_with_what_there_is(name: str, text: str, told: str) -> None:
    with pytest.raises(Refused, match=told):
        Settings.load({"HOME": "/h", f"PENSTOCK_{name}": text})


def test_every_setting_says_what_it_means() -> None:
    assert all(each.metadata["meaning"].endswith(".") for each in dataclasses.fields(Settings))


@pytest.mark.parametrize("given", [{}, {"data": Path("here")}])
def test_a_data_folder_is_named_from_where_one_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, Path]) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings.load({"PENSTOCK_DATA": "here"}, **given).data == tmp_path / "here"
