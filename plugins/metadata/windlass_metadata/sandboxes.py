"""Sandbox records, the metadata of shared environments for tasks (docs/containerd 3.12)."""

from __future__ import annotations

from windlass.contracts.sandboxes import Sandbox, SandboxStore
from windlass.contracts.values import check_identifier, check_label_keys
from windlass_metadata import nodes
from windlass_metadata.columns import payload, payloads, strings
from windlass_metadata.encoded import framed
from windlass_metadata.fields import Mutable, Visible, check_extensions, extensions, labels
from windlass_metadata.ledger import Ledger
from windlass_metadata.records import Kind, Records
from windlass_metadata.table import Table
from windlass_remote.records import to_record


def check_sandbox(sandbox: Sandbox) -> None:
    """Raise InvalidArgument unless a sandbox may be recorded as it is."""
    check_identifier("sandbox ID", sandbox.id)
    check_label_keys(sandbox.labels)
    check_extensions(f"sandbox {sandbox.id}", sandbox.extensions)


def _encoded(sandbox: Sandbox) -> bytes:
    message = to_record(sandbox)
    return framed(message, message.labels)


SANDBOXES = Kind(
    Table(
        "sandboxes",
        "sandbox",
        Sandbox,
        (payload("runtime_options"), payload("spec"), strings("labels"), payloads("extensions")),
        encoded=_encoded,
    ),
    key=lambda sandbox: sandbox.id,
    node=nodes.sandbox,
    check=check_sandbox,
    visible=Visible({"id": "id"}, {"labels": "labels"}),
    mutable=Mutable(
        {"labels": labels, "extensions": extensions},
        {"spec": ("spec",), "runtime": ("runtime", "runtime_options")},
    ),
)


class Sandboxes(Records[Sandbox], SandboxStore):
    """One namespace's sandboxes."""

    def __init__(self, ledger: Ledger, namespace: str) -> None:
        """Read and write ``ledger``."""
        super().__init__(SANDBOXES, ledger, namespace)
