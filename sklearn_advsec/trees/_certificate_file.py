"""The file of a certificate: its keys, their types, and the hash of it all."""

import hashlib
import json
from contextlib import contextmanager

import numpy as np

FORMAT, TOLERANCE = "sklearn_advsec tree certificate 1", 1e-6
_KEYS = "format digest versions model columns whole norm goal tolerance constraints rows"
_ROW_KEYS = "row x label reference lower upper point distance bound status note covers"
_LARGEST = np.finfo(np.float64).max
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
        "norm": ["inf", "1", "0"],
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
    rows = [_read(row, f"rows[{i}]", len(whole)) for i, row in enumerate(rows)]
    content = {key: value for key, value in document.items() if key != "digest"}
    same = digest(content) == document["digest"]
    need(same, "digest: the content is not that of the digest")
    return document | {"rows": rows, "whole": np.array(whole, dtype=bool)}


def _read(row, where, n_columns):
    """Return a row of the file, its numbers as arrays; null is what has no number."""
    check_keys(row, _ROW_KEYS, where)
    need(type(row["row"]) is int and row["row"] >= 0, f"{where}: row: no position")
    need(isinstance(row["note"], str), f"{where}: note: it must be a text")
    read = {"where": where, **row}
    for key, null in {
        "x": np.nan,
        "lower": -np.inf,
        "upper": np.inf,
        "point": np.nan,
    }.items():
        if key == "point" and row[key] is None:
            continue
        fine = isinstance(row[key], list) and len(row[key]) == n_columns
        need(fine, f"{where}: {key}: it must be {n_columns} numbers")
        read[key] = np.array(
            [number(v, f"{where}: {key}", null) for v in row[key]], float
        )
    for key in ("distance", "bound", "reference"):
        read[key] = number(row[key], f"{where}: {key}", np.inf)
    x, lower, upper = read["x"], read["lower"], read["upper"]
    inside = (lower <= x) & (x <= upper) | np.isnan(x)
    need(inside.all(), f"{where}: x: it is not between lower and upper")
    need(read["bound"] >= 0, f"{where}: bound: it must not be negative")
    return read


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
