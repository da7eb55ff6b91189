"""The example of a text classifier: its gradients, and that it learns."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evergrad
from evergrad import nn, ops, optim
from op_support import SEED


@pytest.fixture
def example() -> Any:
    path = Path(__file__).parents[1] / "examples" / "text_classifier.py"
    spec = importlib.util.spec_from_file_location("text_classifier", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_gradients_follow_finite_differences(example: Any) -> None:
    """In float64, along random directions: embedding, pooling and both linear layers together."""
    rng = np.random.default_rng(SEED)
    with evergrad.use_backend("reference"):
        model = example.TextClassifier(rng)
        for parameter in model.parameters():
            parameter.data = parameter.data.astype(np.float64)
            parameter.grad = np.zeros_like(parameter.data)
        flat = nn.flatten_(model)
        ids, cu_seqlens, label = example.batch(rng)
        label = label.astype(np.float64)
        logits, backward = model(ids, cu_seqlens)
        backward(ops.binary_cross_entropy_with_logits_backward(1.0, logits, label))
        start = flat.data.copy()

        def loss(data: np.ndarray) -> float:
            flat.data[:] = data
            value = ops.binary_cross_entropy_with_logits(model(ids, cu_seqlens)[0], label)
            assert isinstance(value, float)
            return value

        for _ in range(5):
            direction = rng.standard_normal(start.size)
            slope = (loss(start + 1e-6 * direction) - loss(start - 1e-6 * direction)) / 2e-6
            assert slope == pytest.approx(
                flat.grad @ direction, rel=0, abs=1e-7 * np.linalg.norm(flat.grad)
            )


def test_it_learns(example: Any) -> None:
    rng = np.random.default_rng(SEED)
    model = example.TextClassifier(rng)
    optimizer = optim.Adam(model.flat, lr=1e-2)
    losses = [example.step(model, optimizer, *example.batch(rng)) for _ in range(600)]
    assert np.mean(losses[-50:]) < np.mean(losses[:50]) - 0.1
