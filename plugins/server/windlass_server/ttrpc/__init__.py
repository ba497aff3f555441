"""The ttrpc listener, to which shims report; the protocol without sockets is `windlass_api.ttrpc`."""
