"""Indexes, manifests and image configs: they come from outside and decide what a container executes.

A document is refused if the specification or containerd refuses it, or if it is a risk; everything else is accepted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from windlass.contracts.values import DIGEST, Descriptor, Platform
from windlass.errors import InvalidArgument, OutOfRange

MANIFEST_LIMIT = 4 << 20
"""Bytes of an index, a manifest or a config (docs/containerd 7.7)."""

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."
INDEX = OCI + "index.v1+json"
MANIFEST = OCI + "manifest.v1+json"
CONFIG = OCI + "config.v1+json"
LAYER = OCI + "layer.v1.tar"
DOCKER_MANIFEST = DOCKER + "distribution.manifest.v2+json"
DOCKER_CONFIG = DOCKER + "container.image.v1+json"
DOCKER_LAYER = DOCKER + "image.rootfs.diff.tar"
INDEXES = frozenset({INDEX, DOCKER + "distribution.manifest.list.v2+json"})
MANIFESTS = frozenset({MANIFEST, DOCKER_MANIFEST})
CONFIGS = frozenset({CONFIG, DOCKER_CONFIG})
CHECKPOINT = "application/vnd.containerd.container."
KNOWN_CONFIGS = CONFIGS | {f"{CHECKPOINT}criu.checkpoint.criu.tar", f"{CHECKPOINT}checkpoint.config.v1+proto"}
"""What containerd keeps as the config of its parent: those of its checkpoints too."""
EROFS_LAYER = "application/vnd.erofs.layer.v1"
LAYER_TYPES = frozenset(
    {DOCKER_LAYER, f"{DOCKER_LAYER}.gzip", f"{DOCKER_LAYER}.zstd", EROFS_LAYER}
    | {f"{DOCKER}image.rootfs.foreign.diff.tar{suffix}" for suffix in ("", ".gzip", ".zstd")}
)

LAYERS_LIMIT = 1000
"""Layers of an image; file systems stop at half of that, and docker at 127."""

VALUES_LIMIT = 500_000
"""Values in a JSON document: each takes up to 232 bytes as an object, whatever it takes as text."""
MAX_SIZE = 1 << 62
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
"""Where a string may have half of a pair, which no message and no file can have."""


@dataclass(frozen=True)
class Index:
    """Manifests, usually one for each platform."""

    manifests: tuple[Descriptor, ...]


@dataclass(frozen=True)
class Manifest:
    """The config and the layers of one image for one platform, or the parts of an artifact."""

    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def filesystem(self) -> tuple[Descriptor, ...]:
        """The layers of the root file system; a manifest may list others too, which have no diff IDs."""
        return tuple(layer for layer in self.layers if is_layer(layer.media_type))

    @property
    def is_image(self) -> bool:
        """Whether this is an image; signatures have an image's config, but no layer that is one."""
        return self.config.media_type in CONFIGS and (not self.layers or bool(self.filesystem))


@dataclass(frozen=True)
class ImageConfig:
    """An image's settings for its execution; all of them are untrusted."""

    platform: Platform
    diff_ids: tuple[str, ...]
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    labels: Mapping[str, str] | None = None
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    healthcheck: Mapping[str, object] = field(default_factory=dict)
    """docker's extension, as it stands."""

    @property
    def chain_id(self) -> str:
        """The name of the snapshot that has every layer, empty for an image without any."""
        return chain_id(self.diff_ids)


def chain_id(diff_ids: Sequence[str]) -> str:
    """Return the digest of a chain of diff IDs (docs/containerd 6.5.7)."""
    chain = ""
    for diff_id in diff_ids:
        chain = "sha256:" + hashlib.sha256(f"{chain} {diff_id}".encode()).hexdigest() if chain else diff_id
    return chain


