"""The machine that a figure was measured on, in words."""

from __future__ import annotations

import platform

import psutil


def description() -> str:
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{cores} cores, {memory:.0f} GB, {system}"
