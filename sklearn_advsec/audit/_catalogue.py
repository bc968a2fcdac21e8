"""All attacks and defenses in one table."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from .. import defense, encryption, evasion, extraction, poisoning, privacy
from ._section import reference_of

if TYPE_CHECKING:
    import pandas as pd

_FAMILIES = (evasion, extraction, privacy, poisoning, defense, encryption)
# Classes of a family that are neither: results, bases, helpers of attacks.
_BASES = (
    evasion.EvasionAttack,
    extraction.ExtractionAttack,
    privacy.MembershipAttack,
    privacy.ShadowAttack,
    poisoning.PoisoningAttack,
    poisoning.Sanitizer,
    privacy.PrivacyAudit,
)
_ATTACKS = (
    *_BASES[:5],
    privacy.AttributeInference,
    privacy.ModelInversion,
    privacy.NumericAttributeInference,
    privacy.PropertyInference,
)
# Parameters that say what one attack costs, in the order in which they are looked for.
_COSTS = (
    "max_queries",
    "n_shadow_models",
    "max_iter",
    "n_generations",
    "n_samples",
    "n_partitions",
    "max_epochs",
    "time_limit",
)
_COLUMNS = ("name", "family", "kind", "does", "knowledge", "goals", "norms", "cost")


def catalogue() -> pd.DataFrame:
    """Return every attack and defense of the package, one in a row.

    Returns
    -------
    catalogue : DataFrame
        `name`, `family`, `kind` ("attack" or "defense"), what it `does`, the `knowledge`
        of the victim that it takes, its `goals` and `norms`, what its `cost` goes by (the
        parameter, and its default), and the `reference`.

    See Also
    --------
    SecurityAudit : Chooses among them, and runs them.

    Examples
    --------
    >>> from sklearn_advsec.audit import catalogue
    >>> table = catalogue().set_index("name")
    >>> table.loc["HopSkipJump", ["family", "kind", "knowledge"]].tolist()
    ['evasion', 'attack', 'label']
    """
    import pandas as pd

    rows = [
        row
        for family in _FAMILIES
        for name in family.__all__
        if (row := _row(family, name)) is not None
    ]
    return pd.DataFrame(rows, columns=[*_COLUMNS, "reference"])


def _row(family, name):
    cls = getattr(family, name)
    if not inspect.isclass(cls) or cls in _BASES or not hasattr(cls, "get_params"):
        return None
    parameters = inspect.signature(cls).parameters
    attacks = issubclass(cls, _ATTACKS)
    return {
        "name": name,
        "family": family.__name__.rpartition(".")[2],
        "kind": "attack" if attacks else "defense",
        "does": cls.__doc__.strip().splitlines()[0],
        "knowledge": _knowledge(cls, family) if attacks else "",
        "goals": _goals(cls, parameters) if attacks else "",
        "norms": _norms(cls),
        "cost": next(
            (
                f"{cost}={parameters[cost].default}"
                for cost in _COSTS
                if cost in parameters
            ),
            "",
        ),
        "reference": reference_of(cls),
    }


def _knowledge(cls, family):
    if family is poisoning:
        return f"training data ({cls.changes} change)"
    known = getattr(cls, "knowledge", None)
    if isinstance(known, str) and known != "auto":
        return known
    options = getattr(cls, "_parameter_constraints", {}).get("knowledge", [])
    texts = sorted(text for option in options for text in getattr(option, "options", ()))
    return ", ".join(text for text in texts if text != "auto") or "score"


def _goals(cls, parameters):
    if "goal" not in parameters:
        return getattr(cls, "goal", "") or ""
    options = getattr(cls, "_parameter_constraints", {}).get("goal", [])
    return ", ".join(
        sorted(text for option in options for text in getattr(option, "options", ()))
    )


def _norms(cls):
    options = getattr(cls, "_parameter_constraints", {}).get("norm", [])
    found = {
        str(value)
        for option in options
        for value in getattr(option, "options", ())
        if not isinstance(value, str)
    }
    return ", ".join(sorted(found))
