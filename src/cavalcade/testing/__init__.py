"""Shipped helpers for tests of apps and of Cavalcade itself: a real server in real processes."""

from __future__ import annotations

from cavalcade.testing.live import LiveServer, ServerDied, write_app

__all__ = ["LiveServer", "ServerDied", "write_app"]
