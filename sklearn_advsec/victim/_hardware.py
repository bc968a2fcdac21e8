"""What the machine can do: precision, and how many rows stay in its cache."""

import torch

# A pass over a network is fastest while what it keeps for the backward pass stays in
# the last-level cache; with few rows the overhead of small calls grows.
_CPU_BYTES, _CPU_LEAST, _CPU_ROWS = 2**24, 32, 2048
# A GPU is busy only with many rows. Of the memory that is free a quarter is taken: a pass
# needs room to work in besides what it keeps, and attacks keep tensors of their own.
_GPU_SHARE, _GPU_ROWS = 0.25, 2**16


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
    available, least, most = _CPU_BYTES, _CPU_LEAST, _CPU_ROWS
    if _is_gpu(x.device):
        available, least = int(_GPU_SHARE * _free_bytes(x.device)), 16
        most = _GPU_ROWS
    return int(min(max(available // _bytes_per_row(view, x[:1]), least), most))


def _is_gpu(device):
    return device.type == "cuda"


def _free_bytes(device):
    """Bytes of a GPU that are free, or that torch holds in reserve."""
    free, _ = torch.cuda.mem_get_info(device)
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + held


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
