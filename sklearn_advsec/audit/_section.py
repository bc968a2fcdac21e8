"""What a section of the audit is: a family's attacks, and what it makes of the outcome.

A section lists tasks, performs one of them at a time, and turns what came of them into
findings. The audit runs the tasks of all sections, within their time, and keeps what was
found.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from .._estimators import unwrap
from .._rows import RowCodec, is_dataframe
from .._sklearn import _safe_indexing

KNOWLEDGE = ("gradient", "score", "label")


@dataclass(frozen=True)
class Effort:
    """How much an audit does; what `budget` stands for.

    Attributes
    ----------
    n_rows : int
        Test rows that evasion attacks.
    n_records : int
        Records, half of them members, that membership is told of.
    n_training_rows : int
        Training rows that poisoned models and shadow models are trained on, at most.
    n_cv_rows : int
        Rows of the cross-validations of defenses.
    max_queries : int
        Questions about a row, in evasion by scores or labels.
    extraction_queries : tuple of int
        Questions of an extraction, one after another.
    n_shadow_models : int
        Shadow models of a membership attack.
    shares : tuple of float
        Shares of the training rows that are poisoned.
    time_limit : float
        Seconds for a task.
    deep : bool
        Whether to run what costs most, too.
    """

    n_rows: int
    n_records: int
    n_training_rows: int
    n_cv_rows: int
    max_queries: int
    extraction_queries: tuple
    n_shadow_models: int
    shares: tuple
    time_limit: float
    deep: bool = False


BUDGETS = {
    "quick": Effort(
        n_rows=48,
        n_records=400,
        n_training_rows=1000,
        n_cv_rows=200,
        max_queries=300,
        extraction_queries=(50, 200, 800),
        n_shadow_models=8,
        shares=(0.05, 0.1, 0.2),
        time_limit=60.0,
    ),
    "standard": Effort(
        n_rows=200,
        n_records=2000,
        n_training_rows=5000,
        n_cv_rows=1000,
        max_queries=1000,
        extraction_queries=(50, 200, 800, 3200),
        n_shadow_models=32,
        shares=(0.02, 0.05, 0.1, 0.2, 0.3),
        time_limit=300.0,
        deep=True,
    ),
    "thorough": Effort(
        n_rows=1000,
        n_records=10_000,
        n_training_rows=50_000,
        n_cv_rows=5000,
        max_queries=5000,
        extraction_queries=(50, 200, 800, 3200, 12_800, 51_200),
        n_shadow_models=128,
        shares=(0.01, 0.02, 0.05, 0.1, 0.2, 0.3),
        time_limit=3600.0,
        deep=True,
    ),
}


@dataclass
class Subject:
    """What is audited: a fitted victim, its data, and what it lets an attacker see.

    Attributes
    ----------
    estimator : FrozenEstimator
        The victim. It is shared, and stays as it is.
    X_train, y_train, X_test, y_test : array-like
        Data: what the victim was trained on, and what it was not.
    recipe : estimator or None
        How the victim was trained, unfitted; None where nobody knows.
    constraints : FeatureConstraints or None
        What rows have to keep.
    image_shape : tuple or None
        The shape of images, which are then rows or arrays.
    eps : float
        The size of changes that is asked about most, in ranges of the features.
    effort : Effort
        How much is done.
    seed : int
        Seed of everything.
    knowledge : tuple of str
        Of "gradient", "score" and "label", what the victim gives.
    is_trees : bool
        Whether it is a tree ensemble that can be read.
    predicted : ndarray of shape (n_test,)
        What the victim says of the test rows.
    delta : float or None
        For regressors, how far off a prediction is still right.
    groups_train, groups_test : ndarray of int or None
        What rows belong together, by the same numbers in both.

    See Also
    --------
    Section : Is told about it.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.audit import Section, SecurityAudit, SectionReport, Task
    >>> class Size(Section):
    ...     threat = title = question = "size"
    ...
    ...     def tasks(self, subject):
    ...         print(subject.name, subject.knowledge, subject.correct.mean())
    ...         return [Task(self.threat, "count")], []
    ...
    ...     def perform(self, subject, task):
    ...         return {"n": len(subject.training_sample(20)[1])}
    ...
    ...     def report(self, subject, outcomes):
    ...         return SectionReport(headline=f"{outcomes[0].evidence['n']} rows.")
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> X, y = make_blobs(60, centers=2, random_state=0, cluster_std=0.3)
    >>> audit = SecurityAudit(DecisionTreeClassifier(random_state=0), [Size()])
    >>> audit.fit(X[:40], y[:40], X[40:], y[40:]).summary_
    DecisionTreeClassifier ('label', 'score') 1.0
    {'size': '20 rows.'}
    """

    estimator: FrozenEstimator
    X_train: object
    y_train: np.ndarray
    X_test: object
    y_test: np.ndarray
    recipe: object
    constraints: object
    image_shape: tuple | None
    eps: float
    effort: Effort
    seed: int
    knowledge: tuple = ("label",)
    is_trees: bool = False
    predicted: np.ndarray | None = None
    delta: float | None = None
    groups_train: np.ndarray | None = None
    groups_test: np.ndarray | None = None

    @property
    def is_regressor(self) -> bool:
        """Whether the victim predicts numbers."""
        return is_regressor(self.estimator)

    @property
    def name(self) -> str:
        """The name of the victim's class, or of the client that answers for it."""
        victim = unwrap(self.estimator)
        return type(getattr(victim, "client", victim)).__name__

    @property
    def model(self) -> Any:
        """The victim itself, and of a pipeline its last step."""
        model = unwrap(self.estimator)
        while hasattr(model, "steps") or hasattr(model, "best_estimator_"):
            model = getattr(model, "best_estimator_", None) or model.steps[-1][1]
        return model

    @property
    def correct(self) -> np.ndarray:
        """Which test rows the victim gets right, without any attack."""
        return self.is_right(self.predicted, self.y_test)

    @property
    def is_numeric(self) -> bool:
        """Whether all columns hold numbers."""
        if not is_dataframe(self.X_train):
            return True
        return bool(RowCodec(self.X_train).columns.numeric.all())

    def is_right(self, predicted: ArrayLike, y: Any) -> np.ndarray:
        """Tell which predictions are right: within `delta`, for regressors."""
        if self.is_regressor:
            return np.abs(np.asarray(predicted, dtype=float) - y) <= self.delta
        return np.asarray(predicted == y)

    def test_rows(self, n_rows: int) -> Any:
        """Draw test rows: their positions, in order."""
        n_test = len(self.y_test)
        drawn = np.random.RandomState(self.seed).permutation(n_test)[:n_rows]
        return np.sort(drawn)

    def training_sample(self, n_rows: int) -> Any:
        """Draw training rows, each class by its share; return them with their labels."""
        rng = np.random.RandomState(self.seed)
        rows = rng.permutation(len(self.y_train))
        if len(rows) > n_rows:
            rows = rows[:n_rows]
            if not self.is_regressor:  # a class that was not drawn keeps one row
                classes, first = np.unique(self.y_train, return_index=True)
                lost = ~np.isin(classes, self.y_train[rows])
                rows = np.concatenate([rows, first[lost]])
        rows = np.sort(rows)
        return _safe_indexing(self.X_train, rows), self.y_train[rows]


