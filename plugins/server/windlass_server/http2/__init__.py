"""HTTP/2 for a server (RFC 9113), without sockets: bytes in, events out, and bytes to send.

Nothing here reads, writes, waits or knows the time; `connection` is where to begin.
"""
