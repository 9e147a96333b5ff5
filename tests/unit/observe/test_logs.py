"""The program's own log, in processes of its own: what is printed where, in which shape, and how often."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PRELUDE = """
import json, logging, logging.config, os, sys
from cavalcade.config.options import Settings
from cavalcade.errors import ConfigError
from cavalcade.observe import logs
from cavalcade.observe.access import new_access_log
log = logging.getLogger("cavalcade")
def one_of_each(settings=None):
    log.info("a server line")
    access = new_access_log(settings or Settings())
    access.add("127.0.0.1:1", "GET", b"/x", "1.1", 200, 5, 0.001)
    access.flush()
"""


def script(source: str, *, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(source)],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
        env=clean | (env or {}),
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_server_lines_go_to_stderr_access_lines_to_stdout_each_once() -> None:
    done = script("logs.configure(Settings()); one_of_each()")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} [+-]\d{4} \[\d+\] info     a server line\n", done.stderr)
    assert done.stdout.endswith('127.0.0.1:1 "GET /x HTTP/1.1" 200 5B 1.0ms\n')
    assert done.stdout.count("\n") == 1


def test_configuring_again_does_not_print_twice() -> None:
    done = script("logs.configure(Settings()); logs.configure(Settings()); one_of_each()")
    assert (done.stderr.count("\n"), done.stdout.count("\n")) == (1, 1)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_root_handler_of_the_app_changes_nothing(when: str) -> None:
    basic = "logging.basicConfig(level='DEBUG', format='ROOT %(message)s', force=True)"
    calls = [basic, "logs.configure(Settings())"]
    done = script("\n".join([*(calls if when == "before" else reversed(calls)), "one_of_each(); logging.getLogger('app').info('mine')"]))
    assert done.stderr.count("a server line") == 1
    assert done.stdout.count("/x") == 1
    assert "ROOT mine" in done.stderr
    assert "ROOT a server" not in done.stderr


def test_the_root_logger_stays_untouched() -> None:
    done = script("""
        root = logging.getLogger()
        before = (root.level, list(root.handlers), root.disabled)
        logs.configure(Settings(log_level="debug"))
        assert before == (root.level, list(root.handlers), root.disabled)
    """)
    assert done.stderr == ""


@pytest.mark.parametrize("again", [False, True], ids=["configured once", "configured again"])
def test_an_app_that_disables_existing_loggers_does_not_silence_the_server(again: bool) -> None:
    done = script(f"""
        logs.configure(Settings())
        logging.config.dictConfig({{"version": 1, "disable_existing_loggers": True,
            "handlers": {{"h": {{"class": "logging.StreamHandler"}}}}, "root": {{"handlers": ["h"], "level": "INFO"}}}})
        if {again}:
            logs.configure(Settings())
        one_of_each()
    """)
    assert done.stderr.count("a server line") == 1
    assert done.stdout.count("/x") == 1


def test_an_app_that_takes_over_our_loggers_gets_them() -> None:
    done = script("""
        logs.configure(Settings())
        logging.config.dictConfig({"version": 1, "formatters": {"f": {"format": "THEIRS %(message)s"}},
            "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f"}},
            "loggers": {name: {"handlers": ["h"], "level": "INFO", "propagate": False} for name in ("cavalcade", "cavalcade.access")}})
        one_of_each()
    """)
    assert done.stdout == ""
    assert done.stderr == 'THEIRS a server line\nTHEIRS 127.0.0.1:1 - "GET /x HTTP/1.1" 200 5B 1.0ms\n'


def test_every_json_line_parses_tracebacks_and_fixes_included() -> None:
    done = script(r"""
        settings = Settings(log_format="json")
        logs.configure(settings, worker=2)
        try:
            {}["missing \x1b \udc80"]
        except KeyError:
            log.exception("it\nbroke \udc80")
        log.error("port taken", extra={"fix": "take another", "trace": "Traceback\n  line", "port": 8000})
        log.error("badly %d", "formatted")
        one_of_each(settings)
    """)
    broke, taken, badly, fine = (json.loads(line) for line in done.stderr.splitlines())
    assert broke["message"] == "it\nbroke \\udc80"
    assert broke["traceback"].startswith("Traceback (most recent call last):")
    assert "KeyError" in broke["traceback"]
    assert (broke["level"], broke["logger"], broke["worker"]) == ("error", "cavalcade", 2)
    assert (taken["fix"], taken["traceback"], taken["port"]) == ("take another", "Traceback\n  line", 8000)
    assert "could not be formatted" in badly["message"]
    assert fine["message"] == "a server line"
    assert "traceback" not in fine
    assert json.loads(done.stdout)["target"] == "/x"


def test_plain_lines_show_the_fix_and_the_traceback_and_no_control_characters() -> None:
    done = script(r"""
        logs.configure(Settings())
        log.error("cause \x1b[31m", extra={"fix": "fix\nmore", "trace": "Traceback\n  line\x07\n"})
    """)
    assert done.stderr.endswith("cause \\x1b[31m\n  -> fix\n     more\nTraceback\n  line\\x07\n")


@pytest.mark.parametrize(
    ("options", "env", "coloured"),
    [
        ("", {}, False),
        ("", {"FORCE_COLOR": "1"}, True),
        ("", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ("log_format='text'", {"NO_COLOR": "1"}, True),
        ("log_format='plain'", {"FORCE_COLOR": "1"}, False),
    ],
)
def test_colour_is_for_who_wants_it(options: str, env: dict[str, str], coloured: bool) -> None:
    done = script(f"logs.configure(Settings({options})); one_of_each()", env=env)
    assert ("\x1b[" in done.stderr, "\x1b[" in done.stdout) == (coloured, coloured)


def test_a_terminal_gets_colour() -> None:
    master, slave = os.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", PRELUDE + "logs.configure(Settings()); one_of_each()"],
            check=True,
            stdout=slave,
            stderr=slave,
            env={name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")} | {"TERM": "xterm"},
        )
        said = b""
        while b"GET /x" not in said:  # a terminal gives what it has, perhaps a line at a time
            said += os.read(master, 10_000)
    finally:
        os.close(master)
        os.close(slave)
    assert b"\x1b[32minfo" in said
    assert b"\x1b[1mGET /x\x1b[0m" in said


def test_the_level_is_obeyed_by_both_loggers() -> None:
    done = script("logs.configure(Settings(log_level='warning')); one_of_each(); log.warning('seen')")
    assert done.stdout == ""
    assert done.stderr.endswith("warning  seen\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("stdout", ["closed", "/dev/full", "broken pipe"])
def test_a_stdout_that_is_gone_takes_nothing_down(stdout: str) -> None:
    setup = {
        "closed": "",
        "/dev/full": "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)",
        "broken pipe": "r, w = os.pipe(); os.dup2(w, 1); os.close(r); os.close(w)",
    }[stdout]
    source = f"{PRELUDE}\n{setup}\nlogs.configure(Settings()); one_of_each()\nos._exit(0)"
    command = [sys.executable, "-c", source]
    if stdout == "closed":
        command = ["/bin/sh", "-c", 'exec "$0" "$@" >&-', *command]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    server, dropped = done.stderr.splitlines()
    assert "a server line" in server
    assert "access log: 1 lines dropped, stdout: " in dropped


# -- --log-config ----------------------------------------------------------------------------------------------------------

DICT = {
    "version": 1,
    "formatters": {"f": {"format": "FILE %(name)s %(message)s"}},
    "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f"}},
    "loggers": {"cavalcade": {"handlers": ["h"], "level": "INFO", "propagate": False}},
}

TOML = """
[formatters.f]
format = "FILE %(name)s %(message)s"
[handlers.h]
class = "logging.StreamHandler"
formatter = "f"
[loggers.cavalcade]
handlers = ["h"]
level = "INFO"
propagate = false
"""

INI = """
[loggers]
keys = root, cavalcade
[handlers]
keys = h
[formatters]
keys = f
[logger_root]
handlers =
[logger_cavalcade]
handlers = h
level = INFO
qualname = cavalcade
propagate = 0
[handler_h]
class = StreamHandler
args = ()
formatter = f
[formatter_f]
format = FILE %(name)s %(message)s
"""


@pytest.mark.parametrize(("name", "text"), [("l.json", json.dumps(DICT)), ("l.toml", TOML), ("l.ini", INI)])
def test_a_log_config_file_rules_both_loggers(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    done = script(f"s = Settings(log_config='{name}'); logs.configure(s); logs.configure(s); one_of_each()", cwd=tmp_path)
    assert done.stdout == ""
    assert done.stderr == 'FILE cavalcade a server line\nFILE cavalcade.access 127.0.0.1:1 - "GET /x HTTP/1.1" 200 5B 1.0ms\n'


def test_a_log_config_that_only_knows_the_root_gets_our_lines_through_it_once(tmp_path: Path) -> None:
    config = {**DICT, "disable_existing_loggers": True, "loggers": {}, "root": {"handlers": ["h"], "level": "INFO"}}
    (tmp_path / "l.json").write_text(json.dumps(config))
    done = script("logs.configure(Settings(log_config='l.json')); one_of_each()", cwd=tmp_path)
    assert done.stdout == ""
    assert done.stderr.count("a server line") == 1
    assert done.stderr.count("/x") == 1


def test_a_log_config_without_a_word_on_us_leaves_our_own_handlers(tmp_path: Path) -> None:
    config = {**DICT, "loggers": {"app": {"handlers": ["h"]}}}
    (tmp_path / "l.json").write_text(json.dumps(config))
    done = script("logs.configure(Settings(log_config='l.json')); one_of_each()", cwd=tmp_path)
    assert done.stderr.count("a server line") == 1
    assert "FILE" not in done.stderr
    assert done.stdout.count("/x") == 1


def test_uvicorns_access_formatter_understands_our_records(tmp_path: Path) -> None:
    config = {
        "formatters": {"f": {"()": "uvicorn.logging.AccessFormatter", "fmt": "%(client_addr)s %(request_line)s %(status_code)s"}},
        "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f"}},
        "loggers": {"cavalcade.access": {"handlers": ["h"], "propagate": False}},
    }
    (tmp_path / "l.json").write_text(json.dumps(config))
    done = script("logs.configure(Settings(log_config='l.json')); one_of_each()", cwd=tmp_path)
    assert "127.0.0.1:1 GET /x HTTP/1.1 200 OK\n" in done.stderr


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("missing.json", None, "cannot be read: No such file"),
        ("l.json", "{", "Expecting property name"),
        ("l.json", "[]", "must hold one object"),
        ("l.toml", "x = = 1", "Invalid value"),
        ("l.yaml", "version: 1", "use .json, .toml or .ini"),
        ("l.ini", "no section", "no section"),
        ("l.ini", "[loggers]\nkeys=root\n", "logger_root|formatters|KeyError|handlers"),
        ("l.json", '{"handlers": {"h": {"class": "no.such.Handler"}}}', "no"),
        ("l.json", '{"loggers": {"cavalcade": {"level": "LOUD"}}}', "LOUD"),
    ],
)
def test_a_bad_log_config_is_one_error_that_names_file_and_reason(tmp_path: Path, name: str, text: str | None, reason: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    done = script(
        f"""
        try:
            logs.configure(Settings(log_config={name!r}))
        except ConfigError as error:
            print(json.dumps(error.problems))
        """,
        cwd=tmp_path,
    )
    (problem,) = json.loads(done.stdout)
    assert problem.startswith(f"log_config: {name}")
    assert re.search(reason, problem)


# -- files that were written for others ------------------------------------------------------------------------------------

UVICORN = {  # the shape of uvicorn's own, as it is copied into projects
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "default": {"()": "uvicorn.logging.DefaultFormatter", "fmt": "%(levelprefix)s %(message)s", "use_colors": None},
        "access": {"()": "uvicorn.logging.AccessFormatter", "fmt": '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s'},
    },
    "handlers": {
        "default": {"formatter": "default", "class": "logging.StreamHandler", "stream": "ext://sys.stderr"},
        "access": {"formatter": "access", "class": "logging.StreamHandler", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "uvicorn": {"handlers": ["default"], "level": "INFO", "propagate": False},
        "uvicorn.error": {"level": "INFO"},
        "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
}
GUNICORN_INI = """
[loggers]
keys=root, gunicorn.error, gunicorn.access
[handlers]
keys=console, access
[formatters]
keys=generic
[logger_root]
level=INFO
handlers=console
[logger_gunicorn.error]
level=INFO
handlers=console
propagate=0
qualname=gunicorn.error
[logger_gunicorn.access]
level=INFO
handlers=access
propagate=0
qualname=gunicorn.access
[handler_console]
class=StreamHandler
formatter=generic
args=(sys.stderr, )
[handler_access]
class=StreamHandler
formatter=generic
args=(sys.stdout, )
[formatter_generic]
format=G %(message)s
class=uvicorn.logging.DefaultFormatter
"""


def configured_by(path: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    return script(f"settings = Settings(log_config={str(path)!r}, **{settings!r}); logs.configure(settings); one_of_each(settings)")


def test_a_config_that_was_written_for_uvicorn_keeps_working(tmp_path: Path) -> None:
    path = tmp_path / "uvicorn.json"
    path.write_text(json.dumps(UVICORN))
    done = configured_by(path)
    assert done.stderr == "INFO:     a server line\n"
    assert done.stdout == 'INFO:     127.0.0.1:1 - "GET /x HTTP/1.1" 200 OK\n'


def test_a_config_that_was_written_for_gunicorn_keeps_working(tmp_path: Path) -> None:
    path = tmp_path / "gunicorn.ini"
    path.write_text(GUNICORN_INI)
    done = configured_by(path, access_log_format="%(m)s %(U)s %(s)s")
    assert done.stderr == "G a server line\n"
    assert done.stdout == "G GET /x 200\n"


def test_a_level_that_silences_uvicorns_access_lines_silences_ours(tmp_path: Path) -> None:
    path = tmp_path / "quiet.json"
    path.write_text(json.dumps({"loggers": {"uvicorn.access": {"level": "WARNING"}}}))
    done = configured_by(path)
    assert done.stdout == ""
    assert "a server line" in done.stderr


def test_what_a_config_says_of_our_own_names_wins(tmp_path: Path) -> None:
    path = tmp_path / "both.json"
    ours = {"handlers": ["default"], "level": "INFO", "propagate": False}
    loggers = {**UVICORN["loggers"], "cavalcade.access": ours}  # type: ignore[dict-item]
    path.write_text(json.dumps({**UVICORN, "loggers": loggers}))
    done = configured_by(path)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 2


# -- a file for access lines -------------------------------------------------------------------------------------------------


def test_an_access_logfile_is_opened_anew_when_it_was_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    done = script(f"""
        settings = Settings(access_logfile={str(path)!r})
        logs.configure(settings)
        one_of_each(settings)
        logs.reopen()
        one_of_each(settings)
        os.rename({str(path)!r}, {str(path) + ".1"!r})
        one_of_each(settings)
        logs.reopen()
        one_of_each(settings)
    """)
    assert done.stdout == ""
    assert path.with_name("access.log.1").read_text().count("GET /x HTTP/1.1") == 3
    assert path.read_text().count("GET /x HTTP/1.1") == 1


def test_a_full_disk_drops_access_lines_and_says_how_many() -> None:
    done = script("settings = Settings(access_logfile='/dev/full'); logs.configure(settings); one_of_each(settings)")
    assert "access log: 1 lines dropped, /dev/full: No space left on device" in done.stderr


def test_what_was_dropped_since_it_was_last_told_is_told_at_the_end() -> None:
    done = script("""
        settings = Settings(access_logfile='/dev/full')
        logs.configure(settings)
        access = new_access_log(settings)
        for _ in range(3):
            access.add("127.0.0.1:1", "GET", b"/x", "1.1", 200, 5, 0.001)
            access.flush()
        access.finish()
        access.finish()
    """)
    assert [line.split("access log: ")[1].split(",")[0] for line in done.stderr.splitlines()] == ["1 lines dropped", "2 lines dropped"]
