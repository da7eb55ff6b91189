"""The specification: every op in NumPy, as its formula reads, in the dtype of its input."""

from __future__ import annotations

from .activation import (
    gelu,
    gelu_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    silu,
    silu_backward,
    tanh,
    tanh_backward,
)
from .attention import attention, attention_backward
from .dropout import dropout, dropout_backward
from .embedding import embedding, embedding_backward, embedding_sum
from .gated import gated, gated_backward
from .gemm import linear, linear_backward, linear_packed, matmul, pack_weight
from .linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_backward,
    linear_cross_entropy_with_grads,
)
from .loss import (
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_backward,
    binary_cross_entropy_with_logits_sum,
    cross_entropy,
    cross_entropy_backward,
    mse_loss,
    mse_loss_backward,
    mse_loss_sum,
)
from .norm import layer_norm, layer_norm_backward, rms_norm, rms_norm_backward
from .optimizer import (
    adam_step,
    adam_step_rows,
    grad_norm,
    rmsprop_step,
    sgd_step,
    sgd_step_rows,
)
from .pooling import pool, pool_backward
from .position import relative_position_buckets
from .quant import linear_quantized, pack_bits, unpack
from .rotary import rotary
from .sampling import sample
from .softmax import log_softmax, log_softmax_backward, softmax, softmax_backward

__all__ = [
    "adam_step",
    "adam_step_rows",
    "attention",
    "attention_backward",
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_backward",
    "binary_cross_entropy_with_logits_sum",
    "cross_entropy",
    "cross_entropy_backward",
    "dropout",
    "dropout_backward",
    "embedding",
    "embedding_backward",
    "embedding_sum",
    "gated",
    "gated_backward",
    "gelu",
    "gelu_backward",
    "grad_norm",
    "layer_norm",
    "layer_norm_backward",
    "linear",
    "linear_backward",
    "linear_cross_entropy",
    "linear_cross_entropy_backward",
    "linear_cross_entropy_with_grads",
    "linear_packed",
    "linear_quantized",
    "log_softmax",
    "log_softmax_backward",
    "matmul",
    "mse_loss",
    "mse_loss_backward",
    "mse_loss_sum",
    "pack_bits",
    "pack_weight",
    "pool",
    "pool_backward",
    "relative_position_buckets",
    "relu",
    "relu_backward",
    "rms_norm",
    "rms_norm_backward",
    "rmsprop_step",
    "rotary",
    "sample",
    "sgd_step",
    "sgd_step_rows",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softmax",
    "softmax_backward",
    "tanh",
    "tanh_backward",
    "unpack",
]
