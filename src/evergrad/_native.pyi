"""
Native kernels of evergrad: arguments are checked by evergrad.ops, not here.
"""
from __future__ import annotations
import collections.abc
import numpy
import typing
__all__: list[str] = ['adam_step', 'api_version', 'attention', 'attention_backward', 'available_isas', 'binary_cross_entropy_with_logits', 'binary_cross_entropy_with_logits_backward', 'cross_entropy', 'cross_entropy_backward', 'dropout', 'dropout_backward', 'embedding', 'embedding_backward', 'empty', 'gelu', 'gelu_backward', 'get_isa', 'get_num_threads', 'grad_norm', 'is_forked_child', 'layer_norm', 'layer_norm_backward', 'linear', 'linear_backward', 'matmul', 'measure_bandwidth', 'measure_fma_peak', 'mse_loss', 'mse_loss_backward', 'pool_stats', 'pool_trim', 'relu', 'relu_backward', 'rmsprop_step', 'set_isa', 'set_num_threads', 'sgd_step', 'sigmoid', 'sigmoid_backward', 'softmax', 'softmax_backward', 'tanh', 'tanh_backward']
def adam_step(param: numpy.ndarray, grad: numpy.ndarray, exp_avg: numpy.ndarray, exp_avg_sq: numpy.ndarray, step: typing.SupportsInt | typing.SupportsIndex, lr: typing.SupportsFloat | typing.SupportsIndex, beta1: typing.SupportsFloat | typing.SupportsIndex, beta2: typing.SupportsFloat | typing.SupportsIndex, eps: typing.SupportsFloat | typing.SupportsIndex, weight_decay: typing.SupportsFloat | typing.SupportsIndex, decoupled: bool, grad_scale: typing.SupportsFloat | typing.SupportsIndex) -> None:
    ...
def attention(query: numpy.ndarray, key: numpy.ndarray, value: numpy.ndarray, is_causal: bool, scale: typing.SupportsFloat | typing.SupportsIndex, cu_seqlens_q: numpy.ndarray | None, cu_seqlens_k: numpy.ndarray | None, out: numpy.ndarray | None) -> tuple[numpy.ndarray, numpy.ndarray]:
    ...
def attention_backward(dout: numpy.ndarray, query: numpy.ndarray, key: numpy.ndarray, value: numpy.ndarray, out: numpy.ndarray, lse: numpy.ndarray, is_causal: bool, scale: typing.SupportsFloat | typing.SupportsIndex, cu_seqlens_q: numpy.ndarray | None, cu_seqlens_k: numpy.ndarray | None, dquery: numpy.ndarray | None, dkey: numpy.ndarray | None, dvalue: numpy.ndarray | None) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    ...
def available_isas() -> list[str]:
    """
    ISAs that this CPU and build have, slowest first.
    """
