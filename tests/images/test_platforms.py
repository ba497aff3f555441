"""Platforms: how they are written, and which image is the best for a machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from windlass.contracts.values import Platform
from windlass.errors import InvalidArgument
from windlass_images import platforms
from windlass_images.platforms import best, matches, parse, runs, same, write


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/x86_64", Platform("linux", "amd64")),
        ("Linux/x86-64/v1", Platform("linux", "amd64")),
        ("linux/amd64/v3", Platform("linux", "amd64", "v3")),
        ("linux/aarch64", Platform("linux", "arm64")),
        ("linux/arm64/v8", Platform("linux", "arm64")),
        ("linux/arm64/8", Platform("linux", "arm64")),
        ("linux/armhf", Platform("linux", "arm", "v7")),
        ("linux/armel", Platform("linux", "arm", "v6")),
        ("linux/arm", Platform("linux", "arm", "v7")),
        ("linux/arm/6", Platform("linux", "arm", "v6")),
        ("linux/i386", Platform("linux", "386")),
        ("macos/arm64", Platform("darwin", "arm64")),
        ("windows(10.0.17763)/amd64", Platform("windows", "amd64", "", "10.0.17763")),
        ("windows(10.0.17763+win32k)/amd64", Platform("windows", "amd64", "", "10.0.17763", ("win32k",))),
        ("linux(+erofs)/amd64/v2", Platform("linux", "amd64", "v2", "", ("erofs",))),
        ("linux(a%2Fb)/amd64", Platform("linux", "amd64", "", "a/b")),
        ("linux/made-up", Platform("linux", "made-up")),
    ],
)
def test_what_is_read(text: str, meant: Platform) -> None:
    """Every spelling of a platform is the same platform, and what is written is read again."""
    assert parse(text) == meant
    assert parse(write(meant)) == meant


def test_a_half_is_completed_from_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operating system or an architecture alone is enough, if it is known."""
    monkeypatch.setattr(platforms, "host", lambda: Platform("linux", "arm", "v6"))

    assert parse("windows(10.0.20348)") == Platform("windows", "arm", "v6", "10.0.20348")
    assert parse("aarch64") == Platform("linux", "arm64")


@pytest.mark.parametrize(
    "text", ["", "x", "linux/", "/amd64", "linux/a/b/c", "linux/*", "linux(/amd64", "a b/amd64", "arm64(1)"]
)
def test_what_is_no_platform(text: str) -> None:
    """One line says what form is expected."""
    with pytest.raises(InvalidArgument, match=r"is not of the form os\[\(version\)\]/architecture"):
        parse(text)


@pytest.mark.parametrize(("mine", "taken"), [(1, ["amd64", "386"]), (3, ["amd64", "amd64/v2", "amd64/v3", "386"])])
def test_what_the_processor_can_counts(monkeypatch: pytest.MonkeyPatch, mine: int, taken: list[str]) -> None:
    """Who asks for amd64 gets what is for every processor, else what is for this one, and 386 last of all."""
    monkeypatch.setattr(platforms, "_level", lambda: mine)

    assert [write(each).removeprefix("linux/") for each in runs(parse("linux/amd64"))] == taken
    assert matches(parse("linux/amd64"), parse("linux/amd64/v3")) is (mine == 3)
    assert [write(each) for each in runs(parse("linux/amd64/v2"))][1:] == ["linux/amd64", "linux/386"]


def test_the_level_of_a_processor(tmp_path: Path) -> None:
    """What a kernel tells of it decides; of another architecture, or without /proc, nothing is known."""
    flags = "fpu lahf_lm cx16 popcnt sse4_1 sse4_2 ssse3"
    cases = {
        "v1": ("fpu sse2", 1),
        "v2": (flags, 2),
        "v3": (f"{flags} abm avx avx2 bmi1 bmi2 f16c fma movbe xsave", 3),
        "v4": (f"{flags} abm avx avx2 bmi1 bmi2 f16c fma movbe xsave avx512bw avx512cd avx512dq avx512f avx512vl", 4),
        "no v2": ("abm avx avx2 bmi1 bmi2 f16c fma movbe xsave", 1),
    }
    for name, (text, expected) in cases.items():
        (tmp_path / name).write_text(f"processor\t: 0\nflags\t\t: {text}\n\n")
        assert platforms.level(tmp_path / name) == expected
    assert platforms.level(tmp_path / "missing") == 1


