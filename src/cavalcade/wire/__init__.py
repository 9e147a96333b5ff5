"""Protocol engines without I/O: bytes in, calls on a sink and bytes out. No asyncio, socket, ssl, time, logging or os here."""
