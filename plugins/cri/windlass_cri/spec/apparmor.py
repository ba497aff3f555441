"""AppArmor: which profiles Linux has, and the default one of containers, which is loaded when it is first needed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from windlass.errors import Unknown

DEFAULT = "cri-containerd.apparmor.d"
ENABLED = Path("/sys/module/apparmor/parameters/enabled")
PROFILES = Path("/sys/kernel/security/apparmor/profiles")
TUNABLES = Path("/etc/apparmor.d/tunables/global")
PARSER = "apparmor_parser"
TIMEOUT = 30.0

RULES = """
HEAD

profile NAME flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,
  deny mount,

  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,
  signal (send, receive) peer=NAME,
  ptrace (trace, read, tracedby, readby) peer=NAME,

  # Of /proc a container writes to its processes and to kernel.shm* alone.
  deny @{PROC}/* w,
  deny @{PROC}/[^1-9s]*/** w,
  deny @{PROC}/s[^ey]*/** w,
  deny @{PROC}/sys/[^k]** w,
  deny @{PROC}/sys/kernel/{?,??,[^s]**,s[^h]**,sh[^m]**} w,
  deny @{PROC}/sysrq-trigger rwklx,
  deny @{PROC}/kcore rwklx,

  # Of /sys only control groups, which mounts protect.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
"""


def enabled() -> bool:
    """Tell whether this Linux has AppArmor, and it is on."""
    try:
        return ENABLED.read_text().startswith("Y")
    except OSError:
        return False


def loaded() -> set[str]:
    """Return the names of the profiles that Linux has."""
    try:
        return {line.rpartition(" (")[0] for line in PROFILES.read_text().splitlines()}
    except OSError:
        return set()


def need_default() -> str:
    """Return the name of the default profile, which is loaded afterwards. Blocks; raises Unknown."""
    if DEFAULT not in loaded():
        text = profile(DEFAULT, tunables=TUNABLES.exists())
        try:
            done = subprocess.run(
                [PARSER, "-Kr"], input=text, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unknown(
                f"apparmor profile {DEFAULT} cannot be loaded: {error}; install apparmor, or set "
                "disable_apparmor = true"
            ) from None
        if done.returncode:
            raise Unknown(f"apparmor profile {DEFAULT} cannot be loaded: {PARSER}: {done.stderr.strip()[:500]}")
    return DEFAULT


def profile(name: str, tunables: bool) -> str:
    """Return a profile under which a container may do anything but reach the host by mounts, /proc and /sys.

    What it denies is what containerd's denies (docs/containerd 5.7); apparmor.d(5) has the language.
    """
    return RULES.replace("HEAD", "#include <tunables/global>" if tunables else "@{PROC}=/proc/").replace("NAME", name)
