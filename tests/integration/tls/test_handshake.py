"""Who is let in over TLS, who is not, and what the log says of it."""

from __future__ import annotations

import ast
import asyncio
import re
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # the beginning of a ClientHello
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def said(body: bytes) -> Any:
    return ast.literal_eval(body.decode())


def test_https_is_served_and_the_app_is_told_of_it(run: Any, serve: Any, authority: Any, told: Any) -> None:
    async def main() -> None:
        async with serve(told, lifespan="off", **authority.pair.options) as served:
            assert re.fullmatch(r"https://127\.0\.0\.1:\d+", served.url)
            async with httpx.AsyncClient(verify=authority.client()) as client:
                facts = said((await client.get(served.url)).content)
        assert facts["scheme"] == "https"
        assert facts["tls"] == {
            "server_cert": authority.pair.pem,
            "client_cert_chain": (),
            "client_cert_name": None,
            "client_cert_error": None,
            "tls_version": 0x0304,
            "cipher_suite": 0x1302,  # TLS_AES_256_GCM_SHA384
        }

    run(main())


def test_plain_http_has_no_tls_extension(run: Any, serve: Any, told: Any) -> None:
    async def main() -> None:
        async with serve(told, lifespan="off") as served:
            async with httpx.AsyncClient() as client:
                assert said((await client.get(served.url)).content) == {"scheme": "http", "tls": None}

    run(main())


def test_every_request_has_an_extension_of_its_own(run: Any, serve: Any, authority: Any) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(sorted(scope["extensions"]["tls"]))
        scope["extensions"]["tls"].clear()
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async def main() -> None:
        async with serve(app, lifespan="off", **authority.pair.options) as served:
            async with httpx.AsyncClient(verify=authority.client()) as client:
                for _ in range(2):
                    await client.get(served.url)
        assert seen[0] == seen[1] != []

    run(main())


@pytest.mark.parametrize("version", [V12, V13])
def test_a_client_certificate_is_told_to_the_app(
    version: Any, run: Any, serve: Any, authority: Any, told: Any, tls_client: Any, in_thread: Any
) -> None:
    me = authority.issue("me", "me@example.org", common_name="Me", organization_name="Us")

    async def main() -> None:
        options = {**authority.pair.options, "ssl_cert_reqs": "required", "ssl_ca_certs": str(authority.file)}
        async with serve(told, lifespan="off", **options) as served:

            def ask() -> Any:
                client = tls_client(served.url, authority.client(me, minimum_version=version, maximum_version=version))
                cipher = client.sock.cipher()
                facts = said(client.ask()[2])["tls"]
                client.close()
                return facts, cipher

            facts, cipher = await in_thread(ask)
            assert facts["client_cert_chain"][0] == me.pem
            assert facts["client_cert_name"].startswith("CN=Me,")
            assert facts["client_cert_name"].endswith("O=Us")
            assert facts["tls_version"] == {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}[cipher[1]]

    run(main())


@pytest.mark.parametrize("version", [V12, V13])
def test_clients_without_a_good_certificate(
    version: Any, run: Any, serve: Any, authority: Any, told: Any, tls_client: Any, in_thread: Any, tmp_path: Path
) -> None:
    """`optional` lets in who has none, nothing lets in who has a bad one, and the log says which it was."""
    (tmp_path / "strange").mkdir()
    stranger = type(authority)(tmp_path / "strange").issue("stranger", "me@example.org")

    async def main() -> None:
        for reqs, pair, line in (
            ("none", stranger, ""),
            ("optional", None, ""),
            ("optional", stranger, "unable to get local issuer certificate; the client's certificate is not good"),
            ("required", None, "peer did not return a certificate; the client has sent no certificate"),
        ):
            options = {**authority.pair.options, "ssl_cert_reqs": reqs}
            options |= {"ssl_ca_certs": str(authority.file)} if reqs != "none" else {}
            async with serve(told, lifespan="off", **options) as served:

                def ask(url: str = served.url, pair: Any = pair) -> Any:
                    try:
                        client = tls_client(url, authority.client(pair, minimum_version=version, maximum_version=version))
                    except (ssl.SSLError, ConnectionError):
                        return None
                    try:
                        return said(client.ask()[2])["tls"]
                    except (ssl.SSLError, OSError):  # TLS 1.3: the client is done before the server has looked
                        return None
                    finally:
                        client.close()

                before = len(served.log())
                facts = await in_thread(ask)
                if line:
                    assert facts is None
                    lines = await served.until(lambda before=before: served.log()[before:])
                    assert line in lines[0]
                    assert "connection of 127.0.0.1:" in lines[0]
                else:
                    assert facts["client_cert_chain"] == ()

    run(main())