@dataclass(frozen=True)
class Task:
    """One thing to do: an attack on a chunk of rows, a copy, a training.

    Attributes
    ----------
    threat : str
        The section's.
    name : str
        What is done, such as the name of the attack.
    part : tuple
        Which part of it: numbers and texts, the same in every run.

    See Also
    --------
    Section.tasks : Lists them.

    Examples
    --------
    >>> from sklearn_advsec.audit import Task
    >>> print(Task("evasion", "HopSkipJump", (0, 20)))
    evasion: HopSkipJump (0, 20)
    """

    threat: str
    name: str
    part: tuple = ()

    def __str__(self):
        part = f" ({', '.join(map(str, self.part))})" if self.part else ""
        return f"{self.threat}: {self.name}{part}"


@dataclass
class Outcome:
    """What came of a task.

    Attributes
    ----------
    task : Task
        The task.
    evidence : dict or None
        What `perform` returned.
    status : {"done", "failed", "time limit", "not started"}
        How it ended.
    note : str
        What happened, where it is not done; else what was warned of.
    seconds : float
        How long it took.

    See Also
    --------
    Section.report : Is told of them.

    Examples
    --------
    >>> from sklearn_advsec.audit import Outcome, Task
    >>> late = Outcome(Task("evasion", "RayS"), status="time limit", note="after 20 s")
    >>> late.evidence is None, late.status
    (True, 'time limit')
    """

    task: Task
    evidence: dict | None = None
    status: str = "done"
    note: str = ""
    seconds: float = 0.0


