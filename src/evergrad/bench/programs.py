"""Whole programs, from a cold process: what a person waits for, and how much memory it takes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from evergrad.bench.inference import SMOLLM2, smollm2, threads
from evergrad.bench.measure import StepEffort

#: After the last word: say the most memory that was held, and end. Nobody waits for what a process
#: takes down after that.
_END = """
import os
lines = open("/proc/self/status").read().splitlines()
peak = next(line for line in lines if line.startswith("VmHWM"))
print("PEAK", peak.split()[1], flush=True)
os._exit(0)
"""
_EVERGRAD = """
import sys
from evergrad.cli import main
sys.argv = ["evergrad", "generate", {prompt!r}, "--model", {path!r},
            "--max-new-tokens", "{count}", "--temperature", "0"]
try:
    main()
except SystemExit as end:
    if end.code:
        raise
"""
_LLAMA = """
import llama_cpp
model = llama_cpp.Llama({path!r}, n_ctx={context}, n_threads={threads}, n_threads_batch={threads},
                        flash_attn=True, verbose=False)
print(model({prompt!r}, max_tokens={count}, temperature=0)["choices"][0]["text"])
"""
_TORCH = """
import torch, transformers
torch.set_num_threads({threads})
tokenizer = transformers.AutoTokenizer.from_pretrained({path!r})
model = transformers.AutoModelForCausalLM.from_pretrained({path!r})
given = tokenizer({prompt!r}, return_tensors="pt")
print(tokenizer.decode(model.generate(**given, max_new_tokens={count}, do_sample=False)[0]))
"""


@dataclass(frozen=True)
class Program:
    """A process that loads SmolLM2 and continues a prompt; the number is its peak memory in MB."""

    name: str
    prompt_tokens: int
    count: int
    effort = StepEffort(rounds=5, most_threads=1, one_thread=0, seconds=0.0)
    packages = (SMOLLM2,)
    unit, amount = "", 1

    @property
    def shape(self) -> str:
        return f"SmolLM2-135M, prompt of {self.prompt_tokens}, {self.count} new"

    def _prompt(self) -> str:
        """English, cut to so many tokens."""
        from evergrad import models
        from evergrad.datasets import cpython_prose

        tokenizer = models.from_pretrained(smollm2()).tokenizer
        assert tokenizer is not None
        text = "\n".join(cpython_prose().train)[: 16 * self.prompt_tokens]
        return tokenizer.decode(tokenizer.encode(text)[: self.prompt_tokens])

    def _filled(self, code: str, path: str) -> str:
        return code.format(
            prompt=self._prompt(), path=path, count=self.count, threads=threads(),
            context=self.prompt_tokens + self.count,
        )  # fmt: skip

    def _step(self, code: str, path: str) -> Callable[[], float]:
        filled = self._filled(code, path) + _END

        def step() -> float:
            done = subprocess.run(
                [sys.executable, "-c", filled], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise RuntimeError(f"{self.name}: {done.stderr.strip()[-500:]}")
            return int(done.stdout.rsplit("PEAK", 1)[1]) * 1024 / 1e6

        return step

    def evergrad_step(self) -> Callable[[], float]:
        return self._step(_EVERGRAD, str(smollm2()))

    def llama_step(self) -> Callable[[], float]:
        return self._step(_LLAMA, str(smollm2()))

    def torch_step(self) -> Callable[[], float]:
        """transformers, from a folder in its own format: GGUF it would take minutes to decode."""
        from evergrad import models

        place = tempfile.TemporaryDirectory()
        models.from_pretrained(smollm2(), dtype="float32").save_pretrained(place.name)
        run = self._step(_TORCH, place.name)

        def step(place: tempfile.TemporaryDirectory[str] = place) -> float:
            return run()

        return step
