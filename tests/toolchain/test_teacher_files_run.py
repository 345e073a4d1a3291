"""A teacher that somebody else trained, in a file, and the command that distils it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression

from snn_export.data.digits import load_digits

PIXELS, HIDDEN, CLASSES = 64, 64, 10


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snn_export", *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
    )  # fmt: skip


def write_classifier(path: Path, *, pool: str) -> None:
    """Fixed 3x3 filters, ReLU, a pool, and a head fitted by scikit-learn: torch has never seen it. Named as tf2onnx names."""
    data = load_digits(0)
    filters = np.random.default_rng(0).normal(size=(16, 1, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "conv/kernel"], ["conv/out"], name="model/conv/Conv2D", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv/out"], ["relu/out"], name="model/conv/Relu"),
        helper.make_node(pool, ["relu/out"], ["pool/out"], name="model/pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["pool/out", "shape"], ["flat"], name="model/flatten/Reshape"),
    ]
    constants = {"conv/kernel": filters, "shape": np.array([-1, 256], np.int64)}

    def model(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], output: str, width: int) -> onnx.ModelProto:
        graph = helper.make_graph(
            nodes, "classifier", [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, 8, 8])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", width])],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)

    import onnxruntime

    features = onnxruntime.InferenceSession(
        model(nodes, constants, "flat", 256).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    head = LogisticRegression(max_iter=300).fit(features.run(None, {"input": data.x_train})[0], data.y_train)
    nodes += [
        helper.make_node("MatMul", ["flat", "dense/kernel"], ["product"], name="model/dense/MatMul"),
        helper.make_node("Add", ["product", "dense/bias"], ["logits"], name="model/dense/BiasAdd"),
    ]
    constants |= {"dense/kernel": head.coef_.T.astype(np.float32), "dense/bias": head.intercept_.astype(np.float32)}
    onnx.save(model(nodes, constants, "logits", CLASSES), path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("teacher")
    write_classifier(found / "average.onnx", pool="AveragePool")
    write_classifier(found / "max.onnx", pool="MaxPool")
    assert run(found, "init").returncode == 0
    return found


TAPS = ("--set", 'training.student_taps=["lif2"]', "--set", 'training.teacher_taps=["model/conv/Relu"]')
HYBRID = ("train", "--recipe", "hybrid_blockwise", "--set", "model.teacher=average.onnx", "-o", "out", *TAPS)
COMMON = ("--set", "training.student_epochs=10", "--set", "training.optimizer=adamw", "--set", "training.learning_rate=0.01")


def test_a_teacher_from_an_onnx_file_distils_into_a_student(folder: Path) -> None:
    done = run(folder, *HYBRID, *COMMON, "--set", "training.batch_size=64")
    assert done.returncode == 0, done.stderr
    assert "average.onnx" in done.stderr
    assert "lif2" in done.stderr  # the stages that are compared are shown
    assert "model/conv/Relu" in done.stderr
    teacher = json.loads((folder / "out" / "teacher" / "training.json").read_text())
    student = json.loads((folder / "out" / "student" / "training.json").read_text())
    assert teacher["validation_accuracy"] > 90
    assert student["validation_accuracy"] > 60
    again = run(folder, *HYBRID, *COMMON, "--set", "training.batch_size=64")
    assert again.stderr.count("up to date") == 2


def test_max_pooling_is_refused_in_the_rate_mode_with_the_fix_and_fine_for_logits(folder: Path) -> None:
    refused = run(folder, "train", "--recipe", "hybrid_blockwise", "--set", "model.teacher=max.onnx", "-o", "max", *COMMON)
    assert refused.returncode == 2
    assert "SNX347" in refused.stderr
    assert "average pooling" in refused.stderr
    assert "Traceback" not in refused.stderr
    taught = run(
        folder, "train", "--recipe", "plain_kd", "--set", "training.forward_mode=rate", "--set", "model.teacher=max.onnx",
        "-o", "logits", *COMMON,
    )  # fmt: skip
    assert taught.returncode == 0, taught.stderr


def test_a_teacher_file_that_changes_makes_the_student_stale(folder: Path) -> None:
    settings = ("--set", "model.teacher=changing.onnx", "-o", "changing", *COMMON)
    write_classifier(folder / "changing.onnx", pool="AveragePool")
    assert run(folder, "train", *settings).returncode == 0
    write_classifier(folder / "changing.onnx", pool="MaxPool")
    again = run(folder, "train", *settings)
    assert again.returncode == 0
    assert "up to date" not in again.stderr


def test_a_missing_teacher_is_a_coded_error(folder: Path) -> None:
    done = run(folder, "train", "--set", "model.teacher=nowhere.onnx", "-o", "none")
    assert done.returncode == 2
    assert "SNX150" in done.stderr or "SNX15" in done.stderr
    assert "Traceback" not in done.stderr
