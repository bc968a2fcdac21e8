"""The pages of the API reference: one a module, one a public object."""

import importlib
import inspect
from pathlib import Path

MODULES = (
    "audit", "evasion", "threat", "trees", "differentiable", "victim", "pretrained",
    "defense", "poisoning", "extraction", "privacy", "encryption", "batched", "metrics",
    "inspection", "exceptions",
)  # fmt: skip


def public_modules():
    """Names of modules, and what each has in its `__all__`."""
    found = {"sklearn_advsec": ["show_versions"]}
    for name in MODULES:
        full = f"sklearn_advsec.{name}"
        if importlib.util.find_spec(full) is not None:
            module = importlib.import_module(full)
            found[full] = [
                public
                for public in module.__all__
                if inspect.isclass(getattr(module, public))
                or inspect.isroutine(getattr(module, public))
            ]
    return found


def write(folder):
    """Write `index.rst`, and a page for every module."""
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    pages = []
    for name, members in public_modules().items():
        first = (importlib.import_module(name).__doc__ or "").strip()
        text = "\n".join(
            [name, "=" * len(name), "", first, "", f".. currentmodule:: {name}", ""]
            + [".. autosummary::", "   :toctree: generated", "   :nosignatures:", ""]
            + [f"   {member}" for member in sorted(members)]
        )
        _write(folder / f"{name}.rst", text)
        pages.append(f"   {name}")
    head = ["API reference", "=============", "", ".. toctree::", "   :maxdepth: 1", ""]
    _write(folder / "index.rst", "\n".join(head + pages))


def _write(path, text):
    """Leave a page alone that says the same, so that Sphinx need not read it again."""
    text += "\n"
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
