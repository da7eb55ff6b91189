"""
Native kernels of evergrad: arguments are checked by evergrad.ops, not here.
"""
from __future__ import annotations
import collections.abc
import numpy
import typing
__all__: list[str] = ['Decoder', 'Strings', 'adam_step', 'adam_step_rows', 'affine', 'apart', 'api_version', 'attention', 'attention_backward', 'available_isas', 'binary_cross_entropy_with_logits', 'binary_cross_entropy_with_logits_backward', 'binary_cross_entropy_with_logits_sum', 'cross_entropy', 'cross_entropy_backward', 'dropout', 'dropout_backward', 'embedding', 'embedding_backward', 'embedding_sum', 'empty', 'gated', 'gated_backward', 'gelu', 'gelu_backward', 'get_isa', 'get_num_threads', 'grad_norm', 'is_forked_child', 'layer_norm', 'layer_norm_backward', 'linear', 'linear_backward', 'linear_cross_entropy', 'linear_cross_entropy_backward', 'linear_cross_entropy_with_grads', 'linear_packed', 'linear_quantized', 'log_softmax', 'log_softmax_backward', 'matmul', 'measure_bandwidth', 'measure_fma_peak', 'mse_loss', 'mse_loss_backward', 'mse_loss_sum', 'multiplies', 'pack_bits', 'pack_weight', 'plain', 'pool', 'pool_backward', 'pool_stats', 'pool_trim', 'prefixed_strings', 'relative_position_buckets', 'relu', 'relu_backward', 'rising', 'rms_norm', 'rms_norm_backward', 'rmsprop_step', 'rotary', 'round_trip', 'rowwise', 'sample', 'set_isa', 'set_num_threads', 'sgd_step', 'sgd_step_rows', 'sigmoid', 'sigmoid_backward', 'silu', 'silu_backward', 'softmax', 'softmax_backward', 'tanh', 'tanh_backward', 'unpack', 'within', 'zero_']
class Strings:
    """
    A sequence of strings, made when they are looked at.
    """
    def __contains__(self, arg0: typing.Any) -> bool:
        ...
    def __eq__(self, arg0: typing.Any) -> bool:
        ...
    @typing.overload
    def __getitem__(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> str:
        ...
    @typing.overload
    def __getitem__(self, arg0: slice) -> typing.Any:
        ...
    def __getstate__(self) -> list:
        ...
    def __hash__(self) -> int:
        ...
    def __init__(self, texts: collections.abc.Iterable) -> None:
        ...
    def __iter__(self) -> collections.abc.Iterator:
        ...
    def __len__(self) -> int:
        ...
    def __repr__(self) -> str:
        ...
    def __setstate__(self, arg0: list) -> None:
        ...
    def among(self, some: Strings) -> list:
        """
        Those that are among some, in their order.
        """
    def are_distinct(self) -> bool:
        """
        Whether no string is there twice.
        """
    def find(self, text: str) -> int:
        """
        The last place of a string, or -1.
        """
    def first_unmerged(self, tokens: Strings) -> int:
        """
        The place of the first that is not two tokens which make a third, or -1.
        """
    def within(self, text: str) -> dict:
        """
        Those that occur in a text, and their places.
        """
class Decoder:
    def __init__(self, blocks: collections.abc.Sequence) -> None:
        ...
    def run(self, x: numpy.ndarray, cache: numpy.ndarray, spans: collections.abc.Sequence[typing.Annotated[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], "FixedSize(5)"]], cos: numpy.ndarray | None, sin: numpy.ndarray | None, last_only: bool) -> numpy.ndarray:
        ...
def adam_step(param: numpy.ndarray, grad: numpy.ndarray, exp_avg: numpy.ndarray, exp_avg_sq: numpy.ndarray, step: typing.SupportsInt | typing.SupportsIndex, lr: typing.SupportsFloat | typing.SupportsIndex, beta1: typing.SupportsFloat | typing.SupportsIndex, beta2: typing.SupportsFloat | typing.SupportsIndex, eps: typing.SupportsFloat | typing.SupportsIndex, weight_decay: typing.SupportsFloat | typing.SupportsIndex, decoupled: bool, grad_scale: typing.SupportsFloat | typing.SupportsIndex) -> None:
    ...
