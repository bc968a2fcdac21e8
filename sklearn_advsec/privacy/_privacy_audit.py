"""The dossier of a model: all attacks on its records, and what is seen without one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from math import floor
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom, hypergeom, rankdata
from sklearn.base import MetaEstimatorMixin, clone, is_regressor
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_predict,
)
from sklearn.utils.validation import check_consistent_length, column_or_1d

from .._estimators import may_take_nan, name_of
from .._progress import ReportsProgress
from .._rows import RowCodec, check_rows, is_dataframe, plain_rows
from .._sklearn import (
    BaseEstimator,
    BaseSearchCV,
    HasMethods,
    Interval,
    StrOptions,
    _safe_indexing,
    fit_context,
)
from ..metrics._membership import (
    Resampled,
    clopper_pearson,
    group_codes,
    roc_auc_interval,
)
from ..victim._fitting import VICTIM
from ._base import check_target
from ._counting import LeafCounts, counting_certificate
from ._folds import FoldShadows, deal, models_of_folds, with_copies
from ._gap import GapAttack
from ._likelihood_ratio import LikelihoodRatio
from ._loss_threshold import LossThreshold
from ._records import Records, column_position, make_records
from ._rmia import RMIA
from ._shadow_base import (
    ShadowAttack,
    TrainedShadows,
    as_recipe_takes_them,
    draw_subsets,
    named_shadow,
)
from ._signals import (
    Answers,
    NumericAnswers,
    as_target_takes_them,
    probabilities,
    residuals,
)
from ._structure import structural_checks

if TYPE_CHECKING:
    from joblib import Memory

_ATTACKS = {
    "GapAttack": GapAttack,
    "LossThreshold": LossThreshold,
    "RMIA": RMIA,
    "LikelihoodRatio": partial(LikelihoodRatio, mode="online"),
}
_WITH_SHADOWS = ("RMIA", "LikelihoodRatio")
# Rates of false alarms at which an attack is judged; the smallest with enough records.
_RATES = (0.001, 0.01, 0.05, 0.1)
_FEW = 10
# Shadow models that play the target, to see what non-members score.
_MOST_PRETENDERS = 64
# Of the surest records, how many are looked at for whether members prevail.
_TAIL = 0.02
# Non-members are watched at these levels for whether p-values are what they say.
_WATCHED, _DOUBT, _DEVIATIONS = (0.01, 0.05, 0.2), 0.01, 3


class PrivacyAudit(ReportsProgress, MetaEstimatorMixin, BaseEstimator):
    """The privacy of one fitted model: what an auditor signs before it is released.

    All attacks ask about the same records, and share one set of shadow models. For every
    record, what they say together becomes one p-value: how often a record that is no
    member has so small a p-value in one of them. Non-members are seen where each shadow
    model in turn plays the target, on records that it was not trained on. The known
    non-members of the target itself check this; where they contradict it, p-values are
    their ranks among them instead.

    A member is *flagged* where its p-value holds for all members together (Holm), and
    the model as a whole shows a gap: the area of some attack is above one half, or
    members prevail among the surest records, at the same level for all attacks. Without
    that gap, no single record is evidence.

    Parameters
    ----------
    estimator : classifier or regressor
        The model, fitted: `FrozenEstimator(classifier)` or a `PretrainedModule`.
    attacks : "auto" or list of str, default="auto"
        Of "GapAttack" (labels only, of classifiers), "LossThreshold", "RMIA" and
        "LikelihoodRatio" (online). "auto" takes all that the model allows.
    shadow_estimator : classifier or TrainedShadows, default=None
        The recipe of the shadow models; None clones the target's own.
    n_shadow_models : int, default=32
        Number of shadow models, each trained on half of the records; they are also what
        p-values rest on.
    quasi_identifiers : list of int or str, default=None
        Columns that somebody may know of a person. Records that are alone with their
        values of them are single-outs.
    level : float, default=0.05
        How often a model without a gap may have any record flagged, and how often an
        interval may miss, for all attacks together.
    min_count : int, default=10
        Fewer training rows in a cell are few; see :func:`structural_checks`.
    domain : sequence of array-like, default=None
        The values of each feature, for :func:`counting_certificate` of forests.
    label_column : int or str, default=-1
        The column that holds the label, by position or name.
    memory : str or joblib.Memory, default=None
        Where finished shadow models are kept; see :class:`ShadowAttack`.
    n_jobs : int, default=None
        Number of joblib jobs; the result does not depend on it.
    random_state : int, RandomState instance or None, default=0
        Seed of the shadow models.

    Attributes
    ----------
    estimator_ : classifier or regressor
        The model.
    results_ : DataFrame
        One figure in a row: `attack`, `knowledge`, `metric`, `value`, its interval (`low`
        to `high`, which holds for all attacks together), the `baseline`, and of how many
        members and others. "all attacks" is the joint p-value as a score, "no model" is
        what tells members without asking it. Structural checks have no attack.
    records_ : DataFrame
        One record in a row, the most exposed first: its `member` (None where it is
        not known), whether it is `judged` (figures are of it, and it may be flagged: it
        is known, and neither others with its values nor its group are on both sides),
        the score and the p-value of each attack, `p_joint`, `p_adjusted` for
        all members together, `flagged`, `single_out`; of members, `cell_size`, `stored`
        and so on; `certificate` where counts of a forest prove something. The index is
        the position in `records`.
    structure_ : StructuralReport or None
        The structural checks, on the members as the training rows.
    certificate_ : CountingCertificate or None
        What the counts of a forest prove.
    limits_ : DataFrame
        What was not tested, and what to be careful with, with each `reason`.
    has_gap_ : bool
        Whether the model as a whole shows a gap.
    calibrated_ : bool
        Whether p-values come from shadow models, and the non-members agree.
    n_features_in_ : int
        Number of columns of the records.

    See Also
    --------
    RMIA : One of the attacks.
    structural_checks : What is seen without.
    sklearn_advsec.audit.SecurityAudit : Other threats, too.

    References
    ----------
    .. [1] S. Zarifzadeh, P. Liu, R. Shokri, "Low-cost high-power membership inference
       attacks", arXiv:2312.03262.
    .. [2] P. Westfall, S. Young, "Resampling-based multiple testing", Wiley 1993 (the
       least p-value of several tests, by its own distribution).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn_advsec.privacy import PrivacyAudit, make_records
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> forest = RandomForestClassifier(10, random_state=0).fit(X[:280], y[:280])
    >>> audit = PrivacyAudit(FrozenEstimator(forest), n_shadow_models=8)
    >>> audit = audit.fit(make_records(X, y), members=range(280))
    >>> audit.results_.query("attack == 'RMIA'")["metric"].tolist()
    ['AUC', 'TPR at 0.05 FPR']
    >>> audit.has_gap_
    True
    """

    _parameter_constraints = {
        "estimator": VICTIM,
        "attacks": [StrOptions({"auto"}), list, tuple],
        "shadow_estimator": [HasMethods(["fit"]), TrainedShadows, None],
        "n_shadow_models": [Interval(Integral, 2, None, closed="left")],
        "quasi_identifiers": [list, tuple, None],
        # Shared by all attacks and subtracted from 1, it must still be seen.
        "level": [Interval(Real, 1e-12, 1, closed="left")],
        "min_count": [Interval(Integral, 1, None, closed="left")],
        "domain": [list, tuple, np.ndarray, None],
        "label_column": [Integral, str],
        "memory": [str, HasMethods(["cache"]), None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any,
        attacks: Literal["auto"] | Sequence[str] = "auto",
        *,
        shadow_estimator: Any = None,
        n_shadow_models: int = 32,
        quasi_identifiers: Sequence[int | str] | None = None,
        level: float = 0.05,
        min_count: int = 10,
        domain: Sequence[ArrayLike] | None = None,
        label_column: int | str = -1,
        memory: str | Memory | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.attacks = attacks
        self.shadow_estimator = shadow_estimator
        self.n_shadow_models = n_shadow_models
        self.quasi_identifiers = quasi_identifiers
        self.level = level
        self.min_count = min_count
        self.domain = domain
        self.label_column = label_column
        self.memory = memory
        self.n_jobs = n_jobs
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        records: ArrayLike,
        y: Any = None,
        *,
        members: ArrayLike | None = None,
        non_members: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> PrivacyAudit:
        """Audit the model.

        Parameters
        ----------
        records : {array-like, DataFrame} of shape (n_records, n_columns)
            Features, and the label in `label_column`: the rows that the model was trained
            on, and about as many of the same source that it was not. Of several that
            belong together, such as the visits of one patient, say so by `groups`, or a
            model without a gap will seem to have one.
        y : None
            Ignored.
        members, non_members : array-like of int, or of bool of shape (n_records,)
            Which records are known to be in the training set, and not to be: positions,
            or masks. Without one of them, it is all others. Records in neither are used
            by the shadow models, and have p-values.
        groups : array-like of shape (n_records,), default=None
            What records belong together, as the splitters of scikit-learn take it. Groups
            are then what is drawn: for shadow models, for what is told without the
            model, and for intervals and the test of the whole model. Of a group with
            members and non-members, no figure is made. None takes each record for
            itself.

        Returns
        -------
        self : object
            The audit.
        """
        taken = self._open(records)
        groups = None if groups is None else group_codes(groups, len(taken))
        member, known = self._check_membership(taken, members, non_members, groups)
        names = self._names_of_attacks()
        answers = _ask(self.estimator_, taken)
        with self._reported(records, None):
            shadows, trained = self._shadows(taken, names, member, groups)
        folds = isinstance(self.shadow_estimator, FoldShadows)
        attacks = _offline(names) if folds else {name: _ATTACKS[name] for name in names}
        scored = _score_all(attacks, answers, shadows, trained, taken)
        self._conclude(taken, member, known, scored, groups)
        return self

    @classmethod
    def from_cross_validation(
        cls,
        search: Any,
        X: ArrayLike,
        y: ArrayLike,
        *,
        estimator: Any = None,
        X_out: ArrayLike | None = None,
        y_out: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        groups_out: ArrayLike | None = None,
        **parameters: Any,
    ) -> PrivacyAudit:
        """Audit with the models of a cross-validation; none is trained.

        Every row was left out once in each repetition, so that the models of the folds
        are shadow models. Without `X_out`, they are the targets as well: each plays the
        target, whose members are its training rows, and is judged by the models of other
        repetitions. That is an audit of the recipe, at the size of the training folds;
        it needs no rows but those of the search. With `X_out`, rows that were never
        trained on, the released model itself is audited.

        What there is to use: `cross_validate` keeps the models and their rows, if it is
        told to (``return_estimator=True, return_indices=True``). `GridSearchCV` keeps
        scores, and the model that is fitted to all rows in the end, but neither the
        models of the folds nor their rows. For a search, ``scoring=KeepModels()`` keeps
        them; its splits are made again from `cv`, and compared with what was kept.

        Parameters
        ----------
        search : dict or fitted search
            What `cross_validate` returned, or a search with ``scoring=KeepModels(...)``.
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            The rows that were cross-validated, in their order.
        y : array-like of shape (n_samples,)
            Their labels.
        estimator : classifier, default=None
            The model that is to be released, fitted to all of `X`; with a search, its
            `best_estimator_` is taken. Without one, `X_out` has no use.
        X_out : {array-like, DataFrame} of shape (n_out, n_features), default=None
            Rows of the same source that the model was not trained on.
        y_out : array-like of shape (n_out,), default=None
            Their labels.
        groups, groups_out : array-like of shape (n_samples,) or (n_out,), default=None
            What rows belong together; see `fit`. `cv` should not split groups either,
            such as `GroupKFold`.
        **parameters : dict
            Other parameters of the audit.

        Returns
        -------
        audit : PrivacyAudit
            The audit, fitted. Without `X_out`, every record is a member of some models
            and not of others: `records_` has no membership, and ``p_joint`` is twice the
            median over the models that it was in, which is a p-value however these
            depend on each other.

        Raises
        ------
        ValueError
            If no models were kept, or there is one repetition only, in which nothing is
            left to compare with (see `RepeatedStratifiedKFold`).

        Examples
        --------
        >>> from sklearn.datasets import load_breast_cancer
        >>> from sklearn.ensemble import ExtraTreesClassifier
        >>> from sklearn.model_selection import RepeatedStratifiedKFold, cross_validate
        >>> from sklearn_advsec.privacy import PrivacyAudit
        >>> X, y = load_breast_cancer(return_X_y=True)
        >>> done = cross_validate(
        ...     ExtraTreesClassifier(10, random_state=0), X, y, return_estimator=True,
        ...     return_indices=True, cv=RepeatedStratifiedKFold(n_splits=2, n_repeats=3)
        ... )
        >>> audit = PrivacyAudit.from_cross_validation(done, X, y)
        >>> audit.has_gap_
        True
        """
        models, trained_on = models_of_folds(search, X, y, groups)
        if estimator is None and isinstance(search, BaseSearchCV):
            estimator = getattr(search, "best_estimator_", None)
        y = column_or_1d(y)
        if X_out is None:
            target = models[0] if estimator is None else estimator
            audit = cls(_frozen(target), **parameters)
            has_target = estimator is not None
            return audit._fit_recipe(X, y, models, trained_on, has_target, groups)
        if estimator is None:
            raise ValueError("X_out needs the estimator that was fitted to all of X.")
        if y_out is None:
            raise ValueError("y_out must have the labels of X_out.")
        y_out = column_or_1d(y_out)
        check_consistent_length(X_out, y_out)
        rows = _joined(X, X_out)
        if (groups is None) != (groups_out is None):
            raise ValueError("groups and groups_out must both be given, or none.")
        codes = None
        if groups is not None:
            groups = np.concatenate([column_or_1d(groups), column_or_1d(groups_out)])
            codes = group_codes(groups, len(y) + len(y_out))[len(y) :]
        dealt = deal(trained_on, len(y), len(y_out), codes)
        audit = cls(
            _frozen(estimator), shadow_estimator=FoldShadows(models, dealt), **parameters
        )
        records = make_records(rows, np.concatenate([y, y_out]))
        if is_dataframe(records):
            audit.set_params(label_column="label")
        return audit.fit(records, members=np.arange(len(y)), groups=groups)

    @fit_context(prefer_skip_nested_validation=False)
    def _fit_recipe(self, X, y, models, trained_on, has_target, groups=None):
        """Let each model of a cross-validation play the target."""
        records = make_records(X, y)
        if is_dataframe(records):
            self.set_params(label_column="label")
        taken = self._open(records)
        groups = None if groups is None else group_codes(groups, len(taken))
        names = self._names_of_attacks()
        left_out = np.ones((len(models), len(y)), dtype=bool)
        for mask, rows in zip(left_out, trained_on, strict=True):
            mask[rows] = False
        trained, alone = with_copies(~left_out, _keys(taken))
        if not alone.all():
            self._limits.append(
                (
                    f"{int((~alone).sum())} of the records",
                    "others have the same values, and are in other folds",
                )
            )
        if alone.sum() < 2:
            raise ValueError(
                "X: all rows have copies, which are in other folds: no model is without "
                "them."
            )
        answers = [_ask(model, taken) for model in models]
        attacks, scores = _offline(names), {name: [] for name in names}
        index, label = _index_records(taken)
        for s in range(len(models)):
            # Of its own repetition, the others know all that it left out.
            rest = (left_out & left_out[s]).any(axis=1)
            rest[s] = False
            if not rest.any() or trained[rest][:, alone].all(axis=0).any():
                raise ValueError(
                    "search has one repetition only, in which each row was left out by "
                    "one model: take RepeatedStratifiedKFold, with 2 or more."
                )
            others = [answers[i] for i in np.flatnonzero(rest)]
            for name in names:
                scores[name].append(
                    _scores(
                        attacks[name], answers[s], others, trained[rest], index, label
                    )
                )
        self._say_what_splits(trained, groups)
        self._conclude_recipe(taken, trained, alone, scores, has_target, groups)
        return self

    def _conclude_recipe(self, taken, trained, alone, scores, has_target, groups):
        null = {n: [s[~t & alone] for s, t in zip(v, trained, strict=True)]
                for n, v in scores.items()}  # fmt: skip
        judge = _Scored({}, null)
        several, lows, n_alone = len(scores), [], int(alone.sum())
        shared = {"n_members": n_alone, "n_non_members": n_alone}
        for name, values in scores.items():
            own = [scores[alone] for scores in values]
            low, value, high = _mean_area(
                trained[:, alone],
                own,
                1 - self.level / several,
                groups=None if groups is None else groups[alone],
            )
            lows.append(low)
            self._add(attack=name, knowledge=_knowledge(name), metric="AUC", value=value,
                      low=low, high=high, baseline=0.5, **shared)  # fmt: skip
        self.has_gap_, self.calibrated_ = bool(max(lows) > 0.5), True
        p_values, p_joint = judge.p_values_of(scores, trained & alone)
        adjusted = _holm(p_joint)
        columns = {f"p_{name}": values for name, values in p_values.items()}
        columns |= {
            "p_joint": p_joint,
            "p_adjusted": adjusted,
            "flagged": (adjusted <= self.level) & self.has_gap_,
            "single_out": self._single_outs(taken),
        }
        self._limits.append(
            (
                "the released model",
                "the models of the folds were judged, which are trained on less rows",
            )
        )
        self.structure_ = self.certificate_ = None
        if has_target:
            columns |= self._look_inside(taken, np.ones(len(taken), dtype=bool))
        self._write(columns, p_joint)

    # What is audited --------------------------------------------------------------------

    def _open(self, records):
        """Check what is given, and return the records."""
        self._limits, self._figures = [], []
        self.estimator_ = check_target(
            self.estimator, type(self).__name__, regressors=True
        )
        rows, _ = plain_rows(records)
        allow_nan = may_take_nan(self.estimator)
        rows = check_rows(rows, type(self).__name__, allow_nan=allow_nan, name="records")
        if np.ndim(rows) != 2:
            raise ValueError("records must be rows of features and a label.")
        self.n_features_in_ = rows.shape[1]
        classes = None
        if not is_regressor(self.estimator_):
            classes = np.asarray(self.estimator_.classes_)
        taken = Records(rows, self.label_column, classes)
        taken.features = as_target_takes_them(taken.features, self.estimator_)
        return taken

    def _check_membership(self, taken, members, non_members, groups):
        """Return who is a member, and who is judged: of whom it is known, and clear."""
        inside = _mask(members, len(taken), "members")
        outside = _mask(non_members, len(taken), "non_members")
        if inside is None and outside is None:
            raise ValueError("members, or non_members, must say which records are.")
        inside = ~outside if inside is None else inside
        outside = ~inside if outside is None else outside
        if (inside & outside).any():
            raise ValueError("members and non_members have records in common.")
        keys = _keys(taken)
        # Values that many have are the ones that both have. Left to the members alone,
        # they would look like what a model remembers.
        both = np.isin(keys, keys[inside]) & np.isin(keys, keys[outside])
        if both.any():
            self._limits.append(
                (
                    f"{int((inside & both).sum())} of the members, and "
                    f"{int((outside & both).sum())} of the non-members",
                    "they have the same values; the figures are without them",
                )
            )
        judged = (inside | outside) & ~both
        units, what = np.arange(len(taken)), "do not have the values of the other"
        if groups is not None:
            units, what = groups, "are of groups with no other"
            torn = np.isin(groups, groups[inside]) & np.isin(groups, groups[outside])
            if torn.any():
                self._limits.append(
                    (
                        f"{int((inside & torn).sum())} of the members, and "
                        f"{int((outside & torn).sum())} of the non-members",
                        "they are of the same groups; the figures are without them",
                    )
                )
            judged &= ~torn
        if min(len(np.unique(units[kind & judged])) for kind in (inside, outside)) < 2:
            kinds = (
                "members and two" if groups is None else "groups of members and two of"
            )
            raise ValueError(
                f"There must be two {kinds} non-members, or more, that {what}."
            )
        return inside, judged

    def _names_of_attacks(self):
        """Return the attacks that the model allows; what it does not is a limit."""
        names = list(_ATTACKS) if self.attacks == "auto" else list(self.attacks)
        known = all(isinstance(name, str) and name in _ATTACKS for name in names)
        if not known or not names or len(set(names)) < len(names):
            raise ValueError(
                f"attacks must be 'auto', or some of {list(_ATTACKS)}, each once; got "
                f"{self.attacks!r}."
            )
        if is_regressor(self.estimator_):
            if self.attacks != "auto" and "GapAttack" in names:
                raise TypeError("attacks: 'GapAttack' is on classifiers.")
            return [name for name in names if name != "GapAttack"]
        if hasattr(self.estimator_, "predict_proba"):
            return names
        model = name_of(self.estimator_)
        if self.attacks != "auto" and names != ["GapAttack"]:
            raise TypeError(f"attacks: {model} gives no probabilities; see 'GapAttack'.")
        self._limits.append(("attacks by probabilities", f"{model} gives none"))
        return ["GapAttack"]

    def _n_tasks(self):
        return None  # shadow models are trained where an attack needs some

    def _say_what_splits(self, trained, groups):
        """Add as a limit that models were trained on parts of groups."""
        if groups is None:
            return
        n_records = np.bincount(groups)
        n_split = sum(
            not np.isin(np.bincount(groups[mask], minlength=len(n_records)) / n_records,
                        [0, 1]).all()
            for mask in trained
        )  # fmt: skip
        if n_split:
            self._limits.append(
                (
                    "groups in shadow models",
                    f"{n_split} of {len(trained)} were trained on a part of a group, and "
                    "know the rest of it better than the target knows any non-member",
                )
            )

    def _shadows(self, taken, names, member, groups):
        """Train shadow models, and ask them once; return answers, and on what trained."""
        if not set(names) & set(_WITH_SHADOWS):
            self._limits.append(
                (
                    "records one by one",
                    "without shadow models, p-values are ranks among the non-members",
                )
            )
            return [], np.zeros((0, len(taken)), dtype=bool)
        trainer = _Shadows(
            self.estimator_,
            shadow_estimator=self.shadow_estimator,
            n_shadow_models=self._n_shadows(),
            label_column=self.label_column,
            memory=self.memory,
            n_jobs=self.n_jobs,
            random_state=self.random_state,
        )
        trainer._groups = groups
        if hasattr(self, "_reporting"):  # the shadow models are tasks of this audit
            trainer._reporting = self._reporting
        trainer.fit(taken.rows)
        trained = trainer.trained_on(taken)
        self._say_what_splits(trained, groups)
        usual, n_members = trained.sum(axis=1).mean(), int(member.sum())
        if not 0.5 <= usual / n_members <= 2:
            self._limits.append(
                (
                    "shadow models like the target",
                    f"they were trained on {usual:.0f} records, and it on {n_members} or "
                    "more: they may overfit more, or less",
                )
            )
        return trainer.shadow_estimators_, trained

    def _n_shadows(self):
        if isinstance(self.shadow_estimator, TrainedShadows):
            return len(self.shadow_estimator.estimators)
        return self.n_shadow_models

    # What comes of it -------------------------------------------------------------------

    def _conclude(self, taken, member, known, scored, groups):
        """Turn scores into figures, p-values and flags."""
        others = known & ~member
        p_values, p_joint = scored.p_values(others)
        self.calibrated_ = scored.n_null > 0 and scored.agrees_with(p_joint[others])
        if scored.n_null and not self.calibrated_:
            self._limits.append(
                (
                    "p-values from shadow models",
                    "the known non-members contradict them; ranks among these stand "
                    "in for them",
                )
            )
            p_values, p_joint = scored.without_null().p_values(others)
        if p_joint.min() * member.sum() > self.level:
            self._limits.append(
                (
                    "flags of single records",
                    f"{scored.n_null or int(others.sum())} scores of non-members cannot "
                    f"show p-values small enough for {int(member.sum())} members, or no "
                    "member has one",
                )
            )
        several = len(scored.target)
        for name, scores in scored.target.items():
            self._measure(name, scores, member, known, groups, several)
        self._measure("all attacks", -p_joint, member, known, groups)
        blind = self._without_model(taken, member, known, groups)
        self._measure("no model", blind, member, known, groups)
        self.has_gap_ = self._gap(scored, -p_joint, member, known, groups)
        adjusted = np.ones(len(taken))
        judged = member & known
        adjusted[judged] = _holm(p_joint[judged])
        flagged = (adjusted <= self.level) & judged & self.has_gap_
        columns = {"member": _maybe(member, known | member), "judged": known}
        for name, scores in scored.target.items():
            columns[f"score_{name}"] = scores
            columns[f"p_{name}"] = p_values[name]
        columns |= {"p_joint": p_joint, "p_adjusted": adjusted, "flagged": flagged}
        columns["single_out"] = self._single_outs(taken)
        columns |= self._look_inside(taken, member)
        self._write(columns, p_joint)

    def _measure(self, name, scores, member, known, groups, several=1):
        """Add the figures of an attack, on the records of which membership is known."""
        if scores is None:
            return
        truth, scores = member[known], scores[known]
        groups = None if groups is None else groups[known]
        shared = {
            "attack": name,
            "knowledge": _knowledge(name),
            "n_members": int(truth.sum()),
            "n_non_members": int((~truth).sum()),
        }
        confidence = 1 - self.level / several
        low, high = roc_auc_interval(truth, scores, confidence, groups)
        area = float(roc_auc_score(truth, scores))
        self._add(metric="AUC", value=area, low=low, high=high, baseline=0.5, **shared)
        rate = next((r for r in _RATES if r * shared["n_non_members"] >= _FEW), None)
        if rate is None or name == "no model":
            return
        value, low, high = _true_rate(truth, scores, rate, confidence, groups)
        metric = f"TPR at {rate:g} FPR"
        self._add(metric=metric, value=value, low=low, high=high, baseline=rate, **shared)

    def _add(self, **figure):
        self._figures.append(figure)

    def _without_model(self, taken, member, known, groups):
        """Score records by themselves, as somebody does who never asks the model."""
        rows = np.flatnonzero(known)
        units = np.arange(len(taken)) if groups is None else groups
        n_units = [len(np.unique(units[known & kind])) for kind in (member, ~member)]
        if min(n_units) < 5:
            return None
        array = RowCodec(taken.rows).encode(_safe_indexing(taken.rows, rows))
        kind = StratifiedKFold if groups is None else StratifiedGroupKFold
        folds = kind(3, shuffle=True, random_state=0)
        own = None if groups is None else groups[rows]
        blind = HistGradientBoostingClassifier(max_iter=30, random_state=0)
        scores = np.zeros(len(taken))
        scores[rows] = cross_val_predict(
            blind,
            array.astype(float),
            member[rows],
            groups=own,
            cv=folds,
            method="predict_proba",
        )[:, 1]
        low, _ = roc_auc_interval(member[rows], scores[rows], 1 - self.level, own)
        if low > 0.5:
            self._limits.append(
                (
                    "membership by itself",
                    "members and others differ without any model (AUC "
                    f"{roc_auc_score(member[rows], scores[rows]):.3f}); figures of "
                    "attacks measure this, too",
                )
            )
        return scores

    def _gap(self, scored, joint, member, known, groups):
        """Tell whether the model as a whole gives members away: a test of all attacks."""
        truth = member[known]
        groups = None if groups is None else groups[known]
        confidence = 1 - self.level / len(scored.target)
        lows = [
            roc_auc_interval(truth, scores[known], confidence, groups)[0]
            for scores in scored.target.values()
        ]
        surest = np.argsort(-joint[known], kind="stable")
        n_surest = max(_FEW, round(_TAIL * len(truth)))
        surest = surest[:n_surest]
        if groups is None:
            found = truth[surest].sum()
            tail = hypergeom.sf(found - 1, len(truth), truth.sum(), n_surest)
        else:
            tail = _tail_by_groups(truth, surest, groups)
        return bool(max(lows) > 0.5 or tail <= self.level / 2)

    def _single_outs(self, taken):
        """Return which records are alone with their quasi-identifiers; None without."""
        if self.quasi_identifiers is None:
            return None
        at = [
            column_position(taken.rows, column, "quasi_identifiers")
            for column in self.quasi_identifiers
        ]
        known = Records(_safe_indexing(taken.rows, at, axis=1), None, taken.classes)
        keys = known.keys(single=False)
        counts = {}
        for key in keys:
            counts[key] = counts.get(key, 0) + 1
        return np.array([counts[key] == 1 for key in keys])

    def _look_inside(self, taken, member):
        """Make the structural checks and the certificate, and return their columns."""
        rows, columns = np.flatnonzero(member), {}
        features = _safe_indexing(taken.features, rows)
        labels = taken.labels[rows]
        self.structure_ = self.certificate_ = None
        try:
            self.structure_ = structural_checks(
                self.estimator_, features, labels, min_count=self.min_count
            )
        except Exception as error:  # a client, or a model that hides what it is
            self._limits.append(("structural checks", f"{type(error).__name__}: {error}"))
        if self.structure_ is not None:
            found = self.structure_
            for check in found.checks():
                failing = None if check["fails"] is None else bool(check["fails"])
                limit = check["limit"]
                self._add(metric=check["check"], value=check["value"], baseline=limit,
                          fails=failing, n_members=found.n_rows)  # fmt: skip
            for name in ("cell_size", "leaf_size", "discloses_class", "in_small_group"):
                columns[name] = _of_members(getattr(found, name), member)
            columns["stored"] = _of_members(found.is_stored, member)
        self._certify(taken, columns)
        return columns

    def _certify(self, taken, columns):
        try:
            LeafCounts(self.estimator_)
        except (TypeError, ValueError) as error:
            self._limits.append(("proofs from counts", str(error)))
            return
        if not all(np.issubdtype(t, np.number) for t in _dtypes(taken.features)):
            self._limits.append(("proofs from counts", "features are no numbers"))
            return
        self.certificate_ = counting_certificate(
            self.estimator_,
            make_records(taken.features, taken.labels),
            domain=self.domain,
            label_column=-1,
        )
        columns["certificate"] = self.certificate_.status
        if self.domain is None:
            self._limits.append(
                ("proofs that a record is in", "they need the domain of the features")
            )

    def _write(self, columns, p_joint):
        import pandas as pd

        kept = {name: values for name, values in columns.items() if values is not None}
        order = np.argsort(p_joint, kind="stable")
        self.records_ = pd.DataFrame(kept).iloc[order]
        first = "attack knowledge metric value low high baseline fails".split()
        names = [*first, "n_members", "n_non_members"]
        self.results_ = pd.DataFrame(self._figures, columns=names)
        others = "attributes, properties, inversion, groups of records"
        self._limits.append((others, "only membership of single records was tested"))
        self.limits_ = pd.DataFrame(self._limits, columns=["what", "reason"])
        del self._limits, self._figures

    def to_json(self, path: Any = None, *, n_records: int | None = 100) -> str:
        """Write the audit as JSON.

        Parameters
        ----------
        path : path-like, default=None
            A file to write; None only returns the text.
        n_records : int or None, default=100
            How many records, the most exposed ones; None is all of them.

        Returns
        -------
        text : str
            An object with `model`, `has_gap`, `calibrated`, `level`, `results`,
            `records`, `stored` and `limits`.
        """
        records = self.records_.reset_index(names="record").head(
            len(self.records_) if n_records is None else n_records
        )
        stored = [] if self.structure_ is None else self.structure_.stored
        document = {
            "model": name_of(self.estimator_),
            "level": float(self.level),
            "has_gap": self.has_gap_,
            "calibrated": self.calibrated_,
            "n_flagged": int(self.records_["flagged"].sum()),
            "results": json.loads(self.results_.to_json(orient="records")),
            "records": json.loads(records.to_json(orient="records")),
            "stored": [
                {"path": s.path, "holds": s.holds, "rows": s.rows.tolist()}
                for s in stored
            ],
            "limits": json.loads(self.limits_.to_json(orient="records")),
        }
        text = json.dumps(document, indent=1)
        if path is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return text


# Scores ---------------------------------------------------------------------------------


class _Shadows(ShadowAttack):
    """Trains shadow models for all attacks at once, and judges nothing."""

    _takes_regressors = _keeps_answers = True
    _groups = None

    def __init__(
        self,
        estimator: Any,
        *,
        shadow_estimator: Any = None,
        n_shadow_models: int = 32,
        label_column: int | str = -1,
        memory: Any = None,
        n_jobs: int | None = None,
        random_state: Any = 0,
    ) -> None:
        self.estimator = estimator
        self.shadow_estimator = shadow_estimator
        self.n_shadow_models = n_shadow_models
        self.label_column = label_column
        self.memory = memory
        self.n_jobs = n_jobs
        self.random_state = random_state

    def _learn(self, records, member):
        self._train_shadows(records)
        if isinstance(self.shadow_estimator, TrainedShadows):
            self.shadow_estimators_ = list(
                map(self._answers(records), self.shadow_estimators_)
            )

    def _draw_subsets(self, pool, rng):
        if self._groups is None:
            return super()._draw_subsets(pool, rng)
        n_groups = self._groups.max() + 1
        size = self._subset_size(n_groups)
        drawn = draw_subsets(n_groups, self.n_shadow_models, size, rng)
        return [np.flatnonzero(np.isin(self._groups, groups)) for groups in drawn]

    def _set_threshold(self, records, member):
        """Do nothing: no record is judged here."""

    def _answers(self, records):
        """Return what asks a model about the records: numbers are less than a forest."""
        return partial(_answers_to, records.features, records.values, records.classes)

    def trained_on(self, records):
        return self._trained_on(records)


def _answers_to(features, values, classes, model):
    """Return what a shadow model says of records."""
    with named_shadow():
        features = as_recipe_takes_them(features, model)
        if values is not None:
            return NumericAnswers(values - residuals(model, features, values))
        proba = probabilities(model, features, classes)
        return Answers(classes, proba.argmax(axis=1), proba)


class _Scored:
    """Scores of all attacks, and of shadow models that played the target.

    Parameters
    ----------
    target : dict of str to ndarray of shape (n_records,)
        Scores by attack.
    null : dict of str to list of ndarray
        Scores by attack and shadow model, of the records that it was not trained on.
    """

    def __init__(self, target, null):
        self.target = target
        self.null = {name: np.concatenate(parts) for name, parts in null.items()}
        self._sizes = [len(part) for part in next(iter(null.values()), ())]

    @property
    def n_null(self):
        return sum(self._sizes)

    def without_null(self):
        return _Scored(self.target, {})

    def p_values(self, others):
        """Return the p-values of records by attack, and of the least of them.

        Without scores of shadow models, those of the non-members among the records stand
        for them, of which each leaves itself out.
        """
        own = not self.n_null
        p_values = {}
        for name, scores in self.target.items():
            null = scores[others] if own else self.null[name]
            p_values[name] = _rank(scores, null, others if own else None)
        least = np.min(list(p_values.values()), axis=0)
        of_null = least[others] if own else self._least_of_null()
        return p_values, _rank(-least, -of_null, others if own else None)

    def _least_of_null(self):
        return np.min([_rank(null, null) for null in self.null.values()], axis=0)

    def p_values_of(self, scores, trained):
        """Return p-values over the models that records were in: twice their median.

        Parameters
        ----------
        scores : dict of str to list of ndarray of shape (n_records,)
            Scores by attack and model.
        trained : ndarray of bool, shape (n_models, n_records)
            Which model was trained on which records.
        """
        by_model = {
            name: np.stack([_rank(own, self.null[name]) for own in values])
            for name, values in scores.items()
        }
        least = np.min(list(by_model.values()), axis=0)
        joint = _rank(-least.ravel(), -self._least_of_null()).reshape(least.shape)
        twice = {name: _twice_median(p, trained) for name, p in by_model.items()}
        return twice, _twice_median(joint, trained)

    def agrees_with(self, p_values):
        """Tell whether the p-values of non-members are small no more often than they say.

        Those of one target depend on each other: they may be off by as much as those of
        the shadow models are.
        """
        least = self._least_of_null()
        parts = np.split(_rank(-least, -least), np.cumsum(self._sizes)[:-1])
        for level in _WATCHED:
            count, n = int((p_values <= level).sum()), len(p_values)
            usual = [float((part <= level).mean()) for part in parts]
            beyond = count / n > np.mean(usual) + _DEVIATIONS * np.std(usual)
            if beyond and binom.sf(count - 1, n, level) < _DOUBT:
                return False
        return True


def _rank(scores, null, included=None):
    """Return the share of non-members that score as high, this one included."""
    ordered = np.sort(null)
    above = len(ordered) - np.searchsorted(ordered, scores, side="left")
    n = np.full(len(scores), len(ordered))
    if included is not None:  # these are among the null themselves
        above, n = above - included, n - included
    return (1 + above) / (1 + n)


def _ask(model, taken):
    """Ask a model about the records, once for all attacks."""
    if taken.values is None:
        return Answers.ask(model, taken.features)
    residual = residuals(model, taken.features, taken.values)
    return NumericAnswers(taken.values - residual)


def _index_records(taken):
    """Return records that are their numbers, for models that are :class:`Answers`."""
    numbers = np.arange(len(taken), dtype=float)[:, np.newaxis]
    records = make_records(numbers, taken.labels)
    return records, records.columns[-1] if is_dataframe(records) else -1


def _score_all(attacks, answers, shadows, trained, taken):
    """Run the attacks on the target, and on each shadow model in its place."""
    records, label = _index_records(taken)
    target = {
        name: _scores(attack, answers, shadows, trained, records, label)
        for name, attack in attacks.items()
    }
    if len(shadows) < 3:
        return _Scored(target, {})
    null = {name: [] for name in attacks}
    for s in range(min(len(shadows), _MOST_PRETENDERS)):
        rest = np.arange(len(shadows)) != s
        others = [shadows[i] for i in np.flatnonzero(rest)]
        if not _can_judge(trained[rest]):
            return _Scored(target, {})
        for name, attack in attacks.items():
            scores = _scores(attack, shadows[s], others, trained[rest], records, label)
            null[name].append(scores[~trained[s]])
    return _Scored(target, null)


def _can_judge(trained):
    return bool(trained.any(axis=0).all() and not trained.all(axis=0).any())


def _scores(make, target, shadows, trained, records, label):
    """Return the scores of an attack, whatever its threshold."""
    parameters = {"label_column": label}
    if issubclass(getattr(make, "func", make), ShadowAttack):
        parameters["n_shadow_models"] = len(shadows)
        indices = [np.flatnonzero(mask) for mask in trained]
        parameters["shadow_estimator"] = TrainedShadows(shadows, indices)
    attack = make(FrozenEstimator(target), **parameters)
    attack._calibrates = False
    return attack.fit(records).decision_function(records) + attack.threshold_


def _offline(names):
    """Return attacks that look at models without a record only."""
    return {n: LikelihoodRatio if n == "LikelihoodRatio" else _ATTACKS[n] for n in names}


def _knowledge(name):
    attack = _ATTACKS.get(name)
    return getattr(getattr(attack, "func", attack), "knowledge", "")


# Statistics -----------------------------------------------------------------------------


def _twice_median(p_values, trained):
    """Return twice the median of each record's p-values, over the models with it."""
    own = np.where(trained, p_values, np.nan)
    own[:, ~trained.any(axis=0)] = 1  # left out by all
    return np.minimum(1, 2 * np.nanmedian(own, axis=0))


