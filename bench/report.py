"""What the benchmarks print: Markdown, in the form in which docs/benchmarks.md shows it."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Sequence

import asyncssh
import paramiko
import psutil

from bench.series import Series
from tango_cloud.terraform.binary import resolve


def say(text: str) -> None:
    """A paragraph, at once: a benchmark takes minutes."""
    print(f"{text}\n", flush=True)


def progress(text: str) -> None:
    """For who watches; not part of the report."""
    sys.stderr.write(f"... {text}\n")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    say("\n".join(f"| {' | '.join(line)} |" for line in lines))


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f}" if seconds < 1 else f"{seconds * 1000:,.0f}"


def spread(series: Series, name: str) -> str:
    """The first and the third quartile, in milliseconds."""
    first, third = series.quartiles(name)
    return f"{milliseconds(first)}-{milliseconds(third)}"


def times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:,.0f}x"


@functools.cache
def host() -> str:
    """The machine that everything ran on: client, Terraform and servers alike."""
    terraform = resolve(None)
    memory = psutil.virtual_memory().total / (1 << 30)
    user = "root" if os.geteuid() == 0 else "an unprivileged user"
    return (
        f"Host: {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} "
        f"{platform.release().split('-')[0]}, as {user}. "
        f"Python {platform.python_version()}, paramiko {paramiko.__version__}, "
        f"asyncssh {asyncssh.__version__}, {terraform.product} "
        f"{'.'.join(map(str, terraform.version))}, {_openssh()}. "
        "Client, Terraform and machines share the cores. "
        f"Load at the start: {os.getloadavg()[0]:.1f}."
    )


def _openssh() -> str:
    try:
        told = subprocess.run(["ssh", "-V"], check=True, capture_output=True, text=True).stderr
    except OSError:
        return "no OpenSSH client"
    return told.split(",")[0].strip()
