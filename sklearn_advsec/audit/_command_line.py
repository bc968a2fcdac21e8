"""The command line of the audit: models and data from files, reports into files."""

import importlib
import os
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from ..exceptions import InterruptedRunWarning
from ..threat import FeatureConstraints
from ._audit import SECTIONS, SecurityAudit
from ._catalogue import catalogue
from ._section import BUDGETS, Section, SectionReport, Untested

FINE, MISSED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

_BARS = (
    "min_robust_accuracy",
    "min_certified_accuracy",
    "max_tpr_at_fpr",
    "max_fidelity",
    "max_poisoned_error",
)
_HEADER = """\
# What may change in a row, as it was inferred from the data. Edit it, and hand it over by
# --constraints. Of each feature:
#   mutable     false: an attacker cannot change it
#   lower, upper, step    the values that it may take
#   direction   "up" or "down": it can only grow, or shrink
#   kind        continuous, integer, binary, ordinal or categorical
#   scale       a change of 1 is one of so much
# Relations between features are tables of their own: [[relations]] formula = "a <= b"
"""


class BadInput(Exception):
    """What was given cannot be used; the message says why."""


def run(given):
    """Run a parsed command, and return its exit status."""
    try:
        return _COMMANDS[given.command](given)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except (BadInput, ImportError, OSError, TypeError, ValueError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT


# The audit ------------------------------------------------------------------------------


class _NotAsked(Section):
    """Privacy, where nobody said which rows the model was trained on."""

    threat, title = "privacy", "Privacy"
    question = "Which training rows does the model give away?"

    def tasks(self, subject):
        """Do nothing."""
        reason = "the rows that the model was trained on were not given (--train)"
        return [], [Untested("privacy", "all attacks", reason)]

    def report(self, subject, outcomes):
        """Say that nothing was done."""
        return SectionReport(headline="Not tested: the training rows were not given.")


class _ShownAudit(SecurityAudit):
    """An audit that shows how far it is: as a bar on a terminal, else line by line."""

    def _announce(self, n_tasks):
        super()._announce(n_tasks)
        self._bar = _progress_bar()
        if self._bar is not None:
            self._bar.start()
            self._bar_task = self._bar.add_task("audit", total=n_tasks)

    def _tell(self, outcome):
        if self._bar is None:
            self.verbose = 1
            super()._tell(outcome)
            return
        ended = "" if outcome.status == "done" else f" [{outcome.status}]"
        from rich.markup import escape

        text = escape(f"{outcome.task}{ended}")[:60]
        self._bar.update(self._bar_task, advance=1, description=text)

    def stop_showing(self):
        """Leave the terminal as it was."""
        if getattr(self, "_bar", None) is not None:
            self._bar.stop()


def _progress_bar():
    if not sys.stderr.isatty():
        return None
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        return None
    return Progress(
        TextColumn("{task.completed}/{task.total}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=Console(file=sys.stderr),
    )


def _audit(given):
    threats = [name for name in given.threats.split(",") if name]
    unknown = [name for name in threats if name not in SECTIONS]
    if unknown or not threats:
        raise BadInput(
            f"--threats: {unknown or 'none'}; there are {', '.join(SECTIONS)}."
        )
    model = _load_model(given)
    X_test, y_test = _load_data(given.data, given.target)
    if given.train:
        X_train, y_train = _load_data(given.train, given.target)
    else:
        half = np.random.RandomState(given.seed).permutation(len(y_test))
        first, second = np.array_split(half, 2)
        X_train, y_train = _take(X_test, first), y_test[first]
        X_test, y_test = _take(X_test, second), y_test[second]
        threats = [_NotAsked() if name == "privacy" else name for name in threats]
    X_train, X_test = _as_model_takes_them(model, X_train, X_test)
    if _is_fitted(model):
        model = FrozenEstimator(model) if hasattr(model, "fit") else model
    elif not given.train:
        raise BadInput("the model is not fitted: hand over its training rows by --train.")
    audit = _ShownAudit(
        model,
        threats,
        _budget(given.budget),
        constraints=FeatureConstraints.load(given.constraints)
        if given.constraints
        else None,
        eps=given.eps,
        image_shape=_shape(given.image_shape),
        memory=given.memory,
        random_state=given.seed,
        n_jobs=given.jobs,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InterruptedRunWarning)
            audit.fit(X_train, y_train, X_test, y_test)
    finally:
        audit.stop_showing()
    _write_reports(audit, given)
    if audit.interrupted_:
        print("interrupted: the report holds what was done by then", file=sys.stderr)
        return INTERRUPTED
    try:
        audit.assert_robust(**{name: getattr(given, name) for name in _BARS})
    except AssertionError as error:
        print(f"missed: {error}")
        return MISSED
    return FINE


def _write_reports(audit, given):
    for threat, sentence in audit.summary_.items():
        print(f"{threat}: {sentence}")
    output = given.output
    if output is None and given.json is None and given.csv is None:
        output = "security-audit.html"
    written = ((output, audit.to_html), (given.json, audit.to_json))
    for path, write in (*written, (given.csv, audit.to_csv)):
        if path is not None:
            write(path)
            print(f"written: {path}")


def _budget(text):
    if text in BUDGETS:
        return text
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"--budget must be {', '.join(BUDGETS)}, or seconds; got {text}.")


def _shape(text):
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split("x"))
    except ValueError:
        raise BadInput(f"--image-shape must be such as 28x28 or 3x32x32; got {text}.")


