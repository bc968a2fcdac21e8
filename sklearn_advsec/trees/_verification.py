"""Comparison of what was read of a model with the model's own answers.

A claim about trees rests on their array form. So the form is asked the same questions as
the model, where it is most likely to be wrong: on both sides of its thresholds, at
categories, and at missing values. A difference is an error.
"""

import numpy as np

from .._estimators import name_of, unwrap
from .._rows import is_dataframe
from ._edges import LARGEST
from ._steps import CategoryCodes, features_of

# Rows that the form is tried on as it is read, and in the grid.
_ROWS, _GRID_ROWS = 192, 32
# By how much probabilities may differ, in log odds; single precision ends there.
_TOLERANCE = 1e-3


def check_form(ensemble, estimator):
    """Raise where a form answers otherwise than its model, without any data at hand.

    Parameters
    ----------
    ensemble : TreeEnsemble
        The form.
    estimator : classifier
        The model that was read, without the steps in front of it.

    Raises
    ------
    TypeError
        If they differ; it says where.
    """
    if not (hasattr(estimator, "predict") and hasattr(estimator, "n_features_in_")):
        return  # data will tell
    if any(isinstance(step, CategoryCodes) for step in ensemble.steps):
        return  # it takes no rows but of frames with these categories
    rng = np.random.default_rng(0)
    try:
        X = _rows_at_thresholds(ensemble, estimator, rng)
    except (ValueError, TypeError):
        return  # steps for other things than numbers: data will tell
    lost = np.where(rng.random(X.shape) < 0.3, np.nan, X)
    kinds = {"on rows at its thresholds": X, "on rows with missing values": lost}
    while kinds:
        rows = np.concatenate(list(kinds.values()))
        try:  # of all at once, as a forest's answer to one row takes as long
            answers = _answers(ensemble, estimator, rows)
        except (ValueError, TypeError):
            kinds.popitem()  # it takes no missing values, or nothing of these rows
            continue
        for i, (where, rows) in enumerate(kinds.items()):
            part = slice(i * _ROWS, (i + 1) * _ROWS)
            own = [None if answer is None else answer[part] for answer in answers]
            _compare(ensemble, estimator, rows, own, where)
        return


def check_reading(grid, estimator, X, x):
    """Raise where a form, or its grid, answers otherwise than the model near given rows.

    Parameters
    ----------
    grid : TreeGrid
        The form, and the columns that are cut.
    estimator : classifier
        The model, with all steps in front of its trees.
    X : {ndarray, DataFrame} of shape (n_samples, n_columns)
        Rows.
    x : ndarray of float64, shape (n_samples, n_columns)
        The same as numbers.

    Returns
    -------
    labels : ndarray of shape (n_samples,)
        What the model answers, as classes or numbers.

    Raises
    ------
    TypeError
        If they differ; it says where.
    """
    own = _answers(grid.ensemble, estimator, X)
    _compare(grid.ensemble, estimator, X, own, "on the rows at hand")
    rows, cells = grid.sample(X, x, _GRID_ROWS, np.random.default_rng(0))
    near = _answers(grid.ensemble, estimator, rows)
    where = "at thresholds beside the rows at hand"
    _compare(grid.ensemble, estimator, rows, near, where)
    _compare_leaves(grid, estimator, rows, cells)
    return own[0]


def _rows_at_thresholds(ensemble, estimator, rng):
    """Return rows of which each value is at a threshold, or a neighbour of one."""
    n_columns = ensemble.n_columns
    features = features_of(ensemble.steps, n_columns)
    of = np.where(ensemble.feature >= 0, features.column[ensemble.feature], -1)
    single = ensemble.compare == "float32"
    X = rng.normal(size=(_ROWS, n_columns))
    for j in range(n_columns):
        own = of == j
        at = np.unique(ensemble.threshold[own & (ensemble.category < 0)])
        for step in features.breaks:
            at = np.append(at, step.value[step.column[step.feature] == j])
        sets = ensemble.category[own & (ensemble.category >= 0)]
        if len(sets) and not ensemble.steps:
            at = np.append(at, np.arange(-1, ensemble.bitsets.shape[1] + 1))
        if not len(at):
            continue
        near = [at, np.nextafter(at, -np.inf), np.nextafter(at, np.inf)]
        if single:
            with np.errstate(over="ignore"):
                at = at.astype(np.float32)
                near += [np.nextafter(at, side * np.float32(np.inf)) for side in (-1, 1)]
        X[:, j] = rng.choice(np.concatenate(near).astype(np.float64), _ROWS)
    return np.clip(X, -LARGEST, LARGEST)


