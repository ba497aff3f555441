"""The options of `run` and `create`, and the container that they ask for."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from windlass_client.cli import Where
from windlass_client.commands.network_options import NetworkOptionValues, network_options
from windlass_client.commands.volumeoptions import MountOptions, volume_options

if TYPE_CHECKING:
    from windlass_client.launch import LaunchOptions
    from windlass_client.lifecycle.asked import StopOptions
    from windlass_client.lifecycle.healthcheck import HealthOptions
    from windlass_client.logs.keeping import LogOptions
    from windlass_client.specparts import SpecParts

F = TypeVar("F", bound=Callable[..., object])


class RunOptions(NetworkOptionValues, MountOptions):
    """The options and arguments of `create`, which `run` has too."""

    image: str
    arguments: tuple[str, ...]
    tty: bool
    interactive: bool
    remove: bool
    pull: str
    quiet: bool
    cidfile: str
    env: tuple[str, ...]
    env_file: tuple[str, ...]
    memory: str
    cpus: float
    pids_limit: int
    cap_add: tuple[str, ...]
    cap_drop: tuple[str, ...]
    security_opt: tuple[str, ...]
    privileged: bool
    name: str
    hostname: str
    domainname: str
    user: str
    group_add: tuple[str, ...]
    cwd: str
    entrypoint: str | None
    init: bool
    label: tuple[str, ...]
    label_file: tuple[str, ...]
    read_only: bool
    device: tuple[str, ...]
    gpus: str
    ulimit: tuple[str, ...]
    sysctl: tuple[str, ...]
    shm_size: str
    oom_score_adj: int | None
    restart: str
    stop_signal: str
    stop_timeout: float | None
    log_driver: str
    log_opt: tuple[str, ...]
    log_uri: str
    health_cmd: str
    health_interval: str
    health_timeout: str
    health_retries: int
    health_start_period: str
    health_start_interval: str
    no_healthcheck: bool
    runtime: str
    snapshotter: str
    platform: str


PROCESS = (
    click.option("-t", "--tty", is_flag=True, help="Give it a terminal."),
    click.option("-i", "--interactive", is_flag=True, help="Connect standard input."),
    click.option("-e", "--env", multiple=True, metavar="KEY[=VALUE]", help="Set a variable; KEY alone takes ours."),
    click.option("--env-file", multiple=True, metavar="FILE", help="Set the variables of a file, one a line."),
    click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Run as this user, by name or number."),
    click.option("--group-add", multiple=True, metavar="GROUP", help="Be in this group, too."),
    click.option("-w", "--workdir", "--cwd", "cwd", default="", metavar="DIR", help="Start in a directory of it."),
    click.option("--entrypoint", default=None, help="Run this instead of the image's entrypoint."),
    click.option("--init", is_flag=True, help="Run an init, which forwards signals and reaps processes, before it."),
    click.option("--ulimit", multiple=True, metavar="NAME=SOFT[:HARD]", help="Limit processes, such as nofile=1024."),
)
NAMES = (
    click.option("--name", default="", help="Name of the container; its ID otherwise."),
    click.option("-h", "--hostname", default="", help="Host name inside; the container's ID otherwise."),
    click.option("--domainname", default="", help="NIS domain name inside."),
    click.option("-l", "--label", multiple=True, metavar="KEY=VALUE", help="Label the container."),
    click.option("--label-file", multiple=True, metavar="FILE", help="Take labels from a file, one a line."),
    click.option("--cidfile", default="", metavar="FILE", help="Write the container's ID to a new file."),
)
LIMITS = (
    click.option("-m", "--memory", default="", metavar="64M", help="Limit memory."),
    click.option("--cpus", type=float, default=0, help="Limit processor time; 1 is all of one processor."),
    click.option("--pids-limit", type=int, default=0, help="Limit processes and threads; 0 means no limit."),
    click.option("--shm-size", default="", metavar="64M", help="Size of /dev/shm."),
    click.option("--oom-score-adj", type=int, default=None, help="How soon it is killed when memory is short."),
)
RIGHTS = (
    click.option("--privileged", is_flag=True, help="Let it do all that root can: capabilities, devices, /sys."),
    click.option("--cap-add", multiple=True, metavar="NAME", help="Add a capability, or ALL."),
    click.option("--cap-drop", multiple=True, metavar="NAME", help="Take a capability, or ALL."),
    click.option(
        "--security-opt",
        multiple=True,
        metavar="KEY=VALUE",
        help="seccomp=FILE or unconfined, no-new-privileges=false, apparmor=PROFILE, systempaths=unconfined.",
    ),
    click.option("--read-only", is_flag=True, help="Mount the root file system read-only."),
    click.option("--sysctl", multiple=True, metavar="KEY=VALUE", help="Set a parameter of its namespaces."),
    click.option(
        "--device",
        multiple=True,
        metavar="DEVICE",
        help="/dev/NAME[:/dev/PLACE][:rwm], or a CDI name: VENDOR/CLASS=NAME.",
    ),
    click.option("--gpus", default="", metavar="all|N|device=…", help="Give GPUs, by CDI."),
)
LIFE = (
    click.option("--rm", "remove", is_flag=True, help="Remove the container when it has ended."),
    click.option("--restart", default="", metavar="POLICY", help="no, always, on-failure[:N] or unless-stopped."),
    click.option("--stop-signal", default="", metavar="SIGNAL", help="What `stop` sends; the image's or SIGTERM."),
    click.option("--stop-timeout", type=float, default=None, metavar="SECONDS", help="Until `stop` kills it; 10."),
)
OUTPUT = (
    click.option("--log-driver", default="json-file", show_default=True, help="json-file or none."),
    click.option("--log-opt", multiple=True, metavar="KEY=VALUE", help="max-size=20m, max-file=5."),
    click.option("--log-uri", default="", help="Send output there and keep no log, such as file:///var/log/x.log."),
)
HEALTH = (
    click.option("--health-cmd", default="", metavar="COMMAND", help="Shell command that fails if it is not healthy."),
    click.option("--health-interval", default="0s", metavar="30s", help="Time between two checks."),
    click.option("--health-timeout", default="0s", metavar="30s", help="Time that a check may take."),
    click.option("--health-retries", default=0, metavar="3", help="Failures in a row until it is unhealthy."),
    click.option("--health-start-period", default="0s", metavar="0s", help="Time in which failures do not count."),
    click.option("--health-start-interval", default="0s", metavar="5s", help="Time between checks in that period."),
    click.option("--no-healthcheck", is_flag=True, help="Check nothing."),
)
PLACE = (
    click.option(
        "--pull",
        type=click.Choice(["always", "missing", "never"]),
        default="missing",
        show_default=True,
        help="When to pull the image.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Show no progress of a pull."),
    click.option("--runtime", default="", help="Runtime, such as io.containerd.runc.v2."),
    click.option("--snapshotter", default="", help="Snapshotter of the root file system."),
    click.option("--platform", default="", metavar="OS/ARCH", help="Take the image for this platform."),
)


def run_options(function: F) -> F:
    """Add all options of `create`."""
    for option in reversed((*LIMITS, *RIGHTS, *LIFE, *OUTPUT, *HEALTH, *PLACE)):
        function = option(function)
    function = network_options(volume_options(function))
    for option in reversed((*PROCESS, *NAMES)):
        function = option(function)
    return function


def launch_options(where: Where, options: RunOptions, detach: bool) -> LaunchOptions:
    """Return what the options ask for. Raises InvalidArgument, UsageError."""
    from windlass_client.arguments import parse_size
    from windlass_client.commands.network_options import read
    from windlass_client.commands.volumeoptions import wanted_mounts
    from windlass_client.launch import LaunchOptions
    from windlass_client.lifecycle import restarts
    from windlass_images import platforms

    _refuse(options)
    return LaunchOptions(
        image=options["image"],
        id=options["name"] or secrets.token_hex(6),
        name=options["name"],
        arguments=options["arguments"],
        env=environment(options["env"], options["env_file"]),
        volumes=wanted_mounts(where, options),
        labels=_labels(options),
        entrypoint=options["entrypoint"],
        user=options["user"],
        cwd=options["cwd"],
        hostname=options["hostname"],
        memory=parse_size(options["memory"]) if options["memory"] else 0,
        cpus=options["cpus"],
        pids=options["pids_limit"],
        cap_add=options["cap_add"],
        cap_drop=options["cap_drop"],
        security=options["security_opt"],
        network=read(options),
        read_only=options["read_only"],
        terminal=options["tty"],
        stdin=("open" if detach else "once") if options["interactive"] else "",
        log=_log(options),
        log_uri=options["log_uri"],
        restart=restarts.check(options["restart"]),
        remove=options["remove"],
        stop=_stop(options),
        health=_health(options),
        parts=_parts(options),
        runtime=options["runtime"],
        snapshotter=options["snapshotter"],
        platform=platforms.parse(options["platform"]) if options["platform"] else platforms.host(),
    )


def _refuse(options: RunOptions) -> None:
    if options["remove"] and options["restart"] not in ("", "no"):
        raise click.UsageError("--rm and --restart exclude each other")


def environment(entries: tuple[str, ...], files: tuple[str, ...]) -> tuple[str, ...]:
    """Return the variables of files and of options; a name alone takes our value, and is left out if we have none."""
    found = []
    for entry in [*(line for file in files for line in _lines(file)), *entries]:
        if "=" in entry:
            found.append(entry)
        elif entry in os.environ:
            found.append(f"{entry}={os.environ[entry]}")
    return tuple(found)


def _lines(file: str) -> list[str]:
    from pathlib import Path

    from windlass.errors import InvalidArgument

    try:
        lines = [line.lstrip() for line in Path(file).read_text().splitlines()]
    except UnicodeDecodeError:
        raise InvalidArgument(f"file {file} is not text in UTF-8") from None
    found = [line for line in lines if line and not line.startswith("#")]
    for line in found:
        if line.startswith("=") or any(char.isspace() for char in line.partition("=")[0]):
            raise InvalidArgument(f"file {file}: {line[:60]!r} is not of the form KEY=VALUE")
    return found


def _labels(options: RunOptions) -> dict[str, str]:
    lines = [line for file in options["label_file"] for line in _lines(file)]
    return dict(label.partition("=")[::2] for label in (*lines, *options["label"]))


def _log(options: RunOptions) -> LogOptions | None:
    from windlass_client.logs.keeping import parse_log_options

    found = parse_log_options(options["log_driver"], options["log_opt"])
    return None if options["log_uri"] else found


def _stop(options: RunOptions) -> StopOptions:
    from windlass_client.lifecycle.asked import StopOptions
    from windlass_client.lifecycle.stopping import signal_number

    if options["stop_signal"]:
        signal_number(options["stop_signal"])
    return StopOptions(options["stop_signal"], options["stop_timeout"])


def _health(options: RunOptions) -> HealthOptions:
    from windlass_client.lifecycle.healthcheck import NONE, SHELL, HealthOptions

    if options["health_retries"] < 0:
        raise click.UsageError("--health-retries is at least 1")
    found = HealthOptions(
        (SHELL, options["health_cmd"]) if options["health_cmd"] else (),
        seconds(options["health_interval"]),
        seconds(options["health_timeout"]),
        seconds(options["health_start_period"]),
        seconds(options["health_start_interval"]),
        options["health_retries"],
    )
    if not options["no_healthcheck"]:
        return found
    if found != HealthOptions():
        raise click.UsageError("--no-healthcheck does not go with other --health options")
    return HealthOptions((NONE,))


def seconds(text: str) -> float:
    """Return the seconds of a duration such as 1m30s. Raises InvalidArgument."""
    from windlass.config import durations
    from windlass.errors import InvalidArgument

    try:
        return durations.seconds(text)
    except ValueError as error:
        raise InvalidArgument(f"duration {text[:40]!r}: {error}") from None


def _parts(options: RunOptions) -> SpecParts:
    from windlass_client.arguments import parse_size
    from windlass_client.specparts import SpecParts

    return SpecParts(
        init=options["init"],
        privileged=options["privileged"],
        devices=options["device"],
        gpus=options["gpus"],
        ulimits=options["ulimit"],
        sysctls=options["sysctl"],
        shm_size=parse_size(options["shm_size"]) if options["shm_size"] else 0,
        groups=options["group_add"],
        domainname=options["domainname"],
        oom_score=options["oom_score_adj"],
    )
