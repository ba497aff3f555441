"""The promises of `windlass.contracts.metadata.Metadata` about leases and garbage collection, one test each.

The cases are those of docs/containerd 8.3 that can be seen from outside. The subclass provides a fixture
``metadata``; what it gives may have other namespaces, which no case touches. ``snapshotter`` is the name
of a snapshotter that the cases use.
"""

from __future__ import annotations

import pytest

from windlass.contracts.metadata import Metadata
from windlass_conformance.collecting import CollectionCases
from windlass_conformance.leases import LeaseCases


class MetadataSuite(LeaseCases, CollectionCases):
    """The promises of a metadata store; the module says how to run the suite."""

    certifies = "metadata"

    @pytest.fixture
    def metadata(self) -> Metadata:
        """Give the metadata store under test; the subclass provides it."""
        raise NotImplementedError("the subclass provides the metadata store under test")

    @pytest.fixture
    def namespace(self) -> str:
        """Give a namespace with nothing in it."""
        return "conformance"

    @pytest.fixture
    def other(self) -> str:
        """Give another one."""
        return "conformance-other"

    @pytest.fixture
    def snapshotter(self, metadata: Metadata) -> str:
        """Give the name of a snapshotter."""
        return metadata.snapshotters()[0]
