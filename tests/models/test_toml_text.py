"""TOML of unknown origin is read or refused with one kind of error, soon and within bounded memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snn_export.models import toml_text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a = ", "Invalid value"),
        ("a = " + "9" * 5001, "limit"),
        ("a = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        (".".join("a" * 50_000) + " = 1", "more than 64 dots"),
        (b"a = '\xff'", "not UTF-8"),
        ("a = 1\na = 2", "overwrite"),
    ],
)
def test_what_is_no_toml_is_refused_with_the_reason(text: str | bytes, why: str) -> None:
    with pytest.raises(toml_text.UnreadableTomlError, match=why):
        toml_text.parsed(text)


def test_a_document_is_read() -> None:
    assert toml_text.parsed(b"[a]\nb = 1.5\n") == {"a": {"b": 1.5}}


def test_only_small_regular_files_are_read(tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(toml_text.UnreadableTomlError) as caught:
            toml_text.content(path)
        return str(caught.value)

    fine, large, pipe = (tmp_path / name for name in ("fine", "large", "pipe"))
    fine.write_bytes(b"a = 1")
    large.write_bytes(b" " * (toml_text.MOST_BYTES + 1))
    os.mkfifo(pipe)
    (tmp_path / "device").symlink_to("/dev/zero")
    assert toml_text.content(fine) == b"a = 1"
    assert "bytes" in refused(large)
    assert refused(pipe) == refused(tmp_path / "device") == "it is not a regular file"
    assert refused(tmp_path) == "it is a folder"
    assert refused(tmp_path / "none") == "No such file or directory"