def _is_fitted(model):
    if not hasattr(model, "fit"):
        return True  # a client of a service
    try:
        check_is_fitted(model)
    except NotFittedError:
        return False
    return True


# Models ---------------------------------------------------------------------------------


def _load_model(given):
    path = given.model
    if ":" in path and not Path(path).exists():
        return _from_factory(path)
    if not Path(path).is_file():
        raise BadInput(
            f"{path} is neither a file nor a factory such as package.module:function."
        )
    if _is_skops(path):
        return _from_skops(path, given.trust)
    if not given.allow_pickle:
        raise BadInput(
            f"{path} is no file of skops. Loading a pickle runs whatever its author put "
            "into it: write the model with skops.io.dump, or, if you trust the file, add "
            "--allow-pickle."
        )
    print(f"warning: loading {path} runs what its author put into it", file=sys.stderr)
    import joblib

    try:
        model = joblib.load(path)
    except Exception as error:
        raise BadInput(f"{path} cannot be loaded: {type(error).__name__}: {error}")
    return _checked(model, path)


def _from_factory(text):
    module, _, name = text.partition(":")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise BadInput(f"{text} cannot be imported: {error}")
    return _checked(factory(), text)


def _is_skops(path):
    from zipfile import BadZipFile, ZipFile

    try:
        with ZipFile(path) as file:
            return "schema.json" in file.namelist()
    except (BadZipFile, OSError):
        return False


def _from_skops(path, trusted):
    try:
        from skops import io
    except ImportError:
        raise BadInput('a file of skops needs pip install "sklearn-advsec[audit]".')
    trusted = [name for names in trusted for name in names.split(",") if name]
    unknown = sorted(set(io.get_untrusted_types(file=path)) - set(trusted))
    if unknown:
        raise BadInput(
            f"{path} holds types that are not trusted: {', '.join(unknown)}. If they are "
            f"what you expect, add --trust {','.join(unknown)}"
        )
    return _checked(io.load(path, trusted=trusted), path)


def _checked(model, name):
    if not hasattr(model, "predict"):
        raise BadInput(f"{name} is a {type(model).__name__}, which cannot predict.")
    return model


# Data -----------------------------------------------------------------------------------


