"""Two audits side by side, and bars that an audit has to meet."""

from __future__ import annotations

from html import escape
from os import PathLike
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# The figures that audits are compared by, and held against bars: the threat, whether
# larger is better, and what it is called.
_FIGURES = {
    "min_robust_accuracy": ("evasion", True, "accuracy under attack"),
    "min_certified_accuracy": ("evasion", True, "accuracy that is proved"),
    "max_tpr_at_fpr": ("privacy", False, "members found"),
    "max_fidelity": ("extraction", False, "fidelity of the best copy"),
    "max_poisoned_error": ("poisoning", False, "test error under poison"),
}


def figure(report, bar):
    """Return the figure that a bar is about: a dict, or None where it was not tested.

    Parameters
    ----------
    report : dict
        The report of an audit.
    bar : str
        A parameter of `SecurityAudit.assert_robust`.

    Returns
    -------
    figure : dict or None
        `value`, the interval `low` to `high`, `at`, what it is of, and `unit`.
    """
    threat, _, text = _FIGURES[bar]
    part = next((p for p in report["sections"] if p["threat"] == threat), None)
    brackets = part["brackets"] if part else []
    if not brackets:
        return None
    if threat == "evasion":
        eps = report["audit"]["eps"]
        own = min(brackets, key=lambda b: abs(b["at"] - eps))
        value = own["upper" if bar == "min_robust_accuracy" else "lower"]
        low, high = _interval(value, own["n"])
        text = f"{text} within eps={own['at']:.3g}"
    elif threat == "poisoning":
        own = max(brackets, key=lambda b: b["at"])
        value = own["lower"]
        low, high = _interval(value, own["n"])
        text = f"{text} ({own['at']:.0%} of the training rows)"
    else:
        own = brackets[0]
        value, low = own["lower"], own["low"]
        high = _interval(value, own["n"])[1]
        if threat == "privacy":
            text = f"{text} at {own['at']:g} false positives"
    return {"text": text, "value": value, "low": low, "high": high, "n": own["n"]}


def misses(report, bars):
    """Return a sentence for each bar that a report does not meet, or says nothing of."""
    missed = []
    for bar, wanted in bars.items():
        if wanted is None:
            continue
        found = figure(report, bar)
        if found is None:
            missed.append(f"{bar}={wanted:g}: not tested")
        elif bar.startswith("min") and found["value"] < wanted:
            missed.append(f"{bar}={wanted:g}: {found['text']} is {found['value']:.3f}")
        elif bar.startswith("max") and found["value"] > wanted:
            missed.append(f"{bar}={wanted:g}: {found['text']} is {found['value']:.3f}")
    return missed


class AuditComparison:
    """Two audits side by side: before and after a defense, or two models.

    Parameters
    ----------
    before, after : dict
        The reports of two audits; see `SecurityAudit.compare`.

    See Also
    --------
    SecurityAudit.compare : Makes one.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.audit import SecurityAudit
    >>> X, y = load_iris(return_X_y=True)
    >>> data = X[::2], y[::2], X[1::2], y[1::2]
    >>> audits = [
    ...     SecurityAudit(DecisionTreeClassifier(max_depth=d, random_state=0),
    ...                   ["extraction"]).fit(*data)
    ...     for d in (None, 1)
    ... ]
    >>> print(audits[0].compare(audits[1]))
    AuditComparison(DecisionTreeClassifier, DecisionTreeClassifier)
      score without any attack: 0.960 -> 0.667 (worse)
      fidelity of the best copy: 1.000 -> 1.000
    """

    def __init__(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        self.before = before
        self.after = after

    def rows(self) -> list[dict[str, Any]]:
        """Return a dict for each figure that one of the audits has.

        Returns
        -------
        rows : list of dict
            `figure`, `before`, `after`, their intervals, whether larger is `better`,
            and `verdict`: "better" or "worse" where the intervals do not overlap.
        """
        scores = [report["victim"]["score"] for report in (self.before, self.after)]
        sizes = [report["data"]["n_test"] for report in (self.before, self.after)]
        found = [
            {"text": "score without any attack", "value": score, "n": n}
            | dict(zip(("low", "high"), _interval(score, n), strict=True))
            for score, n in zip(scores, sizes, strict=True)
        ]
        pairs = [("", True, *found)]
        for bar, (threat, larger, _) in _FIGURES.items():
            pair = figure(self.before, bar), figure(self.after, bar)
            if any(pair):
                pairs.append((threat, larger, *pair))
        return [_row(*pair) for pair in pairs]

    def to_frame(self) -> pd.DataFrame:
        """Return :meth:`rows` as a table.

        Returns
        -------
        frame : DataFrame
            One row for each figure.
        """
        import pandas as pd

        return pd.DataFrame(self.rows())

    def to_html(self, path: str | PathLike[str] | None = None) -> str | None:
        """Write the comparison as a page: one file that needs no other.

        Parameters
        ----------
        path : str or path-like, default=None
            The file; None returns the text.

        Returns
        -------
        text : str or None
            The text, where there is no path.
        """
        from ._page import render_comparison, write

        return write(render_comparison(self), path)

    def __repr__(self):
        names = [report["victim"]["name"] for report in (self.before, self.after)]
        lines = [f"AuditComparison({names[0]}, {names[1]})"]
        for row in self.rows():
            cells = [
                "not tested" if row[name] is None else f"{row[name]:.3f}"
                for name in ("before", "after")
            ]
            verdict = f" ({row['verdict']})" if row["verdict"] else ""
            lines.append(f"  {row['figure']}: {cells[0]} -> {cells[1]}{verdict}")
        return "\n".join(lines)

    def _repr_html_(self):
        return f"<pre>{escape(repr(self))}</pre>"


def _row(threat, larger, before, after):
    """Return two figures side by side; of two things that differ, no verdict."""
    verdict, same = "", before and after and before["text"] == after["text"]
    if same and before["value"] is not None and after["value"] is not None:
        if before["low"] > after["high"] or before["high"] < after["low"]:
            verdict = (
                "better" if (after["value"] > before["value"]) == larger else "worse"
            )
    text = (before or after)["text"]
    if before and after and not same:
        text = f"{text} / {after['text']}"
    row = {"threat": threat, "figure": text}
    for name, found in (("before", before), ("after", after)):
        row[name] = found["value"] if found else None
    for name, found in (("before", before), ("after", after)):
        row[f"{name}_low"] = found["low"] if found else None
        row[f"{name}_high"] = found["high"] if found else None
    return row | {"larger_is_better": larger, "verdict": verdict}


def _interval(value, n):
    """Return the interval of a rate of rows."""
    from ..metrics import clopper_pearson

    if value is None or not n:
        return None, None
    return clopper_pearson(round(value * n), n)
