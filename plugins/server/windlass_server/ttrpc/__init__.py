"""ttrpc, to which shims report: the protocol without sockets, and its listener."""
