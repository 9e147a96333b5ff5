"""Certificates are renewed while a server runs: the files are looked at once a second, and what is new is taken up.

`stat` is all it costs, it needs nothing of the file system, and it sees a directory that is swapped by its link, as Kubernetes does.
A pair that does not fit together stays out, and what is in use goes on being used.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from cavalcade import limits
from cavalcade.errors import TlsError
from cavalcade.net.tls import Tls

log = logging.getLogger("cavalcade")

EVENT = {"event": "certificate"}


class TlsWatch:
    """Runs from `start` to `stop`. `renewed` is called after something new was taken up."""

    def __init__(self, tls: Tls, loop: asyncio.AbstractEventLoop, renewed: Callable[[], None] = lambda: None) -> None:
        self._tls = tls
        self._loop = loop
        self._renewed = renewed
        self._refused: TlsError | None = None
        self._warn_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look, and go on looking."""
        self._timer = self._loop.call_later(limits.CERTIFICATE_LOOK_S, self.start)
        self._look()
        now = time.monotonic()
        if now >= self._warn_at:
            self._warn_at = now + limits.CERTIFICATE_WARN_S
            for text in self._tls.warnings():
                log.warning("%s", text)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take_up(self) -> bool:
        """Read the files, and use what is new in them; False where nothing is. Raises `TlsError`, and what is in use goes on being used."""
        before = {identity.pem for identity in self._tls.identities}
        self._refused = None
        if not self._tls.reload():
            return False
        new = [identity for identity in self._tls.identities if identity.pem not in before]
        for identity in new:
            log.info("TLS: new certificate from %s: %s", identity.certfile, identity.certificate, extra=EVENT)
        if not new:
            log.info("TLS: new keys or lists of trust, with the certificates as they were", extra=EVENT)
        self._warn_at = 0.0
        self._renewed()
        return True

    def _look(self) -> None:
        if self._tls.changed():
            try:
                self.take_up()
            except TlsError as error:
                self._refused = error  # perhaps the other half of the pair is still being written: said at the next look, if it stays so
        elif self._refused is not None:
            refused, self._refused = self._refused, None
            served = self._tls.identities[0].certificate
            text = "TLS: the new files are not taken up: %s; still served: %s"
            log.error(text, refused.cause, served, extra={"fix": refused.fix, **EVENT})
