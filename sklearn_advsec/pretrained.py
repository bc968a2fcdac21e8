"""Trained torch modules as classifiers: the torch counterpart of `FrozenEstimator`."""

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_array

from . import differentiable
from .differentiable._neural import module_view, output_width

__all__ = ["PretrainedModule"]


class PretrainedModule(ClassifierMixin, BaseEstimator):
    """A trained `torch.nn.Module` as a classifier that needs no fit and that clones keep.

    The module's outputs are taken as logits: one column per class, or a single one for
    two classes. It is never changed: neither its parameters nor its training mode, and
    it is always evaluated in evaluation mode.

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

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.

    Raises
    ------
    TypeError
        If `module` is no `torch.nn.Module` instance.
    ValueError
        If `device` is not the module's, or `classes` does not go with the number of
        outputs.

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

    def __init__(self, module, classes=None, device=None, batch_size=1024):
        self.module = module
        self.classes = classes
        self.device = device
        self.batch_size = batch_size

    @property
    def classes_(self):
        """The labels of the outputs."""
        if self.classes is not None:
            return np.asarray(self.classes)
        return np.arange(max(2, output_width(self.module)))

    def fit(self, X=None, y=None):
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

    def decision_function(self, X):
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
        parameter = next(self.module.parameters(), torch.zeros(0))
        modes = {layer: layer.training for layer in self.module.modules()}
        try:
            self.module.eval()
            with torch.no_grad():
                parts = [
                    self.module(part.to(parameter.device, parameter.dtype)).cpu()
                    for part in torch.as_tensor(X).split(self.batch_size)
                ]
        finally:
            for layer, mode in modes.items():
                layer.training = mode
        logits = torch.cat(parts).numpy()
        if logits.ndim == 2 and logits.shape[1] == 1:
            logits = logits[:, 0]
        n_outputs = 2 if logits.ndim == 1 else logits.shape[1]
        if n_outputs != len(self.classes_):
            raise ValueError(
                f"classes has {len(self.classes_)} labels, but the module has outputs "
                f"for {n_outputs}."
            )
        if logits.ndim == 2 and n_outputs == 2:
            return logits[:, 1] - logits[:, 0]
        return logits

    def predict_proba(self, X):
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

    def predict(self, X):
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

    def _check(self):
        if not isinstance(self.module, torch.nn.Module):
            raise TypeError(
                "module must be a trained torch.nn.Module instance; got "
                f"{self.module!r}. An untrained one belongs into a skorch net."
            )
        parameter = next(self.module.parameters(), None)
        if self.device is not None and parameter is not None:
            wanted, found = torch.device(self.device), parameter.device
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
    return module_view(estimator.module, estimator.classes_)
