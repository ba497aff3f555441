"""The contracts of Windlass on the wire: values as messages, and plugins behind a socket as objects."""
