"""The only place with sockets, transports and TLS."""