@dataclass
class Finding:
    """One figure of an attack, or that there is none.

    Attributes
    ----------
    threat, attack, knowledge, goal : str
        Who wants what, and sees what.
    parameters : str
        Of the attack.
    metric : str
        What `value` is.
    value, low, high : float or None
        The figure, and its interval at 95 %.
    baseline : float or None
        The same figure without the attack, or by guessing.
    baseline_is : str
        What the baseline is.
    n : int or None
        Of how many rows, records or models.
    queries : int or None
        How often the victim was asked.
    seconds : float
        How long it took.
    status, note : str
        As in :class:`Outcome`.
    reference : str
        The paper.

    See Also
    --------
    SecurityAudit.results_ : Has them in rows.

    Examples
    --------
    >>> from sklearn_advsec.audit import Finding
    >>> found = Finding("evasion", "RayS", value=0.4, baseline=0.9, n=50)
    >>> found.value < found.baseline, found.status
    (True, 'done')
    """

    threat: str
    attack: str
    knowledge: str = ""
    goal: str = ""
    parameters: str = ""
    metric: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    baseline: float | None = None
    baseline_is: str = ""
    n: int | None = None
    queries: int | None = None
    seconds: float = 0.0
    status: str = "done"
    note: str = ""
    reference: str = ""


@dataclass
class Bracket:
    """What lies between what an attack reached and what is proved.

    Attributes
    ----------
    threat : str
        The threat.
    quantity : str
        What is bracketed.
    at : float or None
        Of which size of change, rate or share.
    lower, upper : float
        The truth lies between; 0 or 1 where nothing is known.
    lower_by, upper_by : str
        What says so.
    low, high : float or None
        The interval of both ends at 95 %, for rows like these.
    n : int or None
        On how many rows.

    See Also
    --------
    SecurityAudit.brackets_ : Has them in rows.

    Examples
    --------
    >>> from sklearn_advsec.audit import Bracket
    >>> bracket = Bracket("evasion", "robust accuracy", 0.1, lower=0.35, upper=0.4,
    ...                   lower_by="certificate", upper_by="HopSkipJump")
    >>> round(bracket.upper - bracket.lower, 2)  # nobody knows more
    0.05
    """

    threat: str
    quantity: str
    at: float | None
    lower: float
    upper: float
    lower_by: str
    upper_by: str
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass
class Untested:
    """What was not tested, and why.

    See Also
    --------
    SecurityAudit.not_tested_ : Has them in rows.

    Examples
    --------
    >>> from sklearn_advsec.audit import Untested
    >>> Untested("evasion", "gradient attacks", "the victim has no gradients").reason
    'the victim has no gradients'
    """

    threat: str
    what: str
    reason: str


