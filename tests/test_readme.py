"""The README's Python runs, on the models that it speaks of."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from evergrad.bench import inference

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(), flags=re.MULTILINE | re.DOTALL)

PRETRAINED = {"SmolLM2.gguf": inference.smollm2, "all-MiniLM-L6-v2": inference.minilm}


@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0] for block in BLOCKS])
def test_it_runs(block, tmp_path):
    for name, find in PRETRAINED.items():
        if name in block:
            pytest.importorskip("tokenizers")
            try:
                (tmp_path / name).symlink_to(find())
            except ModuleNotFoundError as error:
                pytest.skip(str(error))
    path = os.pathsep.join(path for path in sys.path if path)
    subprocess.run(
        [sys.executable, "-c", block],
        cwd=tmp_path,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_there_is_something_to_run():
    assert len(BLOCKS) >= 4
    assert all(any(name in block for block in BLOCKS) for name in PRETRAINED)
