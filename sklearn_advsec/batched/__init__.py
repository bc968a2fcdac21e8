"""Many small models of one recipe, trained as one."""

from ._fit_many import batchable, fit_many

__all__ = ["batchable", "fit_many"]