def test_a_revoked_client_certificate_is_refused(run: Any, serve: Any, authority: Any, told: Any, tls_client: Any, in_thread: Any) -> None:
    good, bad = authority.issue("good", "good@example.org"), authority.issue("bad", "bad@example.org")
    authority.revoke(bad)

    async def main() -> None:
        options = {"ssl_cert_reqs": "required", "ssl_ca_certs": str(authority.file), "ssl_crl": str(authority.crl_file)}
        async with serve(told, lifespan="off", **authority.pair.options, **options) as served:

            def ask(pair: Any) -> bool:
                client = tls_client(served.url, authority.client(pair))
                try:
                    return bool(client.ask()[0] == 200)
                except (ssl.SSLError, OSError):
                    return False
                finally:
                    client.close()

            assert await in_thread(ask, good)
            assert not await in_thread(ask, bad)
            assert "certificate revoked" in (await served.until(served.log))[0]

    run(main())


def test_what_a_client_may_speak(run: Any, serve: Any, authority: Any, told: Any, tls_client: Any, in_thread: Any) -> None:
    """Versions and ciphers that are not offered are refused with a hint."""

    async def main() -> None:
        for options, client_options, ciphers, line in (
            (
                {"ssl_minimum_version": "1.3"},
                {"maximum_version": V12},
                "",
                "unsupported protocol; the client's TLS is older than ssl_minimum_version",
            ),
            (
                {"ssl_ciphers": "ECDHE+AESGCM"},
                {"maximum_version": V12},
                "ECDHE+CHACHA20",
                "no shared cipher; the client knows none of our ciphers",
            ),
        ):
            async with serve(told, lifespan="off", **authority.pair.options, **options) as served:

                def ask(url: str = served.url, settings: Any = client_options, ciphers: str = ciphers) -> None:
                    context = authority.client(**settings)
                    if ciphers:
                        context.set_ciphers(ciphers)
                    with pytest.raises(ssl.SSLError):
                        tls_client(url, context)

                before = len(served.log())
                await in_thread(ask)
                assert line in (await served.until(lambda before=before: served.log()[before:]))[0]

    run(main())


def test_the_protocol_is_agreed_on(run: Any, serve: Any, authority: Any, told: Any, tls_client: Any, in_thread: Any) -> None:
    async def main() -> None:
        async with serve(told, lifespan="off", **authority.pair.options) as served:

            def agreed(*offered: str) -> Any:
                context = authority.client()
                if offered:
                    context.set_alpn_protocols(list(offered))
                client = tls_client(served.url, context)
                found = client.sock.selected_alpn_protocol()
                client.close()
                return found

            assert await in_thread(agreed, "spdy/3", "http/1.1") == "http/1.1"
            assert await in_thread(agreed, "http/1.1", "h2") == "h2"
            assert await in_thread(agreed) is None
        async with serve(told, lifespan="off", http2=False, **authority.pair.options) as served:
            assert await in_thread(agreed, "http/1.1", "h2") == "http/1.1"

    run(main())


def test_the_host_name_chooses_among_several_certificates(
    run: Any, serve: Any, authority: Any, told: Any, tls_client: Any, in_thread: Any
) -> None:
    """By SNI: the client checks the name in what it is shown, and the app is told which one that was."""
    exact, wild = authority.issue("exact", "a.example"), authority.issue("wild", "*.b.example")
    sni = (f"a.example={exact.certfile}:{exact.keyfile}", f"*.b.example={wild.both}")

    async def main() -> None:
        async with serve(told, lifespan="off", **authority.pair.options, ssl_sni=sni) as served:

            def ask(host: str) -> Any:
                client = tls_client(served.url, authority.client(), host)
                body = client.ask()[2]
                client.close()
                return said(body)["tls"]["server_cert"]

            for host, pair in (("a.example", exact), ("c.b.example", wild), ("localhost", authority.pair)):
                assert await in_thread(ask, host) == pair.pem
            with pytest.raises(ssl.SSLCertVerificationError):
                await in_thread(ask, "nobody.test")  # it is shown the usual one, which is not in that name
            await served.until(served.log)

    run(main())


# -- who speaks something else -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 0])
def test_plain_http_to_the_tls_port_is_answered_in_plain_text(pieces: int, run: Any, serve: Any, authority: Any, told: Any) -> None:
    async def main() -> None:
        async with serve(told, lifespan="off", **authority.pair.options) as served:
            client = await connected(served)
            request = b"GET /where HTTP/1.1\r\nHost: localhost\r\n\r\n"
            for piece in [request[:1], request[1:]] if pieces else [request]:
                await client.send(piece)
            response = await client.response()
            assert response.status == 400
            assert response.body == b"plain HTTP spoken to an HTTPS port\n"
            assert response.header("connection") == "close"
            assert await client.rest() == b""
            assert client.ended == "closed"
            client.close()
            assert "use https:// here (answered 400)" in served.log()[0]
            await served.until_gone()

    run(main())


