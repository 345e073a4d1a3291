"""What pydantic found wrong with a file, in one line."""

from __future__ import annotations

from pydantic import ValidationError


def told(error: ValidationError, whole: str) -> str:
    """Every finding with the place of the field, as ``limits.axons.value: Field required``; ``whole``: the file itself."""
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or whole}: {item['msg']}" for item in error.errors())
