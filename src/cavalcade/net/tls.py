"""Certificates, keys and contexts: from the options to what a connection is wrapped with, and to what its app is told.

An `Identity` is a certificate with its key. The `front` is the one that a handshake begins with; it is made once, before the workers
are forked, so that all of them share its ticket keys, and a client resumes its session with whichever worker it meets. Where there is
another identity, by a host's name or because the certificate was renewed, the front's callback puts the right one in its place in the
middle of each handshake. So a renewed certificate is a new `Identity`, made whole or not at all, and no certificate that is in use is
ever changed.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from pathlib import Path
from typing import Any

from cavalcade.config.certificates import split_certificate
from cavalcade.config.checks import installed
from cavalcade.config.options import Settings
from cavalcade.errors import TlsError
from cavalcade.net import certificate
from cavalcade.net.certificate import Certificate

HTTP2 = "h2"  # its name in ALPN (RFC 9113 section 3.2)

_REQUIREMENTS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
# The numbers on the wire, as the ASGI TLS extension has them.
_VERSION_NUMBERS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_ENCRYPTED = ("ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED")  # PKCS#8, and the older form
_UNREADABLE = "Read permission for the user of the server is needed."
_READ_AGAIN = 3

Stamp = tuple[int, int, int, int, int] | None


class Identity(ssl.SSLContext):
    """One certificate with its key, ready to be shown to clients."""

    pem: str
    certificate: Certificate | None
    certfile: str


class Files:
    """The files that one identity is made of, as options named them: each with the option, for messages."""

    def __init__(self, option: str, certfile: str, key_option: str, keyfile: str) -> None:
        # Absolute: an app may change the directory.
        self.option = option
        self.certfile = os.path.abspath(certfile)
        self.key_option = key_option if keyfile else option
        self.keyfile = os.path.abspath(keyfile) if keyfile else self.certfile

    def refused(self, cause: str, fix: str) -> TlsError:
        return TlsError(f"{self.option} {self.certfile}: {cause}", fix=fix)

    def key_refused(self, cause: str, fix: str) -> TlsError:
        return TlsError(f"{self.key_option} {self.keyfile}: {cause}", fix=fix)


class Tls:
    """Everything TLS of one process. Raises `TlsError` for files or options that cannot be used.

    Whoever forks makes it before; `reload` then takes up what has changed in the files since.
    """

    def __init__(self, settings: Settings) -> None:
        self._alpn = [HTTP2, "http/1.1"] if settings.http2 and installed("h2") else ["http/1.1"]
        self._settings = settings
        self._files = Files("ssl_certfile", settings.ssl_certfile, "ssl_keyfile", settings.ssl_keyfile)
        self._named = {
            host: Files(f"ssl_sni {host}:", certfile, f"ssl_sni {host}:", keyfile)
            for host, certfile, keyfile in map(split_certificate, settings.ssl_sni)
        }
        self._ca_certs = os.path.abspath(settings.ssl_ca_certs) if settings.ssl_ca_certs else ""
        self._crl = os.path.abspath(settings.ssl_crl) if settings.ssl_crl else ""
        every = [self._files, *self._named.values()]
        self._paths = [path for files in every for path in (files.certfile, files.keyfile)]
        self._paths += [path for path in (self._ca_certs, self._crl) if path]
        self._stamps: list[Stamp] = []
        self._digest = b""
        self._trust_digest = b""
        self._default: Identity
        self._identities: dict[str, Identity] = {}
        self.front: Identity
        self._load()
        self._suites = {cipher["name"]: cipher["id"] & 0xFFFF for cipher in self.front.get_ciphers()}

    @property
    def identities(self) -> list[Identity]:
        """What is shown to clients now; the default first."""
        return [self._default, *self._identities.values()]

    def warnings(self) -> list[str]:
        """What is the matter with the times of the certificates; empty when all is well."""
        return [
            f"TLS: the certificate {identity.certfile} ({identity.certificate.shown_names}) {text}"
            for identity in self.identities
            if identity.certificate is not None and (text := certificate.warn(identity.certificate))
        ]

    # -- files that change -------------------------------------------------------------------------------------------------

    def changed(self) -> bool:
        """Has any of the files been replaced or written to since they were last read, whatever came of it?"""
        return self._stamp() != self._stamps

    def reload(self) -> bool:
        """Take up what is in the files now; False where that is what is in use already. Raises `TlsError`: then everything stays as
        it is, until the files change again."""
        return self._load()

    def _stamp(self) -> list[Stamp]:
        # Kubernetes swaps a directory by its symbolic link: stat() follows it, so the inode is another.
        stamps: list[Stamp] = []
        for path in self._paths:
            try:
                found = os.stat(path)
            except OSError:
                stamps.append(None)
            else:
                stamps.append((found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size))
        return stamps

    def _load(self) -> bool:
        for _ in range(_READ_AGAIN):
            self._stamps = self._stamp()
            loaded = self._load_once()
            if not self.changed():  # else half of it may be older than the other half
                break
        return loaded

    def _load_once(self) -> bool:
        contents = [
            _read(files.option, files.certfile) + _read(files.key_option, files.keyfile) for files in (self._files, *self._named.values())
        ]
        trust = [_read("ssl_ca_certs", self._ca_certs) if self._ca_certs else b"", _read("ssl_crl", self._crl) if self._crl else b""]
        digest, trust_digest = _digest(contents), _digest(trust)
        if (digest, trust_digest) == (self._digest, self._trust_digest):
            return False
        default = self._identity(self._files)
        identities = {host: self._identity(files) for host, files in self._named.items()}
        if trust_digest != self._trust_digest:
            # Also where only the trust has changed: a session of a client that is not trusted any more must not be resumed, so
            # its ticket keys have to go.
            self.front = default
        if identities or default is not self.front:
            self.front.sni_callback = self._choose  # else a handshake is spared it, which is a twelfth of its time
        self._default, self._identities = default, identities
        self._digest, self._trust_digest = digest, trust_digest
        return True

    # -- contexts ----------------------------------------------------------------------------------------------------------

    def _identity(self, files: Files) -> Identity:
        identity = Identity(ssl.PROTOCOL_TLS_SERVER)
        self._context(files, identity)
        identity.pem = certificate.first(_read(files.option, files.certfile).decode("latin-1"))
        identity.certificate = certificate.read(identity.pem)
        identity.certfile = files.certfile
        return identity

    def _context(self, files: Files, context: ssl.SSLContext) -> ssl.SSLContext:
        """Set a context up: all in the same way, because a handshake begins in one and ends in another."""
        settings = self._settings
        context.minimum_version = _VERSIONS[settings.ssl_minimum_version]
        # A client could keep us busy with it for ever (CVE-2011-1473), and nobody needs it. TLS 1.3 has none.
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.set_alpn_protocols(self._alpn)
        # In TLS 1.3, for each handshake: a ticket costs a twentieth of it, and whoever resumes a session with one is given the next.
        context.num_tickets = 1
        if settings.ssl_ciphers:
            try:
                context.set_ciphers(settings.ssl_ciphers)
            except ssl.SSLError:
                cause = f'ssl_ciphers "{settings.ssl_ciphers}": OpenSSL knows no such ciphers'
                raise TlsError(cause, fix="See `openssl ciphers -v`; those of TLS 1.3 are always on.") from None
        if self._ca_certs:
            self._trust(context)
        _load_pair(context, files, settings.ssl_keyfile_password)
        return context

    def _trust(self, context: ssl.SSLContext) -> None:
        try:
            context.load_verify_locations(self._ca_certs)
            if self._crl:
                context.load_verify_locations(self._crl)
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        except (ssl.SSLError, OSError) as error:
            which = f"ssl_crl {self._crl}" if context.get_ca_certs() else f"ssl_ca_certs {self._ca_certs}"
            raise TlsError(f"{which}: {_reason(error)}", fix="It must hold certificates, or revocation lists, in PEM.") from None
        if not context.get_ca_certs():
            cause = f"ssl_ca_certs {self._ca_certs}: it holds no certificate of an authority"
            raise TlsError(cause, fix="Give the certificate of who signs the clients' certificates, not a client's own.")
        context.verify_mode = _REQUIREMENTS[self._settings.ssl_cert_reqs]

    def _choose(self, connection: ssl.SSLObject, server_name: str | None, front: ssl.SSLContext) -> None:
        """In the middle of a handshake: the identity for this host, an exact name before a wildcard of one label (RFC 6125)."""
        connection.context = self._default
        if server_name and self._identities:
            name = server_name.lower()
            found = self._identities.get(name) or self._identities.get("*." + name.partition(".")[2])
            if found is not None:
                connection.context = found

    # -- what the app is told ----------------------------------------------------------------------------------------------

    def extension(self, connection: ssl.SSLObject) -> dict[str, Any]:
        """The `tls` extension of the ASGI connection scope (ASGI TLS extension 0.2), after the handshake."""
        cipher = connection.cipher()
        context = connection.context
        chain: list[str] = []
        name: str | None = None
        leaf = connection.getpeercert(True) if self._ca_certs else None
        if leaf is not None:
            # From 3.13 on Python gives the whole chain that the client has sent, before that the client's own certificate only.
            # In a session that is resumed there is only that.
            ders = (connection.get_unverified_chain() if hasattr(connection, "get_unverified_chain") else []) or [leaf]
            chain = [ssl.DER_cert_to_PEM_cert(der) for der in ders]
            name = rfc4514((connection.getpeercert() or {}).get("subject", ()))
        return {
            "server_cert": (context.pem or None) if isinstance(context, Identity) else None,
            "client_cert_chain": tuple(chain),
            "client_cert_name": name,
            "client_cert_error": None,  # a certificate that does not hold ends the handshake
            "tls_version": _VERSION_NUMBERS.get(connection.version() or ""),
            "cipher_suite": self._suites.get(cipher[0]) if cipher is not None else None,
        }


def _read(option: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        fix = _UNREADABLE if isinstance(error, PermissionError) else ""
        raise TlsError(f"{option} {path} cannot be read: {error.strerror}", fix=fix) from None


def _digest(contents: list[bytes]) -> bytes:
    hashed = hashlib.sha256()
    for content in contents:
        hashed.update(len(content).to_bytes(8, "big") + content)
    return hashed.digest()


def _reason(error: Exception) -> str:
    """What OpenSSL says, in words."""
    reason = getattr(error, "reason", None)
    return str(reason).lower().replace("_", " ") if reason else str(error)


# -- a certificate and its key -------------------------------------------------------------------------------------------


def _load_pair(context: ssl.SSLContext, files: Files, password: str) -> None:
    """Load the pair, or say in words what is the matter with it."""
    _check_certificate(files, _read(files.option, files.certfile))
    encrypted = _check_key(files, _read(files.key_option, files.keyfile), password)
    try:
        # Always with a password: without one OpenSSL would ask for it at the terminal, and wait.
        context.load_cert_chain(files.certfile, files.keyfile, lambda: password)
    except ssl.SSLError as error:
        reason = str(error.reason)
        if "MISMATCH" in reason:
            cause = f"the key in {files.keyfile} does not belong to this certificate"
            fix = (
                "The server's own certificate must come first in the file, its chain behind it." if files.keyfile != files.certfile else ""
            )
            raise files.refused(cause, fix or "Give the key that the certificate was made for.") from None
        if reason in ("CA_MD_TOO_WEAK", "EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL"):
            raise files.refused(
                f"OpenSSL takes it for too weak ({_reason(error)})", "Have a new one made: RSA 2048 bits, or P-256."
            ) from None
        if encrypted:
            raise files.key_refused("the key does not open with ssl_keyfile_password", "Is it the password of this key?") from None
        raise files.refused(f"OpenSSL cannot use it ({_reason(error)})", "`openssl x509 -noout -text -in FILE` shows it.") from None
    except OSError as error:  # it has gone since it was looked at
        raise files.refused(f"cannot be read: {error.strerror}", "") from None
    except ValueError as error:
        raise files.key_refused(f"ssl_keyfile_password: {error}", "") from None


def _check_certificate(files: Files, content: bytes) -> None:
    if b"-----BEGIN CERTIFICATE-----" in content or b"-----BEGIN TRUSTED CERTIFICATE-----" in content:
        return
    if b"PRIVATE KEY-----" in content:
        raise files.refused("it holds a private key and no certificate", "Are ssl_certfile and ssl_keyfile the wrong way round?")
    if b"-----BEGIN CERTIFICATE REQUEST-----" in content or b"-----BEGIN NEW CERTIFICATE REQUEST-----" in content:
        raise files.refused("it holds the request for a certificate", "Give the certificate that came back for it.")
    if content[:1] == b"\x30":
        fix = "Convert it: openssl x509 -inform der -in FILE -out FILE.pem (or, a PKCS#12 file: openssl pkcs12 -in FILE -out FILE.pem)."
        raise files.refused("it is not PEM, but DER or PKCS#12", fix)
    raise files.refused(
        "it is empty" if not content.strip() else "it holds no certificate in PEM form", "PEM begins with -----BEGIN CERTIFICATE-----."
    )


def _check_key(files: Files, content: bytes, password: str) -> bool:
    """Whether the key is encrypted."""
    text = content.decode("latin-1")
    if "PRIVATE KEY-----" not in text:
        if files.keyfile == files.certfile:
            raise files.refused("there is no private key in it", "Give the key with ssl_keyfile, or put it in the same file.")
        raise files.key_refused(
            "it is empty" if not text.strip() else "it holds no private key in PEM form", "PEM begins with -----BEGIN PRIVATE KEY-----."
        )
    encrypted = any(mark in text for mark in _ENCRYPTED)
    if encrypted and not password:
        fix = "Set ssl_keyfile_password, best as CAVALCADE_SSL_KEYFILE_PASSWORD in the environment."
        raise files.key_refused("the key is encrypted, and no password is given", fix)
    return encrypted


# -- names ---------------------------------------------------------------------------------------------------------------

# RFC 4514 section 3; every other attribute keeps the name that OpenSSL gives it.
_SHORT = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}


def rfc4514(subject: Any) -> str:
    """A distinguished name, as `SSLObject.getpeercert` has it, as text: the last part first (RFC 4514 section 2.1)."""
    return ",".join("+".join(f"{_SHORT.get(name, name)}={_escape(value)}" for name, value in relative) for relative in reversed(subject))


def _escape(value: str) -> str:
    """RFC 4514 section 2.4."""
    escaped = "".join(f"\\{char}" if char in '"+,;<>\\' else "\\00" if char == "\0" else char for char in value)
    if escaped[:1] in ("#", " "):
        escaped = "\\" + escaped
    if escaped.endswith(" ") and len(value) > 1:
        escaped = escaped[:-1] + "\\ "
    return escaped
