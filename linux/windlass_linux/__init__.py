"""Linux for plugins: system calls, mounts, ID maps, loop devices and control groups."""
