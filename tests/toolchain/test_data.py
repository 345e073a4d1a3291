from __future__ import annotations

import numpy as np
import pytest

from snn_export.data.dataset import stratified_split
from snn_export.data.registry import load_dataset
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


@pytest.mark.parametrize(("spec", "hint"), [("digit", "did you mean 'digits'"), ("npz:", "npz:FILE"), ("mnist", "digits")])
def test_unknown_data_set(spec: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint) as error:
        load_dataset(spec, seed=0)
    assert error.value.code == "SNX011"
