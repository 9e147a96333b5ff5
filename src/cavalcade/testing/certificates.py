"""Certificates for tests: an authority of our own, and what it has signed, as files. Needs trustme, of the `dev` extra."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

LOCAL = ("localhost", "127.0.0.1", "::1")


class Pair:
    """A certificate and its key in files. `pem` is the certificate alone."""

    def __init__(self, folder: Path, name: str, leaf: trustme.LeafCert) -> None:
        self.leaf = leaf
        self.certfile = folder / f"{name}.pem"
        self.keyfile = folder / f"{name}.key"
        self.both = folder / f"{name}-both.pem"
        self.write()

    def write(self) -> None:
        self.certfile.write_bytes(b"".join(blob.bytes() for blob in self.leaf.cert_chain_pems))
        self.keyfile.write_bytes(self.leaf.private_key_pem.bytes())
        self.both.write_bytes(self.leaf.private_key_and_cert_chain_pem.bytes())

    def replace_by(self, other: Pair) -> None:
        """As a renewal does: the same files with another certificate in them."""
        self.leaf = other.leaf
        self.write()

    def encrypt_key(self, password: str) -> Path:
        """The key once more, encrypted."""
        key = serialization.load_pem_private_key(self.leaf.private_key_pem.bytes(), None)
        best = serialization.BestAvailableEncryption(password.encode())
        path = self.keyfile.with_suffix(".encrypted")
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, best))
        return path

    @property
    def pem(self) -> str:
        return self.leaf.cert_chain_pems[0].bytes().decode()

    @property
    def serial(self) -> str:
        """As `SSLSocket.getpeercert` writes it."""
        return serial(self.pem)

    @property
    def options(self) -> dict[str, str]:
        return {"ssl_certfile": str(self.certfile), "ssl_keyfile": str(self.keyfile)}

    @property
    def flags(self) -> list[str]:
        return ["--ssl-certfile", str(self.certfile), "--ssl-keyfile", str(self.keyfile)]


class Authority:
    """Signs certificates into a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.ca.cert_pem.bytes())

    def issue(self, name: str, *hosts: str, days: int = 90, since: int = 1, **more: Any) -> Pair:
        """A certificate for these hosts, by default the local ones, that is `since` days old and good for `days` more."""
        now = datetime.now(UTC)
        begin, end = now - timedelta(days=since), now + timedelta(days=days)
        return Pair(self.folder, name, self.ca.issue_cert(*(hosts or LOCAL), not_before=begin, not_after=end, **more))

    @cached_property
    def pair(self) -> Pair:
        """A good one for this machine."""
        return self.issue("server")

    @property
    def crl_file(self) -> Path:
        return self.folder / "revoked.pem"

    def revoke(self, *pairs: Pair) -> None:
        """Write the list of certificates that are not good any more."""
        now = datetime.now(UTC)
        key = serialization.load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        assert isinstance(key, EllipticCurvePrivateKey)
        issuer = x509.load_pem_x509_certificate(self.ca.cert_pem.bytes()).subject
        builder = x509.CertificateRevocationListBuilder(issuer, now - timedelta(hours=1), now + timedelta(days=1))
        for pair in pairs:
            number = x509.load_pem_x509_certificate(pair.pem.encode()).serial_number
            revoked = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now).build()
            builder = builder.add_revoked_certificate(revoked)
        self.crl_file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def client(self, pair: Pair | None = None, **settings: Any) -> ssl.SSLContext:
        """What a client needs that trusts this authority; with a `pair` it shows that certificate."""
        context = ssl.create_default_context(cafile=str(self.file))
        if pair is not None:
            context.load_cert_chain(pair.certfile, pair.keyfile)
        for name, value in settings.items():
            setattr(context, name, value)
        return context


def serial(pem: str) -> str:
    """The serial number of a certificate, as `SSLSocket.getpeercert` writes it."""
    number = f"{x509.load_pem_x509_certificate(pem.encode()).serial_number:X}"
    return number if len(number) % 2 == 0 else f"0{number}"
