"""Events in time bins: the binning, the Spiking Heidelberg Digits, and recordings that tonic reads."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from snn_export.data.event_frames import bins_of_clock, bins_of_recording, outside, spike_frames
from snn_export.data.registry import load_dataset
from snn_export.data.shd import read_through
from snn_export.models.diagnostics import UserError


def refused(spec: str, code: str, *texts: str) -> None:
    with pytest.raises(UserError) as error:
        load_dataset(spec, seed=0)
    assert error.value.code == code, str(error.value)
    for text in texts:
        assert text in str(error.value)


# --- binning ---------------------------------------------------------------------------------------------------------------


def test_a_recording_is_cut_into_equal_parts() -> None:
    times = np.array([100, 149, 150, 199, 100, 150])
    assert bins_of_recording(times, 2).tolist() == [0, 0, 1, 1, 0, 1]
    assert bins_of_recording(np.arange(30) + 7, 10).tolist() == [number // 3 for number in range(30)]
    assert bins_of_recording(np.array([5, 5]), 4).tolist() == [0, 0]
    assert bins_of_recording(np.zeros(0, np.int64), 4).tolist() == []


def test_a_clock_starts_at_zero_and_ends() -> None:
    times = np.array([0.0, 0.099, 0.1, 0.999, 1.0, -0.1, np.nan, np.inf])
    assert bins_of_clock(times, 10, 1.0).tolist() == [0, 0, 1, 9, -1, -1, -1, -1]


def test_frames_hold_one_where_at_least_one_event_fell() -> None:
    bins, row, column = np.array([0, 0, 2, 2, 3, -1]), np.array([1, 1, 0, 5, 0, 0]), np.array([2, 2, 0, 0, 0, 0])
    frames = spike_frames(bins, (row, column), (3, 2, 3))
    assert np.argwhere(frames).tolist() == [[0, 1, 2], [2, 0, 0]]
    assert frames.max() == 1.0
    assert outside(bins, (row, column), (3, 2, 3)).tolist() == [False, False, False, True, True, True]


# --- SHD -------------------------------------------------------------------------------------------------------------------


def write_shd(path: Path, times: list[list[float]], units: list[list[int]], labels: list[int]) -> None:
    """The published layout: lists of their own length, times as half floats."""
    with h5py.File(path, "w") as stream:
        spikes = stream.create_group("spikes")
        for name, values, kind in (("times", times, np.float16), ("units", units, np.uint16)):
            array = spikes.create_dataset(name, (len(values),), h5py.vlen_dtype(np.dtype(kind)))
            for index, value in enumerate(values):
                array[index] = np.array(value, kind)
        stream.create_dataset("labels", data=np.array(labels, np.uint16))
        stream.create_group("extra")


@pytest.fixture
def shd(tmp_path: Path) -> Path:
    write_shd(tmp_path / "shd_train.h5", [[0.15, 1.35]] * 40, [[index, 699 - index] for index in range(40)], [*range(20)] * 2)
    write_shd(tmp_path / "shd_test.h5", [[0.0, 0.7, 0.71, 1.5], []], [[0, 699, 699, 3], []], [3, 19])
    return tmp_path


def test_shd(shd: Path) -> None:
    data = load_dataset(f"shd:{shd}?steps=14", seed=0)
    assert (data.steps, data.input_shape, data.classes, data.x_test.shape) == (14, (700,), 20, (2, 14, 700))
    assert np.argwhere(data.x_test).tolist() == [[0, 0, 0], [0, 7, 699]]
    assert data.y_test.tolist() == [3, 19]
    assert any("1 spikes after 1.4 s" in note for note in data.notes)
    both = np.concatenate([data.x_train, data.x_val])
    assert both.sum() == 80
    assert sorted(np.argwhere(both[:, 1])[:, 1].tolist()) == [*range(40)]
    assert sorted(np.argwhere(both[:, 13])[:, 1].tolist()) == [*range(660, 700)]


def test_shd_files_that_are_missing_or_lie(shd: Path) -> None:
    refused(f"shd:{shd}?steps=3000000", "SNX136")
    path = shd / "shd_train.h5"
    write_shd(path, [[0.1, 0.2]] * 40, [[1]] * 40, [*range(20)] * 2)
    refused(f"shd:{shd}", "SNX135", "recording 0 has 2 times and 1 units")
    write_shd(path, [[0.1]] * 40, [[1]] * 40, [0] * 39)
    refused(f"shd:{shd}", "SNX135", "39 labels")
    write_shd(path, [[0.1]] * 40, [[1]] * 40, [20] * 40)
    refused(f"shd:{shd}", "SNX116", "20..20")
    path.write_bytes(b"no HDF5")
    refused(f"shd:{shd}", "SNX135", "shd_train.h5")
    path.unlink()
    refused(f"shd:{shd}", "SNX133", "shd_train.h5")


def test_shd_arrays_of_another_kind(shd: Path) -> None:
    path = shd / "shd_train.h5"
    with h5py.File(path, "r+") as stream:
        stream.move("labels", "moved")
        stream["labels"] = h5py.SoftLink("/moved")
    refused(f"shd:{shd}", "SNX135", "'labels'")
    with h5py.File(path, "r+") as stream:
        del stream["labels"]
        stream["labels"] = np.zeros((40, 2), np.uint16)
    refused(f"shd:{shd}", "SNX135", "(40, 2)")
    with h5py.File(path, "r+") as stream:
        del stream["spikes/times"]
        stream["spikes/times"] = np.zeros(40)
    refused(f"shd:{shd}", "SNX135", "spikes/times")
    with h5py.File(path, "w") as stream:
        stream["spikes"] = 3
    refused(f"shd:{shd}", "SNX135", "spikes/times")


def test_shd_that_declares_more_than_there_is(shd: Path) -> None:
    with h5py.File(shd / "shd_train.h5", "w") as stream:
        for name, kind in (("spikes/times", np.float16), ("spikes/units", np.uint16)):
            stream.create_dataset(name, (10**9,), h5py.vlen_dtype(np.dtype(kind)), chunks=(1000,))
        stream.create_dataset("labels", (10**9,), np.uint16, chunks=(1000,))
    refused(f"shd:{shd}", "SNX136")


@pytest.mark.parametrize("outcome", ["crash", "no end"])
def test_a_file_on_which_the_hdf5_library_dies(shd: Path, monkeypatch: pytest.MonkeyPatch, outcome: str) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        assert command[-2:] == [str(shd / "shd_train.h5"), str(shd / "shd_test.h5")]
        if outcome == "no end":
            raise subprocess.TimeoutExpired(command, 1)
        return subprocess.CompletedProcess(command, -11)

    monkeypatch.setattr(subprocess, "run", run)
    refused(f"shd:{shd}", "SNX135", "crashes" if outcome == "crash" else "does not end")


def test_the_probing_process_reads_every_recording(shd: Path) -> None:
    paths = [str(shd / "shd_train.h5"), str(shd / "shd_test.h5")]
    read_through([str(1 << 30), *paths])
    with pytest.raises(UserError, match="SNX136"):
        read_through([str(1 << 10), *paths])
    command = [sys.executable, "-P", "-c", "import sys; from snn_export.data.shd import read_through; read_through(sys.argv[1:])"]
    assert subprocess.run([*command, str(1 << 30), *paths], check=False).returncode == 0


# --- tonic -----------------------------------------------------------------------------------------------------------------


def nmnist_events(rng: np.random.Generator, count: int = 60) -> np.ndarray:
    """Events (count, 4): x, y, microseconds, polarity."""
    times = np.sort(rng.integers(0, 300_000, count))
    return np.stack([rng.integers(0, 34, count), rng.integers(0, 34, count), times, rng.integers(0, 2, count)], axis=1)


def write_nmnist(path: Path, events: np.ndarray) -> None:
    """Five bytes an event: x, y, one bit of polarity and 23 of time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y, t, p = events.T
    path.write_bytes(np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], axis=1).astype(np.uint8).tobytes())


