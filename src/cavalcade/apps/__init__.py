"""Adapters from a request to an app of some kind. They speak to a `Stream`, never to a transport."""
