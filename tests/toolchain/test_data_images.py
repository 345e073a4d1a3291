"""CIFAR, MNIST and folders of images, from small files written here."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from snn_export.data import image_folder
from snn_export.data.registry import load_dataset
from snn_export.models.diagnostics import UserError

RNG = np.random.default_rng(0)


def refused(spec: str, code: str, *texts: str) -> None:
    with pytest.raises(UserError) as error:
        load_dataset(spec, seed=0)
    assert error.value.code == code, str(error.value)
    for text in texts:
        assert text in str(error.value)


# --- CIFAR -----------------------------------------------------------------------------------------------------------------


def cifar_file(path: Path, labels: np.ndarray, *, coarse: bool = False) -> np.ndarray:
    """Write records of random pixels; returns them, (N, 3, 32, 32)."""
    pixels = RNG.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    columns = [labels[:, None] // 5, labels[:, None]] if coarse else [labels[:, None]]
    path.write_bytes(np.concatenate([*(column.astype(np.uint8) for column in columns), pixels], axis=1).tobytes())
    return pixels.reshape(-1, 3, 32, 32)


@pytest.fixture
def cifar10(tmp_path: Path) -> tuple[Path, np.ndarray]:
    for number in range(1, 6):
        cifar_file(tmp_path / f"data_batch_{number}.bin", np.arange(20) % 10)
    return tmp_path, cifar_file(tmp_path / "test_batch.bin", np.arange(20) % 10)


def test_cifar10(cifar10: tuple[Path, np.ndarray]) -> None:
    folder, pixels = cifar10
    data = load_dataset(f"cifar10:{folder}", seed=0)
    assert (len(data.y_train), len(data.y_val), len(data.y_test)) == (88, 12, 20)
    assert (data.classes, data.input_shape, data.steps, data.x_test.dtype) == (10, (3, 32, 32), None, np.float32)
    assert np.array_equal(data.x_test, pixels / np.float32(255)), "red, green and blue planes, row by row"
    assert data.y_test.tolist() == [*range(10)] * 2
    assert (data.input_low, data.input_high) == (0.0, 1.0)
    assert any("100 of the 50,000 official training images" in note for note in data.notes)
    assert data.fingerprint == load_dataset(f"cifar10:{folder}?limit=1", seed=0).fingerprint
    other = load_dataset(f"cifar10:{folder}", seed=1)
    assert np.array_equal(other.x_test, data.x_test)
    assert other.fingerprint != data.fingerprint


def test_cifar100_has_its_fine_classes(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    cifar_file(folder / "train.bin", np.arange(200) % 100, coarse=True)
    pixels = cifar_file(folder / "test.bin", np.arange(100), coarse=True)
    data = load_dataset(f"cifar100:{tmp_path}", seed=0)
    assert data.classes == 100
    assert data.y_test.tolist() == [*range(100)]
    assert np.array_equal(data.x_test, pixels / np.float32(255))


def test_the_pickled_version_is_never_opened(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    (folder / "data_batch_1").write_bytes(pickle.dumps(Trap()))
    for place in (tmp_path, folder):
        refused(f"cifar10:{place}", "SNX134", "cifar-10-binary.tar.gz")
    assert not (tmp_path / "sprung").exists()


def test_cifar_files_that_are_missing_cut_short_or_too_large(cifar10: tuple[Path, np.ndarray]) -> None:
    folder, _ = cifar10
    refused(f"cifar10:{folder / 'nowhere'}", "SNX133", "cifar-10-binary.tar.gz")
    whole = (folder / "data_batch_3.bin").read_bytes()
    (folder / "data_batch_3.bin").write_bytes(whole[:-1])
    refused(f"cifar10:{folder}", "SNX135", "data_batch_3.bin", "61459 bytes")
    (folder / "data_batch_3.bin").write_bytes(b"")
    refused(f"cifar10:{folder}", "SNX135", "data_batch_3.bin")
    (folder / "data_batch_3.bin").write_bytes(bytes([10]) + whole[1:])
    refused(f"cifar10:{folder}", "SNX116", "labels 0..10")
    (folder / "data_batch_3.bin").unlink()
    refused(f"cifar10:{folder}", "SNX133", "data_batch_3.bin")
    with (folder / "data_batch_3.bin").open("wb") as stream:
        stream.truncate(3073 << 20)
    tracemalloc.start()
    refused(f"cifar10:{folder}", "SNX136", "12.0 GiB", "?limit=13")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20, "refused before it is read"
    tracemalloc.stop()


# --- MNIST -----------------------------------------------------------------------------------------------------------------


def idx(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.astype(np.uint8).tobytes()


def write_mnist(folder: Path, pack: Callable[[bytes], bytes] | None, separator: str = "-") -> np.ndarray:
    images = RNG.integers(0, 256, (50, 28, 28), dtype=np.uint8)
    for part, chosen in (("train", slice(0, 40)), ("t10k", slice(40, 50))):
        for kind, values in (("images", images[chosen]), ("labels", np.arange(50)[chosen] % 10)):
            name = f"{part}-{kind}{separator}idx{values.ndim}-ubyte"
            (folder / (name + ".gz" if pack else name)).write_bytes((pack or bytes)(idx(values)))
    return images


@pytest.mark.parametrize(("pack", "separator"), [(None, "-"), (None, "."), (gzip.compress, "-")])
def test_mnist(tmp_path: Path, pack: Callable[[bytes], bytes] | None, separator: str) -> None:
    images = write_mnist(tmp_path, pack, separator)
    data = load_dataset(f"mnist:{tmp_path}", seed=0)
    assert (len(data.y_train), len(data.y_val), data.input_shape) == (35, 5, (1, 28, 28))
    assert np.array_equal(data.x_test[:, 0], images[40:] / np.float32(255))
    assert data.y_test.tolist() == [*range(10)]


IMAGES = idx(RNG.integers(0, 256, (40, 28, 28), dtype=np.uint8))
HOSTILE = {
    "cut short": ("SNX135", IMAGES[:-1]),
    "too long": ("SNX135", IMAGES + b"x"),
    "other type": ("SNX135", bytes((0, 0, 13, 3)) + IMAGES[4:]),
    "other axes": ("SNX135", idx(np.zeros((40, 784), np.uint8))),
    "only a header": ("SNX135", IMAGES[:9]),
    "nothing": ("SNX135", b""),
    "no images": ("SNX135", idx(np.zeros((0, 28, 28), np.uint8))),
    "fewer images": ("SNX135", idx(np.zeros((39, 28, 28), np.uint8))),
    "other size": ("SNX135", idx(np.zeros((40, 28, 27), np.uint8))),
    "terabytes": ("SNX136", bytes((0, 0, 8, 3)) + struct.pack(">3I", 1 << 31, 1 << 31, 1 << 31)),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("code", "content"), HOSTILE.values(), ids=HOSTILE)
def test_idx_files_that_lie(tmp_path: Path, code: str, content: bytes, packed: bool) -> None:
    write_mnist(tmp_path, gzip.compress if packed else None)
    name = "train-images-idx3-ubyte" + (".gz" if packed else "")
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    refused(f"mnist:{tmp_path}", code)


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    write_mnist(tmp_path, gzip.compress)
    bomb = gzip.compress(IMAGES + bytes(64 << 20))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(bomb)
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    refused(f"mnist:{tmp_path}", "SNX135", "holds more")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("content", [b"not gzip", gzip.compress(IMAGES)[:-12], gzip.compress(IMAGES)[:10] + b"\xff" * 99])
def test_damaged_gzip(tmp_path: Path, content: bytes) -> None:
    write_mnist(tmp_path, gzip.compress)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    refused(f"mnist:{tmp_path}", "SNX135")


def test_mnist_missing(tmp_path: Path) -> None:
    write_mnist(tmp_path, None)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    refused(f"mnist:{tmp_path}", "SNX133", "t10k-labels-idx1-ubyte.gz")


# --- folders of images -----------------------------------------------------------------------------------------------------


def picture(path: Path, pixels: np.ndarray | None = None, size: tuple[int, int] = (12, 12)) -> np.ndarray:
    """Write an image of (height, width, 3) pixels and return them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = RNG.integers(0, 256, (*size, 3), dtype=np.uint8) if pixels is None else pixels
    Image.fromarray(found).save(path)
    return found


