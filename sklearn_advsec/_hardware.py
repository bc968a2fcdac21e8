"""What the machine can do: precision, and how many rows stay in its cache."""

from contextlib import contextmanager
from functools import cache
from threading import Lock

import torch

# A pass over a network is fastest while what it keeps for the backward pass stays in
# the last-level cache; far below it the overhead of small calls grows.
_CPU_BYTES = 2**24
_GPU_BYTES = 2**30


def bfloat16_is_fast(device):
    """Whether the device has bfloat16 arithmetic, so that using it saves time."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def auto_batch_size(view, x):
    """How many rows to send through a view at once, from the memory that two rows take.

    Parameters
    ----------
    view : ClassifierView
        What is differentiated.
    x : tensor of shape (n_rows, ...)
        Rows; the first is used.
    """
    available = _GPU_BYTES if x.device.type == "cuda" else _CPU_BYTES
    return int(min(max(available // _bytes_per_row(view, x[:1]), 16), 4096))


def _bytes_per_row(view, row):
    """Bytes that one more row keeps between the forward and the backward pass."""
    kept = 0

    def pack(tensor):
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    sizes = []
    with (
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        for n in (1, 2):  # the difference leaves out what does not grow: the weights
            kept = 0
            view.logits(row.expand(n, *row.shape[1:]).clone().requires_grad_())
            sizes.append(kept)
    return max(sizes[1] - sizes[0], row.numel() * row.element_size())


@contextmanager
def fast_float32_products():
    """Let oneDNN multiply matrices of float32, where it is exact and mostly faster.

    By itself, torch multiplies with MKL, which uses half of the vector unit of AMD's
    processors. oneDNN, which it asks only where products may be rounded to bfloat16, uses
    all of it: twice as fast. Which precision oneDNN then computes in depends on the
    processor, and is measured; where it does round, nothing is changed. The setting is
    that of the process: of threads, the last to leave puts it back.
    """
    with _lock:
        fast = _onednn_is_exact()
        if fast and not _threads_inside:
            _setting_outside.append(torch.backends.mkldnn.matmul.fp32_precision)
            torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        _threads_inside.append(None)
    try:
        yield
    finally:
        with _lock:
            _threads_inside.pop()
            if fast and not _threads_inside:
                _put_back(_setting_outside.pop())


_lock, _threads_inside, _setting_outside = Lock(), [], []


def _put_back(setting):
    """Set the precision; where the setting above says the same, it is followed again."""
    matmul = torch.backends.mkldnn.matmul
    matmul.fp32_precision = "none"
    if matmul.fp32_precision != setting:
        matmul.fp32_precision = setting


@cache
def _onednn_is_exact():
    """Whether oneDNN computes in float32 where it may compute in bfloat16."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    if not (hasattr(matmul, "fp32_precision") and capabilities.get("avx512_f")):
        return False
    # Not of the default dtype or device: in float64 everything would look exact.
    cpu = torch.device("cpu")
    generator = torch.Generator(cpu).manual_seed(0)
    x = torch.randn(2, 256, 256, generator=generator, dtype=torch.float32, device=cpu)
    outside = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        found = torch.bmm(x, x.transpose(1, 2)).double()
    finally:
        _put_back(outside)
    exact = torch.bmm(x.double(), x.double().transpose(1, 2))
    # Rounded to bfloat16, products of 256 terms are off by several hundredths.
    return float((found - exact).abs().max()) < 1e-3
