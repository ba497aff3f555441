"""Plugins behind sockets, as `[proxy_plugins]` of the configuration names them."""
