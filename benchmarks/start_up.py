"""What importing the app costs on top of the Functions library, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from statistics import median

TIMES = 7
MEASURE = "import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"
HEAVY = ("azure.data.tables", "azure.storage.queue", "azure.identity", "cryptography", "requests", "tenacity")


def measure() -> Iterator[str]:
    library, app = _seconds("azure.functions"), _seconds("function_app")
    yield f"importing function_app: {app:.2f} s, {app / library:.1f} times the Functions library's {library:.2f} s"
    listed = _run(f"import sys, function_app; print([m for m in {HEAVY} if m in sys.modules])")
    yield f"heavy packages loaded by it: {listed.strip()} (promised: none)"


def _seconds(module: str) -> float:
    return median(float(_run(MEASURE.format(module=module))) for _ in range(TIMES))


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout
