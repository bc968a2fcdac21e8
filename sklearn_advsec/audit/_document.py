"""The report as a document: plain values, a schema with a version, and strict reading."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import numpy as np

SCHEMA_VERSION = "1.0"
# A text in a report is no longer than this.
_LONGEST = 2000
_TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "number": (int, float),
    "integer": int,
    "null": type(None),
}


def plain(value):
    """Return a value as JSON has it: no numpy, no NaN, no infinity, no endless text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    if value is None:
        return None
    text = str(value)
    text = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def schema() -> dict[str, Any]:
    """Return the JSON schema of reports.

    Returns
    -------
    schema : dict
        In the terms of JSON Schema 2020-12.

    See Also
    --------
    SecurityAudit.to_json : Writes a report in this form.

    Examples
    --------
    >>> from sklearn_advsec.audit import schema
    >>> schema()["properties"]["schema_version"]
    {'const': '1.0'}
    """
    file = resources.files(__package__).joinpath("report.schema.json")
    return json.loads(file.read_text(encoding="utf-8"))


def check_document(text):
    """Return the report that a text holds.

    Raises
    ------
    ValueError
        If it is none; the message names the part that is not as it should be.
    """
    try:
        document = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("The report is nested too deeply.") from None
    except ValueError as error:
        raise ValueError(f"The report is no JSON: {error}") from None
    if not isinstance(document, dict) or "schema_version" not in document:
        raise ValueError("This is no report of an audit: it has no schema_version.")
    version = document["schema_version"]
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"The report has schema_version {version!r}; this version of sklearn_advsec "
            f"reads {SCHEMA_VERSION!r}."
        )
    known = schema()
    _check(document, known, known["$defs"], "the report")
    return document


def _refuse(name):
    raise ValueError(f"{name} is no number of JSON")


def _check(value, form, defs, where):
    """Check a value against what of JSON Schema the schema of reports uses."""
    if "$ref" in form:
        form = defs[form["$ref"].rpartition("/")[2]]
    if "const" in form and value != form["const"]:
        raise ValueError(f"{where} must be {form['const']!r}; it is {value!r:.80}.")
    if "enum" in form and value not in form["enum"]:
        raise ValueError(f"{where} must be among {form['enum']}; it is {value!r:.80}.")
    if "type" in form:
        names = form["type"] if isinstance(form["type"], list) else [form["type"]]
        if not any(_is_of(value, name) for name in names):
            raise ValueError(
                f"{where} must be of type {' or '.join(names)}; it is {value!r:.80}."
            )
    if isinstance(value, dict):
        for key in form.get("required", ()):
            if key not in value:
                raise ValueError(f"{where} has no {key!r}.")
        known, rest = form.get("properties", {}), form.get("additionalProperties", True)
        for key, item in value.items():
            if key in known:
                _check(item, known[key], defs, f"{where}: {key}")
            elif rest is False:
                raise ValueError(f"{where} has the unknown part {key!r:.80}.")
            elif isinstance(rest, dict):
                _check(item, rest, defs, f"{where}: {key}")
    if isinstance(value, list) and "items" in form:
        for i, item in enumerate(value):
            _check(item, form["items"], defs, f"{where}[{i}]")


def _is_of(value, name):
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[name])