def adam_step_rows(param: numpy.ndarray, grad: numpy.ndarray, exp_avg: numpy.ndarray, exp_avg_sq: numpy.ndarray, rows: numpy.ndarray, skipped: numpy.ndarray, step: typing.SupportsInt | typing.SupportsIndex, lr: typing.SupportsFloat | typing.SupportsIndex, beta1: typing.SupportsFloat | typing.SupportsIndex, beta2: typing.SupportsFloat | typing.SupportsIndex, eps: typing.SupportsFloat | typing.SupportsIndex, weight_decay: typing.SupportsFloat | typing.SupportsIndex, decoupled: bool, grad_scale: typing.SupportsFloat | typing.SupportsIndex) -> None:
    ...
def affine(*args, **kwargs):
    """
    ``affine(x, weight, bias, residual, out)``: True if all that are there are C-contiguous,
    aligned float32 arrays, their shapes fit x [..., in] and weight [features, in], and out
    is writable and apart from the others. The last three may be None.
    """
def apart(*args, **kwargs):
    """
    ``apart(x, y, ...)``: True if x shares no memory with the others, which may be None,
    as far as a glance tells.
    """
def attention(query: numpy.ndarray, key: numpy.ndarray, value: numpy.ndarray, attn_mask: numpy.ndarray | None, bias: numpy.ndarray | None, dropout_p: typing.SupportsFloat | typing.SupportsIndex, scale: typing.SupportsFloat | typing.SupportsIndex, window_size: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex], softcap: typing.SupportsFloat | typing.SupportsIndex, alibi_slopes: numpy.ndarray | None, cu_seqlens_q: numpy.ndarray | None, cu_seqlens_k: numpy.ndarray | None, seed: typing.SupportsInt | typing.SupportsIndex, offset: typing.SupportsInt | typing.SupportsIndex, out: numpy.ndarray | None) -> tuple[numpy.ndarray, numpy.ndarray]:
    ...
def attention_backward(dout: numpy.ndarray, query: numpy.ndarray, key: numpy.ndarray, value: numpy.ndarray, out: numpy.ndarray, lse: numpy.ndarray, attn_mask: numpy.ndarray | None, bias: numpy.ndarray | None, dropout_p: typing.SupportsFloat | typing.SupportsIndex, scale: typing.SupportsFloat | typing.SupportsIndex, window_size: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex], softcap: typing.SupportsFloat | typing.SupportsIndex, alibi_slopes: numpy.ndarray | None, cu_seqlens_q: numpy.ndarray | None, cu_seqlens_k: numpy.ndarray | None, seed: typing.SupportsInt | typing.SupportsIndex, offset: typing.SupportsInt | typing.SupportsIndex, dquery: numpy.ndarray | None, dkey: numpy.ndarray | None, dvalue: numpy.ndarray | None, dbias: numpy.ndarray | None) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray, numpy.ndarray | None]:
    ...
def available_isas() -> list[str]:
    """
    ISAs that this CPU and build have, slowest first.
    """
