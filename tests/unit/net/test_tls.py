"""Certificates and keys: what is refused and in which words, what is taken up when files change, what an app is told."""

from __future__ import annotations

import re
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from cavalcade.config.options import Settings
from cavalcade.errors import TlsError
from cavalcade.net import certificate
from cavalcade.net.tls import Tls, rfc4514


def refusal(**options: Any) -> TlsError:
    with pytest.raises(TlsError) as caught:
        Tls(Settings(**options))
    assert "\n" not in caught.value.cause
    return caught.value


def shaken(tls: Tls, client: ssl.SSLContext, host: str | None = "localhost", session: Any = None) -> ssl.SSLObject:
    """A whole handshake in memory; the client's side of it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = tls.front.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=host, session=session)
    for side in (theirs, ours, theirs, ours, theirs):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return theirs


def shown(tls: Tls, client: ssl.SSLContext, host: str | None = "localhost") -> str:
    """The serial number of what a client is shown."""
    peer: Any = shaken(tls, client, host).getpeercert()
    return str(peer["serialNumber"])


# -- what cannot be used -------------------------------------------------------------------------------------------------


def test_a_file_that_is_missing_is_named(authority: Any, tmp_path: Path) -> None:
    error = refusal(ssl_certfile=str(tmp_path / "none.pem"), ssl_keyfile=str(authority.pair.keyfile))
    assert error.cause == f"ssl_certfile {tmp_path}/none.pem cannot be read: No such file or directory"
    error = refusal(ssl_certfile=str(authority.pair.certfile), ssl_keyfile=str(tmp_path / "none.key"))
    assert error.cause == f"ssl_keyfile {tmp_path}/none.key cannot be read: No such file or directory"
    assert "Is a directory" in refusal(ssl_certfile=str(tmp_path)).cause


def test_a_key_of_another_certificate_is_refused(authority: Any) -> None:
    other = authority.issue("other")
    error = refusal(ssl_certfile=str(authority.pair.certfile), ssl_keyfile=str(other.keyfile))
    assert error.cause == f"ssl_certfile {authority.pair.certfile}: the key in {other.keyfile} does not belong to this certificate"
    assert "must come first" in error.fix


def test_a_chain_in_the_wrong_order_is_refused_with_the_order(authority: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(authority.file.read_bytes() + authority.pair.certfile.read_bytes())
    assert "must come first" in refusal(ssl_certfile=str(wrong), ssl_keyfile=str(authority.pair.keyfile)).fix


def test_files_the_wrong_way_round_are_recognised(authority: Any) -> None:
    pair = authority.pair
    error = refusal(ssl_certfile=str(pair.keyfile), ssl_keyfile=str(pair.certfile))
    assert "holds a private key and no certificate" in error.cause
    assert "wrong way round" in error.fix


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "it is empty"),
        (b"hello\n", "holds no certificate in PEM form"),
        (b"\x30\x82\x01\x02abc", "DER or PKCS#12"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nMII=\n-----END CERTIFICATE REQUEST-----\n", "request for a certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "OpenSSL cannot use it"),
    ],
)
def test_what_is_no_certificate_is_named_for_what_it_is(content: bytes, cause: str, authority: Any, tmp_path: Path) -> None:
    path = tmp_path / "strange.pem"
    path.write_bytes(content)
    error = refusal(ssl_certfile=str(path), ssl_keyfile=str(authority.pair.keyfile))
    assert error.cause.startswith(f"ssl_certfile {path}: ")
    assert cause in error.cause
    assert error.fix


def test_a_certificate_alone_has_no_key(authority: Any) -> None:
    assert "there is no private key in it" in refusal(ssl_certfile=str(authority.pair.certfile)).cause
    error = refusal(ssl_certfile=str(authority.pair.certfile), ssl_keyfile=str(authority.file))
    assert error.cause == f"ssl_keyfile {authority.file}: it holds no private key in PEM form"


def test_certificate_and_key_in_one_file_are_enough(authority: Any) -> None:
    assert shown(Tls(Settings(ssl_certfile=str(authority.pair.both))), authority.client()) == authority.pair.serial


def test_an_encrypted_key_needs_its_password_and_nobody_is_asked_for_it(authority: Any) -> None:
    key = authority.pair.encrypt_key("open sesame")
    files = {"ssl_certfile": str(authority.pair.certfile), "ssl_keyfile": str(key)}
    assert shown(Tls(Settings(**files, ssl_keyfile_password="open sesame")), authority.client()) == authority.pair.serial
    missing, wrong = refusal(**files), refusal(**files, ssl_keyfile_password="hush, wrong")
    assert missing.cause == f"ssl_keyfile {key}: the key is encrypted, and no password is given"
    assert wrong.cause == f"ssl_keyfile {key}: the key does not open with ssl_keyfile_password"
    assert "hush" not in wrong.cause + wrong.fix


def test_ciphers_that_do_not_exist_are_refused(authority: Any) -> None:
    assert "OpenSSL knows no such ciphers" in refusal(**authority.pair.options, ssl_ciphers="NONSENSE").cause


def test_client_authorities_must_be_authorities(authority: Any, tmp_path: Path) -> None:
    files = {**authority.pair.options, "ssl_cert_reqs": "required"}
    assert "holds no certificate of an authority" in refusal(**files, ssl_ca_certs=str(authority.pair.certfile)).cause
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    assert refusal(**files, ssl_ca_certs=str(junk)).cause.startswith(f"ssl_ca_certs {junk}: ")
    assert refusal(**files, ssl_ca_certs=str(authority.file), ssl_crl=str(junk)).cause.startswith(f"ssl_crl {junk}: ")
    assert "cannot be read" in refusal(**files, ssl_ca_certs=str(tmp_path / "gone")).cause


def test_the_certificate_of_a_host_is_named_with_it(authority: Any, tmp_path: Path) -> None:
    error = refusal(**authority.pair.options, ssl_sni=(f"a.example={tmp_path}/gone.pem",))
    assert error.cause == f"ssl_sni a.example: {tmp_path}/gone.pem cannot be read: No such file or directory"


# -- which one is shown ----------------------------------------------------------------------------------------------------


def test_the_host_name_chooses_the_certificate(authority: Any) -> None:
    exact, wild = authority.issue("exact", "a.example"), authority.issue("wild", "*.example")
    sni = (f"a.example={exact.certfile}:{exact.keyfile}", f"*.example={wild.both}")
    tls = Tls(Settings(**authority.pair.options, ssl_sni=sni))
    client = authority.client(check_hostname=False)
    assert shown(tls, client, "a.example") == shown(tls, client, "A.EXAMPLE") == exact.serial
    assert shown(tls, client, "b.example") == wild.serial
    assert shown(tls, client, "c.b.example") == shown(tls, client, "example") == shown(tls, client, None) == authority.pair.serial


# -- files that change -----------------------------------------------------------------------------------------------------


def test_new_files_are_taken_up_and_bad_ones_are_not(authority: Any) -> None:
    pair, client = authority.pair, authority.client()
    tls = Tls(Settings(**pair.options))
    first, second, third = pair.serial, authority.issue("second"), authority.issue("third")
    assert not tls.changed()
    pair.keyfile.write_bytes(second.keyfile.read_bytes())  # the first half of a renewal
    assert tls.changed()
    with pytest.raises(TlsError, match="does not belong"):
        tls.reload()
    assert not tls.changed()
    assert shown(tls, client) == first
    pair.certfile.write_bytes(second.certfile.read_bytes())
    assert tls.changed()
    assert tls.reload()
    assert shown(tls, client) == second.serial
    pair.certfile.unlink()
    assert tls.changed()
    with pytest.raises(TlsError, match="No such file"):
        tls.reload()
    assert shown(tls, client) == second.serial
    pair.replace_by(third)
    assert tls.changed()
    assert tls.reload()
    assert shown(tls, client) == third.serial


def test_files_that_were_only_touched_are_nothing_new(authority: Any) -> None:
    tls = Tls(Settings(**authority.pair.options))
    authority.pair.write()
    assert tls.changed()
    assert tls.reload() is False


def test_a_directory_that_is_swapped_by_its_link_is_seen(authority: Any, tmp_path: Path) -> None:
    """As Kubernetes mounts a secret: tls.crt -> ..data/tls.crt, and ..data is a link that is replaced."""
    first, second = authority.pair, authority.issue("second")
    for name, pair in (("v1", first), ("v2", second)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tls.crt").write_bytes(pair.certfile.read_bytes())
        (tmp_path / name / "tls.key").write_bytes(pair.keyfile.read_bytes())
    (tmp_path / "..data").symlink_to("v1")
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    tls = Tls(Settings(ssl_certfile=str(tmp_path / "tls.crt"), ssl_keyfile=str(tmp_path / "tls.key")))
    assert shown(tls, authority.client()) == first.serial
    (tmp_path / "..new").symlink_to("v2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    assert tls.changed()
    assert tls.reload()
    assert shown(tls, authority.client()) == second.serial


def test_another_directory_of_the_process_changes_nothing(authority: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(authority.folder)
    tls = Tls(Settings(ssl_certfile=authority.pair.certfile.name, ssl_keyfile=authority.pair.keyfile.name))
    monkeypatch.chdir(tmp_path)
    assert not tls.changed()


def test_a_session_is_resumed_after_a_renewal_but_not_after_a_change_of_trust(authority: Any) -> None:
    """The keys of tickets belong to the trust: who is not trusted any more must show a certificate again."""
    pair, client = authority.pair, authority.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    tls = Tls(Settings(**pair.options, ssl_cert_reqs="optional", ssl_ca_certs=str(authority.file)))
    session = shaken(tls, client).session

    def resumed() -> bool:
        return bool(shaken(tls, client, session=session).session_reused)

    assert resumed()
    pair.replace_by(authority.issue("second"))
    assert tls.reload()
    assert resumed()
    authority.file.write_bytes(authority.file.read_bytes() + type(authority)(authority.folder).ca.cert_pem.bytes())
    assert tls.reload()
    assert not resumed()


# -- words for people --------------------------------------------------------------------------------------------------------


def test_a_certificate_says_what_it_is_for_and_how_long(authority: Any) -> None:
    pair = authority.issue("many", "a.example", "b.example", "c.example", "127.0.0.1", days=30)
    read = certificate.read(pair.pem)
    assert read is not None
    assert read.names == ("a.example", "b.example", "c.example", "127.0.0.1")
    assert f"{read.serial:X}".zfill(len(pair.serial)) == pair.serial
    assert read.not_after - time.time() == pytest.approx(30 * 86400, abs=60)
    assert re.fullmatch(
        r"a\.example, b\.example, c\.example and 1 more, serial [0-9a-f]+, good until \d{4}-\d\d-\d\d \d\d:\d\d UTC", str(read)
    )


def test_garbage_is_no_certificate() -> None:
    for text in (
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    ):
        assert certificate.read(text) is None


@pytest.mark.parametrize(
    ("days", "since", "text"),
    [(-1, 90, "has expired on"), (90, 1, ""), (5, 85, "expires in 5 days"), (0.5, 89, "expires in 12 h"), (90, -2, "is good from")],
)
def test_a_certificate_whose_time_is_not_now_is_warned_of(days: float, since: float, text: str, authority: Any) -> None:
    tls = Tls(Settings(**authority.issue("odd", days=days, since=since).options))
    warnings = tls.warnings()
    assert len(warnings) == (1 if text else 0)
    assert all(text in warning and "odd.pem" in warning for warning in warnings)


def test_names_of_clients_are_written_as_rfc_4514_wants_them() -> None:
    subject = ((("countryName", "DE"),), (("organizationName", 'A, "B" + C'),), (("commonName", " #x\\ "), ("userId", "1")))
    assert rfc4514(subject) == 'CN=\\ #x\\\\\\ +UID=1,O=A\\, \\"B\\" \\+ C,C=DE'
    assert rfc4514(((("commonName", "#1"),),)) == "CN=\\#1"
    assert rfc4514(()) == ""
