"""Reading and showing one value."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cavalcade.config.options import Settings
from cavalcade.config.values import ALIASES, FOREIGN, OPTIONS, advise, find, read, show


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        ("30s", 30.0),
        ("5m", 300.0),
        ("250ms", 0.25),
        ("1h", 3600.0),
        ("1m30s", 90.0),
        ("1.5s", 1.5),
        (" 2S ", 2.0),
        ("1d", 86400.0),
    ],
)
def test_a_duration_is_read_with_and_without_units(text: str, seconds: float) -> None:
    assert read(OPTIONS["boot_timeout"], text, typed=False) == seconds
    assert read(OPTIONS["boot_timeout"], text, typed=True) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("65536", 65536),
        ("64KiB", 65536),
        ("64k", 65536),
        ("1M", 2**20),
        ("10MB", 10_000_000),
        ("1.5KiB", 1536),
        ("1 GiB", 2**30),
        ("7b", 7),
    ],
)
def test_a_size_is_read_with_and_without_units(text: str, size: int) -> None:
    assert read(OPTIONS["limit_request_body"], text, typed=False) == size


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("keep_alive", "fast", "must be a duration"),
        ("keep_alive", "30 apples", "must be a duration"),
        ("keep_alive", "", "must be a duration"),
        ("keep_alive", "nan", "must be a duration"),
        ("keep_alive", float("inf"), "must be a duration"),
        ("keep_alive", True, "must be a duration"),
        ("keep_alive", "-1", "must be 0s or more"),
        ("head_timeout", "10ms", "must be 100ms or more, not 10ms"),
        ("limit_request_body", "1.0001KiB", "must be a size"),
        ("limit_request_body", "5 parsecs", "must be a size"),
        ("limit_request_body", True, "must be a size"),
        ("port", "http", "must be a whole number, not"),
        ("port", "65536", "must be 65535 or less"),
        ("port", True, "must be a whole number"),
        ("port", "auto", "must be a whole number, not"),
        ("port", "９", "must be a whole number"),
        ("workers", "many", "must be a whole number or auto"),
        ("workers", "0", "must be 1 or more, not 0"),
        ("workers", 1.5, "must be a whole number or auto"),
        ("workers", "9" * 30, "must be a whole number or auto"),
        ("access_log", "perhaps", "must be true or false"),
        ("log_level", "inf", "did you mean info?"),
        ("lifespan", "sometimes", "must be one of auto, on, off"),
        ("bind", 8000, "must be a text or a list of texts"),
        ("bind", [8000], "must be a text or a list of texts"),
        ("name", 5, "must be a text"),
        ("name", "a\0b", "must be a text"),
    ],
)
def test_a_bad_value_is_refused_with_what_it_must_be(name: str, raw: object, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        read(OPTIONS[name], raw, typed=False)


def test_a_toml_text_is_not_a_number_and_not_a_flag() -> None:
    with pytest.raises(ValueError, match="take the quotes away"):
        read(OPTIONS["port"], "80", typed=True)
    with pytest.raises(ValueError, match="must be true or false"):
        read(OPTIONS["access_log"], "yes", typed=True)
    assert read(OPTIONS["workers"], "auto", typed=True) == "auto"


@pytest.mark.parametrize(("text", "value"), [("1", True), ("yes", True), ("ON", True), ("false", False), ("0", False), ("off", False)])
def test_a_flag_in_the_environment_has_many_spellings(text: str, value: bool) -> None:
    assert read(OPTIONS["access_log"], text, typed=False) is value


def test_several_addresses_in_one_text_are_split() -> None:
    assert read(OPTIONS["bind"], "a:1, b:2 c:3", typed=False) == ("a:1", "b:2", "c:3")


def test_true_and_false_mean_on_and_off_where_those_are_the_words() -> None:
    assert read(OPTIONS["lifespan"], True, typed=True) == "on"
    assert read(OPTIONS["lifespan"], False, typed=True) == "off"


def test_every_default_passes_its_own_checks_and_reads_back_as_it_is_shown() -> None:
    for option in OPTIONS.values():
        value: Any = option.default
        assert read(option, list(value) if isinstance(value, tuple) else value, typed=True) == value, option.name
        if value not in ("", ()):
            assert read(option, show(option, value), typed=False) == value, option.name


def test_the_table_has_every_field_and_no_name_twice() -> None:
    assert list(OPTIONS) == [field.name for field in dataclasses.fields(Settings) if field.name != "apps"]  # of files only
    assert not set(ALIASES) & set(OPTIONS)
    assert not set(FOREIGN) & (set(OPTIONS) | set(ALIASES))
    shorts = [option.info.short for option in OPTIONS.values() if option.info.short]
    assert len(shorts) == len(set(shorts))


def test_an_option_is_found_by_alias_and_with_dashes() -> None:
    assert find("timeout-keep-alive") is OPTIONS["keep_alive"]
    assert find("keep_alive") is OPTIONS["keep_alive"]
    assert find("nothing") is None


def test_advice_knows_typos_and_the_names_of_other_servers() -> None:
    assert advise("wrokers") == "did you mean workers?"
    assert advise("--keep-alvie", lambda name: f"<{name}>") == "did you mean <keep_alive>?"
    assert advise("worker-class").startswith("not needed")
    assert advise("uds") == "use bind unix:/path"
    assert advise("zzz") == ""
