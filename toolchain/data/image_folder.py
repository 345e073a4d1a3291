"""Images in folders, one folder a class: ImageNet, Tiny ImageNet, and pictures of your own.

    train/<class>/*.JPEG           val/<class>/*.JPEG                          ImageNet (ILSVRC 2012), validation images sorted
    train/<class>/images/*.JPEG    val/images/*.JPEG, val/val_annotations.txt  Tiny ImageNet (CS231n, Stanford, 2015)

The labels of ImageNet's own test images were never published: its validation part, which has labels, is the **test** set here,
and the validation set is cut from the training images as everywhere else.

Source: O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 115(3), 2015.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from snn_export.data.data_files import DEFAULT_LIMIT_BYTES, check_memory, data_folder, missing, unreadable
from snn_export.data.dataset import DEFAULT_VALIDATION, Dataset, assembled
from snn_export.models.diagnostics import UserError

MAX_PIXELS = 1 << 26
"""Of one image. The largest of ImageNet has 2^25; a small file that unpacks to more is no photograph."""

_SUFFIXES = (".jpeg", ".jpg", ".png")
_FORMATS = ("JPEG", "PNG")
_ANNOTATIONS = "val_annotations.txt"
_MAX_ANNOTATIONS_BYTES = 64 << 20
_SOURCE = "https://image-net.org or http://cs231n.stanford.edu/tiny-imagenet-200.zip"


@dataclass(frozen=True)
class _Listed:
    """Images of one part and their classes, in a fixed order."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]


def load_images(
    folder: Path,
    seed: int,
    validation: float = DEFAULT_VALIDATION,
    *,
    size: int | None = None,
    limit_bytes: int = DEFAULT_LIMIT_BYTES,
) -> Dataset:
    """Images as float32 (N, 3, H, W) in [0, 1]; classes are the sorted names of the folders in ``train``.

    With ``size`` the shorter side of every image is scaled to it (bilinear, with antialiasing) and the middle cut out: H = W =
    ``size``. Without it all images must have the same size already.

    Raises:
        UserError: SNX133 files or folders missing, SNX116 classes that do not fit, SNX136 more than ``limit_bytes`` as float32,
            SNX137 a file that is no image, SNX138 images of several sizes and no ``size``, SNX113.
    """
    place = data_folder(folder, source=_SOURCE)
    classes = _class_folders(place)
    train, test = _training_images(place, classes), _test_images(place, classes)
    height, width = (size, size) if size else _image_size(train.paths[0])
    check_memory(place, [(len(part.paths), 3, height, width) for part in (train, test)], limit_bytes)
    x, x_test = (_read(part.paths, height, width, resize=size is not None) for part in (train, test))
    notes = ["the folder val is the test set; the validation set is cut from train"]
    if size:
        notes.append(f"shorter side scaled to {size}, the middle {size}x{size} pixels")
    return assembled(
        f"images:{place.name}", (x, np.array(train.labels, np.int64)), (x_test, np.array(test.labels, np.int64)), seed=seed,
        validation=validation, where=str(place), classes=len(classes), notes=tuple(notes),
    )  # fmt: skip


def _class_folders(place: Path) -> tuple[str, ...]:
    """Sorted names of the classes. SNX133 without folders, SNX116 for a single one."""
    for part in ("train", "val"):
        if not (place / part).is_dir():
            raise missing(place, f"'{place.name}' has no folder '{part}'", _SOURCE)
    names = tuple(sorted(entry.name for entry in (place / "train").iterdir() if entry.is_dir()))
    if not names:
        raise missing(place / "train", "'train' has no folders of classes", _SOURCE)
    if len(names) < 2:
        raise _class_error(place / "train", f"'{names[0]}' is the only class", "one class teaches nothing")
    return names


def _training_images(place: Path, classes: Sequence[str]) -> _Listed:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        inner = place / "train" / name / "images"
        found = _images_in(inner if inner.is_dir() else inner.parent)
        if not found:
            raise missing(inner.parent, f"class '{name}' has no training image", _SOURCE)
        paths += found
        labels += [label] * len(found)
    return _Listed(tuple(paths), tuple(labels))


