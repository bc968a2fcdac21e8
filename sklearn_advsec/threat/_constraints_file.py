"""The TOML file of feature constraints: written whole, and read strictly."""

import contextlib
import datetime
import json
import math
import os
import tomllib
from dataclasses import fields
from pathlib import Path

from ._features import Feature, did_you_mean, plain

_KEYS = ("features", "relations", "max_cost", "max_changed")
_RELATION_KEYS = ("formula", "repair")
_FEATURE_KEYS = tuple(field.name for field in fields(Feature))


def as_text(features, relations, limits):
    """Return the parts of `FeatureConstraints` as TOML."""
    lines = ["# Feature constraints of sklearn_advsec."]
    lines += [f"{key} = {_toml(v)}" for key, v in limits.items() if v is not None]
    for title, tables in (("features", features), ("relations", relations)):
        for table in tables:
            lines += ["", f"[[{title}]]"]
            for key, value in table.items():
                if key == "transitions" and value is not None:
                    value = [[before, list(to)] for before, to in value.items()]
                if value is not None:
                    lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def write(path, text):
    """Write a text, or leave the file as it was.

    It is written beside the file, and takes its place when it is whole.
    """
    path = Path(path)
    if path.is_symlink():
        raise ValueError(f"{path} is a symbolic link: give the file that it points to.")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        raise


def read(text):
    """Return features, relations (formula and repair) and limits.

    Raises
    ------
    ValueError
        If the file is no TOML, or holds anything that is not understood; the message
        names the key.
    """
    try:
        data = tomllib.loads(text.decode() if isinstance(text, bytes) else text)
    except RecursionError:
        raise ValueError("it is nested too deeply.") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise ValueError(f"it is no TOML file: {error}") from None
    _check_keys(data, _KEYS, "it")
    features = [_read_feature(table) for table in _tables(data, "features")]
    if not features:
        raise ValueError("it holds no [[features]].")
    relations = []
    for table in _tables(data, "relations"):
        _check_keys(table, _RELATION_KEYS, "a table of [[relations]]")
        if not isinstance(table.get("formula"), str):
            raise ValueError(
                f"a table of [[relations]] needs a text as formula; it is {table}."
            )
        repair = table.get("repair")
        relations.append((table["formula"], _value(repair, "repair")))
    limits = {key: data[key] for key in ("max_cost", "max_changed") if key in data}
    return features, relations, limits


def _tables(data, key):
    tables = data.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise ValueError(f"{key} must be tables that begin with [[{key}]].")
    return tables


def _check_keys(table, known, where):
    for key in table:
        if key not in known:
            raise ValueError(
                f"{where} has the unknown key {key!r}{did_you_mean(key, known)}."
            )


def _read_feature(table):
    if "name" not in table:
        raise ValueError(f"a table of [[features]] has no name; it is {table}.")
    where = f"feature {table['name']!r}"
    _check_keys(table, _FEATURE_KEYS, where)
    values = {}
    for key, value in table.items():
        if key == "transitions":
            values[key] = _transitions(value, where)
        else:
            values[key] = _value(value, where)
    if not isinstance(values["name"], (str, int, float, tuple, datetime.date)):
        raise ValueError(f"{where}: its name is no text, number, date or tuple.")
    feature = Feature(**values)
    feature.check()
    return feature


def _transitions(value, where):
    """Read ``[[from, [to, ...]], ...]``, or a table, as somebody writes it by hand."""
    pairs = list(value.items()) if isinstance(value, dict) else value
    try:
        return {_value(a, where): [_value(v, where) for v in to] for a, to in pairs}
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: transitions must be pairs [from, [to, ...]]; got {value!r}."
        ) from None


# Values that TOML has no form for are tables of one of these keys.


def _toml(value):
    value = plain(value)
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
    if isinstance(value, (list, set, frozenset)):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, tuple):
        return f"{{tuple = {_toml(list(value))}}}"
    if isinstance(value, datetime.timedelta):
        import pandas as pd

        return f"{{timedelta = {_toml(pd.Timedelta(value).isoformat())}}}"
    if getattr(value, "nanosecond", 0):  # TOML's dates end at microseconds
        return f"{{timestamp = {_toml(value.isoformat())}}}"
    if isinstance(value, (datetime.date, datetime.time)) and value == value:
        return value.isoformat()
    if hasattr(value, "freqstr") and hasattr(value, "ordinal"):
        return f"{{period = {_toml(str(value))}, freq = {_toml(value.freqstr)}}}"
    if hasattr(value, "closed") and hasattr(value, "left"):
        ends = _toml([value.left, value.right])
        return f"{{interval = {ends}, closed = {_toml(value.closed)}}}"
    raise TypeError(
        f"{value!r} of type {type(value).__name__} cannot be written to TOML: use texts, "
        "numbers, booleans or dates as names and categories."
    )


def _value(value, where):
    """Undo :func:`_toml`."""
    if isinstance(value, list):
        return [_value(item, where) for item in value]
    if not isinstance(value, dict):
        return value
    keys = set(value)
    try:
        if keys == {"tuple"}:
            return tuple(_value(item, where) for item in value["tuple"])
        if keys in ({"timedelta"}, {"timestamp"}, {"period", "freq"}):
            import pandas as pd

            if keys == {"period", "freq"}:
                return pd.Period(value["period"], freq=value["freq"])
            (key,) = keys
            return {"timedelta": pd.Timedelta, "timestamp": pd.Timestamp}[key](value[key])
        if keys == {"interval", "closed"}:
            import pandas as pd

            return pd.Interval(*_value(value["interval"], where), closed=value["closed"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {value} cannot be read ({error}).") from None
    raise ValueError(f"{where}: {value} is a table where there should be a value.")
