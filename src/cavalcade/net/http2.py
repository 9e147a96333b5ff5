"""HTTP/2 where it can be spoken: the h2 library comes with the extra `http2`."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cavalcade.net.h2 import H2Connection

# Where each is, by whether it names its requests and whether it watches them.
_CLASSES = {
    (False, False): ("h2", "H2Connection"),
    (True, False): ("h2_request_ids", "NamedH2Connection"),
    (False, True): ("h2_observed", "ObservedH2Connection"),
    (True, True): ("h2_observed", "ObservedNamedH2Connection"),
}


def maybe_connection(*, named: bool, watched: bool = False) -> type[H2Connection] | None:
    """The class of its connections, or of those that name their requests, or watch them for the access log; None where the library is not
    installed. Imports the library, which costs some megabytes."""
    if importlib.util.find_spec("h2") is None:
        return None
    place, name = _CLASSES[named, watched]
    found: type[H2Connection] = getattr(importlib.import_module(f"cavalcade.net.{place}"), name)
    return found
