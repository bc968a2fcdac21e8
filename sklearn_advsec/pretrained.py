"""Trained torch modules as classifiers: the torch counterpart of `FrozenEstimator`."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_array

from . import differentiable
from ._rows import looks_channels_last, writable
from ._sklearn import BaseEstimator, Interval, StrOptions, check_parameters
from .differentiable._neural import (
    evaluation_mode,
    explained_shapes,
    module_view,
    output_width,
)
from .differentiable._outputs import OutputReader

__all__ = ["PretrainedModule"]


class PretrainedModule(ClassifierMixin, BaseEstimator):
    """A trained `torch.nn.Module` as a classifier that needs no fit and that clones keep.

    The module returns one column per class, or a single one for two classes; where it
    returns a tuple, a list or a dict, the first tensor counts, or the one called
    "logits". It is never changed: neither its parameters nor its training mode, and it is
    always evaluated in evaluation mode. One in half precision is given, and gives, floats
    of single precision; only its forward pass is in half.

    Parameters
    ----------
    module : torch.nn.Module
        The trained network.
    classes : array-like of shape (n_classes,), default=None
        The labels that the outputs stand for. None is ``0 .. n_classes - 1``, with the
        number of outputs read from the module's last layer.
    device : str or torch.device, default=None
        Where to compute: the device on which the module already is, which is also what
        None stands for. The module is not moved.
    batch_size : int, default=1024
        How many rows the module gets at once.
    outputs : {"auto", "logits", "probabilities"}, default="auto"
        What the module's outputs are. "auto" looks at its last layer, and at its outputs
        for the first rows that come: those between 0 and 1 that sum to 1, or that come
        out of a softmax or a sigmoid, are taken for probabilities, with a warning; all
        others for logits.
    channels : {"first", "last"}, default="first"
        Where images, as rows, have their channels. With "last" they are brought to the
        front for the module.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.

    Raises
    ------
    TypeError
        If `module` is no `torch.nn.Module` instance.
    ValueError
        If `device` is not the module's, `classes` does not go with the number of
        outputs, or a parameter has none of its values.

    Warns
    -----
    UserWarning
        Where `outputs="auto"` finds probabilities, and where images seem to have their
        channels last though `channels` says "first".

    See Also
    --------
    sklearn.frozen.FrozenEstimator : The same for a fitted estimator.

    Examples
    --------
    >>> import torch
    >>> from sklearn_advsec.pretrained import PretrainedModule
    >>> module = torch.nn.Linear(2, 3)
    >>> classifier = PretrainedModule(module, classes=["a", "b", "c"])
    >>> classifier.predict_proba([[0.0, 1.0]]).shape
    (1, 3)
    """

    _parameter_constraints = {
        "classes": ["array-like", None],
        "device": [str, torch.device, None],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "outputs": [StrOptions({"auto", "logits", "probabilities"})],
        "channels": [StrOptions({"first", "last"})],
    }

    def __init__(
        self,
        module: torch.nn.Module,
        classes: ArrayLike | None = None,
        device: str | torch.device | None = None,
        batch_size: int = 1024,
        outputs: Literal["auto", "logits", "probabilities"] = "auto",
        channels: Literal["first", "last"] = "first",
    ) -> None:
        self.module = module
        self.classes = classes
        self.device = device
        self.batch_size = batch_size
        self.outputs = outputs
        self.channels = channels

    @property
    def classes_(self) -> np.ndarray:
        """The labels of the outputs."""
        if self.classes is not None:
            return np.asarray(self.classes)
        return np.arange(max(2, output_width(self.module)))

    def fit(self, X: Any = None, y: Any = None) -> Self:
        """Do nothing but check the parameters: the module is trained.

        Parameters
        ----------
        X : object
            Ignored.
        y : object
            Ignored.

        Returns
        -------
        self : object
            The classifier.
        """
        self._check()
        return self

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Compute the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Rows in the shape that the module takes.

        Returns
        -------
        decision : ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes the logit of the second one, else one logit per class.
        """
        self._check()
        X = check_array(
            X,
            dtype=[np.float32, np.float64],
            allow_nd=True,
            estimator=self,
            input_name="X",
        )
        self._warn_of_channels(X.shape[1:])
        reader, before = self._reader(), self._channels_to_front
        parameter = next(self.module.parameters(), torch.zeros(0))
        shapes = explained_shapes(X.shape[1:])
        with evaluation_mode(self.module), torch.no_grad(), shapes:
            parts = [
                reader.logits(
                    self.module(before(part.to(parameter.device, parameter.dtype)))
                )
                for part in torch.as_tensor(writable(X)).split(int(self.batch_size))
            ]
        logits = torch.cat(parts).cpu()
        if logits.dtype != torch.float64:
            logits = logits.float()
        logits, n_outputs = logits.numpy(), logits.shape[1]
        if n_outputs != len(self.classes_):
            raise ValueError(
                f"classes has {len(self.classes_)} labels, but the module has outputs "
                f"for {n_outputs}."
            )
        if n_outputs == 2:
            return logits[:, 1] - logits[:, 0]
        return logits

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Compute probabilities: the softmax (or sigmoid) of the logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Rows in the shape that the module takes.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities.
        """
        logits = torch.as_tensor(self.decision_function(X))
        if logits.ndim == 1:
            return torch.stack([-logits, logits], dim=1).sigmoid().numpy()
        return logits.softmax(dim=1).numpy()

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Rows in the shape that the module takes.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels.
        """
        logits = self.decision_function(X)
        index = (logits > 0).astype(int) if logits.ndim == 1 else logits.argmax(axis=1)
        return self.classes_[index]

    def _reader(self):
        """Return what reads the outputs; what it found out about them stays."""
        reader = self.__dict__.get("_output_reader")
        asked = (self.module, self.outputs)
        if reader is None or (reader.module, reader.asked) != asked:
            reader = OutputReader(self.module, self.outputs)
            self._output_reader = reader
        return reader

    def _channels_to_front(self, x):
        return x.movedim(-1, 1) if self.channels == "last" and x.ndim == 4 else x

    def _warn_of_channels(self, row_shape):
        if self.channels == "first" and looks_channels_last(row_shape):
            first = next(
                (m for m in self.module.modules() if isinstance(m, torch.nn.Conv2d)), None
            )
            if first is None or first.in_channels != row_shape[0]:
                warnings.warn(
                    f"Images of shape {tuple(row_shape)} seem to have their channels "
                    "last. Set channels='last', or move them to the front: "
                    "X.transpose(0, 3, 1, 2), which attacks on images need.",
                    stacklevel=3,
                )

    def _check(self):
        parameters = self.get_params(deep=False)
        check_parameters(parameters, self._parameter_constraints, type(self).__name__)
        if not isinstance(self.module, torch.nn.Module):
            raise TypeError(
                "module must be a trained torch.nn.Module instance; got "
                f"{self.module!r}. An untrained one belongs into a skorch net."
            )
        parameter = next(self.module.parameters(), None)
        if self.device is not None and parameter is not None:
            try:
                wanted, found = torch.device(self.device), parameter.device
            except RuntimeError as error:
                raise ValueError(f"device={self.device!r}: {error}") from None
            if wanted.type != found.type or wanted.index not in (None, found.index):
                raise ValueError(
                    f"device is {str(wanted)!r}, but the module is on {str(found)!r}; "
                    "move it there first, or leave device=None."
                )

    def __sklearn_clone__(self):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.target_tags.required = False
        return tags


@differentiable.register(PretrainedModule)
def pretrained_module(estimator):
    """View a copy of the module."""
    estimator._check()
    return module_view(
        estimator.module,
        estimator.classes_,
        estimator._reader().logits,
        before=estimator._channels_to_front,
    )