@dataclass
class Recommendation:
    """A defense, and what a quick cross-validation says of it.

    Attributes
    ----------
    threat, defense : str
        Against what, and which.
    parameters : str
        Of the defense.
    metric : str
        What was measured.
    before, after : float
        Means over the folds, without and with the defense.
    gain_low, gain_high : float
        Smallest and largest gain of a fold; positive is better.
    accuracy_before, accuracy_after : float
        What it costs (the score, for regressors).
    n_folds, n : int
        Folds, and rows of all of them.
    every_fold_better : bool
        Whether every fold is better with it: of three folds, that may be chance.

    See Also
    --------
    SecurityAudit.recommendations_ : Has them in rows.

    Examples
    --------
    >>> from sklearn_advsec.audit import Recommendation
    >>> tried = Recommendation(
    ...     "poisoning", "KNNSanitizer", "", "accuracy", before=0.7, after=0.8,
    ...     gain_low=0.05, gain_high=0.2, accuracy_before=0.9, accuracy_after=0.88,
    ...     n_folds=3, n=300, every_fold_better=True)
    >>> tried.gain_low > 0, round(tried.accuracy_before - tried.accuracy_after, 2)
    (True, 0.02)
    """

    threat: str
    defense: str
    parameters: str
    metric: str
    before: float
    after: float
    gain_low: float
    gain_high: float
    accuracy_before: float
    accuracy_after: float
    n_folds: int
    n: int
    every_fold_better: bool


