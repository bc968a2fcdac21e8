"""What the readers of boosters share: nodes that are added one by one."""

import numpy as np

from .trees._ensemble import TreeEnsemble


class NodeList:
    """Nodes of the trees read so far, one list per attribute."""

    def __init__(self, n_outputs):
        self.n_outputs = n_outputs
        self.roots, self.sets = [], []
        self.columns = {
            name: []
            for name in (
                "feature threshold left right missing_left category output leaf "
                "unknown_left"
            ).split()
        }

    def __len__(self):
        return len(self.columns["feature"])

    def add(self, **node):
        """Add a node, a leaf by default, and return its position."""
        defaults = dict.fromkeys(self.columns, 0) | {"feature": -1, "category": -1}
        for name, value in (defaults | node).items():
            self.columns[name].append(value)
        return len(self) - 1

    def add_set(self, codes, *, left):
        """Add a set of codes that go left, or right; return its position."""
        self.sets.append((list(codes), left))
        return len(self.sets) - 1

    def ensemble(self, **parts):
        """Return the ensemble; `parts` are its other attributes."""
        column = {name: np.array(values) for name, values in self.columns.items()}
        value = np.zeros((len(self), self.n_outputs))
        value[np.arange(len(self)), column.pop("output")] = column.pop("leaf")
        width = 1 + max((max(codes) for codes, _ in self.sets), default=0)
        bitsets = np.zeros((len(self.sets), width), dtype=bool)
        for row, (codes, left) in zip(bitsets, self.sets, strict=True):
            row[:] = not left
            row[codes] = left
        for name in ("missing_left", "unknown_left"):
            column[name] = column[name].astype(bool)
        return TreeEnsemble(
            roots=np.array(self.roots), value=value, bitsets=bitsets, **column, **parts
        )


def refuse(package, what):
    """Raise for a model that has no array form."""
    raise TypeError(f"{package} models {what} cannot be read as trees.")
