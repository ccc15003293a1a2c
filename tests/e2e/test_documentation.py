"""What the pages show works as shown."""

from __future__ import annotations

import re
import shutil

import pytest

from ..deployment import CHECKOUT, Deployment

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BLOCKS = [
    (page, number, block)
    for page in ("docs/python.md", "README.md")
    for number, block in enumerate(_BLOCK.findall((CHECKOUT / page).read_text()))
]


@pytest.mark.parametrize(
    "block",
    [block for _, _, block in _BLOCKS],
    ids=[f"{page}-{number}" for page, number, _ in _BLOCKS],
)
def test_a_python_example_runs(deployment: Deployment, block: str) -> None:
    shutil.copytree(CHECKOUT / "examples", deployment.folder / "examples")
    for name in ("alice", "bob"):
        shutil.copytree(CHECKOUT / "examples" / "loud", deployment.folder / "hw1" / name)
    process = deployment.python(block)
    process.communicate(timeout=120)
    assert process.returncode == 0
