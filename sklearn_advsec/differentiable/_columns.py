"""Columns that hold codes instead of numbers: no gradient reaches them.

The tensor of a DataFrame's rows has one column per column of it; one that is not numeric
holds positions into its list of values (see ``Columns``).
"""

import numpy as np
import torch
from scipy.sparse import issparse

from ..exceptions import NoGradientError
from ._views import TransformerView, constant


def names_of(columns, numeric):
    """Names of the columns that are (not) numeric, as text for messages."""
    names = zip(columns.names, columns.numeric, strict=True)
    return ", ".join(repr(name) for name, is_numeric in names if is_numeric == numeric)


def code_lookup(columns):
    """Give the function that replaces codes by the numbers that they stand for.

    Booleans and categories of numbers are numbers to scikit-learn. Where some value is
    none, return None.
    """
    import pandas as pd

    tables = {}
    for j in np.flatnonzero(~columns.numeric):
        values = columns.values[j]
        try:
            values = np.where(pd.isna(values), np.nan, values).astype(np.float64)
        except (TypeError, ValueError):
            return None
        tables[j] = constant(values)

    def look_up(x):
        parts = list(x.unbind(1))
        for j, table in tables.items():
            parts[j] = table[parts[j].detach().long()].to(x)
        return torch.stack(parts, dim=1)

    return look_up


def constant_transform(transformer, columns, *, one_column=False):
    """View a fitted transformer as a constant: scikit-learn itself transforms the rows.

    Rows that were seen before are looked up, so an attack that repeats them pays once.

    Parameters
    ----------
    transformer : transformer
        Fitted on a DataFrame or an array of these columns.
    columns : Columns
        What its columns stand for.
    one_column : bool, default=False
        Whether the transformer takes a single column as a sequence, as text vectorizers
        do.
    """
    seen, table = {}, []

    def transform(x):
        rows = np.ascontiguousarray(x.detach().cpu().numpy())
        keys = [row.tobytes() for row in rows]
        new = {key: i for i, key in enumerate(keys) if key not in seen}
        if new:
            block = _evaluate(transformer, columns, rows[list(new.values())], one_column)
            table[:] = [torch.cat([*table, block])]
            seen.update({key: len(seen) + i for i, key in enumerate(new)})
        return table[0][[seen[key] for key in keys]].to(x)

    return TransformerView(transform)


def _evaluate(transformer, columns, rows, one_column):
    import pandas as pd

    data = {
        j: rows[:, j] if values is None else columns.named(j, rows[:, j])
        for j, values in enumerate(columns.values)
    }
    frame = pd.DataFrame(data)
    frame.columns = columns.names
    if one_column:
        frame = frame.iloc[:, 0]
    elif hasattr(transformer, "n_features_in_") and not hasattr(
        transformer, "feature_names_in_"
    ):
        frame = frame.to_numpy()  # fitted without names, and told so otherwise
    block = transformer.transform(frame)
    block = block.toarray() if issparse(block) else np.asarray(block)
    try:
        return constant(block.astype(np.float64))
    except (TypeError, ValueError) as error:
        raise NoGradientError(
            f"{type(transformer).__name__} makes no numbers of the columns "
            f"{names_of(columns, False)}; put it and the encoder behind it into one "
            "Pipeline inside a ColumnTransformer."
        ) from error
