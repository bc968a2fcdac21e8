"""An independent checker of what the exact attack on tree ensembles has proved.

It solves nothing, and knows nothing of the attack: it asks the model, and lets intervals
go down the trees.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np

from .._estimators import name_of, unwrap
from ..threat import FeatureConstraints
from ._certificate_file import NORMS, cut, digest, need, parse, refusing
from ._ensemble import UNCHANGED
from ._intervals import IntervalTrees, as_rows
from ._reading import tree_ensemble

_AT_ONCE = 2**17  # pairs of a box and a tree


def check_certificate(json_text: str | bytes, model: Any) -> list[dict[str, Any]]:
    """Check what a file of :meth:`TreeExactResult.to_json` claims of a model.

    Nothing in the file is trusted: the point is valid under the constraints, the *model
    itself* gives it another answer, it is as far away as it says, the trees of the file
    are those of the model, and the boxes of the certificate cover all rows that are
    nearer than the bound, none of which may have another answer.

    Parameters
    ----------
    json_text : str or bytes
        The text of the file.
    model : classifier or RegressionVictim
        The fitted model that it is about.

    Returns
    -------
    claims : list of dict
        Of each row, what was checked: its position `row`; its `status`, which is
        "optimal", "bounded" (the bound is below the distance), "infeasible" (no row in
        its range has another answer), or "open" (nothing was found, up to the bound); its
        `distance` (infinite without a point) and its `bound`: no row that is nearer, is
        between `lower` and `upper` in each column, and keeps the file's constraints has
        another answer (of a targeted one, the wanted one).

    Raises
    ------
    ValueError
        If anything is damaged, or not proved; the message names the key.
    TypeError
        If the model is no tree ensemble that can be read.

    See Also
    --------
    sklearn_advsec.evasion.TreeExactResult : Writes such files.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.evasion import TreeExactAttack
    >>> from sklearn_advsec.trees import check_certificate
    >>> X, y = load_iris(return_X_y=True)
    >>> tree = DecisionTreeClassifier(max_depth=2, random_state=0)
    >>> attack = TreeExactAttack(tree, norm=1).fit(X, y)
    >>> text = attack.run(X[:2]).to_json()
    >>> [claim["status"] for claim in check_certificate(text, attack.estimator_)]
    ['optimal', 'optimal']
    >>> check_certificate(text.replace('"status":"optimal"', '"status":"open"'), tree)
    Traceback (most recent call last):
    ...
    ValueError: certificate: rows[0]: status: it is 'optimal'
    """
    if isinstance(model, type) or not hasattr(model, "predict"):
        raise TypeError(f"model must be a fitted model; got {model!r}.")
    with refusing():
        document = parse(json_text)
    ensemble = tree_ensemble(model)
    with refusing():
        return _check(document, model, ensemble)


def _check(document, model, ensemble):
    form, names = ensemble.form(), ensemble.column_names
    expected = {
        "model": {"name": name_of(unwrap(model)), "hash": digest(form), "trees": form},
        "columns": None if names is None else list(names),
    }
    for key, value in expected.items():
        need(document[key] == value, f"{key}: it is not that of the model")
    n_columns, norm, whole = ensemble.n_columns, document["norm"], document["whole"]
    need(len(whole) == n_columns, f"whole: the model has {n_columns} columns")
    constraints, scale, nominal = None, np.ones(n_columns), np.zeros(n_columns, bool)
    if document["constraints"] is not None:
        constraints = FeatureConstraints.from_toml(document["constraints"])
        constraints = constraints.in_order(document["columns"])
        region = constraints.region
        scale, nominal = region.scale.numpy(), region.nominal.numpy()
        need(not (whole & ~region.whole.numpy()).any(), "whole: not by constraints")
    rows = document["rows"]
    for row in rows:
        if row["point"] is not None:
            _check_distance(row, NORMS[norm], constraints, names)
    _check_answers(rows, document["goal"], model, ensemble)
    proved = [row for row in rows if row["bound"] > 0]
    if proved:
        trees = IntervalTrees(ensemble, norm, whole, nominal, scale)
        _check_covers(proved, document["goal"], trees, constraints)
    claimed = "row", "status", "distance", "bound", "lower", "upper"
    return [{key: row[key] for key in claimed} for row in rows]


def _check_distance(row, norm, constraints, names):
    where, x, point, distance = (row[k] for k in ("where", "x", "point", "distance"))
    moves = np.where(np.isnan(x) & np.isnan(point), 0.0, point - x)
    if constraints is not None:
        before, after = (as_rows(own[None], names) for own in (x, point))
        broken = constraints.violations(before, after)
        need(not broken, f"{where}: point: it breaks the constraints: {broken[:1]}")
        before, after = constraints.encode(before), constraints.encode(after)
        moves = constraints.region.moved(before, after)[0].numpy()
    own = np.linalg.norm(moves, norm)
    need(abs(own - distance) <= 1e-9 * own, f"{where}: distance: it is {own}")


def _check_answers(rows, goal, model, ensemble):
    """Ask the model itself about all rows and points."""
    asked = [(row, key) for key in ("x", "point") for row in rows if row[key] is not None]
    if not asked:
        return
    values = as_rows(np.array([row[key] for row, key in asked]), ensemble.column_names)
    answers = np.asarray(model.predict(values)).ravel().tolist()
    for (row, key), answer in zip(asked, answers, strict=True):
        where, label, reference = (row[k] for k in ("where", "label", "reference"))
        if ensemble.link == "regression":
            fine = label is None and reference < np.inf
            need(fine, f"{where}: reference: the model is a regressor")
            success = abs(answer - reference) > ensemble.delta
        else:
            known = [(type(k), k) for k in ensemble.classes.tolist()]
            fine = (type(label), label) in known and reference == np.inf
            need(fine, f"{where}: label: it is no class of the model")
            success = (answer == label) == (goal == "targeted")
        if key == "point":
            need(success, f"{where}: point: the model's answer is no success")
        elif success:
            need(row["bound"] == 0, f"{where}: bound: the row itself is a success")


def _check_covers(rows, goal, trees, constraints):
    """Check that boxes cover all that is nearer than the bounds, and hold no success."""
    ensemble, asked = trees.ensemble, {}
    classes = ensemble.classes.tolist()
    for row in rows:
        where, reference = row["where"], row["reference"]
        if constraints is not None:
            named = (constraints.region.last_code < np.inf) & ~constraints.region.nominal
            free = named.numpy() & (row["lower"] < row["upper"])
            need(not free.any(), f"{where}: covers: of columns with an order of names")
        label = UNCHANGED if row["label"] is None else classes.index(row["label"])
        others = tuple(k for k in range(len(classes)) if k != label)
        flips = [(label, others)]
        if goal == "misclassification":
            flips = [(k, (label,)) for k in others]
        covers = row["covers"]
        fine = isinstance(covers, list) and len(covers) == len(flips)
        need(fine, f"{where}: covers: it must be {len(flips)} covers")
        for i, flip in enumerate(flips):
            part = row, covers[i], f"{where}: covers[{i}]"
            asked.setdefault((*flip, reference), []).append(part)
    for (target, rivals, reference), parts in asked.items():
        around = ensemble if reference == np.inf else ensemble.around(reference)
        questions = trees.questions(around, target, rivals)
        boxes = (box for part in parts for box in _boxes(trees, *part))
        while some := list(islice(boxes, 1 + _AT_ONCE // ensemble.n_trees)):
            *ends, where = zip(*some, strict=True)
            closed = trees.closed(*map(np.array, ends), questions)
            need(closed.all(), f"{where[closed.argmin()]}: a box may hold a success")


def _boxes(trees, row, cover, where):
    """Yield the boxes that are to cover the ball around a row."""
    x, radius = row["x"], row["bound"]
    ends = trees.ball(x, row["lower"], row["upper"], radius)
    for low, high in cut(cover, *ends, where):
        yield x, low, high, radius, where
