"""Sound to features to spikes, and the spoken digits."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from snn_export.data.audio import log_mel, mel_filters, resampled, spikes_from_features
from snn_export.data.registry import load_dataset
from snn_export.data.spoken_digits import Recording, read_wav, spoken_digits
from snn_export.models.diagnostics import UserError

RATE = 8000
CLOCK = np.arange(RATE) / RATE


def tone(frequency: float, seconds: float = 0.5) -> np.ndarray:
    clock = np.arange(round(seconds * RATE)) / RATE
    return (8000 * np.sin(2 * np.pi * frequency * clock)).astype(np.int16)


def test_filters_are_triangles_that_cover_the_spectrum() -> None:
    for bands in (1, 8, 32, 80):
        filters = mel_filters(RATE, 129, bands)
        assert filters.shape == (bands, 129)
        assert filters.min() >= -1e-12
        assert np.allclose(filters.sum(axis=1), 1)
        centres = filters @ np.linspace(0, RATE / 2, 129)
        assert (np.diff(centres) > 0).all()
    mel = 2595 * np.log10(1 + centres / 700)
    assert np.diff(mel).std() < 0.1 * np.diff(mel).mean(), "evenly spaced on the mel scale"


def test_a_tone_is_loudest_in_its_own_band_and_at_its_own_time() -> None:
    mel = np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 34)
    centres = 700 * (10 ** (mel[1:-1] / 2595) - 1)
    for band in (4, 12, 20, 28):
        features = log_mel(tone(centres[band]), RATE, 32, 10)
        assert features.shape == (10, 32)
        assert features.dtype == np.float32
        assert (features.argmax(axis=1) == band).all()
        assert features.max() == 1.0
    assert not log_mel(tone(430), RATE, 32, 10)[:-1, 20:].any(), "a window that keeps a tone out of the other bands"
    late = log_mel(np.concatenate([np.zeros(4000, np.int16), tone(1000)]), RATE, 32, 10)
    assert not late[:4].any(), "silence is 0"
    assert (late[6:].max(axis=1) > 0.95).all()


def test_loudness_is_relative_and_a_decibel_is_a_decibel() -> None:
    sound = np.concatenate([tone(1000), tone(1000) // 10])
    features = log_mel(sound, RATE, 16, 20)
    for scale in (1 / 32768, 1e-200, 1e200):
        assert np.allclose(log_mel(sound * scale, RATE, 16, 20), features, atol=1e-6), "any scale, any volume"
    step = features[3].max() - features[16].max()
    assert step == pytest.approx(20 / 60, abs=0.005), "a tenth of the amplitude is 20 dB of 60"


def test_silence_and_the_shortest_recording() -> None:
    assert not log_mel(np.zeros(100, np.int16), RATE, 8, 5).any()
    assert np.isfinite(log_mel(np.array([3], np.int16), RATE, 8, 5)).all()
    assert log_mel(np.full(300, -32768, np.int16), RATE, 8, 5).max() == 1.0


def test_resampling_keeps_the_mean() -> None:
    values = np.random.default_rng(0).random((37, 3))
    for steps in (1, 5, 36, 37, 38, 100):
        assert np.allclose(resampled(values, steps).mean(axis=0), values.mean(axis=0))
    assert np.allclose(resampled(values, 37), values)
    assert resampled(np.array([[1.0], [3.0]]), 4).ravel().tolist() == [1, 1, 3, 3]
    assert np.allclose(resampled(np.array([[1.0], [3.0], [5.0]]), 2).ravel(), [5 / 3, 13 / 3])


def test_spikes_follow_the_feature() -> None:
    features = np.array([[0.0, 1.0], [0.25, 1.0], [0.5, 1.0], [0.1, 0.0], [0.1, 0.0]])
    spikes = spikes_from_features(features, 0.25)
    assert spikes[:, 0].tolist() == [0, 1, 1, 0, 0], "up"
    assert spikes[:, 2].tolist() == [0, 0, 0, 1, 0], "down; what is left is less than the threshold"
    assert spikes[:, 1].tolist() == [1, 1, 1, 0, 0], "one spike a step at most"
    slow = np.clip(np.cumsum(np.random.default_rng(0).uniform(-0.09, 0.1, (200, 4)), axis=0), 0, 1)
    sent = spikes_from_features(slow, 0.1)
    known = 0.1 * np.cumsum(sent[:, :4] - sent[:, 4:], axis=0)
    assert np.abs(known - slow).max() < 0.1 + 1e-9


@pytest.mark.parametrize(
    ("code", "pcm", "rate", "bands", "steps"),
    [
        ("SNX143", np.zeros(0), RATE, 8, 8),
        ("SNX143", np.zeros((100, 2)), RATE, 8, 8),
        ("SNX143", np.array([0.0, np.nan]), RATE, 8, 8),
        ("SNX145", np.zeros(10), RATE, 0, 8),
        ("SNX145", np.zeros(10), RATE, 8, 0),
        ("SNX145", np.zeros(10), 10, 8, 8),
    ],
)
def test_sounds_without_features(code: str, pcm: np.ndarray, rate: int, bands: int, steps: int) -> None:
    with pytest.raises(UserError) as error:
        log_mel(pcm, rate, bands, steps)
    assert error.value.code == code


def test_a_spike_stands_for_a_positive_change() -> None:
    with pytest.raises(UserError) as error:
        spikes_from_features(np.zeros((3, 2)), 0.0)
    assert error.value.code == "SNX145"


# --- spoken digits ---------------------------------------------------------------------------------------------------------


def write_wav(path: Path, pcm: np.ndarray, channels: int = 1, width: int = 2) -> None:
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(channels)
        stream.setsampwidth(width)
        stream.setframerate(RATE)
        stream.writeframes(pcm.astype("<i2").tobytes())


@pytest.fixture
def fsdd(tmp_path: Path) -> Path:
    for digit in range(10):
        for take in (0, 4, 5, 6, 17):
            write_wav(tmp_path / f"{digit}_some_one_{take}.wav", tone(300 + 100 * digit + take, 0.2 + 0.01 * take))
    (tmp_path / "README.md").write_text("not a recording")
    return tmp_path


def test_the_takes_below_five_are_the_test_set(fsdd: Path) -> None:
    data = load_dataset(f"fsdd:{fsdd}?steps=6&bands=12", seed=0)
    assert (data.steps, data.input_shape, data.classes) == (6, (12,), 10)
    assert (len(data.y_train) + len(data.y_val), len(data.y_test)) == (30, 20)
    assert np.bincount(data.y_test).tolist() == [2] * 10
    assert np.array_equal(data.x_test[3], log_mel(tone(404, 0.24), RATE, 12, 6)), "1_some_one_4.wav is the fourth"
    assert (data.input_low, data.input_high, data.x_test.max()) == (0.0, 1.0, 1.0)


def test_spikes_in_place_of_loudness_and_arrays_in_place_of_files(fsdd: Path) -> None:
    spikes = load_dataset(f"fsdd:{fsdd}?threshold=0.2", seed=1)
    assert spikes.input_shape == (64,)
    assert np.unique(spikes.x_train).tolist() == [0, 1]
    names = sorted(path for path in fsdd.glob("*.wav"))
    recordings = [Recording(*read_wav(path), int(path.name[0]), int(path.stem.split("_")[-1])) for path in names]
    assert spoken_digits(recordings, 1, threshold=0.2).fingerprint == spikes.fingerprint


def code_of(spec: str) -> str:
    with pytest.raises(UserError) as error:
        load_dataset(spec, seed=0)
    return error.value.code


def test_wav_files_that_cannot_be_used(fsdd: Path) -> None:
    path = fsdd / "3_some_one_4.wav"
    whole = path.read_bytes()
    for code, content in (
        ("SNX135", b""),
        ("SNX135", b"RIFF" + bytes(60)),
        ("SNX135", whole[:-100]),
        ("SNX135", whole[:30]),
        ("SNX135", whole[:40] + struct.pack("<I", 2**32 - 2) + whole[44:]),
        ("SNX135", whole[:20] + struct.pack("<H", 3) + whole[22:]),
        ("SNX143", whole + bytes(5 << 20)),
    ):
        path.write_bytes(content)
        assert code_of(f"fsdd:{fsdd}") == code, (code, content[:50])
    write_wav(path, tone(500), channels=2)
    assert code_of(f"fsdd:{fsdd}") == "SNX143"
    write_wav(path, tone(500), width=1)
    assert code_of(f"fsdd:{fsdd}") == "SNX143"
    write_wav(path, tone(500)[:0])
    assert code_of(f"fsdd:{fsdd}") == "SNX135"
    assert code_of(f"fsdd:{fsdd}?steps=4000000") == "SNX136"
    (fsdd / "empty").mkdir()
    assert code_of(f"fsdd:{fsdd / 'empty'}") == "SNX133"
