from __future__ import annotations

import numpy as np
import pytest

from snn_export.data.dataset import assembled, stratified_split
from snn_export.data.registry import Source, load_dataset, parse
from snn_export.models.diagnostics import UserError


def rows(x: np.ndarray) -> set[bytes]:
    return {sample.tobytes() for sample in x}


def test_digits() -> None:
    digits = load_dataset("digits", seed=0)
    assert digits.x_train.shape == (1265, 1, 8, 8)
    assert digits.x_val.shape == (172, 1, 8, 8)
    assert digits.x_test.shape == (360, 1, 8, 8)
    assert digits.x_train.dtype == np.float32
    assert digits.y_train.dtype == np.int64
    assert (digits.x_train.min(), digits.x_train.max()) == (digits.input_low, digits.input_high) == (0.0, 1.0)
    assert np.array_equal(digits.x_test * 16, np.rint(digits.x_test * 16))
    for labels, per_class in ((digits.y_test, 36), (digits.y_val, 17.2)):
        assert np.abs(np.bincount(labels, minlength=10) - per_class).max() <= 2
    parts = [rows(part.x) for part in (digits.train, digits.validation, digits.test)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 1797, "a sample stands in two parts"


def test_seed_moves_validation_but_never_the_test_set() -> None:
    first, same, other = (load_dataset("digits", seed=seed) for seed in (1, 1, 2))
    assert first.fingerprint == same.fingerprint != other.fingerprint
    assert np.array_equal(first.x_test, other.x_test)
    assert rows(first.x_val) != rows(other.x_val)


def test_stratified_split_is_exact_and_keeps_every_class() -> None:
    labels = np.repeat(np.arange(4), [50, 30, 19, 1])
    kept, held = stratified_split(labels, 10, np.random.default_rng(0))
    assert len(held) == 10
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(100))
    assert np.bincount(labels[held], minlength=4).tolist() == [5, 3, 2, 0]
    kept, held = stratified_split(labels, 1000, np.random.default_rng(0))
    assert np.unique(labels[kept]).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("digit", "did you mean 'digits'"),
        ("npz:", "npz:FILE"),
        ("mnist", "mnist:FOLDER or mnist:hub"),
        ("imagenet:data", "images:FOLDER"),
        ("", "digits"),
    ],
)
def test_unknown_data_set(spec: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint) as error:
        load_dataset(spec, seed=0)
    assert error.value.code == "SNX011"


def test_a_name_is_taken_apart() -> None:
    assert parse("images:a/b c?size=64&limit=2") == Source("images", "a/b c", {"size": "64", "limit": "2"})
    assert str(parse("images:a/b c?size=64&limit=2")) == "images:a/b c?size=64&limit=2"
    assert parse("cifar10:what?") == Source("cifar10", "what?"), "a question mark in a path"
    assert parse("npz:a?b=c.npz") == Source("npz", "a?b=c.npz"), "an .npz file takes no options"
    assert not parse("mnist:hub").is_path
    assert not parse("digits").is_path
    assert parse("images:hub").is_path, "a folder called hub, where there is nothing hosted"


@pytest.mark.parametrize(
    "spec",
    ["images:f?side=3", "images:f?size=0", "images:f?size=-1", "images:f?size=x", "fsdd:f?threshold=nan", "mnist:hub?size=8"],
)
def test_options_are_named_and_positive(spec: str) -> None:
    with pytest.raises(UserError) as error:
        load_dataset(spec, seed=0)
    assert error.value.code == "SNX139"


def parts(count: int, test: int = 4) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    made = [(np.arange(n * 6, dtype=np.float32).reshape(n, 3, 2), np.arange(n) % 2) for n in (count, test)]
    return made[0], made[1]


def test_samples_with_a_time_axis_have_the_shape_of_one_step() -> None:
    train, test = parts(20)
    options = {"seed": 0, "validation": 0.2, "where": "here", "classes": 2}
    data = assembled("x", train, test, steps=3, **options)
    assert (data.input_shape, data.steps, len(data.x_train), len(data.x_val)) == ((2,), 3, 16, 4)
    plain = assembled("x", train, test, **options)
    assert (plain.input_shape, plain.steps) == ((3, 2), None)
    assert np.array_equal(plain.x_test, test[0]), "floats keep their values"


@pytest.mark.parametrize(
    ("code", "train", "test", "classes"), [("SNX113", 2, 4, 2), ("SNX113", 0, 4, 2), ("SNX501", 20, 0, 2), ("SNX116", 20, 4, 1)]
)
def test_parts_that_make_no_data_set(code: str, train: int, test: int, classes: int) -> None:
    with pytest.raises(UserError) as error:
        assembled("x", *parts(train, test), seed=0, validation=0.1, where="the place", classes=classes)
    assert error.value.code == code
    assert "the place" in str(error.value)
