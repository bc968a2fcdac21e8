"""Feature constraints as a TOML file: readable, and to be kept beside a model."""

import json
import math
import tomllib
from dataclasses import fields
from pathlib import Path

import numpy as np

from .threat._features import Feature


def write(path, features, relations, limits, frame):
    """Write the parts of `FeatureConstraints`."""
    lines = ["# Feature constraints of sklearn_advsec.", f"frame = {_toml(frame)}"]
    lines += [f"{key} = {_toml(v)}" for key, v in limits.items() if v is not None]
    for title, tables in (("features", features), ("relations", relations)):
        for table in tables:
            lines += ["", f"[[{title}]]"]
            lines += [f"{key} = {_toml(value)}" for key, value in table.items()
                      if value is not None]  # fmt: skip
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(path):
    """Return features, relations, limits and whether they are of a DataFrame."""
    with open(path, "rb") as file:
        data = tomllib.load(file)
    known = {field.name for field in fields(Feature)}
    features = data.get("features", [])
    if not features:
        raise ValueError(f"{path} holds no [[features]].")
    for table in features:
        unknown = set(table) - known
        if unknown or "name" not in table:
            what = f"unknown key {min(unknown)!r}" if unknown else "no name"
            raise ValueError(f"{path}: a table of [[features]] has {what}.")
        if "transitions" in table:
            table["transitions"] = {before: to for before, to in table["transitions"]}
    limits = {key: data[key] for key in ("max_cost", "max_changed") if key in data}
    return features, data.get("relations", []), limits, data.get("frame", True)


def _toml(value):
    """Write a value; dicts become lists of pairs, as their keys may be numbers."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        return repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        value = [[before, list(to)] for before, to in value.items()]
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(item) for item in value)}]"
    raise TypeError(
        f"{value!r} of type {type(value).__name__} cannot be written to TOML: use texts, "
        "numbers or booleans as names and categories."
    )
