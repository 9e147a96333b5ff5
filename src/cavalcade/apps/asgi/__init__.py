"""ASGI 3: HTTP spec 2.5, lifespan spec 2.0."""
