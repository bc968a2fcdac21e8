"""What the machine can do: precision, and how many rows stay in its cache."""

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
