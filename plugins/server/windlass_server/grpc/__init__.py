"""gRPC on asyncio's loop, over the HTTP/2 of `windlass_server.http2`."""
