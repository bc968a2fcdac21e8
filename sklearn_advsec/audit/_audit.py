"""The audit: one call, every threat, what was found and what was not tested."""

from __future__ import annotations

import json
import platform
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from importlib import metadata
from itertools import zip_longest
from numbers import Integral, Real
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Self

import joblib
import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import (
    ClassifierMixin,
    MetaEstimatorMixin,
    clone,
    is_classifier,
    is_regressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    check_memory,
)

from .. import __version__, differentiable
from .._estimators import allows_nan, name_of, unwrap
from .._labels import as_labels
from .._progress import ReportsProgress
from .._rows import check_rows, image_shape_of, is_dataframe, plain_rows
from .._seeding import seed_unset
from .._sklearn import (
    BaseEstimator,
    BaseSearchCV,
    HasMethods,
    Interval,
    StrOptions,
    fit_context,
)
from ..exceptions import InterruptedRunWarning
from ..metrics._membership import group_codes
from ..threat import FeatureConstraints
from ..trees import is_tree_ensemble, tree_ensemble
from ..victim import as_victim, ask_labels, ask_scores, fit_victim
from ..victim._fitting import CLASSIFIER
from ._comparison import AuditComparison, misses
from ._document import SCHEMA_VERSION, check_document, plain
from ._encryption import EncryptionSection
from ._evasion import EvasionSection
from ._extraction import ExtractionSection
from ._poisoning import PoisoningSection
from ._privacy import PrivacySection
from ._running import run_all, run_within
from ._section import (
    BUDGETS,
    Bracket,
    Finding,
    Outcome,
    Recommendation,
    Section,
    SectionReport,
    Subject,
    Untested,
    unfinished,
)

if TYPE_CHECKING:
    import pandas as pd
    from joblib import Memory

SECTIONS = {
    section.threat: section
    for section in (
        EvasionSection,
        ExtractionSection,
        PrivacySection,
        PoisoningSection,
        EncryptionSection,
    )
}
_PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "skorch", "xgboost", "lightgbm")
# Rows on which labels and probabilities are compared.
_COMPARED = 1000
# Budgets in seconds, and what they are good for.
_SECONDS = ((120, "quick"), (1200, "standard"), (np.inf, "thorough"))
_FRAMES = ("results", "brackets", "not_tested", "recommendations")


def _client_has(name):
    return lambda self: hasattr(self.client, name)


class RemoteVictim(ClassifierMixin, BaseEstimator):
    """A victim that only answers, as scikit-learn's tools take it."""

    def __init__(self, client, classes):
        self.client = client
        self.classes = classes
        self.classes_ = getattr(client, "classes_", classes)

    def fit(self, X, y=None):
        """Return the victim as it is."""
        return self

    def predict(self, X):
        """Ask the client."""
        return self.client.predict(X)

    @available_if(_client_has("predict_proba"))
    def predict_proba(self, X):
        """Ask the client."""
        return self.client.predict_proba(X)

    def __sklearn_clone__(self):
        return self


