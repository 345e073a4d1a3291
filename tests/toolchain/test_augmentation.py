"""Random changes of training images: what they do to pixels, and where their randomness is from."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from snn_export.models.diagnostics import UserError
from snn_export.training import autoaugment
from snn_export.training.augmentation import STEPS, Augmentation, augment, cutout, random_flip, random_shift
from snn_export.training.autoaugment import FILL, OPERATIONS, POLICY


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 64, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(batch, channels, height, width, generator=seeded(1))


@pytest.mark.parametrize("step", STEPS)
def test_every_step_draws_from_the_generator_alone_and_stays_in_range(step: str) -> None:
    x = images()
    before = x.clone()
    first = augment(x, (step,), seeded(5))
    torch.manual_seed(99)
    assert torch.equal(augment(x, (step,), seeded(5)), first)
    assert not torch.equal(augment(x, (step,), seeded(6)), first)
    assert not torch.equal(first, before)
    assert torch.equal(x, before), "the training samples themselves must not change"
    assert (first.shape, first.dtype) == (x.shape, x.dtype)
    assert 0 <= float(first.min()) <= float(first.max()) <= 1


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (1, 28, 28), (3, 64, 48), (2, 5, 2)])
def test_any_image_size_and_number_of_channels(step: str, channels: int, height: int, width: int) -> None:
    x = images(40, channels, height, width)
    assert augment(x, (step,), seeded()).shape == x.shape
    assert augment(x[:0], (step,), seeded()).shape == x[:0].shape


def test_other_ranks_come_back_as_they_came() -> None:
    for shape in ((4, 64), (4, 10, 2, 34, 34), (4, 32, 32)):
        x = torch.rand(shape)
        assert augment(x, tuple(STEPS), seeded()) is x


def test_steps_are_carried_out_in_order_with_one_generator() -> None:
    x, generator = images(), seeded(3)
    by_hand = random_flip(random_shift(x, 2, generator), generator)
    assert torch.equal(augment(x, ("shift", "flip"), seeded(3), max_shift=2), by_hand)
    assert augment(x, (), seeded()) is x
    assert torch.equal(augment(x, ("shift",), seeded(), max_shift=0), x)


@pytest.mark.parametrize(
    "wrong", [{"steps": ("crops",)}, {"steps": (), "max_shift": -1}, {"steps": ("cutout",), "hole_length": -2}]
)
def test_unknown_steps_and_negative_sizes(wrong: dict) -> None:
    with pytest.raises(UserError) as error:
        Augmentation(**wrong)
    assert error.value.code == "SNX144"
    assert wrong["steps"] != ("crops",) or "did you mean 'crop'" in str(error.value)


def test_crop_is_a_window_of_the_padded_image() -> None:
    x = images(200, 1, 6, 6) + 1
    seen = set()
    for image, made in zip(x, Augmentation(("crop",), padding=2)(x, seeded()), strict=True):
        padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
        places = [(r, c) for r in range(5) for c in range(5) if torch.equal(padded[:, r : r + 6, c : c + 6], made)]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == 25, "every window comes up"


def test_shift_moves_by_the_offsets_it_draws() -> None:
    """The order of random numbers is part of what a seed means: results of earlier runs must be had again."""
    x = images(5, 2, 4, 4)
    offsets = torch.randint(0, 3, (2, 5), generator=seeded(7))
    made = random_shift(x, 1, seeded(7))
    for image, row, column, found in zip(x, *offsets.tolist(), made, strict=True):
        padded = torch.nn.functional.pad(image, (1, 1, 1, 1))
        assert torch.equal(padded[:, row : row + 4, column : column + 4], found)


def test_flip_mirrors_half_of_them() -> None:
    x = images(400, 1, 3, 5)
    made = random_flip(x, seeded())
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(made, x, strict=True)]
    kept = [torch.equal(a, b) for a, b in zip(made, x, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 150 < sum(mirrored) < 250


def test_cutout_sets_squares_to_zero_cut_off_at_the_edge() -> None:
    x = images(300, 3, 10, 12) + 1
    rows, columns = set(), set()
    for made, image in zip(cutout(x, seeded(), length=4), x, strict=True):
        hole = made[0] == 0
        assert torch.equal(made, torch.where(hole, 0.0, image)), "all channels at the same place"
        place = torch.argwhere(hole)
        (top, left), (bottom, right) = place.amin(0).tolist(), place.amax(0).tolist()
        assert len(place) == (bottom - top + 1) * (right - left + 1), "a rectangle"
        rows.add((top, bottom))
        columns.add((left, right))
    assert rows == {(max(c - 2, 0), min(c + 1, 9)) for c in range(10)}
    assert columns == {(max(c - 2, 0), min(c + 1, 11)) for c in range(12)}
    assert int((Augmentation(("cutout",))(x, seeded()) == 0)[:, 0].sum(dim=(1, 2)).max()) == 25, "half the shorter side"
    two = (cutout(x, seeded(), holes=2, length=2) == 0)[:, 0].sum(dim=(1, 2))
    assert int(two.max()) == 8
    assert torch.equal(cutout(x, seeded(), length=0), x)


# --- AutoAugment -----------------------------------------------------------------------------------------------------------


def test_the_policy_has_its_25_sub_policies() -> None:
    """Sums over the published table: most slips in one of its hundred numbers show."""
    assert len(POLICY) == 25
    assert all(len(pair) == 2 for pair in POLICY)
    flat = [operation for pair in POLICY for operation in pair]
    assert round(sum(probability for _, probability, _ in flat), 6) == 26.5
    assert sum(magnitude for name, _, magnitude in flat if name not in ("invert", "autocontrast", "equalize")) == 187
    counts = {name: sum(name == other for other, _, _ in flat) for name in OPERATIONS}
    assert counts == {
        "shear_x": 0, "shear_y": 2, "translate_x": 2, "translate_y": 5, "rotate": 1, "color": 5, "contrast": 2, "brightness": 4,
        "sharpness": 5, "invert": 3, "solarize": 4, "posterize": 1, "autocontrast": 7, "equalize": 9,
    }  # fmt: skip


def pillow_image(x: Tensor) -> Image.Image:
    return Image.fromarray((x * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def sheared(x: Image.Image, dx: float, dy: float, shift: tuple[int, int] = (0, 0)) -> Image.Image:
    grey = (128, 128, 128)
    return x.transform(x.size, Image.Transform.AFFINE, (1, dx, shift[0], dy, 1, shift[1]), fillcolor=grey)


PILLOW: dict[str, tuple[float, Callable[[Image.Image, float], Image.Image]]] = {
    "shear_x": (0, lambda x, m: sheared(x, 0.3 * m, 0)),
    "shear_y": (0, lambda x, m: sheared(x, 0, 0.3 * m)),
    "translate_x": (0, lambda x, m: sheared(x, 0, 0, (-int(150 / 331 * 32 * m), 0))),
    "translate_y": (0, lambda x, m: sheared(x, 0, 0, (0, -int(150 / 331 * 32 * m)))),
    "rotate": (0, lambda x, m: x.rotate(30 * m, fillcolor=(128, 128, 128))),
    "color": (1, lambda x, m: ImageEnhance.Color(x).enhance(1 + 0.9 * m)),
    "contrast": (1, lambda x, m: ImageEnhance.Contrast(x).enhance(1 + 0.9 * m)),
    "brightness": (1, lambda x, m: ImageEnhance.Brightness(x).enhance(1 + 0.9 * m)),
    "sharpness": (1, lambda x, m: ImageEnhance.Sharpness(x).enhance(1 + 0.9 * m)),
    "invert": (0, lambda x, m: ImageOps.invert(x)),
    "solarize": (0, lambda x, m: ImageOps.solarize(x, 255 * (1 - m))),
    "posterize": (0, lambda x, m: ImageOps.posterize(x, 8 - round(4 * m))),
    "autocontrast": (1, lambda x, m: ImageOps.autocontrast(x)),
    "equalize": (0, lambda x, m: ImageOps.equalize(x)),
}


def natural() -> Tensor:
    """Smooth images on 256 levels: an even one, gradients, and noise on them."""
    ramp = torch.linspace(0.1, 0.8, 32)
    base = torch.stack([ramp[:, None] * ramp, ramp[:, None].expand(32, 32), ramp.expand(32, 32)])
    noisy = (base + 0.2 * (torch.rand(6, 3, 32, 32, generator=seeded(2)) - 0.5)).clamp(0, 1)
    return ((torch.cat([noisy, base[None], torch.full((1, 3, 32, 32), 0.4)]) * 255).round() / 255).float()


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_agree_with_pillow(name: str) -> None:
    """Up to one of 256 levels where real numbers are not rounded, exactly elsewhere but for pixels on a rounding edge."""
    tolerance, theirs = PILLOW[name]
    x = natural()
    for magnitude in (0, 2, 5, 7, 9):
        for sign in (1, -1) if name in autoaugment._SIGNED else (1,):
            strength = sign * magnitude / 9
            made = OPERATIONS[name](x, torch.full((len(x),), strength))
            for image, found in zip(x, made, strict=True):
                expected = np.asarray(theirs(pillow_image(image), strength), np.float64).transpose(2, 0, 1)
                off = np.abs(found.double().numpy() * 255 - expected) > tolerance + 0.51
                assert off.mean() < (0.04 if name in ("rotate", "shear_x", "shear_y") else 1e-9), (magnitude, sign)


def test_amounts_are_each_image_s_own() -> None:
    x = natural()
    amounts = torch.linspace(0, 1, len(x))
    for name, operation in OPERATIONS.items():
        together = operation(x, amounts)
        alone = torch.cat([operation(x[i : i + 1], amounts[i : i + 1]) for i in range(len(x))])
        assert torch.allclose(together, alone, atol=1e-6), name


def test_what_moves_in_is_grey() -> None:
    moved = OPERATIONS["translate_x"](torch.ones(1, 3, 32, 32), torch.ones(1))
    assert moved[0, 0, 0].tolist() == pytest.approx([FILL] * 14 + [1.0] * 18)


def test_sub_policies_are_drawn_evenly_with_their_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, list[float]]] = []

    def noted(name: str) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda x, amounts: (calls.append((name, amounts.tolist())), x)[1]

    monkeypatch.setattr(autoaugment, "OPERATIONS", {name: noted(name) for name in OPERATIONS})
    batch = 25_000
    autoaugment.autoaugment(torch.zeros(batch, 1, 1, 1), seeded())
    for name in OPERATIONS:
        found = sum(len(amounts) for other, amounts in calls if other == name)
        expected = batch / 25 * sum(p for pair in POLICY for other, p, _ in pair if other == name)
        assert abs(found - expected) <= 5 * expected**0.5, name
        signed = [amount for other, amounts in calls if other == name for amount in amounts]
        if name in ("shear_y", "translate_y", "color"):
            assert 0.4 < np.mean(np.array(signed) > 0) / np.mean(np.array(signed) != 0) < 0.6, "both signs"
        if name == "solarize":
            assert sorted({round(9 * amount) for amount in signed}) == [2, 3, 5, 8]
    assert all(first != second for first, second in pairwise(calls))


def test_the_two_operations_of_a_sub_policy_are_drawn_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoaugment, "POLICY", ((("invert", 0.5, 0), ("solarize", 0.5, 0)),))
    for name, amount in (("invert", 1.0), ("solarize", 2.0)):
        monkeypatch.setitem(OPERATIONS, name, lambda x, _, amount=amount: x + amount)
    found = autoaugment.autoaugment(torch.zeros(4000, 1, 1, 1), seeded()).flatten().long()
    assert all(900 < count < 1100 for count in torch.bincount(found, minlength=4).tolist())


class Operations(TorchDispatchMode):
    """Counts what reaches PyTorch's kernels."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.count += 1
        return function(*arguments, **(named or {}))


@pytest.mark.parametrize("step", STEPS)
def test_augmentation_works_on_whole_batches_and_never_image_by_image(step: str) -> None:
    counts = []
    for batch in (256, 1024):
        x = images(batch)
        with Operations() as operations:
            augment(x, (step,), seeded())
        counts.append(operations.count)
    assert counts[1] < counts[0] + 100, "autoaugment's draws differ a little; 768 images more are at least 768 operations more"