@dataclass
class SectionReport:
    """All that a section has to say.

    Attributes
    ----------
    findings, brackets, untested, recommendations : list
        Of what their names say.
    headline : str
        One sentence in plain words.
    figures : dict
        What the page draws: plain numbers and texts.
    warnings : list of str
        What a reader has to know before the figures.

    See Also
    --------
    Section.report : Returns one.

    Examples
    --------
    >>> from sklearn_advsec.audit import SectionReport, Untested
    >>> untested = Untested("privacy", "shadow models", "nobody knows the recipe")
    >>> report = SectionReport(untested=[untested], headline="Nothing was tried.")
    >>> report.as_dict()["untested"][0]["what"]
    'shadow models'
    """

    findings: list = field(default_factory=list)
    brackets: list = field(default_factory=list)
    untested: list = field(default_factory=list)
    recommendations: list = field(default_factory=list)
    headline: str = ""
    figures: dict = field(default_factory=dict)
    warnings: list = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return plain lists and dicts."""
        return asdict(self)


class Section:
    """One threat of an audit; a family brings its own by a subclass.

    Pass an instance among the `threats` of :class:`SecurityAudit`.

    Attributes
    ----------
    threat : str
        Its name.
    title : str
        The title on the page.
    question : str
        What it answers, in plain words.
    identifiers : dict of str to str
        Of the attacks: MITRE ATLAS, NIST AI 100-2, and the class of the AI Act,
        article 15(5), and prEN 18282.

    See Also
    --------
    SecurityAudit : Runs the tasks of sections, and brings their reports together.

    Examples
    --------
    >>> from sklearn_advsec.audit import Finding, Section, SectionReport, Task
    >>> class Certainty(Section):
    ...     threat = "certainty"
    ...     title = question = "How certain is it?"
    ...
    ...     def tasks(self, subject):
    ...         return [Task(self.threat, "largest probability")], []
    ...
    ...     def perform(self, subject, task):
    ...         proba = subject.estimator.predict_proba(subject.X_test)
    ...         return {"mean": float(proba.max(axis=1).mean())}
    ...
    ...     def report(self, subject, outcomes):
    ...         (outcome,) = outcomes
    ...         mean = outcome.evidence["mean"]
    ...         finding = Finding(self.threat, outcome.task.name, value=mean)
    ...         return SectionReport([finding], headline=f"{mean:.0%} on average.")
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.audit import SecurityAudit
    >>> X, y = load_iris(return_X_y=True)
    >>> audit = SecurityAudit(LogisticRegression(max_iter=1000), [Certainty()])
    >>> audit.fit(X[::2], y[::2], X[1::2], y[1::2]).summary_
    {'certainty': '87% on average.'}
    """

    threat = ""
    title = ""
    question = ""
    identifiers = {}

    def tasks(self, subject: Subject) -> tuple[list[Task], list[Untested]]:
        """Return what is to be done, the most important first, and what cannot be.

        Parameters
        ----------
        subject : Subject
            What is audited.

        Returns
        -------
        tasks : list of Task
            In the order in which they are done.
        untested : list of Untested
            What this victim, or its data, does not allow.
        """
        raise NotImplementedError

    def perform(self, subject: Subject, task: Task) -> dict[str, Any]:
        """Do one task.

        Parameters
        ----------
        subject : Subject
            What is audited.
        task : Task
            One of those that `tasks` listed.

        Returns
        -------
        evidence : dict
            Numbers, texts and arrays, which pickle and may be kept by `memory`.
        """
        raise NotImplementedError

    def report(self, subject: Subject, outcomes: list[Outcome]) -> SectionReport:
        """Say what the outcomes mean.

        Parameters
        ----------
        subject : Subject
            What is audited.
        outcomes : list of Outcome
            Of all tasks, in their order, also of those that failed.

        Returns
        -------
        report : SectionReport
            The findings.
        """
        raise NotImplementedError


def unfinished(outcomes, **known):
    """Return a finding for each attack of which nothing came, and a note of the rest.

    Parameters
    ----------
    outcomes : list of Outcome
        Outcomes.
    **known : dict
        What else the findings say: a dict by the attack's name, or a value for all.

    Returns
    -------
    findings : list of Finding
        Those without a figure.
    """
    by_name = {}
    for outcome in outcomes:
        by_name.setdefault(outcome.task.name, []).append(outcome)
    findings = []
    for name, own in by_name.items():
        if any(outcome.status == "done" for outcome in own):
            continue
        worst = own[0]
        said = {
            key: value.get(name, "") if isinstance(value, dict) else value
            for key, value in known.items()
        }
        findings.append(
            Finding(
                worst.task.threat,
                name,
                status=worst.status,
                note=worst.note,
                seconds=sum(outcome.seconds for outcome in own),
                **said,
            )
        )
    return findings


def add_defenses(report, outcomes):
    """Add to a report what came of the tasks that cross-validate a defense.

    Parameters
    ----------
    report : SectionReport
        Gets recommendations, and notes of those that came to nothing.
    outcomes : list of Outcome
        All of the section; tasks on defenses are called "defense: " and its name.
    """
    for outcome in outcomes:
        name = outcome.task.name.removeprefix("defense: ")
        if name == outcome.task.name:
            continue
        if outcome.status == "done":
            report.recommendations.append(Recommendation(**outcome.evidence))
        else:
            what = Untested(outcome.task.threat, f"defense {name}", outcome.note)
            report.untested.append(what)


def reference_of(attack):
    """Return the first reference in the docstring of a class or function, on one line."""
    text = (attack if hasattr(attack, "__qualname__") else type(attack)).__doc__
    _, found, rest = (text or "").partition(".. [1]")
    if not found:
        return ""
    lines = []
    for line in rest.splitlines():
        line = line.strip()
        if lines and (not line or line.startswith((".. [", "Examples", "See Also"))):
            break
        if line:
            lines.append(line)
    return " ".join(lines)


def as_flat_rows(subject):
    """Return a subject with images as flat rows, for attacks that take no others."""
    if np.ndim(subject.X_test) == 2:
        return subject
    kind = {"shape": subject.X_train.shape[1:], "dtype": subject.X_train.dtype}
    to_images = FunctionTransformer(_as_images, kw_args=kind)
    recipe = subject.recipe
    return replace(
        subject,
        estimator=FrozenEstimator(make_pipeline(to_images, unwrap(subject.estimator))),
        recipe=None if recipe is None else make_pipeline(to_images, recipe),
        X_train=subject.X_train.reshape(len(subject.X_train), -1),
        X_test=subject.X_test.reshape(len(subject.X_test), -1),
    )


def _as_images(X, shape, dtype):
    return np.asarray(X, dtype=dtype).reshape(len(X), *shape)
