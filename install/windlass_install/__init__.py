"""The place of Windlass on a Linux host: commands in PATH, units of systemd, manual pages, completions."""