def parse_json(data: bytes, name: str) -> object:
    """Return a JSON document; ``name`` says in errors which file it is."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") > VALUES_LIMIT:
        raise OutOfRange(f"{name} has more than {VALUES_LIMIT} values")
    try:
        document: object = json.loads(data.decode())
        if SURROGATE.search(data):
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidArgument(f"{name} is not JSON: {why[:200]}") from None


def parse_object(data: bytes, name: str) -> dict[str, object]:
    """Return a JSON document that has to be an object."""
    document = parse_json(data, name)
    if not isinstance(document, dict):
        raise InvalidArgument(f"{name} is a JSON {type(document).__name__}, not an object")
    return document


def parse_index(data: bytes, name: str, media_type: str = "") -> Index:
    """Read an index. ``media_type`` is what its descriptor calls it."""
    document = parse_object(data, name)
    _check_kind(document, name, media_type, INDEXES)
    if "layers" in document or "config" in document:
        raise InvalidArgument(
            f"{name} is both an index and a manifest; such a file means different things to different tools"
        )
    return Index(tuple(_descriptors(document.get("manifests"), f"{name}: manifests")))


def parse_manifest(data: bytes, name: str, media_type: str = "") -> Manifest:
    """Read a manifest. ``media_type`` is what its descriptor calls it."""
    document = parse_object(data, name)
    _check_kind(document, name, media_type, MANIFESTS)
    if "manifests" in document:
        raise InvalidArgument(
            f"{name} is both a manifest and an index; such a file means different things to different tools"
        )
    config = parse_descriptor(document.get("config"), f"{name}: config")
    layers = document.get("layers")
    if isinstance(layers, list) and len(layers) > LAYERS_LIMIT:
        raise OutOfRange(f"{name} has {len(layers)} layers, the limit is {LAYERS_LIMIT}")
    return Manifest(config, tuple(_descriptors(layers, f"{name}: layers")))


def is_layer(media_type: str) -> bool:
    """Return whether a part of a manifest belongs to a root file system, by containerd's rules.

    Source: docs/containerd 6.5.3.
    """
    base = media_type.partition("+")[0]
    return media_type.startswith(f"{OCI}layer.") or base in LAYER_TYPES or base.endswith(".erofs")


def is_distributable(media_type: str) -> bool:
    """Return whether a layer may be redistributed; base layers of Windows come from Microsoft only."""
    return not media_type.startswith((f"{DOCKER}image.rootfs.foreign.diff.", f"{OCI}layer.nondistributable."))


def to_json(target: Descriptor, annotations: Mapping[str, str]) -> dict[str, object]:
    """Return a descriptor as it stands in an index, with these annotations."""
    document: dict[str, object] = {"mediaType": target.media_type, "digest": target.digest, "size": target.size}
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    if (platform := target.platform) is not None:
        fields = {
            "os.version": platform.os_version,
            "os.features": list(platform.os_features),
            "variant": platform.variant,
        }
        named = {key: value for key, value in fields.items() if value}
        document["platform"] = {"architecture": platform.architecture, "os": platform.os} | named
    return document


def _check_kind(document: Mapping[str, object], name: str, media_type: str, kinds: frozenset[str]) -> None:
    version = document.get("schemaVersion")
    if version not in (None, 2):
        raise InvalidArgument(f"{name} has schemaVersion {str(version)[:20]}, only 2 is understood")
    # CVE-2021-41190: who goes by the one and who by the other would see different images. OCI's type and docker's
    # are two names of one thing, and what neither of them is says nothing.
    for called in (document.get("mediaType") or "", media_type):
        if not isinstance(called, str) or called in (INDEXES | MANIFESTS) - kinds:
            raise InvalidArgument(f"{name} has media type {str(called)[:100]!r}, which does not fit here")


def _descriptors(value: object, name: str) -> list[Descriptor]:
    if value is None:
        return []  # Go writes an empty list so
    if not isinstance(value, list):
        raise InvalidArgument(f"{name} is not a list")
    return [parse_descriptor(item, f"{name}[{number}]") for number, item in enumerate(value)]


def parse_descriptor(value: object, name: str) -> Descriptor:
    """Read a descriptor; one whose content would have to be fetched from a URL is as good as any other."""
    if not isinstance(value, dict):
        raise InvalidArgument(f"{name} is not a descriptor")
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not isinstance(media_type, str) or not 0 < len(media_type) <= 255:
        raise InvalidArgument(f"{name} has no media type")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise InvalidArgument(f"{name} has no valid digest: {str(digest)[:100]!r}")
    if type(size) is not int or not 0 <= size < MAX_SIZE:
        raise InvalidArgument(f"{name} has no valid size: {str(size)[:40]}")
    platform = value.get("platform")
    return Descriptor(
        media_type,
        digest,
        size,
        _string_map(value.get("annotations"), f"{name}: annotations"),
        parse_platform(platform, f"{name}: platform") if platform is not None else None,
    )


def parse_platform(value: object, name: str) -> Platform:
    """Read a platform, from a descriptor or from the top of a config."""
    if not isinstance(value, dict):
        raise InvalidArgument(f"{name} is not an object")
    return Platform(
        _string(value, "os", name),
        _string(value, "architecture", name),
        _string(value, "variant", name),
        _string(value, "os.version", name),
        _strings(value, "os.features", name),
    )


def parse_rootfs(data: bytes, name: str) -> ImageConfig:
    """Read platform and layers of an image config; what the config says about execution is ignored."""
    return _rootfs(parse_object(data, name), name)


def _rootfs(document: Mapping[str, object], name: str) -> ImageConfig:
    rootfs = document.get("rootfs") or {}
    if not isinstance(rootfs, dict) or (rootfs.get("type") or "layers") != "layers":
        raise InvalidArgument(f"{name} has a rootfs that is not of type layers")
    diff_ids = _strings(rootfs, "diff_ids", name)
    for diff_id in diff_ids:
        if not DIGEST.fullmatch(diff_id):
            raise InvalidArgument(f"{name} has a diff ID that is not a digest: {diff_id[:100]!r}")
    return ImageConfig(parse_platform(document, name), diff_ids)


def parse_config(data: bytes, name: str) -> ImageConfig:
    """Read a whole image config, for a caller that is about to execute it."""
    document = parse_object(data, name)
    config = document.get("config") or {}
    if not isinstance(config, dict):
        raise InvalidArgument(f"{name}: config is not an object")
    return replace(
        _rootfs(document, name),
        env=_strings(config, "Env", name),
        entrypoint=_strings(config, "Entrypoint", name),
        command=_strings(config, "Cmd", name),
        working_dir=_string(config, "WorkingDir", name),
        user=_string(config, "User", name),
        stop_signal=_string(config, "StopSignal", name),
        labels=_string_map(config.get("Labels"), f"{name}: Labels"),
        volumes=_names(config, "Volumes", name),
        exposed_ports=_names(config, "ExposedPorts", name),
        healthcheck=health if isinstance(health := config.get("Healthcheck"), dict) else {},
    )


def _names(document: Mapping[str, object], key: str, name: str) -> tuple[str, ...]:
    """Return the keys of an object whose values say nothing."""
    value = document.get(key) or {}
    if not isinstance(value, dict) or any(not each or "\0" in each for each in value):
        raise InvalidArgument(f"{name}: {key} is not an object whose keys are paths")
    return tuple(value)


def _string(document: Mapping[str, object], key: str, name: str) -> str:
    value = document.get(key) or ""
    if not isinstance(value, str) or "\0" in value:
        raise InvalidArgument(f"{name}: {key} is not a string")
    return value


def _strings(document: Mapping[str, object], key: str, name: str) -> tuple[str, ...]:
    value = document.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
        raise InvalidArgument(f"{name}: {key} is not a list of strings")
    return tuple(value)


def _string_map(value: object, name: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(item is None or isinstance(item, str) for item in value.values()):
        raise InvalidArgument(f"{name} is not a map of strings")
    return {key: item or "" for key, item in value.items()}