def binary_cross_entropy_with_logits(x: numpy.ndarray, target: numpy.ndarray, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def binary_cross_entropy_with_logits_backward(dout: numpy.ndarray, x: numpy.ndarray, target: numpy.ndarray, dx: numpy.ndarray | None) -> numpy.ndarray:
    ...
def cross_entropy(logits: numpy.ndarray, target: numpy.ndarray, ignore_index: typing.SupportsInt | typing.SupportsIndex, label_smoothing: typing.SupportsFloat | typing.SupportsIndex) -> tuple[numpy.ndarray, numpy.ndarray]:
    ...
def cross_entropy_backward(drows: numpy.ndarray, logits: numpy.ndarray, target: numpy.ndarray, lse: numpy.ndarray, ignore_index: typing.SupportsInt | typing.SupportsIndex, label_smoothing: typing.SupportsFloat | typing.SupportsIndex, dlogits: numpy.ndarray | None) -> numpy.ndarray:
    ...
def dropout(x: numpy.ndarray, p: typing.SupportsFloat | typing.SupportsIndex, seed: typing.SupportsInt | typing.SupportsIndex, offset: typing.SupportsInt | typing.SupportsIndex, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def dropout_backward(dout: numpy.ndarray, p: typing.SupportsFloat | typing.SupportsIndex, seed: typing.SupportsInt | typing.SupportsIndex, offset: typing.SupportsInt | typing.SupportsIndex, dx: numpy.ndarray | None) -> numpy.ndarray:
    ...
def embedding(indices: numpy.ndarray, weight: numpy.ndarray, accumulate: bool, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def embedding_backward(dout: numpy.ndarray, indices: numpy.ndarray, num_embeddings: typing.SupportsInt | typing.SupportsIndex, dweight: numpy.ndarray | None) -> numpy.ndarray:
    ...
@typing.overload
def empty(shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> numpy.ndarray:
    """
    An uninitialised float32 array from the pool.
    """
@typing.overload
def empty(shape: typing.SupportsInt | typing.SupportsIndex) -> numpy.ndarray:
    ...
def gelu(x: numpy.ndarray, approximate: str, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def gelu_backward(dout: numpy.ndarray, x: numpy.ndarray, approximate: str, dx: numpy.ndarray | None) -> numpy.ndarray:
    ...
def get_isa() -> str:
    """
    The ISA whose kernels run.
    """
def get_num_threads() -> int:
    ...
def grad_norm(grad: numpy.ndarray) -> float:
    ...
def is_forked_child() -> bool:
    """
    True in a forked child, where loops run on one thread.
    """
def layer_norm(x: numpy.ndarray, weight: numpy.ndarray | None, bias: numpy.ndarray | None, eps: typing.SupportsFloat | typing.SupportsIndex, out: numpy.ndarray | None) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    ...
def layer_norm_backward(dout: numpy.ndarray, x: numpy.ndarray, mean: numpy.ndarray, rstd: numpy.ndarray, weight: numpy.ndarray | None, dresidual: numpy.ndarray | None, dx: numpy.ndarray | None, dweight: numpy.ndarray | None, dbias: numpy.ndarray | None, need_dx: bool, need_dweight: bool, need_dbias: bool) -> tuple[numpy.ndarray | None, numpy.ndarray | None, numpy.ndarray | None]:
    ...
def linear(x: numpy.ndarray, weight: numpy.ndarray, bias: numpy.ndarray | None, activation: str | None, residual: numpy.ndarray | None, return_pre: bool, out: numpy.ndarray | None) -> tuple[numpy.ndarray, numpy.ndarray | None]:
    ...
def linear_backward(dout: numpy.ndarray, x: numpy.ndarray, weight: numpy.ndarray, activation: str | None, saved: numpy.ndarray | None, dx: numpy.ndarray | None, dweight: numpy.ndarray | None, dbias: numpy.ndarray | None, need_dx: bool, need_dweight: bool, need_dbias: bool) -> tuple[numpy.ndarray | None, numpy.ndarray | None, numpy.ndarray | None]:
    ...
def matmul(a: numpy.ndarray, b: numpy.ndarray, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def measure_bandwidth(seconds: typing.SupportsFloat | typing.SupportsIndex) -> float:
    """
    GB/s to and from memory, with the threads in use.
    """
def measure_fma_peak(seconds: typing.SupportsFloat | typing.SupportsIndex) -> float:
    """
    GFLOP/s of fused multiply-adds, with the threads in use.
    """
def mse_loss(x: numpy.ndarray, target: numpy.ndarray, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def mse_loss_backward(dout: numpy.ndarray, x: numpy.ndarray, target: numpy.ndarray, dx: numpy.ndarray | None) -> numpy.ndarray:
    ...
def pool_stats() -> dict:
    """
    Bytes in use, bytes kept for reuse, and how often the system was asked.
    """
def pool_trim() -> None:
    """
    Give the buffers kept for reuse back to the system.
    """
def relu(x: numpy.ndarray, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def relu_backward(dout: numpy.ndarray, saved: numpy.ndarray, dx: numpy.ndarray | None) -> numpy.ndarray:
    ...
def rmsprop_step(param: numpy.ndarray, grad: numpy.ndarray, square_avg: numpy.ndarray, lr: typing.SupportsFloat | typing.SupportsIndex, alpha: typing.SupportsFloat | typing.SupportsIndex, eps: typing.SupportsFloat | typing.SupportsIndex, weight_decay: typing.SupportsFloat | typing.SupportsIndex, grad_scale: typing.SupportsFloat | typing.SupportsIndex) -> None:
    ...
def set_isa(name: str) -> None:
    """
    Run the kernels of another ISA.
    """
def set_num_threads(n: typing.SupportsInt | typing.SupportsIndex) -> None:
    ...
def sgd_step(param: numpy.ndarray, grad: numpy.ndarray, momentum_buffer: numpy.ndarray | None, lr: typing.SupportsFloat | typing.SupportsIndex, momentum: typing.SupportsFloat | typing.SupportsIndex, dampening: typing.SupportsFloat | typing.SupportsIndex, nesterov: bool, weight_decay: typing.SupportsFloat | typing.SupportsIndex, grad_scale: typing.SupportsFloat | typing.SupportsIndex, first: bool) -> None:
    ...
def sigmoid(x: numpy.ndarray, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def sigmoid_backward(dout: numpy.ndarray, saved: numpy.ndarray, dx: numpy.ndarray | None) -> numpy.ndarray:
    ...
def softmax(x: numpy.ndarray, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def softmax_backward(dout: numpy.ndarray, out: numpy.ndarray, dx: numpy.ndarray | None) -> numpy.ndarray:
    ...
def tanh(x: numpy.ndarray, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def tanh_backward(dout: numpy.ndarray, saved: numpy.ndarray, dx: numpy.ndarray | None) -> numpy.ndarray:
    ...
api_version: int = 1
