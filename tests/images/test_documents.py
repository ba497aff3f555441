"""Documents that strangers send: how much memory they may take."""

from __future__ import annotations

import tracemalloc

import pytest

from windlass.errors import Error
from windlass_images.manifests import VALUES_LIMIT, parse_json

SIZE = 19 << 20
DOCUMENTS = {
    "empty objects": lambda: b"[" + b"{}," * (SIZE // 3) + b"{}]",
    "empty lists": lambda: b"[" + b"[]," * (SIZE // 3) + b"[]]",
    "empty strings": lambda: b"[" + b'"",' * (SIZE // 3) + b'""]',
    "one string": lambda: b'["' + b"a" * SIZE + b'"]',
    "one string with a sign that takes four bytes": lambda: b'["' + b"a" * SIZE + "\U0001f600".encode() + b'"]',
    "as many objects as there may be": lambda: b"[" + b'{"a":0},' * (VALUES_LIMIT // 2 - 1) + b"0]",
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_of_19_megabytes_takes_little_memory(name: str) -> None:
    """Whatever is in it: one took 600 MB. What it takes is counted from the bytes on."""
    data = DOCUMENTS[name]()
    tracemalloc.start()
    try:
        parse_json(data, "it")
    except Error as error:
        assert "more than 500000 values" in str(error)
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert most < 200 << 20