def test_what_runs_where() -> None:
    """Lesser variants follow the own one; amd64 runs 386, arm64 runs arm, v9 grew from v8.5."""

    def order(text: str) -> list[str]:
        return [write(each).removeprefix("linux/") for each in runs(parse(text))]

    assert order("linux/amd64") == ["amd64", "386"]
    assert order("linux/amd64/v3") == ["amd64/v3", "amd64/v2", "amd64", "386"]
    assert order("linux/386") == ["386"]
    assert order("linux/arm") == ["arm/v7", "arm/v6", "arm/v5"]
    assert order("linux/arm64") == ["arm64", "arm/v8", "arm/v7", "arm/v6", "arm/v5"]
    assert order("linux/arm64/v8.2")[:4] == ["arm64/v8.2", "arm64/v8.1", "arm64", "arm/v8"]
    assert order("linux/arm64/v9.1")[:5] == ["arm64/v9.1", "arm64/v9", "arm64/v8.6", "arm64/v8.5", "arm64/v8.4"]
    assert order("linux/riscv64") == ["riscv64"]


@pytest.mark.parametrize(
    ("mine", "other", "fits"),
    [
        ("10.0.17763.1", "10.0.17763.9999", True),
        ("10.0.17763", "10.0.17764", False),
        ("10.0.20348", "10.0.17763", False),
        ("10.0.22621", "10.0.20348", True),
        ("10.0.22621", "10.0.26100", False),
        ("10.1.20348", "10.0.20348", False),
        ("10.0.20348", "", True),
        ("", "10.0.1", True),
        ("10.0.20348", "what?", False),
    ],
)
def test_windows_builds(mine: str, other: str, fits: bool) -> None:
    """Up to 2019 a build runs only its own; from 2022 on everything since then."""
    assert same(Platform("windows", "amd64", "", mine), Platform("windows", "amd64", "", other)) is fits


def test_features_have_to_be_there() -> None:
    """An image that needs a feature runs only where somebody has it."""
    needs = Platform("linux", "amd64", os_features=("erofs",))
    assert not matches(Platform("linux", "amd64"), needs)
    assert matches(needs, Platform("linux", "amd64"))


def test_the_best_is_taken() -> None:
    """An image for less is taken only where there is none for more; one that says nothing always comes last."""

    def chosen(wanted: platforms.Wanted, *texts: str) -> list[str]:
        choices = [(text, parse(text) if text else None) for text in texts]
        return [text for text, _ in best(wanted, choices, lambda choice: choice[1])]

    amd64, arm = Platform("linux", "amd64", "v3"), Platform("linux", "arm", "v7")
    assert chosen(amd64, "linux/386", "linux/amd64", "linux/amd64/v2") == ["linux/amd64/v2"]
    assert chosen(amd64, "", "linux/386", "linux/arm64") == ["linux/386", ""]
    assert chosen((arm, amd64), "linux/amd64", "linux/arm/v6", "linux/arm/v5") == ["linux/arm/v6", "linux/amd64"]
    assert chosen(None, "linux/386", "") == ["linux/386", ""]
    windows = Platform("windows", "amd64", "", "10.0.26100")
    builds = ("windows(10.0.20348.1)/amd64", "windows(10.0.25398.1)/amd64", "windows(10.0.17763.1)/amd64")
    assert chosen(windows, *builds) == [builds[1], builds[0]]


def test_what_runs_on_a_long_platform_is_not_kept() -> None:
    """Clients and images name platforms, and whatever long names they choose stay in no cache."""
    long, many = Platform("linux", "a" * 1000), Platform("linux", "amd64", os_features=("",) * 1000)
    before = platforms._runs_short.cache_info().currsize
    assert (platforms.runs(long)[0].architecture, platforms.runs(many)[0].architecture) == ("a" * 1000, "amd64")
    assert platforms._runs_short.cache_info().currsize == before