def _test_images(place: Path, classes: Sequence[str]) -> _Listed:
    """Images of ``val``: by folder, or by the annotations that Tiny ImageNet has."""
    numbers = {name: label for label, name in enumerate(classes)}
    if (place / "val" / _ANNOTATIONS).is_file():
        return _annotated(place / "val", numbers)
    folders = sorted(entry for entry in (place / "val").iterdir() if entry.is_dir())
    strangers = [entry.name for entry in folders if entry.name not in numbers]
    if strangers:
        raise _class_error(place / "val", f"'{strangers[0]}' is no class of 'train'", "a network knows the classes it was taught")
    listed = [(path, numbers[entry.name]) for entry in folders for path in _images_in(entry)]
    if not listed:
        raise missing(place / "val", "'val' has no images in folders of classes", _SOURCE)
    return _Listed(tuple(path for path, _ in listed), tuple(label for _, label in listed))


def _annotated(val: Path, numbers: dict[str, int]) -> _Listed:
    """Images that ``val_annotations.txt`` lists, one line each: file name, class, and a box that is not needed here."""
    annotations = val / _ANNOTATIONS
    try:
        with annotations.open(encoding="utf-8", errors="replace") as stream:
            lines = stream.read(_MAX_ANNOTATIONS_BYTES).splitlines()
    except OSError as error:
        raise unreadable(annotations, error) from error
    listed: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name, _, rest = line.partition("\t")
        label = numbers.get(rest.partition("\t")[0])
        if label is None or Path(name).name != name:
            raise _class_error(
                annotations, f"line {number} does not name a file and a class of 'train'", f"it reads {line[:80]!r}"
            )
        listed[name] = label
    absent = [name for name in listed if not (val / "images" / name).is_file()]
    if absent or not listed:
        raise missing(val / "images", f"'images' has no {absent[0]}" if absent else f"'{_ANNOTATIONS}' is empty", _SOURCE)
    ordered = sorted(listed.items())
    return _Listed(tuple(val / "images" / name for name, _ in ordered), tuple(label for _, label in ordered))


def _images_in(folder: Path) -> list[Path]:
    """Images directly in a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())


def _image_size(path: Path) -> tuple[int, int]:
    """(height, width) of one image."""
    with _opened(path) as image:
        return image.height, image.width


def _read(paths: Sequence[Path], height: int, width: int, *, resize: bool) -> NDArray[np.generic]:
    """Images uint8 (N, 3, height, width)."""
    pixels = np.empty((len(paths), 3, height, width), np.uint8)
    for index, path in enumerate(paths):
        with _opened(path) as image:
            if not resize and (image.height, image.width) != (height, width):
                raise UserError(
                    "SNX138", f"'{path.name}' has {image.height}x{image.width} pixels, the first image {height}x{width}",
                    where=str(path), why="one network reads inputs of one shape",
                    fix="give a size that all are brought to, for instance images:FOLDER?size=64",
                )  # fmt: skip
            try:
                colours = image.convert("RGB")
            except (OSError, ValueError, SyntaxError, struct.error) as error:  # Pillow's own errors while it decodes
                raise _no_image(path, str(error)) from error
            pixels[index] = np.asarray(_middle(colours, height) if resize else colours).transpose(2, 0, 1)
    return pixels


def _middle(image: Image.Image, side: int) -> Image.Image:
    """The middle square of an image whose shorter side was scaled to ``side``."""
    shorter = min(image.size)
    left, top = (image.width - shorter) / 2, (image.height - shorter) / 2
    return image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + shorter, top + shorter))


def _opened(path: Path) -> Image.Image:
    """An image whose header was read, and its pixels not. SNX137 for anything else, or for one with too many pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is lower than Pillow's
            image = Image.open(path, formats=_FORMATS)
    except (UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError, struct.error) as error:
        raise _no_image(path, str(error)) from error
    except OSError as error:
        raise unreadable(path, error) from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise _no_image(path, f"it declares {image.width}x{image.height} pixels; at most {MAX_PIXELS:,} are unpacked")
    return image


def _no_image(path: Path, why: str) -> UserError:
    return UserError(
        "SNX137", f"'{path.name}' cannot be read as an image", where=str(path), why=why, fix="replace the file, or take it away"
    )


def _class_error(where: Path, what: str, why: str) -> UserError:
    return UserError(
        "SNX116", what, where=str(where), why=why, fix="the folders of train are the classes: give val the same ones, two or more"
    )
