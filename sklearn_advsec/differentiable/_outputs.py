"""What a torch module returns, read as logits: of which form, and of which meaning."""

import warnings

import torch

from ._views import binary_logits, log_probability, two_columns

# Where modules that return several things by name keep their scores.
_NAMES = ("logits", "out", "output", "outputs", "scores", "probabilities")
_SUM_SLACK = 2e-3
# So many outputs of a logit are hardly ever all between 0 and 1.
_MANY = 20


def scores_of_output(out, name):
    """Return the scores, of shape (n,) or (n, n_outputs), among what a module returned.

    Of several things the first one counts, or the one that is called "logits" or the
    like; axes of length 1 behind the classes, as fully convolutional networks leave them,
    are dropped.

    Parameters
    ----------
    out : tensor, tuple, list or dict
        What the module returned.
    name : str
        The module's, for messages.
    """
    if not isinstance(out, torch.Tensor):
        out = _first_scores(out, name)
    while out.ndim > 2 and out.shape[-1] == 1:
        out = out.squeeze(-1)
    if out.ndim > 2 or not out.ndim or not out.is_floating_point():
        raise ValueError(
            f"{name} returned {out.dtype} of shape {tuple(out.shape)}; it must return "
            "one score per row and class, as floats of shape (n_rows, n_classes)."
        )
    return out


def _first_scores(out, name):
    fields = dict(out) if hasattr(out, "keys") else getattr(out, "_asdict", dict)()
    found = [fields[key] for key in _NAMES if key in fields]
    found += [getattr(out, key) for key in _NAMES if hasattr(out, key)]
    if not found:
        listed = list(fields.values()) or (out if isinstance(out, (tuple, list)) else [])
        tensors = [part for part in listed if isinstance(part, torch.Tensor)]
        found = tensors[:1] if not fields or len(tensors) == 1 else []
    if found and isinstance(found[0], torch.Tensor):
        return found[0]
    held = f" with {sorted(map(str, fields))}" if fields else ""
    raise TypeError(
        f"{name} returned a {type(out).__name__}{held}, in which no scores are found; "
        "let it return a tensor of shape (n_rows, n_classes), or a dict with 'logits'."
    )


class OutputReader:
    """Make logits of a module's scores.

    Parameters
    ----------
    module : torch.nn.Module
        Whose scores these are.
    kind : {"auto", "logits", "probabilities"}, default="auto"
        What they are. With "auto", scores between 0 and 1 that sum to 1, or that come
        out of a last layer that makes probabilities, are probabilities. It is found out
        once, on the first rows that come through, and said in a warning.
    """

    def __init__(self, module, kind="auto"):
        self.module = module
        self._name = type(module).__name__
        layers = [layer for layer in module.modules() if not list(layer.children())]
        makers = (torch.nn.Softmax, torch.nn.Softmax2d, torch.nn.Sigmoid)
        self._ends_in_probabilities = bool(layers) and isinstance(layers[-1], makers)
        self.asked = self.kind = kind

    def logits(self, out):
        """Return logits of shape (n, n_classes); one output is the second class's."""
        scores = scores_of_output(out, self._name)
        if self.kind == "auto" and len(scores):
            self._find_out(scores.detach())
        if self.kind != "probabilities":
            return binary_logits(scores)
        if scores.ndim == 1 or scores.shape[1] == 1:
            scores = two_columns(scores.reshape(-1))
        return log_probability(scores)

    def _find_out(self, scores):
        """Decide what scores are."""
        inside = bool(((scores >= 0) & (scores <= 1)).all())
        several = scores.ndim == 2 and scores.shape[1] > 1
        total = scores.float().sum(1) if several else scores.new_zeros(1)
        if inside and (
            self._ends_in_probabilities
            or (several and bool(((total - 1).abs() <= _SUM_SLACK).all()))
        ):
            self.kind = "probabilities"
            warnings.warn(
                f"The outputs of {self._name} are taken for probabilities: they are "
                "between 0 and 1"
                + (" and sum to 1" if several else ", after a last layer that makes them")
                + ". Set outputs='probabilities' to confirm it, or outputs='logits'.",
                stacklevel=2,
            )
            return
        self.kind = "logits"
        if inside and not several and len(scores) >= _MANY:
            warnings.warn(
                f"All outputs of {self._name} are between 0 and 1, and are taken for "
                "logits: every row is of the second class. If they are probabilities, "
                "set outputs='probabilities'.",
                stacklevel=2,
            )
