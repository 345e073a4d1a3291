"""Where a config's data lies, and what identifies it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snn_export.models.diagnostics import UserError
from snn_export.pipeline import data_source
from snn_export.pipeline.data_source import dataset, resolved, source_fingerprint, told


def test_paths_start_at_the_config(tmp_path: Path) -> None:
    assert resolved("npz:a.npz", tmp_path) == f"npz:{tmp_path}/a.npz"
    assert resolved("images:pets?size=64", tmp_path) == f"images:{tmp_path}/pets?size=64"
    assert resolved("images:/abs/pets", tmp_path) == "images:/abs/pets"
    assert resolved("shd:~/shd", tmp_path) == f"shd:{Path.home()}/shd"
    for bundled in ("digits", "cifar10:hub"):
        assert resolved(bundled, tmp_path) == bundled
        assert source_fingerprint(bundled, tmp_path) == bundled
    assert told("images:/home/me/pets?size=64") == "images:pets?size=64"
    assert told("npz:../a.npz") == "npz:a.npz"
    assert told("digits") == "digits"


def test_an_error_names_the_resolved_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)) as error:
        dataset("mnist:data", tmp_path, 0, 0.1)
    assert error.value.code == "SNX133"


@pytest.mark.parametrize("small", [True, False])
def test_a_folder_is_known_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: bool) -> None:
    if not small:
        monkeypatch.setattr(data_source, "SMALL_FOLDER_BYTES", 10)
    folder = tmp_path / "data"
    (folder / "train").mkdir(parents=True)
    first, second = folder / "train" / "a.bin", folder / "b.bin"
    first.write_bytes(b"123456")
    second.write_bytes(b"654321")

    def now() -> str:
        return source_fingerprint("images:data", tmp_path)

    start = now()
    assert start == now() == source_fingerprint("images:data?size=9", tmp_path)
    os.utime(first, ns=(1, 1))
    assert (now() == start) is small, "small folders by their bytes, large ones by times"
    start = now()
    first.write_bytes(b"123457")
    assert now() != start
    start = now()
    first.rename(folder / "train" / "c.bin")
    assert now() != start
    start = now()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "d.bin").write_bytes(b"1")
    (folder / "linked").symlink_to(tmp_path / "more")
    (tmp_path / "more" / "loop").symlink_to(folder)
    assert now() != start
    files = list(data_source._files(folder))
    assert len(files) == 3, "a link that leads back is followed once"
    start = now()
    for order in (sorted(files), sorted(files, reverse=True)):
        monkeypatch.setattr(data_source, "_files", lambda _, order=order: order)
        assert now() == start, "folders list their files in any order"


def test_a_file_is_known_by_its_bytes_and_nothing_by_its_name(tmp_path: Path) -> None:
    assert source_fingerprint("npz:a.npz", tmp_path) == "npz:a.npz"
    (tmp_path / "a.npz").write_bytes(b"1")
    first = source_fingerprint("npz:a.npz", tmp_path)
    (tmp_path / "a.npz").write_bytes(b"2")
    assert first != source_fingerprint("npz:a.npz", tmp_path)
