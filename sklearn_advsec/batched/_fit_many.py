"""Train many models of one recipe, each on rows of its own: small ones as one model.

Shadow models, reference models, partitions and ensembles all need the same thing: tens or
hundreds of models that differ in their rows and their seed only. :func:`fit_many` trains
multilayer perceptrons, ridge models and (on a GPU) logistic models as one batched model,
and hands all others to joblib.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import delayed, effective_n_jobs, parallel_config
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import (
    ClassifierMixin,
    MetaEstimatorMixin,
    clone,
    is_classifier,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_memory

from .._estimators import targets_as_nets_take_them
from .._parallel import handed_out, received, run_tasks
from .._rows import is_dataframe
from .._seeding import forked_rng, seeded
from .._sklearn import (
    BaseEstimator,
    HasMethods,
    _num_samples,
    _safe_indexing,
    refuse_masked,
    validate_params,
)
from ._linear import (
    logistic_is_batchable,
    ridge_is_batchable,
    train_logistic,
    train_ridge,
)
from ._perceptrons import perceptron_is_batchable, train_perceptrons

if TYPE_CHECKING:
    import torch
    from joblib import Memory

# Models per batch: large enough that the overhead of small calls is gone, small enough
# that an interruption loses little and that several workers get something to do. It does
# not depend on the number of workers, since the last bits of sums depend on it.
_CHUNK = 16
_CHUNK_GPU = 256


def batchable(estimator: Any, device: str | torch.device | None = None) -> bool:
    """Tell whether :func:`fit_many` trains an estimator as part of one batched model.

    Parameters
    ----------
    estimator : estimator
        The recipe. Of a pipeline, the last step counts: the steps before it are fitted
        one by one, which is cheap.
    device : str or torch.device, default=None
        Where it would be trained; None is the processor.

    Returns
    -------
    batchable : bool
        True for `MLPClassifier` (Adam, and SGD with a constant learning rate) and
        `RidgeClassifier` without class weights; on a GPU also for `LogisticRegression`
        with an L2 penalty. On a processor, that one is faster one by one.

    See Also
    --------
    fit_many : Trains what this allows as one.

    Examples
    --------
    >>> from sklearn.neural_network import MLPClassifier
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.batched import batchable
    >>> batchable(MLPClassifier()), batchable(DecisionTreeClassifier())
    (True, False)
    """
    return _trainer(_split(estimator)[1], device) is not None


@validate_params(
    {
        "estimator": [HasMethods(["fit", "get_params"])],
        "X": ["array-like", "sparse matrix"],
        "y": ["array-like"],
        "subsets": [list, tuple, np.ndarray],
        "random_states": ["array-like"],
        "n_jobs": [Integral, None],
        "memory": [str, HasMethods("cache"), None],
        "verbose": ["verbose"],
        "callback": [callable, None],
        "result": [callable, None],
    }
)
def fit_many(
    estimator: Any,
    X: ArrayLike,
    y: ArrayLike,
    subsets: Sequence[ArrayLike] | np.ndarray,
    random_states: Sequence[int],
    *,
    n_jobs: int | None = None,
    memory: str | Memory | None = None,
    device: str | torch.device | None = None,
    verbose: int = 0,
    callback: Callable[..., Any] | None = None,
    result: Callable[[Any], Any] | None = None,
) -> list[Any]:
    """Fit clones of an estimator, each on its own rows and with its own seed.

    The result is that of ``clone(estimator).set_params(random_state=seed).fit(X[rows],
    y[rows])`` for each of the models: the batched ones draw the same random numbers and
    take the same steps in the precision of `X`. In float64, probabilities agree to 1e-4.
    In float32, rounding leads the same training apart after hundreds of steps, as it does
    on two processors; and logistic models on a GPU agree as far as their `tol` determines
    the optimum. (Batched models know all classes in `y`, also where their own rows hold
    none of one.)

    Parameters
    ----------
    estimator : estimator
        The recipe; it stays unfitted. Every parameter named `random_state`, of nested
        estimators too, is set.
    X : {array-like, DataFrame} of shape (n_samples, n_features)
        All rows.
    y : array-like of shape (n_samples,)
        Their labels.
    subsets : sequence of array-like of int, or bool array of shape (n_models, n_samples)
        The rows of each model, as positions or as masks. Only models with the same number
        of rows train as one.
    random_states : sequence of int of length n_models
        The seed of each model.
    n_jobs : int, default=None
        Number of joblib jobs; a job is one model, or one batch of models. The result does
        not depend on it. A job keeps to one thread: torch's, and joblib's `n_jobs` of the
        estimator itself, are 1 in it.
    memory : str or joblib.Memory, default=None
        Where finished models (batches of them) are kept, so that a second call with the
        same arguments takes up where an interrupted one was.
    device : str or torch.device, default=None
        Where batched models are trained; None is the processor.
    verbose : int, default=0
        Whether to print how many models are done.
    callback : callable, default=None
        ``callback(i, model)`` is called for each model as soon as it is here: in this
        process, also with `n_jobs`.
    result : callable, default=None
        ``result(model)`` stands in place of each model in what is returned, and is
        computed where the model was trained: scores of a forest are much less to send
        than its trees. It goes to each worker once. `memory` keeps models all the same.

    Returns
    -------
    models : list of estimator
        The fitted models, or their results, in the order of `subsets`.

    Raises
    ------
    ValueError
        If there are not as many seeds as subsets, or a subset is empty.
    KeyboardInterrupt
        Where it is interrupted; ``exception.result`` is the list of models, with None in
        place of those that were not finished.

    See Also
    --------
    batchable : Whether models can be trained as one.
    sklearn_advsec.privacy.ShadowAttack : Trains shadow models by it.

    Notes
    -----
    Workers of dask run boosted trees at a quarter of their speed as they are shipped: the
    variable ``MALLOC_TRIM_THRESHOLD_`` that they are started with, whatever its value,
    keeps glibc from reusing large arrays. Drop it before the cluster is started::

        own = dask.config.get("distributed.nanny.pre-spawn-environ")
        own = {k: v for k, v in own.items() if k != "MALLOC_TRIM_THRESHOLD_"}
        dask.config.set({"distributed.nanny.pre-spawn-environ": own})

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neural_network import MLPClassifier
    >>> from sklearn_advsec.batched import fit_many
    >>> X, y = load_iris(return_X_y=True)
    >>> rng = np.random.RandomState(0)
    >>> rows = [rng.permutation(150)[:100] for _ in range(8)]
    >>> models = fit_many(MLPClassifier(max_iter=50), X, y, rows, range(8))
    >>> single = MLPClassifier(max_iter=50, random_state=3)
    >>> import warnings
    >>> with warnings.catch_warnings(action="ignore"):
    ...     single = single.fit(X[rows[3]], y[rows[3]])
    >>> bool(np.abs(models[3].predict_proba(X) - single.predict_proba(X)).max() < 1e-4)
    True
    """
    refuse_masked(X)
    y = column_or_1d(y)
    if _num_samples(X) != len(y):
        raise ValueError(f"y has {len(y)} labels for the {_num_samples(X)} rows of X.")
    if is_classifier(estimator):
        check_classification_targets(y)
    subsets = [_positions(subset, len(y)) for subset in subsets]
    seeds = _seeds(random_states)
    if len(seeds) != len(subsets):
        raise ValueError(
            f"random_states has {len(seeds)} seeds for {len(subsets)} subsets."
        )
    y = targets_as_nets_take_them(y, estimator)
    memory = check_memory(memory)
    steps, last = _split(estimator)
    if _trainer(last, device) is None or (issparse(X) and not steps):
        groups = [[i] for i in range(len(subsets))]
        train, fit, more = _fit_one, _fit_single, ()
    else:
        groups = _groups(subsets, _CHUNK_GPU if _is_gpu(device) else _CHUNK)
        train, fit, more = _fit_group, _fit_batch, (np.unique(y), device)
    # Large arguments are handed over as such: joblib then sends them to a worker once.
    shared = (memory.cache(fit), estimator, X, y, *more)
    tasks = (
        (train, *shared, [subsets[i] for i in group], [seeds[i] for i in group])
        for group in groups
    )
    models, done = [None] * len(subsets), 0
    try:
        for group, fitted in zip(groups, _results(tasks, n_jobs, result), strict=True):
            for i, model in zip(group, fitted, strict=True):
                models[i] = model
                if callback is not None:
                    callback(i, model)
            done += len(group)
            if verbose:
                print(f"{done} of {len(models)} models are trained", file=sys.stderr)
    except KeyboardInterrupt as stop:
        stop.result = models
        raise
    return models


def _seeds(random_states):
    seeds = np.asarray(random_states)
    if seeds.dtype.kind not in "iu" or (seeds < 0).any() or (seeds >= 2**32).any():
        raise ValueError(
            "random_states must be whole numbers from 0 to 2**32 - 1, one for each model."
        )
    return seeds.tolist()


def _positions(subset, n_rows):
    subset = np.asarray(subset)
    if subset.ndim != 1 or len(subset) and subset.dtype.kind not in "biu":
        raise ValueError(
            "subsets must hold, for each model, positions of rows or a mask of them; one "
            f"is {subset!r}."
        )
    if subset.dtype == bool:
        if len(subset) != n_rows:
            raise ValueError(f"subsets: a mask has {len(subset)} entries, not {n_rows}.")
        subset = np.flatnonzero(subset)
    if not len(subset):
        raise ValueError("subsets: every model needs at least one row; one has none.")
    return subset.astype(np.intp, copy=False)


def _groups(subsets, chunk):
    """Put models with the same number of rows together, at most `chunk` at a time."""
    by_size = {}
    for i, subset in enumerate(subsets):
        by_size.setdefault(len(subset), []).append(i)
    return [
        group[start : start + chunk]
        for group in by_size.values()
        for start in range(0, len(group), chunk)
    ]


def _results(tasks, n_jobs, result):
    """Run joblib tasks, here (so that Ctrl-C finds what is finished) or elsewhere."""
    if effective_n_jobs(n_jobs) == 1:
        for function, *args in tasks:
            models = function(*args)
            yield models if result is None else [result(model) for model in models]
        return
    with handed_out(result) as sent:
        tasks = (delayed(_in_worker)(*sent, *task) for task in tasks)
        yield from run_tasks(tasks, n_jobs)


def _in_worker(key, sent, function, *args):
    # Dask's backend nests and takes no notice of n_jobs: it would send each tree of a
    # forest elsewhere again, one task each, and wait for them in a worker that is busy.
    with _one_torch_thread(), parallel_config(backend="sequential"):
        models, result = function(*args), received(key, sent)
        return models if result is None else [result(model) for model in models]


def _fit_one(fit, estimator, X, y, subsets, seeds):
    (subset,), (seed,) = subsets, seeds
    return [fit(estimator, X, y, subset, seed)]


def _fit_group(fit, estimator, X, y, classes, device, subsets, seeds):
    return fit(estimator, X, y, classes, np.stack(subsets), seeds, device)


def _fit_single(estimator, X, y, subset, seed):
    """Fit one model; what `memory` keeps."""
    model = seeded(estimator, seed)
    X, y = _safe_indexing(X, subset), y[subset]
    with warnings.catch_warnings(), forked_rng(estimator, seed):
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            return model.fit(X, y)
        except ValueError as error:
            # A part of the rows may lack a class; some estimators want 0 to K - 1.
            if not is_classifier(model):
                raise
            try:
                return EncodedLabels(seeded(estimator, seed)).fit(X, y)
            except ValueError:
                raise error from None


class EncodedLabels(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """A classifier that is trained on the positions of its labels.

    Parameters
    ----------
    estimator : classifier
        Takes labels from 0 to K - 1.

    Attributes
    ----------
    estimator_ : classifier
        The trained classifier.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    """

    def __init__(self, estimator):
        self.estimator = estimator

    def fit(self, X, y):
        """Train on positions of the labels.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            Any labels.
        """
        self.classes_, codes = np.unique(y, return_inverse=True)
        model = clone(self.estimator)
        if len(self.classes_) <= 2:
            # A trained XGBClassifier names the objective of as many classes as it saw.
            found = model.get_params().items()
            binary = {
                name: "binary:logistic" for name, v in found if v == "multi:softprob"
            }
            model.set_params(**binary)
        self.estimator_ = model.fit(X, codes)
        return self

    def predict(self, X):
        """Predict labels.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.
        """
        return self.classes_[np.asarray(self.estimator_.predict(X)).astype(int)]

    @available_if(lambda self: hasattr(self.estimator, "predict_proba"))
    def predict_proba(self, X):
        """Predict probabilities, in the order of `classes_`.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.
        """
        return self.estimator_.predict_proba(X)


def _fit_batch(estimator, X, y, classes, subsets, seeds, device):
    """Fit several models as one; what `memory` keeps."""
    steps, last = _split(estimator)
    models = [seeded(estimator, seed) for seed in seeds]
    heads = [_split(model)[1] for model in models]
    codes = np.searchsorted(classes, y)
    train = _trainer(last, device)
    if not steps:
        data = X if is_dataframe(X) else np.asarray(X)
        train(heads, data, codes, classes, subsets, device)
        return models
    # The steps before the last are fitted one by one, on the rows of each model.
    parts = [
        model[:-1].fit_transform(_safe_indexing(X, subset), y[subset])
        for model, subset in zip(models, subsets, strict=True)
    ]
    columns = {tuple(getattr(part, "columns", part.shape[1:])) for part in parts}
    if len(columns) > 1:  # an encoder met other categories: nothing to batch
        for head, part, subset in zip(heads, parts, subsets, strict=True):
            head.fit(part, y[subset])
        return models
    rows = np.arange(subsets.size).reshape(subsets.shape)
    train(heads, _stack(parts), codes[subsets].ravel(), classes, rows, device)
    return models


def _stack(parts):
    """Put the rows of all models below each other; names of columns stay."""
    if is_dataframe(parts[0]):
        import pandas as pd

        return pd.concat(parts, ignore_index=True)
    return np.concatenate(
        [part.toarray() if issparse(part) else np.asarray(part) for part in parts]
    )


def _split(estimator):
    """Return the steps before the last, and the last, of a pipeline."""
    if isinstance(estimator, Pipeline) and len(estimator.steps):
        return estimator.steps[:-1], estimator.steps[-1][1]
    return [], estimator


def _trainer(estimator, device):
    """Return the function that trains such estimators as one, or None."""
    if perceptron_is_batchable(estimator):
        return train_perceptrons
    if ridge_is_batchable(estimator):
        return train_ridge
    if _is_gpu(device) and logistic_is_batchable(estimator):
        return train_logistic
    return None


def _is_gpu(device):
    return device is not None and str(device).startswith("cuda")


@contextmanager
def _one_torch_thread():
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
