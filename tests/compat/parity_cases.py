"""The commands that docker's client on dockerd and `windlass` are given, one after another; docs/docker.md lists them.

Words in braces stand for what a run has of its own: the image, an archive with it, a directory.
"""

from __future__ import annotations

from dataclasses import dataclass

SAME, CODE, LINES = "output", "exit code", "lines"
"""What must be equal besides the exit code: all that is printed, nothing more, or the lines in any order."""


@dataclass(frozen=True)
class Case:
    """A command, and what must be the same."""

    docker: str
    windlass: str = ""
    """Where it is spelled otherwise."""
    compare: str = SAME
    stdin: str = ""

    @property
    def ours(self) -> str:
        """The words for `windlass`."""
        return self.windlass or self.docker


BOX = "sh -c 'trap \"exit 0\" TERM; echo begun; echo and goes on; sleep 1000 & wait'"
SERVER = "sh -c 'echo served > /tmp/index.html; exec httpd -f -p 80 -h /tmp'"

CASES = (
    # images
    Case("load -q -i {archive}"),
    Case("images --format '{{.Repository}}:{{.Tag}}'"),
    Case("image inspect -f '{{.Config.WorkingDir}} {{json .Config.Labels}}' {image}"),
    Case("history --format '{{.CreatedBy}}' {image}"),
    Case("tag {image} example.org/busy:2"),
    Case("rmi example.org/busy:2"),
    Case("image inspect example.org/none:1", compare=CODE),
    # run
    Case("run --rm {image} echo hello"),
    Case("run --rm -i {image} cat", stdin="sent"),
    Case("run --rm {image} sh -c 'echo out; echo err >&2; exit 7'"),
    Case("run --rm {image} no-such-program", compare=CODE),
    Case("run --rm {image} /etc", compare=CODE),
    Case("run --rm --no-such-option {image} true", compare=CODE),
    Case("run --rm --pull never example.org/none:1 true", compare=CODE),
    Case("run --rm -e A=1 {image} sh -c 'echo $A'"),
    Case("run --rm --env-file {dir}/variables {image} sh -c 'echo $A $B'"),
    Case("run --rm --entrypoint echo {image} instead"),
    Case("run --rm --hostname inside {image} hostname"),
    Case("run --rm -u nobody {image} id -u"),
    Case("run --rm -w /tmp {image} pwd"),
    Case("run --rm --read-only {image} touch /x"),
    Case("run --rm --cap-drop ALL {image} grep CapEff /proc/self/status"),
    Case("run --rm --cap-add SYS_TIME {image} grep CapEff /proc/self/status"),
    Case("run --rm --ulimit nofile=100:200 {image} sh -c 'ulimit -n'"),
    Case("run --rm --tmpfs /t:size=1m {image} touch /t/file"),
    Case("run --rm -v {dir}:/host:ro {image} cat /host/variables"),
    Case("run --rm -v data:/data {image} sh -c 'echo kept > /data/file'"),
    Case("run --rm -v data:/data {image} cat /data/file"),
    Case("run --rm --network none {image} sh -c 'ip link | grep -c ^[0-9]'"),
    Case("run --rm --add-host example:10.1.2.3 {image} grep example /etc/hosts"),
    Case("run --rm --dns 10.1.2.3 {image} grep nameserver /etc/resolv.conf"),
    # a container that has ended
    Case("run --name ended {image} sh -c 'echo last; exit 5'"),
    Case("ps -a --format '{{.Names}} {{.Image}} {{.State}}'"),
    Case("inspect -f '{{.State.Status}} {{.State.ExitCode}}' ended"),
    Case("logs ended"),
    Case("start -a ended"),
    Case("rm ended"),
    Case("rm --volumes ended", compare=CODE),
    # a container that runs
    Case(f"run -d --name box -p 8080:80 -l made=now {{image}} {BOX}", compare=CODE),
    Case("ps --format '{{.Names}} {{.Status}} {{.Ports}}'"),
    Case("ps -q -f label=made=other"),
    Case("port box"),
    Case("logs box"),
    Case("logs --tail 1 box"),
    Case("exec box echo inside"),
    Case("exec -i box cat", stdin="sent"),
    Case("exec box sh -c 'exit 3'"),
    Case("exec -e A=1 -w /tmp -u nobody box sh -c 'echo $A $(pwd) $(id -u)'"),
    Case("top box", compare=CODE),
    Case("stats --no-stream --format '{{.Name}} {{.PIDs}}' box"),
    Case("pause box"),
    Case("ps --format '{{.Status}}'"),
    Case("unpause box"),
    Case("cp {dir}/variables box:/tmp/copied", compare=CODE),
    Case("exec box cat /tmp/copied"),
    Case("cp box:/tmp/copied {dir}/back", compare=CODE),
    Case("diff box", compare=CODE),
    Case("commit box example.org/busy:3"),
    Case("rename box crate"),
    Case("inspect -f '{{.Name}} {{.State.Running}}' crate"),
    Case("update -m 64m --memory-swap 64m crate"),
    Case("rm crate", compare=CODE),
    Case("kill -s HUP crate"),
    Case("stop -t 5 crate"),
    Case("wait crate"),
    Case("start crate"),
    Case("restart -t 1 crate"),
    Case("rm -f crate"),
    Case("create --name made {image} true", compare=CODE),
    Case("ps -a -f status=created --format '{{.Names}}'"),
    Case("container prune -f", compare=CODE),
    # volumes and networks
    Case("volume create kept"),
    Case("volume ls -q", compare=LINES),
    Case("volume inspect -f '{{.Name}} {{.Driver}}' kept"),
    Case("volume rm kept data"),
    Case("volume rm kept", compare=CODE),
    Case("network create --subnet 10.77.0.0/24 back"),
    Case("network inspect -f '{{.Name}} {{.Driver}}' back"),
    Case("network create --subnet 10.77.0.0/25 overlaps", compare=CODE),
    Case(f"run -d --name server --network back {{image}} {SERVER}", compare=CODE),
    Case("run --rm --network back {image} wget -qO- http://server/"),
    Case("network rm back", compare=CODE),
    Case("rm -f server"),
    Case("network rm back"),
    # the rest
    Case("system df", compare=CODE),
    Case("info", compare=CODE),
    Case("version", compare=CODE),
)
