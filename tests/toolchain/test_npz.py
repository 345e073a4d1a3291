from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from snn_export.data.npz import load_npz
from snn_export.data.registry import load_dataset
from snn_export.models.diagnostics import UserError


def arrays(**changes: object) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    base = {
        "x_train": rng.uniform(-2, 3, (40, 1, 4, 4)).astype(np.float32),
        "y_train": np.arange(40) % 3,
        "x_test": rng.uniform(-9, 9, (9, 1, 4, 4)).astype(np.float32),
        "y_test": np.arange(9) % 3,
    }
    return {key: value for key, value in (base | changes).items() if value is not None}


def saved(path: Path, **changes: object) -> Path:
    np.savez_compressed(path / "data.npz", **arrays(**changes))
    return path / "data.npz"


def test_floats_keep_their_values_and_the_split_goes_by_seed(tmp_path: Path) -> None:
    source = arrays()
    path = saved(tmp_path)
    data = load_dataset(f"npz:{path}", seed=0)
    assert (len(data.y_train), len(data.y_val), len(data.y_test)) == (35, 5, 9)
    assert (data.classes, data.input_shape, data.notes) == (3, (1, 4, 4), ())
    assert np.array_equal(data.x_test, source["x_test"])
    assert data.input_low == source["x_train"].min(), "the declared range must not be measured on test data"
    assert data.input_high == source["x_train"].max()
    both = np.concatenate([data.x_train, data.x_val])
    assert np.array_equal(np.unique(both.ravel()), np.unique(source["x_train"].ravel()))
    assert load_dataset(f"npz:{path}", seed=0).fingerprint == data.fingerprint != load_dataset(f"npz:{path}", seed=1).fingerprint


def test_uint8_images_are_scaled_get_a_channel_and_it_is_said(tmp_path: Path) -> None:
    images = np.arange(40 * 4 * 4, dtype=np.uint8).reshape(40, 4, 4)
    data = load_npz(saved(tmp_path, x_train=images, x_test=images[:9]), seed=0)
    assert data.input_shape == (1, 4, 4)
    assert np.array_equal(data.x_test[:, 0], images[:9] / np.float32(255))
    assert (data.input_low, data.input_high) == (0.0, 1.0)
    assert "1/255" in data.notes[0]
    assert "channel" in data.notes[1]


def test_fortran_order_and_foreign_byte_order(tmp_path: Path) -> None:
    source = arrays()
    x = np.asfortranarray(source["x_train"].astype(">f8"))
    data = load_npz(saved(tmp_path, x_train=x, x_test=source["x_test"].astype(">f8")), seed=0)
    expected = load_npz(saved(tmp_path), seed=0)
    assert data.fingerprint == expected.fingerprint


X = arrays()["x_train"]
NAN, HUGE = X.copy(), X.astype(np.float64)
NAN[5, 0, 1, 1] = np.nan
HUGE[7] = 1e300
CASES = {
    "missing key": ("SNX111", {"x_test": None, "images": X}, "it holds images, x_train, y_test, y_train"),
    "x is flat": ("SNX112", {"x_train": X.ravel()}, "(640,)"),
    "labels one-hot": ("SNX112", {"y_train": np.eye(3, dtype=int)[np.arange(40) % 3]}, "(40, 3)"),
    "train and test differ": ("SNX112", {"x_test": np.zeros((9, 1, 5, 4), np.float32)}, "(1, 5, 4)"),
    "fewer labels": ("SNX113", {"y_train": np.arange(39) % 3}, "39 labels"),
    "no samples": ("SNX501", {"x_test": X[:0], "y_test": np.arange(0)}, "no test samples"),
    "zero-sized images": ("SNX113", {"x_train": X[:, :, :0], "x_test": X[:9, :, :0]}, "(40, 1, 0, 4)"),
    "nothing to validate on": ("SNX113", {"x_train": X[:3], "y_train": np.arange(3)}, "validation"),
    "objects": ("SNX114", {"x_train": np.array([{}, []] * 20, dtype=object)}, "object"),
    "complex": ("SNX114", {"x_train": X.astype(complex)}, "complex128"),
    "strings": ("SNX114", {"x_train": X.astype(str)}, "<U"),
    "two scales": ("SNX114", {"x_test": np.zeros((9, 1, 4, 4), np.uint8)}, "uint8"),
    "NaN": ("SNX115", {"x_train": NAN}, "first in sample 5"),
    "too large for float32": ("SNX115", {"x_train": HUGE, "x_test": HUGE[:9]}, "first in sample 7"),
    "float labels": ("SNX116", {"y_train": np.arange(40) % 3 / 1.0}, "float64"),
    "negative label": ("SNX116", {"y_train": np.arange(40) % 3 - 1}, "smallest label is -1"),
    "gap in the labels": ("SNX116", {"y_train": np.arange(40) % 3 * 10**9}, "some class has no sample"),
    "one class": ("SNX116", {"y_train": np.zeros(40, int), "y_test": np.zeros(9, int)}, "single class"),
    "class only in the test set": ("SNX116", {"y_test": np.arange(9) % 4}, "y_test has label 3"),
}


@pytest.mark.parametrize(("code", "changes", "text"), CASES.values(), ids=CASES)
def test_each_mistake_has_its_code_and_says_what_was_found(tmp_path: Path, code: str, changes: dict, text: str) -> None:
    path = saved(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        load_npz(path, seed=0)
    assert error.value.code == code
    assert text in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [None, b"", b"not a zip archive", "folder"])
def test_no_npz_file(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "data.npz"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        load_npz(path, seed=0)
    assert error.value.code == "SNX110"


def test_truncated_archive(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError) as error:
        load_npz(path, seed=0)
    assert error.value.code == "SNX110"


def test_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays())
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        load_npz(path, seed=0)
    assert error.value.code == "SNX118"


def with_member(path: Path, key: str, content: bytes) -> Path:
    """An archive in which the array ``key`` has this content."""
    with zipfile.ZipFile(path / "data.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays().items():
            stream = io.BytesIO()
            np.save(stream, array)
            archive.writestr(f"{name}.npy", content if name == key else stream.getvalue())
    return path / "data.npz"


def header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize("content", [b"", b"garbage", header((10**9, 10**3)), header((-1, 4)), header((2, 2)) + bytes(99)])
def test_array_that_is_damaged_or_lies_about_its_size(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError) as error:
        load_npz(with_member(tmp_path, "x_train", content), seed=0)
    assert error.value.code == "SNX118"


def test_zip_bomb_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    size = 64 << 20
    path = with_member(tmp_path, "x_train", header((size // 4,)) + bytes(size))
    assert path.stat().st_size < size // 100
    tracemalloc.start()
    with pytest.raises(UserError) as error:
        load_npz(path, seed=0, limit_bytes=32 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.value.code == "SNX117"
    assert peak < 4 << 20
