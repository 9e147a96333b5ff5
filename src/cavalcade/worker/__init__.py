"""One worker: an event loop that accepts, parses, calls the app and writes, from its boot to its last response."""
