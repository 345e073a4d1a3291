"""The wheel: complete, and with a single top-level name."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import snn_export

REPOSITORY = Path(__file__).parent.parent
FOLDERS = {
    "snn_export": "toolchain",
    "snn_export.models": "models",
    "snn_export.export": "export",
    "snn_export.hardware_sims": "hardware_sims",
}


def settings() -> dict[str, object]:
    return dict(tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"])


def packages_on_disk() -> set[str]:
    return {
        ".".join([name, *init.parent.relative_to(REPOSITORY / folder).parts])
        for name, folder in FOLDERS.items()
        for init in (REPOSITORY / folder).rglob("__init__.py")
    }


def test_package_list_names_every_package() -> None:
    listed = settings()["packages"]
    assert isinstance(listed, list)
    assert len(listed) == len(set(listed))
    assert set(listed) == packages_on_disk()


def test_every_folder_with_modules_is_a_package() -> None:
    for folder in FOLDERS.values():
        for module in (REPOSITORY / folder).rglob("*.py"):
            assert (module.parent / "__init__.py").is_file(), f"{module.parent} has no __init__.py"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in (*FOLDERS.values(), "pyproject.toml", "README.md", "LICENSE"):
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_only_top_level_name_is_snn_export(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"snn_export"}


def test_wheel_holds_every_source_file(wheel: zipfile.ZipFile) -> None:
    packed = set(wheel.namelist())
    for name, folder in FOLDERS.items():
        for file in (REPOSITORY / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                inside = f"{name.replace('.', '/')}/{file.relative_to(REPOSITORY / folder).as_posix()}"
                assert inside in packed, f"{inside} is missing from the wheel"


def test_generic_names_are_not_importable() -> None:
    code = "import importlib.util as u; print([n for n in ('models', 'export', 'hardware_sims', 'toolchain') if u.find_spec(n)])"
    found = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert found.stdout.strip() == "[]"


def test_facade_survives_the_import_of_every_module() -> None:
    """A module named like a facade function would take its place once imported."""
    for module in pkgutil.walk_packages(snn_export.__path__, "snn_export."):
        if not module.name.endswith(("__main__", ".worker", ".worker_bootstrap")):
            importlib.import_module(module.name)
    for name in ("load", "save", "from_snntorch", "quantize", "simulate", "verify"):
        assert callable(getattr(snn_export, name)), name
        assert getattr(snn_export, name).__module__ == "snn_export.library"
    assert set(snn_export.__all__) <= set(dir(snn_export))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = snn_export.nonsense


@pytest.mark.parametrize(
    "module",
    [
        "snn_export.export.nir_io",
        "snn_export.energy.estimate",
        "snn_export.reporting.html",
        "snn_export.hardware_sims.lava.simulator",
    ],
)
def test_reading_and_reporting_need_no_torch(module: str) -> None:
    code = f"import sys, {module}; print([n for n in ('torch', 'snntorch') if n in sys.modules])"
    found = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


TORCH_MAY = (
    "models/", "export/snntorch_", "hardware_sims/student/", "hardware_sims/loihi/", "hardware_sims/snntorch/",
    "hardware_sims/norse/", "hardware_sims/isolated/", "hardware_sims/sinabs/worker.py", "hardware_sims/spikingjelly/worker.py",
    "hardware_sims/rockpool/worker.py", "hardware_sims/torch_", "toolchain/training/",
)  # fmt: skip


def test_torch_is_imported_only_where_networks_are_trained_read_or_run() -> None:
    """The import contracts list modules by hand; this finds new ones. machine_checks asks for versions only."""
    for folder in FOLDERS.values():
        for path in (REPOSITORY / folder).rglob("*.py"):
            name = path.relative_to(REPOSITORY).as_posix()
            imported = {
                module.split(".")[0]
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Import | ast.ImportFrom)
                for module in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
            }
            if not name.startswith(TORCH_MAY) and name != "toolchain/library.py":
                assert not imported & {"torch", "snntorch"}, f"{name} imports torch"
            assert "torchvision" not in imported
