"""config.toml: files, merging, migration, validation, and the commands about it."""