def ask(estimator, X):
    """Return what a model predicts of rows."""
    return np.asarray(estimator.predict(_as_fitted(X, estimator))).ravel()


def _as_fitted(X, estimator):
    """Return rows with the names that the estimator was fitted on, if there are any."""
    names = getattr(estimator, "feature_names_in_", None)
    if is_dataframe(X) or names is None or not hasattr(names, "__len__"):
        return X
    import pandas as pd

    return pd.DataFrame(X, columns=names)


def _answers(ensemble, estimator, X):
    """Return a model's labels and, where the form knows their link, probabilities."""
    labels = ask(estimator, X)
    if not (ensemble.probability and hasattr(estimator, "predict_proba")):
        return labels, None
    return labels, np.asarray(estimator.predict_proba(_as_fitted(X, estimator)))


def _compare(ensemble, estimator, X, answers, where):
    labels, proba = answers
    scores = ensemble.scores_of(X)
    if ensemble.link == "regression":
        rounding = 4 * ensemble.rounding
        off = np.abs(scores[:, -1] - ensemble.score_of(labels.astype(float)))
        wrong = ~(off <= rounding / ensemble.divisor)
        if wrong.any():
            raise TypeError(_text(estimator, wrong, where))
        return
    wrong = (ensemble.decide(scores) != labels) & ~ensemble.is_tie(scores)
    if not wrong.any() and proba is not None:
        wrong = _differ(ensemble.log_odds(scores), proba)
    if wrong.any():
        raise TypeError(_text(estimator, wrong, where))


def _differ(log_odds, proba):
    """Which rows have other probabilities than their log odds against the first say."""
    if proba.shape != log_odds.shape:
        return np.ones(len(log_odds), dtype=bool)
    expected = np.exp(log_odds - log_odds.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    return (np.abs(expected - proba) > _TOLERANCE).any(1)


def _compare_leaves(grid, estimator, rows, cells):
    known = ((cells >= 0) | ~grid.movable | grid.held).all(1)
    leaves = grid.ensemble.apply_to(rows)
    for leaf, own in zip(leaves[known], cells[known], strict=True):
        # Columns that are not searched leave several leaves of a tree in question.
        if not np.isin(leaf, grid.leaf_node[grid.holding(own)]).all():
            raise TypeError(
                f"The steps in front of {name_of(_last(estimator))} do not treat the "
                "columns as they were read: rows beside their thresholds end in other "
                "leaves. Nothing can be proved of this model; use an attack whose "
                "knowledge is 'score' or 'label'."
            )


def _text(estimator, wrong, where):
    model = _last(estimator)
    try:
        own, default = model.get_params(deep=False), type(model)().get_params(deep=False)
        changed = {k: v for k, v in own.items() if _changed(v, default.get(k))}
    except Exception:  # a model of someone else's: its parameters are no matter here
        changed = {}
    chosen = ", ".join(f"{k}={v!r}" for k, v in changed.items()) or "none that is known"
    return (
        f"{name_of(model)} was not read right: {where}, the trees answer otherwise than "
        f"the model on {wrong.sum()} of {len(wrong)} (the first is {wrong.argmax()}). "
        f"One of its parameters changes what the trees mean: {chosen}. Nothing can be "
        "proved of this model; use an attack whose knowledge is 'score' or 'label'."
    )


def _changed(value, default):
    same = value is default or (value != value and default != default)
    try:
        return not (same or bool(value == default))
    except (ValueError, TypeError):
        return True


def _last(estimator):
    estimator = unwrap(estimator)
    while hasattr(estimator, "steps"):
        estimator = unwrap(estimator.steps[-1][1])
    return estimator
