"""The file of a certificate: its keys, their types, and the hash of it all."""

import hashlib
import json
from contextlib import contextmanager

import numpy as np

FORMAT, TOLERANCE = "sklearn_advsec tree certificate 1", 1e-6
_KEYS = "format digest versions model columns whole norm goal tolerance constraints rows"
_ROW_KEYS = "row x label reference lower upper point distance bound status note covers"
_LARGEST = np.finfo(np.float64).max
NORMS = {"inf": np.inf, "1": 1, "0": 0}
VERSIONS = "python sklearn_advsec numpy scikit-learn"


def digest(document: dict) -> str:
    """Return the SHA-256 of a JSON object, whatever the order of its keys."""
    text = json.dumps(document, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def parse(text):
    """Return the document of a text, with the numbers of its rows as arrays.

    Raises
    ------
    ValueError
        If anything in it has another form than it should; the message names the key.
    """

    def pairs(items):
        table = {}
        for key, value in items:
            need(key not in table, f"the key {key!r:.40} is there twice")
            table[key] = value
        return table

    need(isinstance(text, (str, bytes)), "json_text must be the text of a JSON file")
    try:
        document = json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise ValueError(f"json_text is no JSON: {error}") from None
    check_keys(document, _KEYS, "json_text")
    check_keys(document["versions"], VERSIONS, "versions")
    texts = all(isinstance(v, str) for v in document["versions"].values())
    need(texts, "versions: it must hold texts")
    known = {
        "format": [FORMAT],
        "norm": list(NORMS),
        "goal": ["misclassification", "targeted"],
        "tolerance": [TOLERANCE],
    }
    for key, values in known.items():
        need(document[key] in values, f"{key}: it must be among {values}")
    whole, rows, constraints = (document[k] for k in ("whole", "rows", "constraints"))
    fine = isinstance(whole, list) and all(type(own) is bool for own in whole)
    need(fine, "whole: it must be a list of true and false")
    need(isinstance(constraints, (str, type(None))), "constraints: it must be a text")
    need(isinstance(rows, list), "rows: it must be a list")
    whole = np.array(whole, dtype=bool)
    rows = [_read(row, f"rows[{i}]", whole) for i, row in enumerate(rows)]
    content = {key: value for key, value in document.items() if key != "digest"}
    same = digest(content) == document["digest"]
    need(same, "digest: the content is not that of the digest")
    return document | {"rows": rows, "whole": whole}


def _read(row, where, whole):
    """Return a row of the file, its numbers as arrays; null is what has no number."""
    check_keys(row, _ROW_KEYS, where)
    need(type(row["row"]) is int and row["row"] >= 0, f"{where}: row: no position")
    need(isinstance(row["note"], str), f"{where}: note: it must be a text")
    read = {"where": where, **row}
    for key, null in (
        ("x", np.nan),
        ("lower", -np.inf),
        ("upper", np.inf),
        ("point", np.nan),
    ):
        values, here = row[key], f"{where}: {key}"
        if key == "point" and values is None:
            continue
        fine = isinstance(values, list) and len(values) == len(whole)
        need(fine, f"{here}: it must be {len(whole)} numbers")
        read[key] = numbers(values, here, null)
    for key in ("distance", "bound", "reference"):
        read[key] = number(row[key], f"{where}: {key}", np.inf)
    lower, upper, point = (read[key] for key in ("lower", "upper", "point"))
    distance, bound = read["distance"], read["bound"]
    for key in ("x", "point"):
        if read[key] is not None:
            inside = (lower <= read[key]) & (read[key] <= upper) | np.isnan(read[key])
            need(inside.all(), f"{where}: {key}: it is not between lower and upper")
    if point is not None:
        counts = point[whole & ~np.isnan(point)]
        fine = (counts == np.rint(counts)).all()
        need(fine, f"{where}: point: it holds other than whole numbers")
    need(bound >= 0, f"{where}: bound: it must not be negative")
    need((distance < np.inf) == (point is not None), f"{where}: distance: of what point?")
    need(point is None or bound <= distance, f"{where}: bound: it is above the distance")
    status = "infeasible" if bound == np.inf else "open"
    if point is not None:
        status = "optimal" if bound >= distance * (1 - TOLERANCE) else "bounded"
    need(row["status"] == status, f"{where}: status: it is {status!r}")
    return read


def numbers(values, where, null):
    """Return numbers as an array, with `null` for what is none."""
    fine = set(map(type, values)) <= {int, float, type(None)}
    need(fine, f"{where}: it must hold numbers only")
    array = np.array([0.0 if value is None else value for value in values], float)
    need(np.isfinite(array).all(), f"{where}: it must hold finite numbers")
    array[[value is None for value in values]] = null
    return array


def number(value, where, null=None):
    """Return a number, and `null` for what is none."""
    if value is None and null is not None:
        return null
    fine = type(value) in (int, float) and -_LARGEST <= value <= _LARGEST
    need(fine, f"{where}: {value!r:.40} is no number")
    return float(value)


def check_keys(table, names, where):
    """Raise unless a value is an object of just these keys."""
    need(isinstance(table, dict), f"{where}: it must be an object")
    for key in {*names.split(), *table}:
        need(key in table, f"{where}: it lacks the key {key!r}")
        need(key in names.split(), f"{where}: it has the unknown key {key!r:.40}")


@contextmanager
def refusing():
    """Turn whatever a damaged file leads to into an error that says so."""
    try:
        with np.errstate(over="ignore"):
            yield
    except (RecursionError, MemoryError, OverflowError) as error:
        reason = f"nested too deeply or too large ({type(error).__name__})"
        raise ValueError(f"certificate: {reason}") from None
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"certificate: {error}") from None


def need(fine, what):
    """Raise unless something is as it should be."""
    if not fine:
        raise ValueError(what)


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
