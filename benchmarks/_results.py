"""Results of benchmarks: what a table says and claims, and the JSON file that keeps it.

A benchmark makes :class:`Table` objects and hands them to :func:`record`, which writes
``results/<name>.json``. ``report.py`` renders the pages from these files alone.
"""

import datetime
import json
import math
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

RESULTS = Path(__file__).resolve().parent / "results"

_PACKAGES = [
    "sklearn-advsec",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "torch",
    "skorch",
    "adversarial-robustness-toolbox",
    "foolbox",
    "torchattacks",
    "cleverhans",
    "adv-lib",
    "xgboost-cpu",
    "lightgbm",
    "dtai-veritas",
    "treecf",
    "sacroml",
]


@dataclass
class Claim:
    """One statement that was put to the test.

    Parameters
    ----------
    claim : str
        What is measured, and of whom.
    ours : str
        The figure.
    met : bool
        Whether it is as wanted.
    wanted : str
        What it should be.
    peer : str
        The figure of the best peer, and its name; empty where there is none.
    """

    claim: str
    ours: str
    met: bool
    wanted: str
    peer: str = ""


@dataclass
class Table:
    """A table of one benchmark, with what it claims.

    Parameters
    ----------
    title : str
        What was measured on what. A later run replaces the table of the same title, so
        measured figures do not belong into it.
    rows : list of dict
        The cells, by column.
    claims : list of Claim
        What the rows say about aims.
    remarks : list of str
        What else a reader has to know, in markdown.
    """

    title: str
    rows: list
    claims: list = field(default_factory=list)
    remarks: list = field(default_factory=list)

    def __str__(self):
        lines = [
            f"* {c.claim}: {c.ours}"
            + (f", best peer {c.peer}" if c.peer else "")
            + f", wanted {c.wanted}: {'met' if c.met else 'MISSED'}."
            for c in self.claims
        ]
        parts = [f"### {self.title}", markdown(self.rows), "\n".join(lines)]
        return "\n\n".join(part for part in [*parts, *self.remarks] if part)


def record(name, family, command, tables, **environment_options):
    """Write tables into ``results/<name>.json``; tables of other titles stay in it.

    Parameters
    ----------
    name : str
        The benchmark's.
    family : str
        The page that shows it.
    command : str
        How to run it again.
    tables : list of Table
    **environment_options
        What :func:`environment` is told.
    """
    path = RESULTS / f"{name}.json"
    RESULTS.mkdir(exist_ok=True)
    found = {"family": family, "environments": [], "tables": []}
    if path.exists():
        found |= json.loads(path.read_text())
    here = environment(**environment_options)
    by_title = {table["title"]: table for table in found["tables"]}
    if here not in found["environments"]:
        found["environments"].append(here)
    for table in tables:
        by_title[table.title] = {
            "title": table.title,
            "date": str(datetime.date.today()),
            "command": command,
            "environment": found["environments"].index(here),
            "claims": [asdict(claim) for claim in table.claims],
            "rows": [
                {column: _plain(value) for column, value in row.items()}
                for row in table.rows
            ],
            "remarks": list(table.remarks),
        }
    found["tables"] = list(by_title.values())
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def _plain(value):
    """Return a value as JSON has it; what is not finite as text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)


# Pages --------------------------------------------------------------------------------


def markdown(rows, *, aligned=True):
    """Lay rows (dicts) out as a markdown table; columns in order of appearance.

    Without `aligned`, cells are as wide as what is in them: for tables of long texts.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if not columns:
        return ""
    if "note" in columns:  # the longest text goes last
        columns.append(columns.pop(columns.index("note")))
    cells = [columns, *([_cell(row.get(c, "")) for c in columns] for row in rows)]
    widths = [max(3, *(len(line[j]) for line in cells)) for j in range(len(columns))]
    if columns[-1] == "note":
        widths[-1] = 4
    if not aligned:
        widths = [3] * len(columns)
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(value):
    if isinstance(value, float):
        digits = ".3f" if not value or 0.1 <= abs(value) < 1000 else ".3g"
        return f"{value:{digits}}"
    return str(value).replace("|", "/")


# The machine --------------------------------------------------------------------------


def has_bf16():
    """Whether the processor (or the GPU) computes in bfloat16, not just emulates it."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        flags = Path("/proc/cpuinfo").read_text().lower().split()
        if flags:
            return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)
    except OSError:
        pass
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(key) for key in ("avx512_bf16", "amx_bf16", "bf16"))


def environment(measured="one thread, CPU seconds"):
    """Describe the machine and the installed libraries, in two sentences.

    `measured` says what of it was used, and which seconds were counted.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(li.partition(":")[2].strip() for li in lines if "model name" in li)
    except (OSError, StopIteration):
        cpu = platform.processor() or platform.machine()
    versions = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            pass
    return (
        f"{cpu}, {os.cpu_count()} cores, best vector unit "
        f"{torch.backends.cpu.get_cpu_capability()}, bfloat16 arithmetic in hardware: "
        f"{'yes' if has_bf16() else 'no'}; {measured}. "
        f"{', '.join(versions)}."
    )
