"""The pages of the API reference: one a module, one a public object."""

import importlib
import importlib.util
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
                public for public in module.__all__ if callable(getattr(module, public))
            ]
    return found


def constructor_parameters():
    """Yield class, parameter and default, for every public estimator."""
    for module, members in public_modules().items():
        for member in members:
            found = getattr(importlib.import_module(module), member)
            if inspect.isclass(found) and hasattr(found, "get_params"):
                for parameter in inspect.signature(found).parameters.values():
                    yield f"{module}.{member}", parameter.name, parameter.default


def parameter_table():
    """Return the page of the parameters that several estimators share."""
    used = {}
    for name, parameter, default in constructor_parameters():
        text = "required" if default is inspect.Parameter.empty else repr(default)
        used.setdefault(parameter, {}).setdefault(text, []).append(name)
    lines = [
        "Parameters that estimators share",
        "================================",
        "",
        "One name has one meaning. Where defaults differ, the classes are named. This",
        "table is made from the signatures.",
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 20 20 60",
        "",
        "   * - parameter",
        "     - default",
        "     - of",
    ]
    for parameter, defaults in sorted(used.items()):
        if sum(map(len, defaults.values())) < 3:
            continue
        for text, names in sorted(defaults.items(), key=lambda item: -len(item[1])):
            some = ", ".join(f":class:`~{name}`" for name in sorted(names))
            all_of_them = len(defaults) == 1
            lines += [
                f"   * - `{parameter}`",
                f"     - `{text}`",
                f"     - {f'all {len(names)} that have it' if all_of_them else some}",
            ]
    return "\n".join(lines)


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
    _write(folder / "parameters.rst", parameter_table())
    pages.insert(0, "   parameters")
    head = ["API reference", "=============", "", ".. toctree::", "   :maxdepth: 1", ""]
    _write(folder / "index.rst", "\n".join(head + pages))


def _write(path, text):
    """Leave a page alone that says the same, so that Sphinx need not read it again."""
    text += "\n"
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