def _mean_area(trained, scores, confidence, n_bootstraps=100, groups=None):
    """Return the mean area over models, between the ends of its interval.

    Records, or groups of them, are drawn with all that the models say of them, since each
    is judged often.
    """
    rng = np.random.RandomState(0)
    n = trained.shape[1]

    def area(rows):
        inside, n = trained[:, rows], len(rows)
        n_in = inside.sum(axis=1)
        both = (n_in > 0) & (n_in < n)
        ranks = rankdata(np.stack(scores)[both][:, rows], axis=1)
        n_in, above = n_in[both], (ranks * inside[both]).sum(axis=1)
        return float(((above - n_in * (n_in + 1) / 2) / (n_in * (n - n_in))).mean())

    if groups is None:
        drawn = [area(rng.randint(n, size=n)) for _ in range(n_bootstraps)]
    else:
        samples = Resampled(np.ones(n, dtype=bool), groups)
        drawn = [area(samples.draw(rng)) for _ in range(n_bootstraps)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), area(np.arange(n)), float(high)


def _holm(p_values):
    """Adjust p-values for all of them together (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    left = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p_values[order] * left))
    return adjusted


def _tail_by_groups(truth, surest, groups, n_permutations=9999):
    """Return how often as many of the surest records are members, of groups by chance.

    A permutation test: which groups are in is drawn anew, whole, as many as there are.
    """
    codes = np.unique(groups, return_inverse=True)[1].ravel()
    inside = np.zeros(codes.max() + 1, dtype=bool)
    inside[codes[truth]] = True
    n_surest = np.bincount(codes[surest], minlength=len(inside))
    drawn = np.random.RandomState(0).rand(n_permutations, len(inside)).argsort(axis=1)
    found = n_surest[drawn[:, : inside.sum()]].sum(axis=1)
    return (1 + (found >= n_surest[inside].sum()).sum()) / (1 + n_permutations)


def _true_rate(truth, scores, rate, confidence, groups=None, n_bootstraps=1000):
    """Return the share of members above all but `rate` of the others, and its interval.

    By resampling both kinds, and exact where all samples agree.
    """
    rng = np.random.RandomState(0)
    inside, outside = scores[truth], scores[~truth]

    def found(members, others):
        allowed = floor(rate * others.shape[-1] + 1e-9)
        at = others.shape[-1] - 1 - allowed
        ordered = np.partition(others, at, axis=-1)
        return (members > ordered[..., [at]]).mean(axis=-1)

    n_units = len(inside)
    if groups is None:
        parts = [
            found(
                inside[rng.randint(len(inside), size=(50, len(inside)))],
                outside[rng.randint(len(outside), size=(50, len(outside)))],
            )
            for _ in range(n_bootstraps // 50)
        ]
        values = np.concatenate(parts)
    else:
        n_units = len(np.unique(groups[truth]))
        samples = Resampled(truth, groups)
        drawn = [samples.draw(rng) for _ in range(n_bootstraps)]
        values = [found(scores[r[truth[r]]], scores[r[~truth[r]]]) for r in drawn]
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    if low == high:
        low, high = clopper_pearson(round(low * n_units), n_units, confidence)
    return float(found(inside, outside)), float(low), float(high)


def _frozen(estimator):
    already = isinstance(estimator, FrozenEstimator) or clone(estimator) is estimator
    return estimator if already else FrozenEstimator(estimator)


def _joined(X, X_out):
    parts = [plain_rows(rows)[0] for rows in (X, X_out)]
    frames = [is_dataframe(rows) for rows in parts]
    if frames[0] != frames[1] or np.shape(parts[0])[1:] != np.shape(parts[1])[1:]:
        raise ValueError("X_out must be rows of the same kind and columns as X.")
    if not frames[0]:
        return np.concatenate([np.asarray(rows) for rows in parts])
    import pandas as pd

    return pd.concat(parts, ignore_index=True)


# Columns --------------------------------------------------------------------------------


def _keys(taken):
    """Return what tells the values of records apart."""
    return np.array(taken.keys(single=not taken.collide()), dtype=object)


def _mask(rows, n_rows, name):
    """Return positions, or a mask, as a mask; None for None."""
    if rows is None:
        return None
    rows = column_or_1d(np.asarray(list(rows) if isinstance(rows, range) else rows))
    if rows.dtype == bool:
        if len(rows) != n_rows:
            raise ValueError(f"{name} has {len(rows)} entries for {n_rows} records.")
        return rows
    if rows.dtype.kind not in "iu":
        raise ValueError(f"{name} must be positions of records, or a mask.")
    if len(rows) and not 0 <= rows.min() <= rows.max() < n_rows:
        raise ValueError(f"{name} must be positions among the {n_rows} records.")
    mask = np.zeros(n_rows, dtype=bool)
    mask[rows] = True
    return mask


def _maybe(member, known):
    return np.where(known, member, None)


def _of_members(values, member):
    """Return values of members as a column of all records; None where there are none."""
    if values is None:
        return None
    column = np.full(len(member), None, dtype=object)
    column[member] = values
    return column


def _dtypes(rows):
    return rows.dtypes if is_dataframe(rows) else [rows.dtype]
