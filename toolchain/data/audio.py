"""Sound to features to spikes: a log-mel filter bank on a fixed number of time steps, and send-on-delta spikes of it.

Sources. Mel scale: D. O'Shaughnessy, Speech Communication: Human and Machine, 1987, m(f) = 2595 log10(1 + f/700). Triangular
filters on the power spectrum: S. Davis and P. Mermelstein, Comparison of Parametric Representations for Monosyllabic Word
Recognition in Continuously Spoken Sentences, IEEE Transactions on Acoustics, Speech and Signal Processing 28(4), 1980.
Send-on-delta: M. Miskowicz, Send-On-Delta Concept: An Event-Based Data Reporting Strategy, Sensors 6(1), 2006; as spikes of an
artificial cochlea: S.-C. Liu et al., Asynchronous Binaural Spatial Audition Sensor, IEEE Transactions on Biomedical Circuits
and Systems 8(4), 2014.

Only frames, a window, the real Fourier transform and sums: the same samples give the same numbers.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from snn_export.models.diagnostics import UserError

FRAME_SECONDS, HOP_SECONDS = 0.032, 0.008
RANGE_DB = 60.0
"""What lies further than this below the loudest band of a recording counts as silence."""


def log_mel(pcm: NDArray[np.integer] | NDArray[np.floating], rate: int, bands: int, steps: int) -> NDArray[np.float32]:
    """Loudness of ``bands`` mel bands in ``steps`` time steps, float32 (steps, bands) in [0, 1].

    Frames of 32 ms under a Hann window, one every 8 ms, the last ones padded with zeros; P = |rfft|^2 weighted by triangular
    filters. A recording of any length is stretched to ``steps``: each step is the mean power over its part of the frames
    (:func:`resampled`). Then level = 1 + 10 log10(P / max P) / 60, no less than 0: the loudest band of the recording is 1,
    whatever its volume. Silence is 0 throughout.

    Args:
        pcm: (samples,), mono, integers or floats of any scale.
        rate: samples per second.
        bands: filters between 0 and rate / 2.
        steps: T.

    Raises:
        UserError: SNX143 for no samples, values that are not finite, more than one axis; SNX145 for numbers out of range.
    """
    if bands < 1 or steps < 1 or rate < 1000:
        raise UserError(
            "SNX145", f"{bands} bands and {steps} steps at {rate} samples per second", where="log_mel",
            why="a filter bank has one band or more, a sample one step or more, and speech needs 1000 samples per second",
            fix="choose positive numbers, for instance 32 bands and 32 steps",
        )  # fmt: skip
    signal = np.asarray(pcm, np.float64)
    if signal.ndim != 1 or not len(signal) or not np.isfinite(signal).all():
        raise UserError(
            "SNX143", f"a recording of shape {signal.shape}" + ("" if signal.size else " without samples"), where="log_mel",
            why="a recording is one row of finite numbers", fix="take one channel, and leave empty recordings out",
        )  # fmt: skip
    peak = float(np.abs(signal).max())
    power = _power(signal / peak if peak > 0 else signal, rate)
    loudness = resampled(power @ mel_filters(rate, power.shape[1], bands).T, steps)
    loudest = float(loudness.max())
    if loudest <= 0.0:
        return np.zeros((steps, bands), np.float32)
    floor = 10.0 ** (-RANGE_DB / 10.0)
    levels = 1.0 + (10.0 / RANGE_DB) * np.log10(np.maximum(loudness / loudest, floor))
    found: NDArray[np.float32] = np.clip(levels, 0.0, 1.0).astype(np.float32)
    return found


def _power(signal: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Power spectrum of each frame, (frames, frequencies)."""
    frame, hop = round(FRAME_SECONDS * rate), round(HOP_SECONDS * rate)
    frames = max(-(-(len(signal) - frame) // hop), 0) + 1
    padded = np.zeros(frame + hop * (frames - 1))
    padded[: len(signal)] = signal
    cut = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop]
    spectrum = np.fft.rfft(cut * np.hanning(frame + 1)[:-1], axis=1)
    power: NDArray[np.float64] = spectrum.real**2 + spectrum.imag**2
    return power


@cache
def mel_filters(rate: int, frequencies: int, bands: int) -> NDArray[np.float64]:
    """Triangular weights (bands, frequencies) of a spectrum from 0 to rate / 2, every band's weights adding up to 1.

    The corners are spaced evenly on the mel scale, a band reaching from its left neighbour's centre to its right one's. A
    triangle is integrated over each frequency's own interval, so that also a band narrower than that interval has weight.
    """
    top = rate / 2
    mel = np.linspace(0.0, 2595.0 * np.log10(1.0 + top / 700.0), bands + 2)
    corners = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    width = top / (frequencies - 1)
    edges = (np.arange(frequencies + 1) - 0.5) * width
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising = np.clip(edges, left, centre) - left
    falling = right - np.clip(edges, centre, right)
    area = rising**2 / (2 * (centre - left)) + (right - centre) / 2 - falling**2 / (2 * (right - centre))
    weights: NDArray[np.float64] = np.diff(area, axis=1)
    weights /= weights.sum(axis=1, keepdims=True)
    weights.setflags(write=False)
    return weights


def resampled(values: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
    """``values`` (frames, bands) on ``steps`` equal parts of their time, (steps, bands): the mean over each part.

    A frame counts for the share of it that lies in a part, so fewer steps than frames average and more repeat; the mean over
    all steps is the mean over all frames.
    """
    frames = len(values)
    total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    position = np.arange(steps + 1) * frames / steps
    below = np.minimum(position.astype(np.int64), frames - 1)
    reached = total[below] + (position - below)[:, None] * values[below]
    return np.maximum(np.diff(reached, axis=0), 0.0) * (steps / frames)


def spikes_from_features(features: NDArray[np.floating], threshold: float) -> NDArray[np.float32]:
    """Send-on-delta: features (T, F) to spikes 0 and 1, float32 (T, 2F), the first F for rises and the rest for falls.

        up_t = [x_t - r_t >= threshold]    down_t = [r_t - x_t >= threshold]    r_{t+1} = r_t + threshold (up_t - down_t)

    with r_0 = 0: the reference r follows the feature in steps of ``threshold``, at most one per time step, so that the sum of
    up minus down times ``threshold`` is what a receiver knows of the feature.

    Raises:
        UserError: SNX145 for a threshold that is not positive.
    """
    if not threshold > 0:
        raise UserError(
            "SNX145", f"a spike threshold of {threshold}", where="spikes_from_features",
            why="a spike stands for a change of this size", fix="choose a positive number, for instance 0.1",
        )  # fmt: skip
    values = np.asarray(features, np.float64)
    spikes = np.zeros((len(values), 2 * values.shape[1]), np.float32)
    reference = np.zeros(values.shape[1])
    for step, row in enumerate(values):
        up, down = row - reference >= threshold, reference - row >= threshold
        spikes[step] = np.concatenate([up, down])
        reference += threshold * (up.astype(np.float64) - down)
    return spikes
