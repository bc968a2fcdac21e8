"""An independent checker of what the exact attack on tree ensembles has proved.

It solves nothing, and knows nothing of the attack: it asks the model, and lets intervals
go down the trees.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._estimators import name_of, unwrap
from ..threat import FeatureConstraints
from ._certificate_file import (
    TOLERANCE,
    check_keys,
    digest,
    need,
    number,
    parse,
    refusing,
)
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
    ValueError: certificate: digest: the content is not that of the digest
    """
    if isinstance(model, type) or not hasattr(model, "predict"):
        raise TypeError(f"model must be a fitted model; got {model!r}.")
    with refusing():
        document = parse(json_text)
    ensemble = tree_ensemble(model)
    with refusing():
        return _check(document, model, ensemble)


def _check(document, model, ensemble):
    form, names, n_columns = ensemble.form(), ensemble.column_names, ensemble.n_columns
    expected = {
        "model": {"name": name_of(unwrap(model)), "hash": digest(form), "trees": form},
        "columns": None if names is None else list(names),
    }
    for key, value in expected.items():
        need(document[key] == value, f"{key}: it is not that of the model")
    whole = document["whole"]
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
        _check_point(row, document, constraints, names)
    _check_answers(rows, document["goal"], model, ensemble)
    proved = [row for row in rows if row["bound"] > 0]
    if proved:
        trees = IntervalTrees(ensemble, document["norm"], whole, nominal, scale)
        _check_covers(proved, document["goal"], trees, constraints)
    claimed = "row", "status", "distance", "bound", "lower", "upper"
    return [{key: row[key] for key in claimed} for row in rows]


def _check_point(row, document, constraints, names):
    where, x, point, bound = (row[key] for key in ("where", "x", "point", "bound"))
    distance, status = row["distance"], "infeasible" if bound == np.inf else "open"
    if point is not None:
        moves = np.where(np.isnan(x) & np.isnan(point), 0.0, point - x)
        if constraints is not None:
            before, after = (as_rows(own[None], names) for own in (x, point))
            broken = constraints.violations(before, after)
            need(not broken, f"{where}: point: it breaks the constraints: {broken[:1]}")
            before, after = constraints.encode(before), constraints.encode(after)
            moves = constraints.region.moved(before, after)[0].numpy()
        inside = (row["lower"] <= point) & (point <= row["upper"]) | np.isnan(point)
        need(inside.all(), f"{where}: point: it is out of its range")
        whole = np.array(document["whole"]) & ~np.isnan(point)
        fine = (point[whole] == np.rint(point[whole])).all()
        need(fine, f"{where}: point: it holds other than whole numbers")
        own = np.linalg.norm(moves, {"inf": np.inf, "1": 1, "0": 0}[document["norm"]])
        need(abs(own - distance) <= 1e-9 * own, f"{where}: distance: it is {own}")
        status = "optimal" if bound >= distance * (1 - TOLERANCE) else "bounded"
        need(bound <= distance, f"{where}: bound: it is above the distance")
    need((distance < np.inf) == (point is not None), f"{where}: distance: of what point?")
    need(row["status"] == status, f"{where}: status: it is {status!r}")


def _check_answers(rows, goal, model, ensemble):
    """Ask the model itself about all rows and points."""
    classes, regression = ensemble.classes.tolist(), ensemble.link == "regression"
    points = [row["x"] if row["point"] is None else row["point"] for row in rows]
    asked = np.array([row["x"] for row in rows] + points).reshape(2 * len(rows), -1)
    answers = (
        np.asarray(model.predict(as_rows(asked, ensemble.column_names))) if rows else []
    )
    for i, row in enumerate(rows):
        own, there = (
            np.asarray(answers).ravel().tolist()[at] for at in (i, i + len(rows))
        )
        where, label, reference = row["where"], row["label"], row["reference"]
        if regression:
            need(
                label is None and np.isfinite(reference), f"{where}: reference: no number"
            )
            own, there = (
                abs(answer - reference) > ensemble.delta for answer in (own, there)
            )
            row["label"] = UNCHANGED
        else:
            need(reference == np.inf, f"{where}: reference: the model is no regressor")
            known = [type(name) is type(label) and name == label for name in classes]
            need(any(known), f"{where}: label: it is no class of the model")
            own, there = (
                (answer == label) == (goal == "targeted") for answer in (own, there)
            )
            row["label"] = known.index(True)
        need(
            there or row["point"] is None,
            f"{where}: point: the model's answer is no success",
        )
        need(not own or row["bound"] == 0, f"{where}: bound: the row itself is a success")