def frames_of(events: np.ndarray, steps: int, sensor: int, side: int) -> np.ndarray:
    """What the loader should find, event by event."""
    frames = np.zeros((steps, 2, side, side), np.float32)
    first, last = events[:, 2].min(), events[:, 2].max()
    for x, y, t, p in events:
        frames[(t - first) * steps // (last - first + 1), p, y * side // sensor, x * side // sensor] = 1
    return frames


@pytest.fixture
def nmnist(tmp_path: Path) -> tuple[Path, dict[int, np.ndarray]]:
    rng = np.random.default_rng(0)
    shown = {}
    for label in range(10):
        for number in (2, 10, 1):
            write_nmnist(tmp_path / "Train" / str(label) / f"{number:05}.bin", nmnist_events(rng))
        shown[label] = nmnist_events(rng)
        write_nmnist(tmp_path / "Test" / str(label) / "00001.bin", shown[label])
    return tmp_path, shown


def test_nmnist_by_tonic(nmnist: tuple[Path, dict[int, np.ndarray]]) -> None:
    pytest.importorskip("tonic", reason="tonic is an optional extra: pip install 'snn-export[events]'")
    folder, shown = nmnist
    data = load_dataset(f"nmnist:{folder}?steps=6", seed=0)
    assert (data.steps, data.input_shape, data.classes, len(data.y_train) + len(data.y_val)) == (6, (2, 34, 34), 10, 30)
    assert data.y_test.tolist() == [*range(10)]
    for label, events in shown.items():
        assert np.array_equal(data.x_test[label], frames_of(events, 6, 34, 34))
    smaller = load_dataset(f"nmnist:{folder}?steps=6&size=17", seed=0)
    assert np.array_equal(smaller.x_test[4], frames_of(shown[4], 6, 34, 17))


def test_dvs_gesture_by_tonic(tmp_path: Path) -> None:
    pytest.importorskip("tonic", reason="tonic is an optional extra: pip install 'snn-export[events]'")
    rng = np.random.default_rng(0)
    shown = []
    for part, users in (("Train", 3), ("Test", 1)):
        for user in range(users):
            for label in range(11):
                xypt = np.stack(
                    [*rng.integers(0, 128, (2, 50)), rng.integers(0, 2, 50), np.sort(rng.integers(0, 6000, 50))], axis=1
                )
                path = tmp_path / f"ibmGesture{part}" / f"user{user + 1:02}_led" / f"{label}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, xypt.astype(np.float64))
                shown.append(xypt[:, [0, 1, 3, 2]] * [1, 1, 1000, 1])
    data = load_dataset(f"dvsgesture:{tmp_path}?steps=5", seed=0)
    assert (data.classes, data.input_shape, data.steps) == (11, (2, 32, 32), 5)
    assert data.y_test.tolist() == [*range(11)]
    for label, events in enumerate(shown[-11:]):
        assert np.array_equal(data.x_test[label], frames_of(events, 5, 128, 32))
    np.save(tmp_path / "ibmGestureTest" / "user01_led" / "3.npy", np.array([{}], object), allow_pickle=True)
    refused(f"dvsgesture:{tmp_path}", "SNX135", "3.npy")


def test_cifar10_dvs_by_tonic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tonic", reason="tonic is an optional extra: pip install 'snn-export[events]'")
    pytest.importorskip("aedat", reason="aedat reads CIFAR10-DVS: pip install 'snn-export[events]'")
    from tonic.datasets import cifar10dvs

    for name in ("airplane", "truck"):
        (tmp_path / name).mkdir()
        for number in range(20):
            (tmp_path / name / f"cifar10_{name}_{number}.aedat4").write_text(str(number))

    def decoded(path: str) -> np.ndarray:
        kinds = [("t", np.uint64), ("x", np.uint16), ("y", np.uint16), ("on", bool)]
        return np.array([(10, int(Path(path).read_text()), 127, True), (90, 0, 0, False)], kinds)

    monkeypatch.setattr(cifar10dvs, "read_aedat4", decoded)
    data = load_dataset(f"cifar10dvs:{tmp_path}?steps=2&size=128", seed=0)
    assert data.y_test.tolist() == [0, 0, 9, 9]
    assert [int(np.argwhere(sample[0, 1])[0][1]) for sample in data.x_test] == [18, 19, 18, 19], "the last tenth of a class"
    assert data.x_test[:, 1, 0, 0, 0].all()
    monkeypatch.undo()
    refused(f"cifar10dvs:{tmp_path}", "SNX135", "cifar10_airplane_0.aedat4")


class _StandIn:
    """tonic's NMNIST as far as the loader relies on it: finds files in any order, and downloads what it does not find."""

    def __init__(self, save_to: str, train: bool = True) -> None:
        self.location_on_system = save_to + "/elsewhere"
        if not self._check_exists():
            self.download()
        files = Path(self.location_on_system, "Train" if train else "Test").rglob("*.bin")
        self.data = sorted(map(str, files), reverse=True)
        self.targets = [int(Path(path).parent.name) for path in self.data]

    def _check_exists(self) -> bool:
        return False

    def download(self) -> None:
        pytest.fail("a download was attempted")

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        x, y, high, middle, low = np.frombuffer(Path(self.data[index]).read_bytes(), np.uint8).reshape(-1, 5).T.astype(np.int64)
        kinds = [("x", int), ("y", int), ("t", int), ("p", int)]
        events = np.zeros(len(x), kinds)
        events["x"], events["y"], events["t"], events["p"] = x, y, (high & 127) << 16 | middle << 8 | low, high >> 7
        return events, self.targets[index]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[_StandIn]:
    tonic: Any = types.ModuleType("tonic")
    tonic.datasets = types.ModuleType("tonic.datasets")
    tonic.datasets.NMNIST = _StandIn
    monkeypatch.setitem(sys.modules, "tonic", tonic)
    monkeypatch.setitem(sys.modules, "tonic.datasets", tonic.datasets)
    return _StandIn


@pytest.mark.usefixtures("stand_in")
def test_recordings_come_in_the_order_of_their_names_from_the_named_folder(nmnist: tuple[Path, dict[int, np.ndarray]]) -> None:
    folder, shown = nmnist
    data = load_dataset(f"nmnist:{folder}?steps=3", seed=0)
    assert data.y_test.tolist() == [*range(10)]
    assert all(np.array_equal(data.x_test[label], frames_of(events, 3, 34, 34)) for label, events in shown.items())
    smaller = load_dataset(f"nmnist:{folder}?steps=3&size=17", seed=0)
    assert np.array_equal(smaller.x_test[4], frames_of(shown[4], 3, 34, 17))
    outer = folder.parent / (folder.name + "_outer")
    outer.mkdir()
    folder.rename(outer / "NMNIST")
    assert load_dataset(f"nmnist:{outer}?steps=3", seed=0).fingerprint == data.fingerprint, "as tonic itself lays it out"


@pytest.mark.usefixtures("stand_in")
def test_recordings_that_cannot_be_used(nmnist: tuple[Path, dict[int, np.ndarray]]) -> None:
    folder, _ = nmnist
    far = np.array([[33, 33, 0, 1], [200, 3, 5, 0], [3, 239, 9, 0]])
    write_nmnist(folder / "Test" / "0" / "00001.bin", far)
    data = load_dataset(f"nmnist:{folder}?steps=2", seed=0)
    assert np.argwhere(data.x_test[0]).tolist() == [[0, 1, 33, 33]]
    assert any("2 events outside the sensor" in note for note in data.notes)
    refused(f"nmnist:{folder}?size=35", "SNX142", "1..34")
    refused(f"nmnist:{folder}?steps=100000", "SNX136")
    (folder / "Test" / "0" / "00001.bin").write_bytes(b"1234")
    refused(f"nmnist:{folder}", "SNX135", "00001.bin")
    (folder / "Test" / "x").mkdir()
    write_nmnist(folder / "Test" / "x" / "00001.bin", far)
    refused(f"nmnist:{folder}", "SNX135", "'x'")


def test_without_tonic_or_the_files(nmnist: tuple[Path, dict[int, np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = nmnist
    monkeypatch.setitem(sys.modules, "tonic", None)
    refused(f"nmnist:{folder}", "SNX140", "snn-export[events]", "GPL")
    refused(f"nmnist:{folder / 'Train'}", "SNX133", "garrickorchard")
    refused(f"dvsgesture:{folder / 'nowhere'}", "SNX133")
    refused(f"cifar10dvs:{folder}", "SNX133", ".aedat4")
