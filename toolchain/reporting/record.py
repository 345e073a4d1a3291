"""What every record of a report is: immutable, and without room for a field that nobody declared."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Part of a report."""

    model_config = ConfigDict(frozen=True, extra="forbid")
