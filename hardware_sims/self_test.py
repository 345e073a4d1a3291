"""What a backend finds out about the versions that are installed here, in a few seconds: ``snn-export doctor`` asks it.

A backend that has something to find out has a method ``self_test() -> Sequence[Probe]``; a plug-in may have one too. It is
asked only where the backend is available. The conformance kit shows what a backend computes; a probe shows that what it is
built on still behaves as its code takes it to behave, and says what that means for what is exported.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from snn_export.hardware_sims import environments

TIME_LIMIT = 120.0
"""Seconds for the worker of an isolated backend; a cold one takes a few."""


Judge = Callable[[dict[str, Any]], tuple[bool, str]]
"""What a worker saw -> whether it is right, and how to say it."""


@dataclass(frozen=True)
class Probe:
    """One finding.

    Attributes:
        topic: what was looked at; may be empty where a backend has one probe only.
        as_expected: the installed version does what the backend's code relies on. A known deviation that the code works
            around is as expected.
        seen: what was seen.
        meaning: for what is exported or run.
        fix: what to do; only where it is not as expected.
    """

    topic: str
    as_expected: bool
    seen: str
    meaning: str
    fix: str = ""


@runtime_checkable
class SelfTesting(Protocol):
    """A backend that tests what it is built on."""

    def self_test(self) -> Sequence[Probe]:
        """Everything it finds; quick, and without a network."""
        ...


def probes(simulator: object) -> tuple[Probe, ...]:
    """What a simulator finds; empty where it has no self-test. Never raises: what goes wrong is a finding."""
    if not isinstance(simulator, SelfTesting):
        return ()
    meaning = "the self-test of this backend itself could not run"
    try:
        found = tuple(simulator.self_test())
    except Exception as error:  # of whatever the backend is built on
        return (Probe("", False, f"{type(error).__name__}: {error}", meaning, "reinstall what the backend runs on"),)
    if all(isinstance(item, Probe) for item in found):
        return found
    return (Probe("", False, "its self_test returned something else than Probes", meaning, "repair or update that package"),)


def worker_probe(name: str, meaning: str, python: Path | None = None, judge: Judge | None = None) -> Probe:
    """The probe of an isolated backend: ``worker.py --self-test`` in its environment.

    The worker's last line of output is a JSON object of versions. A line before it may be one of what the worker saw.

    Args:
        name: of the backend, which has an environment that is there.
        meaning: of the probe.
        python: interpreter in place of the installed environment's.
        judge: whether what the worker saw is right; without one it is enough that the self-test ends.
    """
    interpreter, fix = python or environments.interpreter(name), f"snn-export backends install {name} --force"
    command = [str(interpreter), "-I", str(environments.environment(name).worker), "--self-test"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIME_LIMIT, stdin=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr or "").strip().splitlines()[-1:] or [f"ended with status {error.returncode}"]
        return Probe("", False, f"does not run: {reason[0]}", meaning, fix)
    except subprocess.TimeoutExpired:
        return Probe("", False, f"no answer within {TIME_LIMIT:g} seconds", meaning, fix)
    *before, last = done.stdout.strip().splitlines()
    versions = json.loads(last)
    right, seen = (True, "its self-test passed") if judge is None else judge(_last_object(before))
    told = ", ".join(f"{package} {versions[package]}" for package in sorted(versions))
    return Probe("", right, f"{seen}; {told}", meaning, "" if right else fix)


def _last_object(lines: Sequence[str]) -> dict[str, Any]:
    """The last line that is a JSON object: what a worker imports may print others. Empty where there is none."""
    return next((found for line in reversed(lines) if (found := _object(line))), {})


def _object(line: str) -> dict[str, Any]:
    """The JSON object that a line is; empty for any other line."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