def _load_data(path, target):
    """Return rows and labels."""
    if str(path).endswith(".npz"):
        with np.load(path, allow_pickle=False) as arrays:
            names = ("X", target or "y")
            missing = [name for name in names if name not in arrays]
            if missing:
                raise BadInput(
                    f"{path} has no array {missing[0]}; it has {arrays.files}."
                )
            return tuple(arrays[name] for name in names)
    frame = _load_frame(path)
    if target is None:
        raise BadInput("--target: name the column of the labels.")
    if target not in frame.columns:
        raise BadInput(f"{path} has no column {target!r}; it has {list(frame.columns)}.")
    frame = frame[frame[target].notna()].reset_index(drop=True)
    return frame.drop(columns=target), frame[target].to_numpy()


def _load_frame(path):
    import pandas as pd

    if not Path(path).is_file():
        raise BadInput(f"there is no file {path}.")
    if str(path).endswith((".parquet", ".pq")):
        return pd.read_parquet(path)
    return pd.read_csv(path)


def _take(X, rows):
    return X.iloc[rows].reset_index(drop=True) if hasattr(X, "iloc") else X[rows]


def _as_model_takes_them(model, *rows):
    """Return frames in the order of the model's columns, or arrays where it has none."""
    if not hasattr(rows[0], "columns"):
        return rows
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        numeric = all(dtype.kind in "biuf" for dtype in rows[0].dtypes)
        return tuple(X.to_numpy() if numeric else X for X in rows)
    for X in rows:
        missing = [name for name in names if name not in X.columns]
        if missing:
            raise BadInput(
                f"the data has no column {missing[0]!r}, which the model takes."
            )
    return tuple(X[list(names)] for X in rows)


# The other commands ---------------------------------------------------------------------


def _list(given):
    table = catalogue()
    if given.family:
        known = sorted(set(table["family"]))
        if given.family not in known:
            raise BadInput(f"--family: {given.family}; there are {', '.join(known)}.")
        table = table[table["family"] == given.family]
    if given.kind:
        table = table[table["kind"] == given.kind]
    if given.csv:
        print(table.to_csv(index=False), end="")
        return FINE
    shown = table[["name", "family", "kind", "knowledge", "goals", "norms", "cost"]]
    shown = shown.assign(reference=table["reference"].str.slice(0, 60))
    print(shown.to_string(index=False, justify="left"))
    return FINE


def _infer(given):
    if str(given.data).endswith(".npz"):
        with np.load(given.data, allow_pickle=False) as arrays:
            rows = arrays["X"]
    else:
        rows = _load_frame(given.data)
        if given.target:
            rows = rows.drop(columns=given.target, errors="ignore")
    constraints = FeatureConstraints.from_frame(rows)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "constraints.toml"
        constraints.save(path)
        lines = path.read_text(encoding="utf-8").splitlines()
    doubts = {}
    for doubt in constraints.doubts_:
        doubts.setdefault(doubt.column, []).append(doubt)
    print(_HEADER, end="")
    features = iter(constraints.features.values())
    for line in lines[1:]:
        if line == "[[features]]":
            feature = next(features)
            for doubt in doubts.get(feature.name, []):
                text = f"in doubt: taken for {doubt.guess}: {doubt.reason}"
                print("# " + " ".join(text.split()))
        print(line)
        if line.startswith("name = "):  # what is as usual is not in the file
            if feature.kind == "continuous":
                print('kind = "continuous"')
            if feature.mutable:
                print("mutable = true")
    return FINE


def _compare(given):
    try:
        before, after = map(SecurityAudit.from_json, (given.before, given.after))
    except ValueError as error:
        raise BadInput(str(error))
    comparison = before.compare(after)
    print(comparison)
    if given.output:
        comparison.to_html(given.output)
        print(f"written: {given.output}")
    return FINE


_COMMANDS = {
    "audit": _audit,
    "list": _list,
    "constraints": _infer,
    "compare": _compare,
}