class SecurityAudit(ReportsProgress, MetaEstimatorMixin, BaseEstimator):
    """Attack a model in all the ways that it allows, and say what was found.

    One call answers how evadable a model is, how stealable, how leaky and how poisonable,
    and what a few defenses would change. Attacks are chosen by what the victim gives
    (gradients, probabilities, labels only), and run as one list of tasks. Each figure has
    an interval and a baseline; where something is proved, the truth stands in a bracket
    between an attack and the proof; what was not tested stands beside, with the reason.

    A task that raises, or takes longer than its limit, leaves a row that says so, and the
    audit goes on. An audit that finds nothing proves nothing: other attacks may.

    Parameters
    ----------
    estimator : estimator or object with `predict`
        The victim: a classifier, a regressor, or the client of a service. It is cloned
        and fitted on the training rows; a fitted one, the usual case, comes as
        ``FrozenEstimator(model)``, a trained torch module as it is.
    threats : sequence of str or Section, \
            default=("evasion", "extraction", "privacy", "poisoning")
        What to test; "encryption" as well, for models that answer encrypted questions.
        Instances of :class:`Section` are run, too.
    budget : {"quick", "standard", "thorough"} or float, default="quick"
        How much is done: minutes, an hour, a night. A number of seconds chooses among
        them, and begins no task after that time; what is left is in `not_tested_`.
    constraints : FeatureConstraints, default=None
        What adversarial rows of tables have to keep. None infers them from the training
        rows. Sizes of changes are in units of each feature's scale.
    eps : float, default=None
        The size of changes that is asked about most, as a share of each feature's range:
        by default 0.1 for tables, and 8/255 for images.
    image_shape : tuple, default=None
        The shape of images that come as flat rows. Arrays of four dimensions are images.
    time_limit : float, default=None
        Seconds for one task; by default 60, 300 or 3600, by the budget.
    memory : str or joblib.Memory, default=None
        Where finished tasks are kept, so that an audit that was stopped does only what is
        missing when it is started again. The folder holds pickled results: only load one
        that you trust.
    random_state : int, RandomState instance or None, default=0
        Seed of all that is drawn.
    n_jobs : int, default=None
        Number of joblib jobs over the tasks. The figures do not depend on it, as long as
        no limit of time is reached.
    verbose : int, default=0
        Whether to print each task that is done.

    Attributes
    ----------
    results_ : DataFrame
        One row for each figure: threat, attack, knowledge, goal, parameters, metric,
        value, interval (`low`, `high`), baseline, number of rows, queries, seconds,
        status, note, reference, and identifiers of MITRE ATLAS, NIST AI 100-2 and the AI
        Act, article 15(5).
    brackets_ : DataFrame
        One row for each quantity: it lies between `lower` and `upper`, for the rows that
        were tested; `low` and `high` are the interval at 95 % for rows like these.
    summary_ : dict of str to str
        One sentence for each threat.
    recommendations_ : DataFrame
        Defenses, with the figures of a cross-validation with and without each.
    not_tested_ : DataFrame
        What was not tested, and the reason.
    warnings_ : list of str
        What a reader has to know before the figures.
    report_ : dict
        All of it, as :meth:`to_json` writes it.
    estimator_ : FrozenEstimator
        The fitted victim.

    See Also
    --------
    catalogue : All attacks and defenses in a table.
    AuditComparison : Two audits side by side.

    References
    ----------
    .. [1] A. Vassilev et al., "Adversarial machine learning: a taxonomy and terminology
       of attacks and mitigations", NIST AI 100-2.
    .. [2] MITRE, "ATLAS: adversarial threat landscape for artificial-intelligence
       systems".

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.audit import SecurityAudit
    >>> X, y = load_iris(return_X_y=True)
    >>> model = DecisionTreeClassifier(random_state=0).fit(X[::2], y[::2])
    >>> audit = SecurityAudit(FrozenEstimator(model), ["extraction"])
    >>> audit = audit.fit(X[::2], y[::2], X[1::2], y[1::2])
    >>> audit.results_.query("attack == 'PathFinding'")["value"].item()
    1.0
    """

    _parameter_constraints = {
        "estimator": [HasMethods("predict"), *CLASSIFIER],
        "threats": "no_validation",  # by name, in `fit`
        "budget": [
            StrOptions(set(BUDGETS)),
            Interval(Real, 0, None, closed="neither"),
        ],
        "constraints": [FeatureConstraints, None],
        "eps": [Interval(Real, 0, None, closed="neither"), None],
        "image_shape": [tuple, list, None],
        "time_limit": [Interval(Real, 0, None, closed="neither"), None],
        "memory": [str, HasMethods("cache"), None],
        "random_state": ["random_state"],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator: Any,
        threats: Sequence[str | Section] = (
            "evasion",
            "extraction",
            "privacy",
            "poisoning",
        ),
        budget: Literal["quick", "standard", "thorough"] | float = "quick",
        *,
        constraints: FeatureConstraints | None = None,
        eps: float | None = None,
        image_shape: tuple[Any, ...] | None = None,
        time_limit: float | None = None,
        memory: str | Memory | None = None,
        random_state: int | np.random.RandomState | None = 0,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.threats = threats
        self.budget = budget
        self.constraints = constraints
        self.eps = eps
        self.image_shape = image_shape
        self.time_limit = time_limit
        self.memory = memory
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X_train: ArrayLike,
        y_train: ArrayLike,
        X_test: ArrayLike,
        y_test: ArrayLike,
        *,
        groups_train: ArrayLike | None = None,
        groups_test: ArrayLike | None = None,
    ) -> Self:
        """Audit the victim.

        Parameters
        ----------
        X_train : {array-like, DataFrame} of shape (n_train, n_features)
            The rows that the victim was, or is, trained on.
        y_train : array-like of shape (n_train,)
            Their labels, or numbers for regressors.
        X_test : {array-like, DataFrame} of shape (n_test, n_features)
            Rows that it was not trained on.
        y_test : array-like of shape (n_test,)
            Their labels.
        groups_train, groups_test : array-like of shape (n_train,) or (n_test,), \
                default=None
            What rows belong together, such as the visits of one person, by the same
            names in both: the figures of privacy are then of groups; see
            :class:`~sklearn_advsec.privacy.PrivacyAudit`. Other sections take each row
            for itself.

        Returns
        -------
        self : object
            The audit.

        Warns
        -----
        InterruptedRunWarning
            If a user stops it (Ctrl-C): the report holds what was done by then.
        """
        begin = time.monotonic()
        sections = self._sections()
        data = self._check_data(X_train, y_train, X_test, y_test)
        groups = self._check_groups(groups_train, groups_test, data)
        self.estimator_ = self._open(data)
        subject, notes = self._look_at(data, groups)
        memory = check_memory(self.memory)
        fingerprint = self._fingerprint(subject)
        listed, untested, outcomes = [], {}, {}
        for section in sections:
            tasks, untested[section.threat] = self._tasks_of(section, subject)
            listed.append([(section, task) for task in tasks])
        # By turns, so that every threat has its share of the time.
        turns = zip_longest(*listed)
        jobs = [job for turn in turns for job in turn if job is not None]
        seconds = self.budget if isinstance(self.budget, Real) else None
        self.interrupted_ = False
        with self._reported(X_train, y_train, n_tasks=len(jobs)):
            self._announce(len(jobs))
            steps = run_all(
                jobs,
                subject,
                fingerprint=fingerprint,
                memory=memory,
                n_jobs=self.n_jobs,
                seconds=seconds,
                tell=self._tell,
            )
            try:
                for outcome in self._tasks(steps, "task"):
                    outcomes[outcome.task] = outcome
            except KeyboardInterrupt:
                self.interrupted_ = True
                warnings.warn(
                    f"The audit was interrupted: the report holds {len(outcomes)} of "
                    f"{len(jobs)} tasks.",
                    InterruptedRunWarning,
                    stacklevel=4,
                )
        reason = "the audit was stopped before"
        ends = [
            (section, outcomes.get(task, Outcome(task, None, "not started", reason)))
            for section, task in jobs
        ]
        self.report_ = self._write(subject, sections, ends, untested, notes)
        self.report_["audit"]["seconds"] = time.monotonic() - begin
        return self

    def _n_tasks(self):
        return None

    def _announce(self, n_tasks):
        """Say how many tasks there are; a user interface listens."""
        self._counts = [0, n_tasks, time.monotonic()]

    def _tell(self, outcome):
        """Say that a task is done."""
        self._counts[0] += 1
        if self.verbose:
            done, n_tasks, begin = self._counts
            passed = time.monotonic() - begin
            left = passed / done * (n_tasks - done)
            ended = "" if outcome.status == "done" else f" ({outcome.status})"
            print(
                f"[SecurityAudit] {done} of {n_tasks}: {outcome.task}{ended}, "
                f"{outcome.seconds:.1f} s; about {left:.0f} s to go",
                flush=True,
            )

    # What is audited --------------------------------------------------------------------

    def _sections(self):
        if not isinstance(self.threats, (list, tuple, set, frozenset)):
            raise ValueError(
                f"threats must be a list, such as ['evasion']; got {self.threats!r}."
            )
        sections = []
        for threat in self.threats:
            if isinstance(threat, Section):
                sections.append(threat)
            elif isinstance(threat, str) and threat in SECTIONS:
                sections.append(SECTIONS[threat]())
            else:
                raise ValueError(
                    f"threats must be among {list(SECTIONS)}, or a Section; got "
                    f"{threat!r}."
                )
        names = [section.threat for section in sections]
        twice = [name for name, n in Counter(names).items() if n > 1]
        if twice or not names:
            raise ValueError(f"threats must name one or more, each once; got {names}.")
        return sections

    def _check_data(self, X_train, y_train, X_test, y_test):
        """Return the rows as frames or arrays, and their labels."""
        checked = []
        allow_nan = not hasattr(self.estimator, "fit") or allows_nan(self.estimator)
        for name, X, y in (("train", X_train, y_train), ("test", X_test, y_test)):
            X, _ = plain_rows(X)
            if np.ndim(X) == 1:
                raise ValueError(
                    f"X_{name} must be rows of columns. Put texts into a column of a "
                    "DataFrame, of which a ColumnTransformer takes them."
                )
            owner = type(self).__name__
            X = check_rows(X, owner, allow_nan=allow_nan, name=f"X_{name}")
            y = as_labels(y, f"y_{name}")
            check_consistent_length(X, y)
            if len(y) < 2:
                raise ValueError(f"y_{name} has {len(y)} row(s); an audit needs two.")
            checked += [X, y]
        (X_train, y_train, X_test, y_test) = checked
        if X_train.shape[1:] != X_test.shape[1:]:
            raise ValueError(
                f"X_test has rows of shape {X_test.shape[1:]}, X_train of "
                f"{X_train.shape[1:]}."
            )
        frames = is_dataframe(X_train), is_dataframe(X_test)
        if frames[0] != frames[1]:
            raise ValueError("X_train and X_test must both be frames, or both arrays.")
        if frames[0] and list(X_train.columns) != list(X_test.columns):
            raise ValueError("X_test has other columns than X_train.")
        # A client, which has no tags, is taken for a classifier.
        if not (hasattr(self.estimator, "fit") and is_regressor(self.estimator)):
            check_classification_targets(y_train)
            known = set(y_train.tolist())
            unknown = [v for v in dict.fromkeys(y_test.tolist()) if v not in known]
            if unknown:
                raise ValueError(f"y_test holds {unknown[:3]}, which y_train does not.")
        if self.image_shape is not None:
            image_shape_of(X_train.shape[1:], self.image_shape)  # raises where it is none
        return checked

    @staticmethod
    def _check_groups(groups_train, groups_test, data):
        """Return the groups of training and test rows as numbers, or None for both."""
        if groups_train is None and groups_test is None:
            return None, None
        if groups_train is None or groups_test is None:
            raise ValueError("groups_train and groups_test must both be given, or none.")
        both = []
        for name, groups, y in (
            ("groups_train", groups_train, data[1]),
            ("groups_test", groups_test, data[3]),
        ):
            both.append(as_labels(groups, name))
            if len(both[-1]) != len(y):
                raise ValueError(f"{name} must be one for each of the {len(y)} rows.")
        codes = group_codes(np.concatenate(both), len(data[1]) + len(data[3]))
        return codes[: len(data[1])], codes[len(data[1]) :]

    def _open(self, data):
        """Return the fitted victim, which stays as it is from here on."""
        X_train, y_train, _, _ = data
        victim = as_victim(self.estimator)
        if not hasattr(victim, "fit"):
            return FrozenEstimator(RemoteVictim(victim, np.unique(y_train)))
        if not (is_classifier(victim) or is_regressor(victim)):
            raise TypeError(
                f"estimator must be a classifier or a regressor; {name_of(victim)} is "
                "neither."
            )
        fitted = fit_victim(victim, X_train, y_train, owner=self)
        return fitted if isinstance(fitted, FrozenEstimator) else FrozenEstimator(fitted)

    def _look_at(self, data, groups):
        """Return the subject, and what there is to say about it."""
        X_train, y_train, X_test, y_test = data
        notes = []
        shape = self.image_shape and tuple(self.image_shape)
        if X_train.ndim == 4:
            shape = tuple(X_train.shape[1:])
        constraints = self.constraints
        if constraints is None and shape is None:
            try:
                constraints = FeatureConstraints.from_frame(X_train)
            except Exception as error:
                notes.append(f"No feature constraints could be inferred: {error}")
        eps = self.eps if self.eps is not None else 0.1 if shape is None else 8 / 255
        effort = BUDGETS[self._budget_name()]
        if self.time_limit is not None:
            effort = replace(effort, time_limit=float(self.time_limit))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        subject = Subject(
            self.estimator_,
            X_train,
            y_train,
            X_test,
            y_test,
            self._recipe(seed % 2**31),
            constraints,
            shape,
            float(eps),
            effort,
            seed,
            groups_train=groups[0],
            groups_test=groups[1],
        )
        if groups[0] is not None:
            notes.append(
                "Rows belong together in groups: figures of privacy are of groups, those "
                "of other sections take each row for itself."
            )
        if subject.is_regressor:
            subject.delta = float(np.std(y_train)) / 2 or 1.0
            notes.append(
                "The victim is a regressor: a prediction counts as right within "
                f"{subject.delta:.4g} of the truth, half a standard deviation."
            )
        try:
            run_within(lambda: _ask_first(subject, notes), effort.time_limit)
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            notes.append(
                f"The model could not be asked about the test rows: "
                f"{type(error).__name__}: {text}"
            )
            subject.predicted = None
        return subject, notes

    def _budget_name(self):
        if isinstance(self.budget, str):
            return self.budget
        return next(name for most, name in _SECONDS if self.budget <= most)

    def _recipe(self, seed):
        """Return the victim unfitted, or None where nobody can train another."""
        model = unwrap(self.estimator_)
        if isinstance(model, RemoteVictim):
            return None
        if isinstance(model, BaseSearchCV) and hasattr(model, "best_estimator_"):
            model = model.best_estimator_  # what the search found, without the search
        recipe = clone(model)
        if recipe is model:
            return None
        seed_unset(recipe, seed)
        return recipe

    def _fingerprint(self, subject):
        """Return what stands for the victim, its data and the settings."""
        if self.memory is None:
            return None
        try:
            return joblib.hash([vars(subject), __version__])
        except Exception as error:
            raise ValueError(
                "memory needs a victim and data that can be pickled, to tell whether "
                f"they are the same: {error}"
            ) from None

    def _tasks_of(self, section, subject):
        if subject.predicted is None:
            reason = "the model could not be asked about the test rows; see the warnings"
            return [], [Untested(section.threat, "all attacks", reason)]
        return section.tasks(subject)

    # What is reported -------------------------------------------------------------------

    def _write(self, subject, sections, ends, untested, notes):
        """Return the document: plain lists, dicts, numbers and texts."""
        parts, said = [], list(notes)
        for section in sections:
            own = [outcome for other, outcome in ends if other is section]
            report = _report_of(section, subject, own, untested[section.threat])
            report.untested = untested[section.threat] + report.untested
            left = Counter(o.note for o in own if o.status == "not started")
            for note, n in left.items():
                report.untested.append(
                    Untested(section.threat, f"{n} of {len(own)} tasks", note)
                )
            said += report.warnings
            known = section.identifiers
            part = report.as_dict()
            for finding in part["findings"]:
                finding["technique"] = known.get(
                    finding["knowledge"], known.get("ATLAS", "")
                )
                finding["nist"] = known.get("NIST", "")
                finding["ai_act"] = known.get("AI Act", "")
            part |= {
                "threat": section.threat,
                "title": section.title,
                "question": section.question,
                "identifiers": dict(known),
            }
            parts.append(part)
        return plain(
            {
                "schema_version": SCHEMA_VERSION,
                "audit": self._about_audit(subject, ends),
                "victim": _about_victim(subject),
                "data": _about_data(subject),
                "warnings": list(dict.fromkeys(said)),
                "sections": parts,
            }
        )

    def _about_audit(self, subject, ends):
        effort = subject.effort
        return {
            "budget": self.budget
            if isinstance(self.budget, str)
            else self._budget_name(),
            "seconds_allowed": None if isinstance(self.budget, str) else self.budget,
            "time_limit_per_task": effort.time_limit,
            "eps": subject.eps,
            "seed": subject.seed,
            "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "interrupted": self.interrupted_,
            "n_tasks": len(ends),
            "n_tasks_done": sum(outcome.status == "done" for _, outcome in ends),
            "versions": _versions(),
            "constraints": None
            if subject.constraints is None
            else ("given" if self.constraints is not None else "inferred"),
            "doubts": [
                f"{d.column!r} was taken for {d.guess}: {d.reason}"
                for d in getattr(subject.constraints, "doubts_", [])[:50]
            ],
        }

    def _frame(self, name, kind):
        import pandas as pd

        check_is_fitted(self)
        rows = [row for part in self.report_["sections"] for row in part[name]]
        if not rows:  # it has its columns all the same
            return pd.DataFrame(columns=[field.name for field in fields(kind)])
        return pd.DataFrame(rows)

    @property
    def results_(self) -> pd.DataFrame:
        """One row for each figure."""
        return self._frame("findings", Finding)

    @property
    def brackets_(self) -> pd.DataFrame:
        """One row for each quantity between an attack and a proof."""
        return self._frame("brackets", Bracket)

    @property
    def recommendations_(self) -> pd.DataFrame:
        """Defenses, with figures."""
        return self._frame("recommendations", Recommendation)

    @property
    def not_tested_(self) -> pd.DataFrame:
        """What was not tested, and why."""
        return self._frame("untested", Untested)

    @property
    def summary_(self) -> dict[str, str]:
        """One sentence for each threat."""
        check_is_fitted(self)
        return {part["threat"]: part["headline"] for part in self.report_["sections"]}

    @property
    def warnings_(self) -> list[str]:
        """What a reader has to know before the figures."""
        check_is_fitted(self)
        return list(self.report_["warnings"])

    def __sklearn_is_fitted__(self):
        return hasattr(self, "report_")

    def to_json(self, path: str | PathLike[str] | None = None) -> str | None:
        """Write the report, for machines; see the schema in the documentation.

        Parameters
        ----------
        path : str or path-like, default=None
            The file; None returns the text.

        Returns
        -------
        text : str or None
            The text, where there is no path.
        """
        check_is_fitted(self)
        text = json.dumps(self.report_, ensure_ascii=False, allow_nan=False, indent=1)
        if path is None:
            return text
        with open(path, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        return None

    @classmethod
    def from_json(cls, source: str | PathLike[str]) -> Self:
        """Read a report that :meth:`to_json` wrote.

        Parameters
        ----------
        source : str or path-like
            The file, or its text.

        Returns
        -------
        audit : SecurityAudit
            One with a report and without an estimator.

        Raises
        ------
        ValueError
            If it is no report, or one of another version; the message names the part.
        """
        if isinstance(source, str) and source.lstrip().startswith("{"):
            text = source
        else:
            with open(source, encoding="utf-8") as file:
                text = file.read()
        audit = cls(None)
        audit.report_ = check_document(text)
        return audit

    def to_html(self, path: str | PathLike[str] | None = None) -> str | None:
        """Write the report as a page: one file that needs no other.

        Parameters
        ----------
        path : str or path-like, default=None
            The file; None returns the text.

        Returns
        -------
        text : str or None
            The text, where there is no path.

        Raises
        ------
        ImportError
            If jinja2 is missing: ``pip install "sklearn-advsec[audit]"``.
        """
        from ._page import render, write

        check_is_fitted(self)
        return write(render(self.report_), path)

    def to_csv(self, path: str | PathLike[str] | None = None) -> str | None:
        """Write `results_` as a table, in which no cell is a formula.

        Parameters
        ----------
        path : str or path-like, default=None
            The file; None returns the text.

        Returns
        -------
        text : str or None
            The text, where there is no path.
        """
        frame = self.results_
        for name in frame.columns:
            frame[name] = [_no_formula(value) for value in frame[name]]
        return frame.to_csv(path, index=False)

    def compare(self, other: SecurityAudit) -> AuditComparison:
        """Hold another audit against this one, as before and after a defense.

        Parameters
        ----------
        other : SecurityAudit
            The audit afterwards, or of the other model.

        Returns
        -------
        comparison : AuditComparison
            Figures side by side.
        """
        check_is_fitted(self)
        check_is_fitted(other)
        return AuditComparison(self.report_, other.report_)

    def assert_robust(
        self,
        *,
        min_robust_accuracy: float | None = None,
        min_certified_accuracy: float | None = None,
        max_tpr_at_fpr: float | None = None,
        max_fidelity: float | None = None,
        max_poisoned_error: float | None = None,
    ) -> Self:
        """Raise unless all bars are met, for a test that runs with others.

        What was not tested does not meet a bar. Attacks show what is at least possible:
        that a bar is met means that these attacks did not get beyond it.

        Parameters
        ----------
        min_robust_accuracy : float, default=None
            Accuracy under all attacks together within `eps`.
        min_certified_accuracy : float, default=None
            Accuracy that is proved within `eps`.
        max_tpr_at_fpr : float, default=None
            Members that the best attack finds, at the smallest false positive rate that
            there are enough records for.
        max_fidelity : float, default=None
            Agreement of the best copy.
        max_poisoned_error : float, default=None
            Test error, at the largest share of poison.

        Returns
        -------
        self : object
            The audit.

        Raises
        ------
        AssertionError
            If a bar is missed; the message has all of them.
        """
        check_is_fitted(self)
        bars = {
            "min_robust_accuracy": min_robust_accuracy,
            "min_certified_accuracy": min_certified_accuracy,
            "max_tpr_at_fpr": max_tpr_at_fpr,
            "max_fidelity": max_fidelity,
            "max_poisoned_error": max_poisoned_error,
        }
        missed = misses(self.report_, bars)
        if missed:
            raise AssertionError("; ".join(missed))
        return self

    def _repr_html_(self):
        """Return the verdict as a table, for notebooks."""
        if not hasattr(self, "report_"):
            return super()._repr_html_() if hasattr(super(), "_repr_html_") else None
        from html import escape

        rows = "".join(
            f"<tr><th>{escape(part['title'])}</th><td>{escape(part['headline'])}</td></tr>"
            for part in self.report_["sections"]
        )
        name = escape(self.report_["victim"]["name"])
        return f"<p>Security audit of {name}</p><table>{rows}</table>"

    def _repr_mimebundle_(self, **kwargs):
        if not hasattr(self, "report_"):
            return super()._repr_mimebundle_(**kwargs)
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def _report_of(section, subject, outcomes, untested):
    """Return a section's report; what was found stays known where there is none."""
    if not outcomes and untested:
        return SectionReport(headline=f"Not tested: {untested[0].reason}.")
    try:
        return section.report(subject, outcomes)
    except Exception as error:
        text = f"{section.threat} could not be reported: {type(error).__name__}: {error}"
        return SectionReport(
            unfinished([replace(o, status="failed", note=text[:300]) for o in outcomes]),
            headline="What was found could not be brought together; see the warnings.",
            warnings=[text],
        )


def _ask_first(subject, notes):
    """Find out what the victim gives, and what it says of the test rows."""
    victim, X = subject.estimator, subject.X_test
    subject.predicted = np.asarray(ask_labels(victim, X))
    if is_tree_ensemble(victim):
        try:
            tree_ensemble(victim)
            subject.is_trees = True
        except (TypeError, ValueError) as error:
            text = " ".join(str(error).split())[:200]
            notes.append(
                f"Its trees cannot be read, and are not attacked as such: {text}"
            )
    knowledge = ["label"]
    if subject.is_regressor:
        if _has_gradient(victim):
            knowledge.append("gradient")
        subject.knowledge = tuple(knowledge)
        return
    known = np.asarray(victim.classes_)
    if len(lost := np.setdiff1d(subject.y_train.astype(object), known.astype(object))):
        notes.append(f"The model does not know the labels {lost[:5].tolist()}.")
    try:
        method = (
            "predict_proba" if hasattr(victim, "predict_proba") else "decision_function"
        )
        scores = np.asarray(ask_scores(victim, X[:_COMPARED], method))
        knowledge.append("score")
    except Exception as error:
        if any(hasattr(victim, m) for m in ("predict_proba", "decision_function")):
            text = " ".join(str(error).split())[:200]
            notes.append(f"Its scores cannot be used: {text}")
    else:
        if scores.ndim == 2 and scores.shape[1] == len(known):
            largest = known[scores.argmax(axis=1)]
            differ = float(np.mean(largest != subject.predicted[:_COMPARED]))
            if differ:
                notes.append(
                    f"`predict` is not the class of the largest score on {differ:.1%} of "
                    "the test rows (a tuned threshold, or another rule): successes are "
                    "those of `predict`."
                )
    if "score" in knowledge and _has_gradient(victim):
        knowledge.append("gradient")
    subject.knowledge = tuple(knowledge)


def _has_gradient(victim):
    try:
        differentiable.view(victim)
    except Exception:
        return False
    return True


def _about_victim(subject):
    text = " ".join(repr(unwrap(subject.estimator)).split())
    about = {
        "name": subject.name,
        "model": type(subject.model).__name__,
        "text": text[:1000],
        "kind": "regressor" if subject.is_regressor else "classifier",
        "gives": list(subject.knowledge),
        "score": None,
        "trees": subject.is_trees,
        "can_be_retrained": subject.recipe is not None,
        "delta": subject.delta,
    }
    if subject.predicted is not None:
        about["score"] = float(subject.correct.mean())
    return about


def _about_data(subject):
    about = {
        "n_train": len(subject.y_train),
        "n_test": len(subject.y_test),
        "row_shape": [int(n) for n in subject.X_train.shape[1:]],
        "image_shape": subject.image_shape,
        "table": subject.image_shape is None,
    }
    if not subject.is_regressor:
        values, counts = np.unique(subject.y_test, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:20]
        about["n_classes"] = len(np.unique(subject.y_train))
        about["classes"] = [[str(values[i]), int(counts[i])] for i in order]
    return about


def _versions():
    found = {"python": platform.python_version(), "sklearn_advsec": __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _no_formula(value):
    if isinstance(value, str) and value.lstrip()[:1] in ("=", "+", "-", "@"):
        return "'" + value
    if isinstance(value, str) and value[:1] in ("\t", "\r"):
        return "'" + value
    return value
