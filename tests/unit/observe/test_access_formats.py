"""Formats of access lines: gunicorn's atoms, templates of our own, and what is wrong with one."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest

from cavalcade.config import access_formats
from cavalcade.config.access_formats import ATOMS, FIELDS
from cavalcade.config.options import Settings
from cavalcade.observe import access_fields, requests
from cavalcade.observe.access import DetailedAccessLog, is_detailed
from cavalcade.observe.access_fields import Entry, compile_format
from cavalcade.observe.requests import Seen

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def entry(**changes: Any) -> Entry:
    seen = Seen([(b"referer", b"http://x/"), (b"user-agent", b"curl"), (b"authorization", b"Basic Ym9iOnB3"), (b"traceparent", TRACE)])
    seen.response_headers = [(b"Content-Type", b"text/plain")]
    seen.received, seen.ttfb_s, seen.route, seen.request_id = 7, 0.25, "/a/{b}", "an-id"
    facts: dict[str, Any] = {"client": "10.1.2.3:4567", "method": "GET", "target": "/a/b?q=1", "version": "1.1", "status": 200}
    facts |= {"sent_bytes": 12, "seconds": 1.5, "seen": seen, "at": 1700000000.0}
    return Entry(**facts | changes)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("%(h)s %(l)s %(u)s", "10.1.2.3 - bob"),
        ("%(r)s", "GET /a/b?q=1 HTTP/1.1"),
        ("%(m)s %(U)s?%(q)s %(H)s", "GET /a/b?q=1 HTTP/1.1"),
        ("%(s)s %(B)s %(b)s", "200 12 12"),
        ("%(f)s %(a)s", "http://x/ curl"),
        ("%(T)s %(M)s %(D)s %(L)s", "1 1500 1500000 1.500000"),
        ("%({user-agent}i)s %({Content-Type}o)s %({none}i)s", "curl text/plain -"),
        ("%({request_method}e)s %({HTTP_USER_AGENT}e)s %({remote_addr}e)s %({SHELL}e)s", "GET curl 10.1.2.3 -"),
        ("100%% %(D)9d|%(s)d", "100%   1500000|200"),
        ("{client} {method} {target} {status}", "10.1.2.3:4567 GET /a/b?q=1 200"),
        ("{duration_ms:.2f} {duration_s} {ttfb_ms} {queue_ms:.1f}", "1500.00 1.5 250.0 -"),
        ("{received_bytes}/{bytes} {route} {trace_id} {request_id}", "7/12 /a/{b} 0af7651916cd43dd8448eb211c80319c an-id"),
        ("{{{method}}} {request.user-agent} {response.content-type} {user} {client_left}", "{GET} curl text/plain bob -"),
    ],
)
def test_a_line(text: str, line: str) -> None:
    assert compile_format(text)(entry()) == line


def test_the_names_of_gunicorns_formats() -> None:
    line = compile_format("combined")(entry())
    when = r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
    assert re.fullmatch(rf'10\.1\.2\.3 - bob {when} "GET /a/b\?q=1 HTTP/1\.1" 200 12 "http://x/" "curl"', line)
    assert compile_format("common")(entry(sent_bytes=0)).endswith(" 200 -")


def test_every_name_that_is_known_has_a_meaning() -> None:
    for name in ATOMS:
        assert compile_format(f"%({name})s")(entry())
    for name in FIELDS:
        assert compile_format(f"{{{name}}}")(entry())
    assert compile_format("%(p)s")(entry()) == f"<{os.getpid()}>"
    assert access_fields._ATOMS.keys() == ATOMS.keys()
    assert access_fields._FIELDS.keys() == FIELDS.keys()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("%(x)s", "%(x)s"),
        ("%(h)q", "begins no atom"),
        ("100% %(h)s", "%%"),
        ("{staus}", "did you mean {status}"),
        ("{nothing_like_it}", "request.HEADER"),
        ("{status", "cannot be read"),
        ("{status!r}", "cannot be read"),
        ("hello", "names nothing of the request"),
        ("{status}\n", "line break"),
    ],
)
def test_what_is_wrong_with_a_format_is_said(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        access_formats.parse(text)


def test_a_peer_cannot_end_the_line_or_a_quote() -> None:
    bad = 'a"\r\n\x1b[2J\u2028'
    seen = Seen([(b"user-agent", b'x"\n\xff'), (b"authorization", b"Basic YQpi")])
    line = compile_format('"%(r)s" "%(a)s" %(u)s')(entry(target=bad, seen=seen))
    assert line.isascii()
    assert line.isprintable()
    assert line.count('"') - line.count('\\"') == 4


def test_a_variable_of_the_environ() -> None:
    seen = Seen([])
    seen.environ = {"wsgi.url_scheme": "https", "MY_VAR": "x"}
    assert compile_format("%({my_var}e)s %({wsgi.url_scheme}e)s")(entry(seen=seen)) == "x https"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"t=1700000000.123", 1700000000.123),
        (b"1700000000123", 1700000000.123),
        (b"t=1700000000123456", 1700000000.123456),
        (b"1700000000", 1700000000.0),
        (b"soon", 0.0),
        (b"t=-5", 0.0),
    ],
)
def test_the_forms_of_x_request_start(value: bytes, seconds: float) -> None:
    assert requests.request_start([(b"x-request-start", value)]) == pytest.approx(seconds, abs=1e-6)


def test_of_those_that_went_well_one_in_so_many_is_logged_and_all_others() -> None:
    log = DetailedAccessLog(Settings(access_log_sample=10))
    for status in [200] * 25 + [404, 500, 301]:
        log.add("c", "GET", b"/", "1.1", status, 0, 0.0)
    log.seen = Seen([])
    log.seen.left = True
    log.add("c", "GET", b"/", "1.1", 200, 0, 0.0)
    assert [each[4] for each in log.pending] == [200, 200, 200, 404, 500, 200]


def test_connections_are_only_watched_where_somebody_wants_to_know() -> None:
    assert not is_detailed(Settings())
    assert not is_detailed(Settings(request_id="make"))
    assert not is_detailed(Settings(access_log=False, log_format="json"))
    for settings in (Settings(log_format="json"), Settings(access_log_format="common"), Settings(access_log_sample=2)):
        assert is_detailed(settings)


def test_a_line_of_json_holds_the_line_of_the_format_too() -> None:
    log = DetailedAccessLog(Settings(log_format="json", access_log_format="%(m)s %(s)s"))
    log.add("c", "GET", b"/", "1.1", 200, 0, 0.0)
    line = json.loads(log._json_lines(log.pending, 0.0))
    assert line["message"] == "GET 200"
    assert line["ttfb_s"] == 0
