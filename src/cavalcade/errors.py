"""Every error of ours, and whose fault it is.

::

    CavalcadeError
    |-- UsageError          the operator's: bad option, bad config file        exit 2
    |   `-- ConfigError       all of them at once, each with its place
    |-- ControlError        a running server cannot be reached or steered      exit 1
    |-- StartupError        what was asked for cannot start                    exit 3
    |   |-- BindError         an address cannot be listened on
    |   |-- TlsError          a certificate, a key or a list of ciphers cannot be used
    |   |-- AppLoadError      the app cannot be imported, found or understood
    |   |-- LifespanFailed    the app's own startup failed
    |   |-- BootTimeout       the app was not ready within `boot_timeout`
    |   `-- ChangeRefused     a running server could not be changed and goes on as it was
    |-- PeerError           the client's: carries the HTTP status that answers it
    |   |-- StreamFault       HTTP/2: a message that is none; its stream is reset, the others go on
    |   `-- ConnectionFault   HTTP/2: the connection ends with GOAWAY
    `-- AppProtocolError    the app's: it broke the ASGI rules

An error shown to a person has a cause (the message), a fix, and sometimes a traceback that holds the user's frames
only. `cli/report.py` draws them; nothing else formats errors for people.
"""

from __future__ import annotations


class CavalcadeError(Exception):
    """Base of every error that Cavalcade raises.

    `fix` is what to do about it, one line or several; `trace` is a traceback already cut to the user's frames, or "".
    """

    exit_code = 1

    def __init__(self, cause: str, *, fix: str = "", trace: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.fix = fix
        self.trace = trace


class UsageError(CavalcadeError):
    """The command line or a config file asks for something that does not exist."""

    exit_code = 2


class ConfigError(UsageError):
    """One or more options are unknown or have bad values; `problems` holds one line for each.

    `log_format` is the one that was asked for as far as could be read, so that this error is shown in it too.
    """

    def __init__(self, problems: list[str], *, log_format: str = "auto", fix: str = "") -> None:
        super().__init__("\n".join(problems), fix=fix)
        self.problems = problems
        self.log_format = log_format


class StartupError(CavalcadeError):
    """What was asked for cannot start."""

    exit_code = 3


class BindError(StartupError):
    """An address cannot be listened on."""


class TlsError(StartupError):
    """A certificate, its key, a list of authorities or of ciphers cannot be used."""


class AppLoadError(StartupError):
    """The app cannot be imported, found or understood."""


class LifespanFailed(StartupError):
    """The app's `lifespan.startup` failed."""


class BootTimeout(StartupError):
    """A worker was not ready within `boot_timeout`."""


class ChangeRefused(StartupError):
    """A reload, a new number of workers or a replacement was tried, failed and was taken back; the server goes on as it was."""


class ControlError(CavalcadeError):
    """A running server cannot be found or reached, or stops while it is asked for something."""


class AppProtocolError(CavalcadeError):
    """The app sent a message that ASGI does not allow at this point."""


class PeerError(CavalcadeError):
    """The client broke a rule. `status` is what it is answered with before the connection closes, with these `fields`."""

    status = 400
    fields: tuple[tuple[bytes, bytes], ...] = ()


class HeadTooLarge(PeerError):
    """The header fields are over their limits in bytes or in number (RFC 6585 section 5)."""

    status = 431


class TargetTooLong(PeerError):
    """The request line is over its limit (RFC 9110 section 15.5.15)."""

    status = 414


class BodyTooLarge(PeerError):
    """The body is, or says it will be, over its limit (RFC 9110 section 15.5.14)."""

    status = 413


class ExpectationFailed(PeerError):
    """An `Expect` that is not `100-continue` (RFC 9110 section 15.5.18)."""

    status = 417


class PeerTooSlow(PeerError):
    """The request did not arrive within its deadline (RFC 9110 section 15.5.9)."""

    status = 408


class NotImplementedByServer(PeerError):
    """A method or transfer coding that no origin server here can serve (RFC 9110 section 15.6.2)."""

    status = 501


class VersionNotSupported(PeerError):
    """A protocol version that this listener does not speak (RFC 9110 section 15.6.6)."""

    status = 505


class StreamFault(PeerError):
    """A message that is malformed, or a frame where none may be: its stream is reset with `code` (RFC 9113 sections 5.4.2, 8.1.1)."""

    def __init__(self, cause: str, code: int) -> None:
        super().__init__(cause)
        self.code = code


class ConnectionFault(PeerError):
    """What HTTP/2 does not allow a peer, or nobody would put up with: the connection ends with GOAWAY and `code` (RFC 9113, 5.4.1)."""

    def __init__(self, cause: str, code: int) -> None:
        super().__init__(cause)
        self.code = code


class NotGet(PeerError):
    """A WebSocket handshake that is no GET (RFC 6455 section 4.1, RFC 9110 section 15.5.6)."""

    status = 405
    fields = ((b"allow", b"GET"),)


class UpgradeRequired(PeerError):
    """A WebSocket handshake for a version that does not exist (RFC 6455 section 4.2.2, RFC 9110 section 15.5.22)."""

    status = 426
    fields = ((b"upgrade", b"websocket"), (b"sec-websocket-version", b"13"))
