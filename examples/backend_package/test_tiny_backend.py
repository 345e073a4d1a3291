from tiny_backend import TinySimulator

from snn_export.hardware_sims.conformance.kit import run_kit


def test_it_passes_the_kit() -> None:
    found = run_kit(TinySimulator())
    assert found.passed, found.summary()
