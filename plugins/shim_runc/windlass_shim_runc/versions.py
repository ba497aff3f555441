"""Which versions of runc have known ways from a container or an image to the host; published until August 2026."""

from __future__ import annotations

import re

from windlass.records import dataclass

NO_CANDIDATE = 1 << 30
"""What a release has where a candidate has its number: it comes after all of them."""

Version = tuple[int, int, int, int]

VERSION = re.compile(r"^runc version v?(\d+)\.(\d+)\.(\d+)(?:-rc\.?(\d+))?", re.MULTILINE)
PACKAGE = re.compile(
    r"^(?:runc version|commit:) (\S*(?:\+ds|\+deb|ubuntu|\.el\d|\.fc\d|\.amzn|suse)\S*)$", re.MULTILINE
)
"""What distributions say instead of a version or a commit, such as ``1.1.5+ds1-1+deb12u1``."""


@dataclass(frozen=True, slots=True)
class Advisory:
    """A published weakness; ``fixed`` has the first release without it of each line, 1.2 being one, that was mended."""

    name: str
    what: str
    fixed: tuple[Version, ...]


def release(text: str) -> Version:
    """Return a version as numbers that compare: ``1.2.0-rc.3`` is before ``1.2.0``."""
    found = VERSION.match(f"runc version {text}")
    if found is None:
        raise ValueError(f"{text!r} is not a version of runc")
    return _numbers(found)


def _numbers(found: re.Match[str]) -> Version:
    major, minor, patch, candidate = found.groups()
    return int(major), int(minor), int(patch), int(candidate) if candidate else NO_CANDIDATE


def _advisory(name: str, what: str, *fixed: str) -> Advisory:
    return Advisory(name, what, tuple(release(each) for each in fixed))


ADVISORIES = (
    _advisory("CVE-2019-5736", "a container overwrites runc on the host", "1.0.0-rc7"),
    _advisory("CVE-2019-16884", "an image escapes AppArmor and SELinux", "1.0.0-rc9"),
    _advisory("CVE-2019-19921", "containers that share a volume escape AppArmor and SELinux", "1.0.0-rc10"),
    _advisory("CVE-2021-30465", "a symlink that is exchanged mounts host directories", "1.0.0-rc95"),
    _advisory("CVE-2022-29162", "capabilities of an exec are inheritable", "1.1.2"),
    _advisory("CVE-2023-25809", "a rootless container writes to its host's control groups", "1.1.5"),
    _advisory("CVE-2023-27561", "CVE-2019-19921 again", "1.1.5"),
    _advisory("CVE-2023-28642", "a symlink at /proc escapes AppArmor and SELinux", "1.1.5"),
    _advisory("CVE-2024-21626", "a working directory below /proc/self/fd is on the host", "1.1.12"),
    _advisory("CVE-2024-45310", "empty files are made on the host", "1.1.14", "1.2.0-rc3"),
    _advisory("CVE-2025-31133", "masked paths become writable", "1.2.8", "1.3.3", "1.4.0-rc3"),
    _advisory("CVE-2025-52565", "/dev/console is mounted over files of /proc", "1.2.8", "1.3.3", "1.4.0-rc3"),
    _advisory("CVE-2025-52881", "what is written to /proc goes to another file", "1.2.8", "1.3.3", "1.4.0-rc3"),
    _advisory("CVE-2026-41579", "a symlink at /dev makes links on the host", "1.3.6", "1.4.3", "1.5.0-rc3"),
)
"""From the advisories of github.com/opencontainers/runc, with the ranges that the Go vulnerability database has."""


def weaknesses(version: Version) -> list[Advisory]:
    """Return what a version has: it is older than every fix, or than that of its own line."""
    return [each for each in ADVISORIES if version < each.fixed[0] or _is_between(version, each)]


def _is_between(version: Version, advisory: Advisory) -> bool:
    return any(version[:2] == fixed[:2] and version < fixed for fixed in advisory.fixed)


def warning(output: str) -> str:
    """Return what an operator should know of what ``runc --version`` prints, "" for nothing; crun is not runc."""
    found = VERSION.search(output)
    if found is None:
        return ""
    known = weaknesses(_numbers(found))
    if not known:
        return ""
    number = found[0].removeprefix("runc version ")
    names = ", ".join(each.name for each in known)
    packages = PACKAGE.findall(output)
    if not packages:
        return f"runc {number} lets containers or images reach the host ({names}); install a newer one"
    return (
        f"runc {number} was released without the fixes of {names}; its package {packages[-1]} may have some of them: "
        "see its changelog, or install a newer one"
    )