async def connected(served: Any) -> Any:
    """A client without TLS."""
    url, served.url = served.url, served.url.replace("https://", "http://")
    try:
        return await served.connect()
    finally:
        served.url = url


def test_tls_to_a_plain_port_is_answered_and_the_log_names_the_fix(
    run: Any, serve: Any, authority: Any, told: Any, in_thread: Any, tls_client: Any
) -> None:
    async def main() -> None:
        async with serve(told, lifespan="off") as served:

            def ask() -> None:
                with pytest.raises(ssl.SSLError):
                    tls_client(served.url.replace("http://", "https://"), authority.client())

            await in_thread(ask)
            assert "TLS spoken to a plain HTTP port; use http:// here, or give the server --ssl-certfile" in served.log()[0]

    run(main())


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"\x00\x01garbage\r\n", r"neither TLS nor HTTP: it began b'\\x00\\x01garbage"),
        (b"\x16garbage that begins like TLS", "TLS handshake failed: wrong version number; not TLS"),
        (HELLO + b"x" * 600, "TLS handshake failed: "),
        (b"\x16\x03\x01\xff\xff" + b"x" * 70000, "TLS handshake failed: packet length too long"),
        (HELLO, "it left in the middle of the TLS handshake"),
    ],
)
def test_garbage_is_logged_and_the_connection_closed(data: bytes, line: str, run: Any, serve: Any, authority: Any, told: Any) -> None:
    async def main() -> None:
        async with serve(told, lifespan="off", **authority.pair.options) as served:
            client = await connected(served)
            await client.send(data)
            if data == HELLO:
                client.half_close()
            await client.rest()
            assert client.ended
            assert re.search(line, (await served.until(served.log))[0])
            await served.until_gone()

    run(main())


def test_who_comes_and_goes_without_a_word_is_not_worth_a_line(run: Any, serve: Any, authority: Any, told: Any) -> None:
    """Load balancers look whether a port is open all the time."""

    async def main() -> None:
        async with serve(told, lifespan="off", **authority.pair.options) as served:
            for leave in ("close", "reset"):
                client = await connected(served)
                await served.until(lambda: served.connections == 1)
                getattr(client, leave)()
                await served.until_gone()
            assert served.log() == []

    run(main())


# -- who is slow -------------------------------------------------------------------------------------------------------


def test_a_handshake_must_end_in_time(run: Any, serve: Any, authority: Any, told: Any) -> None:
    async def main() -> None:
        async with serve(told, lifespan="off", head_timeout=0.2, **authority.pair.options) as served:
            began = time.monotonic()
            client = await connected(served)
            await client.send(HELLO)
            await client.rest()
            assert time.monotonic() - began < 5
            assert "no whole TLS handshake within 0.2 s (head_timeout)" in served.log()[0]
            silent = await connected(served)
            assert await silent.rest() == b""
            assert len(served.log()) == 1
            await served.until_gone()

    run(main())


def test_the_handshake_does_not_give_the_first_request_more_time(
    run: Any, serve: Any, authority: Any, told: Any, tls_client: Any, in_thread: Any
) -> None:
    async def main() -> None:
        async with serve(told, lifespan="off", head_timeout=0.2, **authority.pair.options) as served:

            def idle() -> Any:
                client = tls_client(served.url, authority.client())
                assert client.rest() == b""
                client.close()
                return client.ended

            assert await in_thread(idle) == "closed"

    run(main())


@pytest.mark.slow
def test_a_thousand_half_open_handshakes_hold_up_nobody_and_are_gone_in_time(run: Any, serve: Any, authority: Any, told: Any) -> None:
    async def main() -> None:
        async with serve(told, lifespan="off", head_timeout=1.5, backlog=2048, **authority.pair.options) as served:
            crowd = []
            loop = asyncio.get_running_loop()
            host, _, port = served.url.removeprefix("https://").partition(":")
            for number in range(1000):
                sock = socket.socket()
                sock.setblocking(False)
                await loop.sock_connect(sock, (host, int(port)))
                if number % 2:
                    await loop.sock_sendall(sock, HELLO)
                crowd.append(sock)
            async with httpx.AsyncClient(verify=authority.client()) as client:
                assert (await client.get(served.url)).status_code == 200
            await served.until_gone()
            for sock in crowd:
                sock.close()
            lines = served.log()
            assert 1 <= len(lines) <= 4  # a flood of clients is not a flood of lines
            assert all("no whole TLS handshake" in line for line in lines)

    run(main())
