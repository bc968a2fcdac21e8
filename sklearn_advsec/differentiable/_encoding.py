"""Views of encoders on numeric columns: constant to the gradient.

On columns of codes, scikit-learn itself encodes (see ``_columns``).
"""

import numpy as np
import torch
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from ..exceptions import NoGradientError
from ._registry import register
from ._views import TransformerView, constant


@register(OneHotEncoder)
def one_hot_encoder(estimator):
    """View OneHotEncoder.

    A number that is no category gives zeros, or the group of infrequent categories where
    the encoder is told so. It never raises: an attack's steps are not what is sent.
    """
    to_group = estimator.handle_unknown in ("infrequent_if_exist", "warn")
    n_features = len(estimator.categories_)
    dropped = estimator.drop_idx_
    dropped = [None] * n_features if dropped is None else dropped
    features = []
    for j, (categories, group, n_groups) in enumerate(_groups(estimator)):
        keep = torch.arange(n_groups)
        if dropped[j] is not None:
            keep = keep[keep != group[dropped[j]]]
        has_rare = n_groups < len(categories) or _infrequent(estimator)[j] is not None
        unknown = n_groups - 1 if to_group and has_rare else -1
        features.append((categories, group, keep, unknown))

    def transform(x):
        blocks = []
        for column, (categories, group, keep, unknown) in zip(
            x.detach().T, features, strict=True
        ):
            code = _encode(column, categories, group, unknown)
            blocks.append((code[:, None] == keep).to(x.dtype))
        return torch.cat(blocks, dim=1)

    return TransformerView(transform)


@register(OrdinalEncoder)
def ordinal_encoder(estimator):
    """View OrdinalEncoder."""
    unknown = estimator.unknown_value
    unknown = float("nan") if unknown is None else float(unknown)
    missing = float(estimator.encoded_missing_value)
    features = list(_groups(estimator))

    def transform(x):
        blocks = []
        for column, (categories, group, _) in zip(x.detach().T, features, strict=True):
            code = _encode(column, categories, group.to(x.dtype), unknown)
            if categories.isnan().any():
                code = torch.where(column.isnan(), missing, code)
            blocks.append(code)
        return torch.stack(blocks, dim=1)

    return TransformerView(transform)


def _encode(column, categories, group, unknown):
    """Give each entry the group of the category that it equals."""
    same = column[:, None] == categories
    same = same | (column.isnan()[:, None] & categories.isnan())
    code = group[same.to(torch.uint8).argmax(dim=1)]
    return torch.where(same.any(dim=1), code, torch.tensor(unknown, dtype=code.dtype))


def _infrequent(estimator):
    """Return the infrequent categories of each feature, None where there are none."""
    nothing = [None] * len(estimator.categories_)
    return getattr(estimator, "infrequent_categories_", nothing)


def _groups(estimator):
    """Yield each feature's categories, their groups, and the number of groups.

    Frequent categories are a group each, in their order; the infrequent ones are the
    last group together.
    """
    for categories, infrequent in zip(
        estimator.categories_, _infrequent(estimator), strict=True
    ):
        try:
            numbers = np.asarray(categories, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise NoGradientError(
                f"{type(estimator).__name__} was fitted on columns that are not numeric "
                f"(categories {categories[:3].tolist()}...). They must be encoded first, "
                "by the first step of a pipeline or in one branch of a "
                "ColumnTransformer, and what they are must be known: attack a DataFrame, "
                "or call view(estimator, columns=...)."
            ) from error
        rare = np.zeros(len(numbers), dtype=bool)
        if infrequent is not None:
            rare = np.isin(categories, infrequent)
        group = np.where(rare, (~rare).sum(), np.cumsum(~rare) - 1)
        yield constant(numbers), torch.as_tensor(group), int(group.max()) + 1