def binary_cross_entropy_with_logits(x: numpy.ndarray, target: numpy.ndarray, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def binary_cross_entropy_with_logits_backward(dout: numpy.ndarray, x: numpy.ndarray, target: numpy.ndarray, dx: numpy.ndarray | None) -> numpy.ndarray:
    ...
def binary_cross_entropy_with_logits_sum(x: numpy.ndarray, target: numpy.ndarray) -> float:
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
def embedding_sum(input: numpy.ndarray, weight: numpy.ndarray, positions: numpy.ndarray, position_weight: numpy.ndarray, segments: numpy.ndarray | None, segment_weight: numpy.ndarray | None, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
@typing.overload
def empty(shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> numpy.ndarray:
    """
    An uninitialised float32 array from the pool.
    """
@typing.overload
def empty(shape: typing.SupportsInt | typing.SupportsIndex) -> numpy.ndarray:
    ...
def gated(gate: numpy.ndarray, up: numpy.ndarray, activation: str, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def gated_backward(dout: numpy.ndarray, gate: numpy.ndarray, up: numpy.ndarray, activation: str, dgate: numpy.ndarray | None, dup: numpy.ndarray | None) -> tuple[numpy.ndarray, numpy.ndarray]:
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
    True in a forked child that may lack OpenMP's threads, where loops run on one.
    """
def layer_norm(x: numpy.ndarray, residual: numpy.ndarray | None, weight: numpy.ndarray | None, bias: numpy.ndarray | None, eps: typing.SupportsFloat | typing.SupportsIndex, total: numpy.ndarray | None, out: numpy.ndarray | None) -> tuple[numpy.ndarray, numpy.ndarray | None, numpy.ndarray, numpy.ndarray]:
    ...
def layer_norm_backward(dout: numpy.ndarray, x: numpy.ndarray, mean: numpy.ndarray, rstd: numpy.ndarray, weight: numpy.ndarray | None, dresidual: numpy.ndarray | None, dx: numpy.ndarray | None, dweight: numpy.ndarray | None, dbias: numpy.ndarray | None, need_dx: bool, need_dweight: bool, need_dbias: bool) -> tuple[numpy.ndarray | None, numpy.ndarray | None, numpy.ndarray | None]:
    ...
def linear(x: numpy.ndarray, weight: numpy.ndarray, bias: numpy.ndarray | None, activation: str | None, residual: numpy.ndarray | None, return_pre: bool, out: numpy.ndarray | None) -> tuple[numpy.ndarray, numpy.ndarray | None]:
    ...
def linear_backward(dout: numpy.ndarray, x: numpy.ndarray, weight: numpy.ndarray, activation: str | None, saved: numpy.ndarray | None, dx: numpy.ndarray | None, dweight: numpy.ndarray | None, dbias: numpy.ndarray | None, need_dx: bool, need_dweight: bool, need_dbias: bool) -> tuple[numpy.ndarray | None, numpy.ndarray | None, numpy.ndarray | None]:
    ...
def linear_cross_entropy(x: numpy.ndarray, weight: numpy.ndarray, bias: numpy.ndarray | None, target: numpy.ndarray, ignore_index: typing.SupportsInt | typing.SupportsIndex, label_smoothing: typing.SupportsFloat | typing.SupportsIndex, softcap: typing.SupportsFloat | typing.SupportsIndex) -> tuple[numpy.ndarray, numpy.ndarray]:
    ...
def linear_cross_entropy_backward(drows: numpy.ndarray, x: numpy.ndarray, weight: numpy.ndarray, bias: numpy.ndarray | None, target: numpy.ndarray, lse: numpy.ndarray, ignore_index: typing.SupportsInt | typing.SupportsIndex, label_smoothing: typing.SupportsFloat | typing.SupportsIndex, softcap: typing.SupportsFloat | typing.SupportsIndex, dx: numpy.ndarray | None, dweight: numpy.ndarray | None, dbias: numpy.ndarray | None, need_dx: bool, need_dweight: bool, need_dbias: bool) -> tuple[numpy.ndarray | None, numpy.ndarray | None, numpy.ndarray | None]:
    ...
def linear_cross_entropy_with_grads(drows: numpy.ndarray, x: numpy.ndarray, weight: numpy.ndarray, bias: numpy.ndarray | None, target: numpy.ndarray, ignore_index: typing.SupportsInt | typing.SupportsIndex, label_smoothing: typing.SupportsFloat | typing.SupportsIndex, softcap: typing.SupportsFloat | typing.SupportsIndex, dx: numpy.ndarray | None, dweight: numpy.ndarray | None, dbias: numpy.ndarray | None, need_dx: bool, need_dweight: bool, need_dbias: bool) -> tuple[numpy.ndarray, numpy.ndarray | None, numpy.ndarray | None, numpy.ndarray | None]:
    ...
def linear_packed(x: numpy.ndarray, packed: numpy.ndarray, out_features: typing.SupportsInt | typing.SupportsIndex, bias: numpy.ndarray | None, activation: str | None, residual: numpy.ndarray | None, return_pre: bool, out: numpy.ndarray | None) -> tuple[numpy.ndarray, numpy.ndarray | None]:
    ...
def linear_quantized(x: numpy.ndarray, weight: numpy.ndarray, kind: str, bias: numpy.ndarray | None, activation: str | None, residual: numpy.ndarray | None, return_pre: bool, out: numpy.ndarray | None) -> tuple[numpy.ndarray, numpy.ndarray | None]:
    ...
def log_softmax(x: numpy.ndarray, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def log_softmax_backward(dout: numpy.ndarray, out: numpy.ndarray, dx: numpy.ndarray | None) -> numpy.ndarray:
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
def mse_loss_sum(x: numpy.ndarray, target: numpy.ndarray) -> float:
    ...
def multiplies(*args, **kwargs):
    """
    ``multiplies(a, b, out)``: True if a and b are aligned float32 matrices that have
    elements, rows or columns that are contiguous, and a product; and if out, unless it is
    None, is C-contiguous, writable, of the product's shape, and apart from both.
    """
def pack_bits(weight: numpy.ndarray, kind: str) -> numpy.ndarray:
    ...
def pack_weight(weight: numpy.ndarray) -> numpy.ndarray:
    ...
def plain(*args, **kwargs):
    """
    ``plain(outs, x, shape, y, shape, ...)``: True if each array, unless it is None, is a
    C-contiguous, aligned float32 array of the shape behind it (of any, for None; of so many
    dimensions, and not None, for an int), and the last `outs` of them are writable and
    apart from all before them.
    """
def pool(x: numpy.ndarray, cu_seqlens: numpy.ndarray, mode: str, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def pool_backward(dout: numpy.ndarray, cu_seqlens: numpy.ndarray, mode: str, dx: numpy.ndarray | None) -> numpy.ndarray:
    ...
def pool_stats() -> dict:
    """
    Bytes in use, bytes kept for reuse, and how often the system was asked.
    """
def pool_trim() -> None:
    """
    Give the buffers kept for reuse back to the system.
    """
def prefixed_strings(data: typing.Any, start: typing.SupportsInt | typing.SupportsIndex, count: typing.SupportsInt | typing.SupportsIndex) -> tuple[Strings, int]:
    ...
def relative_position_buckets(limits: numpy.ndarray, tokens_q: typing.SupportsInt | typing.SupportsIndex, tokens_k: typing.SupportsInt | typing.SupportsIndex, bidirectional: bool) -> numpy.ndarray:
    ...
def relu(x: numpy.ndarray, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def relu_backward(dout: numpy.ndarray, saved: numpy.ndarray, dx: numpy.ndarray | None) -> numpy.ndarray:
    ...
def rising(*args, **kwargs):
    """
    ``rising(x, last)``: True if x is a C-contiguous, aligned, one-dimensional int64 array
    that rises from 0 to `last` (to anything, for None) and never falls.
    """
def rms_norm(x: numpy.ndarray, residual: numpy.ndarray | None, weight: numpy.ndarray | None, eps: typing.SupportsFloat | typing.SupportsIndex, total: numpy.ndarray | None, out: numpy.ndarray | None) -> tuple[numpy.ndarray, numpy.ndarray | None, numpy.ndarray]:
    ...
def rms_norm_backward(dout: numpy.ndarray, x: numpy.ndarray, rstd: numpy.ndarray, weight: numpy.ndarray | None, dresidual: numpy.ndarray | None, dx: numpy.ndarray | None, dweight: numpy.ndarray | None, need_dx: bool, need_dweight: bool) -> tuple[numpy.ndarray | None, numpy.ndarray | None]:
    ...
def rmsprop_step(param: numpy.ndarray, grad: numpy.ndarray, square_avg: numpy.ndarray, lr: typing.SupportsFloat | typing.SupportsIndex, alpha: typing.SupportsFloat | typing.SupportsIndex, eps: typing.SupportsFloat | typing.SupportsIndex, weight_decay: typing.SupportsFloat | typing.SupportsIndex, grad_scale: typing.SupportsFloat | typing.SupportsIndex) -> None:
    ...
def rotary(x: numpy.ndarray, cos: numpy.ndarray, sin: numpy.ndarray, interleaved: bool, positions: numpy.ndarray | None, inverse: bool, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def round_trip() -> float:
    """
    Nanoseconds of a cache line's way to the second worker and back; 0 without one.
    """
def rowwise(*args, **kwargs):
    """
    ``rowwise(outs, x, shape, y, shape, ...)``: as ``plain``, but only the last axis of each
    has to be contiguous; none may be empty.
    """
def sample(logits: numpy.ndarray, temperature: typing.SupportsFloat | typing.SupportsIndex, top_k: typing.SupportsInt | typing.SupportsIndex, top_p: typing.SupportsFloat | typing.SupportsIndex, min_p: typing.SupportsFloat | typing.SupportsIndex, seed: typing.SupportsInt | typing.SupportsIndex, offset: typing.SupportsInt | typing.SupportsIndex) -> numpy.ndarray:
    ...
def set_isa(name: str) -> None:
    """
    Run the kernels of another ISA.
    """
def set_num_threads(n: typing.SupportsInt | typing.SupportsIndex) -> None:
    ...
def sgd_step(param: numpy.ndarray, grad: numpy.ndarray, momentum_buffer: numpy.ndarray | None, lr: typing.SupportsFloat | typing.SupportsIndex, momentum: typing.SupportsFloat | typing.SupportsIndex, dampening: typing.SupportsFloat | typing.SupportsIndex, nesterov: bool, weight_decay: typing.SupportsFloat | typing.SupportsIndex, grad_scale: typing.SupportsFloat | typing.SupportsIndex, first: bool) -> None:
    ...
def sgd_step_rows(param: numpy.ndarray, grad: numpy.ndarray, rows: numpy.ndarray, lr: typing.SupportsFloat | typing.SupportsIndex, grad_scale: typing.SupportsFloat | typing.SupportsIndex) -> None:
    ...
def sigmoid(x: numpy.ndarray, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def sigmoid_backward(dout: numpy.ndarray, saved: numpy.ndarray, dx: numpy.ndarray | None) -> numpy.ndarray:
    ...
def silu(x: numpy.ndarray, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def silu_backward(dout: numpy.ndarray, saved: numpy.ndarray, dx: numpy.ndarray | None) -> numpy.ndarray:
    ...
def softmax(x: numpy.ndarray, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def softmax_backward(dout: numpy.ndarray, out: numpy.ndarray, dx: numpy.ndarray | None) -> numpy.ndarray:
    ...
def tanh(x: numpy.ndarray, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def tanh_backward(dout: numpy.ndarray, saved: numpy.ndarray, dx: numpy.ndarray | None) -> numpy.ndarray:
    ...
def unpack(weight: numpy.ndarray, kind: str, columns: typing.SupportsInt | typing.SupportsIndex, indices: numpy.ndarray | None, out: numpy.ndarray | None) -> numpy.ndarray:
    ...
def within(*args, **kwargs):
    """
    ``within(x, upper)``: True if x is a C-contiguous, aligned int64 array of numbers in
    [0, upper).
    """
def zero_(x: numpy.ndarray) -> None:
    ...
api_version: int = 1
