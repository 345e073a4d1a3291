"""Workers of cell backends stay for the tests of a module, and end with them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def workers_end() -> Iterator[None]:
    """Ends the workers that this module's tests share."""
    yield
    from tests.cell_backends import backend

    backend.cache_clear()
