"""A WSGI app in one worker: what all its requests share."""

from __future__ import annotations

import contextvars
from functools import partial
from typing import Any

from cavalcade import limits
from cavalcade.apps.stream import NewCall, Serving
from cavalcade.apps.wsgi import environ
from cavalcade.apps.wsgi.call import WsgiApp
from cavalcade.apps.wsgi.files import FileWrapper
from cavalcade.apps.wsgi.inline import InlineCall
from cavalcade.apps.wsgi.pool import Pool
from cavalcade.apps.wsgi.threaded import ThreadCall
from cavalcade.types import Address


class Service(WsgiApp):
    """Calls the app, in one of `threads` threads, or with 0 in the loop.

    `multiprocess` says whether another process may serve the same app; `body_limit` is `limit_request_body` in bytes, 0 for none.
    """

    def __init__(self, app: Any, serving: Serving, threads: int, *, multiprocess: bool, body_limit: int) -> None:
        WsgiApp.__init__(self, app, serving, contextvars.copy_context(), body_limit or limits.WSGI_SPOOL_BYTES)
        self.common = environ.common(
            serving.root_path,
            multithread=threads > 1,
            multiprocess=multiprocess,
            file_wrapper=FileWrapper,
            draining=serving.draining,
        )
        self.pool = Pool(threads, serving.loop) if threads else None
        # Makes the call of one request, which begins with `begin()`.
        self.new_call: NewCall = partial(ThreadCall if threads else InlineCall, self)

    def start(self) -> None:
        """After the fork, in the worker's own process."""
        if self.pool is not None:
            self.pool.start()

    def stop(self) -> None:
        if self.pool is not None:
            self.pool.stop()

    def template(self, scheme: str, client: Address | None, server: Address | None) -> dict[str, Any]:
        """What all requests of one connection have in common."""
        return environ.template(self.common, scheme, client, server)
