"""HTTP/2 where it can be spoken: the h2 library comes with the extra `http2`."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cavalcade.net.h2 import H2Connection


def maybe_connection(*, named: bool) -> type[H2Connection] | None:
    """The class of its connections, or of those that name their requests; None where the library is not installed. Imports the library,
    which costs some megabytes."""
    if importlib.util.find_spec("h2") is None:
        return None
    module = importlib.import_module("cavalcade.net.h2_request_ids" if named else "cavalcade.net.h2")
    found: type[H2Connection] = module.NamedH2Connection if named else module.H2Connection
    return found
