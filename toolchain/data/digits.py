"""The handwritten digits bundled with scikit-learn: 1,797 images of 8x8 pixels, ten classes.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998 (its test part).
"""

from __future__ import annotations

import numpy as np

from snn_export.data.dataset import DEFAULT_VALIDATION, Dataset, stratified_split

TEST_SAMPLES = 360
_TEST_SPLIT_SEED = 20240


def load_digits(seed: int, validation: float = DEFAULT_VALIDATION) -> Dataset:
    """Digits as float32 (N, 1, 8, 8) in [0, 1], in steps of 1/16: 360 of them test samples.

    ``seed`` decides train against validation, ``validation`` its part of the other 1,437. The test set is the same for
    every seed: otherwise a second seed would train on what the first one held out, and their accuracies could not be compared.
    """
    from sklearn.datasets import load_digits as bundled_digits  # imports scipy: only where the digits are wanted

    bunch = bundled_digits()
    x = (np.asarray(bunch.data, np.float32) / np.float32(16)).reshape(-1, 1, 8, 8)
    y = np.asarray(bunch.target, np.int64)
    rest, test = stratified_split(y, TEST_SAMPLES, np.random.default_rng(_TEST_SPLIT_SEED))
    kept, held = stratified_split(y[rest], max(round(validation * len(rest)), 1), np.random.default_rng(seed))
    train, chooser = rest[kept], rest[held]
    return Dataset(
        "digits", x[train], y[train], x[chooser], y[chooser], x[test], y[test], classes=10, input_low=0.0, input_high=1.0
    )
