"""Models: one file per family, with a configuration, a composition, and a table of weight names.

loss, backward = model.loss(batch)      # batch: packed sequences with targets
backward()                              # gradients in model.flat.grad
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazily

if TYPE_CHECKING:
    from .beam import beam_search
    from .bert import Bert, BertConfig, MaskedBatch
    from .cache import KVCache
    from .explanation import Explained, explain
    from .folder import MODEL_TYPES, build, load, save
    from .generation import Sampling, generate, stream
    from .gpt2 import GPT2, GPT2Config
    from .llama import Llama, LlamaConfig
    from .pretrained import from_pretrained
    from .prompting import Conversation
    from .t5 import T5, Encoded, Seq2SeqBatch, T5Config
    from .weights import to_ours, to_theirs

__all__ = [
    "GPT2",
    "MODEL_TYPES",
    "T5",
    "Bert",
    "BertConfig",
    "Conversation",
    "Encoded",
    "Explained",
    "GPT2Config",
    "KVCache",
    "Llama",
    "LlamaConfig",
    "MaskedBatch",
    "Sampling",
    "Seq2SeqBatch",
    "T5Config",
    "beam_search",
    "build",
    "explain",
    "from_pretrained",
    "generate",
    "load",
    "save",
    "stream",
    "to_ours",
    "to_theirs",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazily(__name__, {
        "beam": ("beam_search",),
        "bert": ("Bert", "BertConfig", "MaskedBatch"),
        "cache": ("KVCache",),
        "explanation": ("Explained", "explain"),
        "folder": ("MODEL_TYPES", "build", "load", "save"),
        "generation": ("Sampling", "generate", "stream"),
        "gpt2": ("GPT2", "GPT2Config"),
        "llama": ("Llama", "LlamaConfig"),
        "pretrained": ("from_pretrained",),
        "prompting": ("Conversation",),
        "t5": ("T5", "Encoded", "Seq2SeqBatch", "T5Config"),
        "weights": ("to_ours", "to_theirs"),
    })  # fmt: skip
