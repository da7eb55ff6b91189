"""The functional API: every op checks its arguments once and calls the active backend.

Names, argument order and defaults follow ``torch.nn.functional`` where it has the op. An op
``f(x, ...) -> out`` has a twin ``f_backward(dout, ...)``: the cotangent first, the saved tensors
next, gradients out in the order of the inputs. ``out=`` (``dx=`` and so on in backward) overwrites;
parameter gradients handed over (``dweight=``, ``dbias=``) are accumulated into.
"""

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
from .embedding import (
    embedding,
    embedding_backward,
    embedding_sum,
    embedding_sum_backward,
)
from .gated import geglu, geglu_backward, swiglu, swiglu_backward
from .gemm import PackedWeight, linear, linear_backward, matmul, matmul_backward, pack_weight
from .linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_backward,
    linear_cross_entropy_with_grads,
)
from .loss import (
    binary_cross_entropy_with_logits,
    binary_cross_entropy_with_logits_backward,
    cross_entropy,
    cross_entropy_backward,
    mse_loss,
    mse_loss_backward,
)
from .memory import empty, trim, zero_
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
from .quant import QuantizedWeight, quantize
from .rotary import rotary, rotary_backward, rotary_table
from .sampling import sample
from .softmax import log_softmax, log_softmax_backward, softmax, softmax_backward

__all__ = [
    "PackedWeight",
    "QuantizedWeight",
    "adam_step",
    "adam_step_rows",
    "attention",
    "attention_backward",
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "dropout",
    "dropout_backward",
    "embedding",
    "embedding_backward",
    "embedding_sum",
    "embedding_sum_backward",
    "empty",
    "geglu",
    "geglu_backward",
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
    "log_softmax",
    "log_softmax_backward",
    "matmul",
    "matmul_backward",
    "mse_loss",
    "mse_loss_backward",
    "pack_weight",
    "pool",
    "pool_backward",
    "quantize",
    "relative_position_buckets",
    "relu",
    "relu_backward",
    "rms_norm",
    "rms_norm_backward",
    "rmsprop_step",
    "rotary",
    "rotary_backward",
    "rotary_table",
    "sample",
    "sgd_step",
    "sgd_step_rows",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softmax",
    "softmax_backward",
    "swiglu",
    "swiglu_backward",
    "tanh",
    "tanh_backward",
    "trim",
    "zero_",
]