@pytest.fixture
def pets(tmp_path: Path) -> tuple[Path, np.ndarray]:
    for name in ("dog", "ant", "cat"):
        for number in range(6):
            picture(tmp_path / "train" / name / f"{number}.png")
    shown = [picture(tmp_path / "val" / name / "0.png") for name in ("ant", "cat", "dog")]
    return tmp_path, np.stack(shown)


def test_classes_are_sorted_and_val_is_the_test_set(pets: tuple[Path, np.ndarray]) -> None:
    folder, shown = pets
    (folder / "train" / "ant" / "notes.txt").write_text("no image")
    data = load_dataset(f"images:{folder}", seed=0)
    assert (data.classes, data.input_shape, len(data.y_train) + len(data.y_val)) == (3, (3, 12, 12), 18)
    assert data.y_test.tolist() == [0, 1, 2]
    assert np.array_equal(data.x_test, shown.transpose(0, 3, 1, 2) / np.float32(255))
    assert "val is the test set" in data.notes[0]


def test_tiny_imagenet(tmp_path: Path) -> None:
    names = ("n02", "n01")
    for name in names:
        for number in range(4):
            picture(tmp_path / "train" / name / "images" / f"{name}_{number}.JPEG")
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("")
    for number in range(3):
        picture(tmp_path / "val" / "images" / f"val_{number}.JPEG", np.full((12, 12, 3), 50 * number, np.uint8))
    lines = ["val_2.JPEG\tn01\t0\t0\t9\t9", "val_0.JPEG\tn02\t0\t0\t9\t9", "val_1.JPEG\tn01\t0\t0\t9\t9"]
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    data = load_dataset(f"images:{tmp_path}", seed=0)
    assert data.y_test.tolist() == [1, 0, 0], "by file name; n01 is class 0"
    assert np.allclose(data.x_test.mean(axis=(1, 2, 3)) * 255, [0, 50, 100], atol=2)
    (tmp_path / "val" / "val_annotations.txt").write_text("../../train/n01/images/n01_0.JPEG\tn01\n")
    refused(f"images:{tmp_path}", "SNX116", "line 1")
    (tmp_path / "val" / "val_annotations.txt").write_text("val_9.JPEG\tn01\n")
    refused(f"images:{tmp_path}", "SNX133", "val_9.JPEG")


