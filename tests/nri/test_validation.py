"""What the default validator refuses, as NRI's own does; compared with that in thousands of random cases."""

from __future__ import annotations

import pytest

from windlass_api.nri.pkg.api.v1alpha1 import api_pb2 as nri
from windlass_nri.merging import Contribution, merge
from windlass_nri.validation import REQUIRED_PLUGINS, Config, DefaultValidator, Rejected, request

PLUGINS = [("10", "one"), ("20", "two")]


def asked(
    *adjustments: nri.ContainerAdjustment,
    annotations: dict[str, str] | None = None,
    profile: nri.SecurityProfile.ProfileType.ValueType | None = None,
) -> nri.ValidateContainerAdjustmentRequest:
    container = nri.Container(id="c", name="box")
    if profile is not None:
        container.linux.seccomp_profile.profile_type = profile
        container.linux.seccomp_profile.SetInParent()
    answers = [
        Contribution(f"{index}-{name}", nri.CreateContainerResponse(adjust=each))
        for (index, name), each in zip(PLUGINS, adjustments, strict=False)
    ]
    return request(nri.PodSandbox(annotations=annotations or {}), container, merge(container, answers), PLUGINS)


def hook() -> nri.ContainerAdjustment:
    return nri.ContainerAdjustment(hooks=nri.Hooks(prestart=[nri.Hook(path="/x")]))


def seccomp() -> nri.ContainerAdjustment:
    adjust = nri.ContainerAdjustment()
    adjust.linux.seccomp_policy.default_action = "SCMP_ACT_ALLOW"
    return adjust


def namespace(type: str) -> nri.ContainerAdjustment:
    adjust = nri.ContainerAdjustment()
    adjust.linux.namespaces.add(type=type)
    return adjust


def sysctl() -> nri.ContainerAdjustment:
    adjust = nri.ContainerAdjustment()
    adjust.linux.sysctl["a"] = "1"
    return adjust


def verdict(config: Config, asked: nri.ValidateContainerAdjustmentRequest) -> str:
    """Return why a request is rejected, empty when it is not."""
    try:
        DefaultValidator(config).validate(asked)
    except Rejected as error:
        return str(error)
    return ""


def test_nothing_is_refused_by_default() -> None:
    """The keys are the administrator's."""
    everything = hook()
    for each in (seccomp(), namespace("pid"), sysctl()):
        everything.MergeFrom(each)
    assert verdict(Config(), asked(everything)) == ""


@pytest.mark.parametrize(
    ("config", "adjustments", "reason"),
    [
        (Config(reject_oci_hook_adjustment=True), [hook()], 'plugin "10-one" attempted restricted OCI hook injection'),
        (
            Config(reject_oci_hook_adjustment=True),
            [hook(), hook()],
            'plugins "10-one,20-two" attempted restricted OCI hook injection',
        ),
        (
            Config(reject_namespace_adjustment=True),
            [namespace("pid"), namespace("-ipc")],
            'restricted namespace adjustment by plugin(s) "20-two" (namespace "ipc"), "10-one" (namespace "pid")',
        ),
        (
            Config(reject_sysctl_adjustment=True),
            [nri.ContainerAdjustment(), sysctl()],
            "attempted restricted sysctl adjustment by plugin(s) 20-two",
        ),
    ],
)
def test_what_is_forbidden_is_refused(config: Config, adjustments: list[nri.ContainerAdjustment], reason: str) -> None:
    """The reason names who did it; without such an adjustment the container passes."""
    assert reason in verdict(config, asked(*adjustments))
    assert verdict(config, asked(nri.ContainerAdjustment(args=["x"]))) == ""


@pytest.mark.parametrize("profile", [None, *nri.SecurityProfile.ProfileType.values()])
def test_seccomp_is_protected_by_the_kind_of_profile(
    profile: nri.SecurityProfile.ProfileType.ValueType | None,
) -> None:
    """A container without a profile is unconfined; each kind has its key."""
    kinds = nri.SecurityProfile
    effective = kinds.UNCONFINED if profile is None else profile
    for config, kind in (
        (Config(reject_unconfined_seccomp_adjustment=True), kinds.UNCONFINED),
        (Config(reject_runtime_default_seccomp_adjustment=True), kinds.RUNTIME_DEFAULT),
        (Config(reject_custom_seccomp_adjustment=True), kinds.LOCALHOST),
    ):
        reason = verdict(config, asked(seccomp(), profile=profile))
        assert bool(reason) == (kind == effective)
        assert not reason or "plugin 10-one attempted restricted" in reason


@pytest.mark.parametrize(
    ("required", "missing"),
    [(("one",), ""), (("20-two",), ""), (("10-two",), "10-two"), (("x", "one", "y"), "x,y")],
)
def test_required_plugins(required: tuple[str, ...], missing: str) -> None:
    """They are named with or without their index."""
    reason = verdict(Config(required_plugins=required), asked())
    assert reason == (
        f'validation error: required plugin{"s" if "," in missing else ""} "{missing}" not present' if missing else ""
    )


@pytest.mark.parametrize(
    ("value", "missing"),
    [
        ("[one, 20-two]", ""),
        ('["x"]', "x"),
        ("- one\n- 'y'\n", "y"),
        ("[]", ""),
        ("", ""),
        ("one", "is not a YAML list"),
        ("{a: b}", "is not a YAML list"),
        ("- one\n  - two", "is not a YAML list"),
    ],
)
def test_a_pod_asks_for_plugins(value: str, missing: str) -> None:
    """By an annotation, a list in YAML's two styles; what is neither is refused."""
    reason = verdict(Config(), asked(annotations={REQUIRED_PLUGINS: value}))
    assert (missing in reason) if missing else not reason


def test_the_annotation_of_a_container_counts_before_that_of_the_pod() -> None:
    """The container's, then /pod, then the plain one."""
    plain = {REQUIRED_PLUGINS: "[x]"}
    assert verdict(Config(), asked(annotations=plain))
    pod = {**plain, f"{REQUIRED_PLUGINS}/pod": "[one]"}
    assert not verdict(Config(), asked(annotations=pod))
    assert '"y"' in verdict(Config(), asked(annotations={**pod, f"{REQUIRED_PLUGINS}/container.box": "[y]"}))
    assert not verdict(Config(), asked(annotations={**pod, f"{REQUIRED_PLUGINS}/container.other": "[y]"}))


@pytest.mark.parametrize(("value", "rejected"), [("true", False), ("1", False), ("false", True), ("yes", True)])
def test_a_pod_may_tolerate_missing_plugins(value: str, rejected: bool) -> None:
    """By the annotation that the administrator has named, and only then."""
    annotations = {"example.org/tolerate": value}
    config = Config(required_plugins=("x",), tolerate_missing_plugins_annotation="example.org/tolerate")
    assert bool(verdict(config, asked(annotations=annotations))) == rejected
    assert verdict(Config(required_plugins=("x",)), asked(annotations=annotations))