def _check_covers(rows, goal, trees, constraints):
    """Check that boxes cover all that is nearer than the bounds, and hold no success."""
    ensemble, waiting = trees.ensemble, {}
    n_at_once = max(1, _AT_ONCE // ensemble.n_trees)
    for row in rows:
        where, label, x, radius = (row[k] for k in ("where", "label", "x", "bound"))
        if constraints is not None:
            named = (constraints.region.last_code < np.inf) & ~constraints.region.nominal
            free = named.numpy() & (row["lower"] < row["upper"])
            need(not free.any(), f"{where}: covers: of columns with an order of names")
        others = [k for k in range(len(ensemble.classes)) if k != label]
        flips = (
            [(label, others)] if goal == "targeted" else [(k, [label]) for k in others]
        )
        covers = row["covers"]
        fine = isinstance(covers, list) and len(covers) == len(flips)
        need(fine, f"{where}: covers: it must be {len(flips)} covers")
        ends = trees.ball(x, row["lower"], row["upper"], radius)
        for i, (cover, (target, rivals)) in enumerate(zip(covers, flips, strict=True)):
            here = f"{where}: covers[{i}]"
            boxes = waiting.setdefault((target, *rivals, row["reference"]), [])
            for low, high in cut(cover, *ends, here):
                boxes.append((x, low, high, radius, here))
                if len(boxes) >= n_at_once:
                    _check_boxes(boxes, trees, target, rivals, row["reference"])
                    boxes.clear()
    for (target, *rivals, reference), boxes in waiting.items():
        if boxes:
            _check_boxes(boxes, trees, target, rivals, reference)


def _check_boxes(boxes, trees, target, rivals, reference):
    """Check boxes of the same question, of any rows."""
    ensemble = trees.ensemble
    if ensemble.link == "regression":
        ensemble = ensemble.around(reference)
    questions = trees.questions(ensemble, target, rivals)
    *parts, where = zip(*boxes, strict=True)
    closed = trees.closed(*map(np.array, parts), questions)
    need(closed.all(), f"{where[closed.argmin()]}: a box may hold a success")


def cut(cover, low, high, where):
    """Yield the boxes of a cover, given by its cuts in preorder."""
    check_keys(cover, "column value", where)
    columns, values, open_cuts = cover["column"], cover["value"], []
    fine = isinstance(columns, list) and isinstance(values, list)
    need(fine, f"{where}: it must be of lists")
    values = iter(values)
    low, high = low.copy(), high.copy()
    for at, j in enumerate(columns):
        need(type(j) is int and -1 <= j < len(low), f"{where}: column: {j!r} is none")
        if j >= 0:
            value = number(next(values, None), f"{where}: value")
            open_cuts.append((j, value, low[j], high[j]))
            high[j] = np.minimum(high[j], value)
            continue
        yield low.copy(), high.copy()
        while open_cuts and open_cuts[-1][1] is None:  # both sides are through
            j, _, low[j], high[j] = open_cuts.pop()
        if open_cuts:
            j, value, first, last = open_cuts[-1]
            open_cuts[-1] = j, None, first, last
            low[j], high[j] = np.maximum(first, np.nextafter(value, np.inf)), last
        elif at < len(columns) - 1:
            break
    else:
        at = None if open_cuts else len(columns)
    whole = at == len(columns) and next(values, None) is None
    need(whole and len(columns), f"{where}: the boxes do not make up a whole")