def test_size_scales_the_shorter_side_and_cuts_out_the_middle(pets: tuple[Path, np.ndarray]) -> None:
    folder, _ = pets
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 14:34, 0] = 200  # the filter reaches a little beyond the middle square
    picture(folder / "val" / "cat" / "0.png", wide)
    grey = Image.fromarray(np.full((20, 30), 100, np.uint8))
    grey.save(folder / "val" / "dog" / "0.png")
    refused(f"images:{folder}", "SNX138", "?size=64")
    data = load_dataset(f"images:{folder}?size=8", seed=0)
    assert data.input_shape == (3, 8, 8)
    assert np.allclose(data.x_test[1, 0], 200 / 255, atol=0.01)
    assert not data.x_test[1, 1:].any()
    assert np.allclose(data.x_test[2], 100 / 255), "grey images have three equal channels"


def png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that declares so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


BAD_IMAGES = {
    "empty": b"",
    "text": b"<html>not found</html>",
    "bomb": png_bomb(60_000, 60_000),
    "smaller bomb": png_bomb(8193, 8193),
    "negative": png_bomb(0x80000001, 5),
    "cut short": encoded("PNG")[:200],
    "cut JPEG": encoded("JPEG")[:-100],
    "no pixels": encoded("PNG")[:40],
}


@pytest.mark.parametrize("content", BAD_IMAGES.values(), ids=BAD_IMAGES)
@pytest.mark.parametrize("option", ["", "?size=4"])
@pytest.mark.filterwarnings("error")
def test_files_that_are_no_images(pets: tuple[Path, np.ndarray], content: bytes, option: str) -> None:
    folder, _ = pets
    (folder / "val" / "ant" / "0.png").write_bytes(content)
    refused(f"images:{folder}{option}", "SNX137", "0.png")


def test_other_formats_are_not_decoded(pets: tuple[Path, np.ndarray]) -> None:
    folder, _ = pets
    Image.new("RGB", (12, 12)).save(folder / "train" / "ant" / "0.png", format="TIFF")
    refused(f"images:{folder}", "SNX137")


def test_memory_is_counted_before_an_image_is_decoded(pets: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = pets
    monkeypatch.setattr(image_folder, "_read", lambda *_, **__: pytest.fail("read too early"))
    refused(f"images:{folder}?size=8000&limit=2", "SNX136", "15.0 GiB", "limit=16")


def test_folders_that_do_not_fit(pets: tuple[Path, np.ndarray]) -> None:
    folder, _ = pets
    picture(folder / "val" / "emu" / "0.png")
    refused(f"images:{folder}", "SNX116", "'emu'")
    (folder / "val" / "emu" / "0.png").unlink()
    (folder / "val" / "emu").rmdir()
    (folder / "train" / "bee").mkdir()
    refused(f"images:{folder}", "SNX133", "'bee'")
    refused(f"images:{folder / 'train'}", "SNX133", "'train'")


# --- the datasets library --------------------------------------------------------------------------------------------------


def test_hub_agrees_with_the_files(cifar10: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = cifar10
    asked = []

    def load_dataset_(repository: str) -> dict[str, list[dict[str, object]]]:
        asked.append(repository)
        names = {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]}
        raw = {part: b"".join((folder / name).read_bytes() for name in files) for part, files in names.items()}
        rows = {part: np.frombuffer(data, np.uint8).reshape(-1, 3073) for part, data in raw.items()}
        return {
            part: [{"img": Image.fromarray(row[1:].reshape(3, 32, 32).transpose(1, 2, 0)), "label": int(row[0])} for row in table]
            for part, table in rows.items()
        }

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset_))
    assert load_dataset("cifar10:hub", seed=3).fingerprint == load_dataset(f"cifar10:{folder}", seed=3).fingerprint
    assert asked == ["uoft-cs/cifar10"]


def test_hub_without_the_library_or_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused("mnist:hub", "SNX140", "snn-export[hub]")

    def offline(_: str) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=offline))
    refused("mnist:hub", "SNX141", "no route to host", "mnist:FOLDER")
