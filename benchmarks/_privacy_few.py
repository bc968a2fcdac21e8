"""Membership from few shadow models, and from regressors: targets of one pool each."""

import warnings

import numpy as np
from _common import data_path, load_mnist
from _privacy_data import binary_records, without_gap
from _results import Claim, Table
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_friedman2, make_friedman3
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from sklearn_advsec.batched import fit_many
from sklearn_advsec.metrics import tpr_at_fpr
from sklearn_advsec.privacy import (
    RMIA,
    LikelihoodRatio,
    LossThreshold,
    MembershipGame,
    TrainedShadows,
    make_records,
)
from sklearn_advsec.privacy._shadow_base import draw_subsets

N_RECORDS, N_TARGETS, N_SHADOWS = 1200, 4, (4, 8, 16, 32)


class Remembered(ClassifierMixin, BaseEstimator):
    """A trained classifier that answers the same rows from memory."""

    def __init__(self, model):
        self.model, self.answers_ = model, {}
        self.classes_, self.n_features_in_ = model.classes_, model.n_features_in_

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y=None):
        return self

    def predict_proba(self, X):
        key = X.shape, X.dtype, X[:: len(X) // 20 or 1].tobytes()
        if key not in self.answers_:
            self.answers_[key] = self.model.predict_proba(X)
        return self.answers_[key]

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def adult_rows():
    import pandas as pd

    table = pd.read_parquet(data_path("adult.parquet")).drop(columns="split")
    table = table.sample(N_RECORDS, random_state=1)
    X = pd.get_dummies(table.drop(columns="income")).to_numpy(np.float32)
    return StandardScaler().fit_transform(X), (table["income"] == ">50K").to_numpy(int)


def mnist_rows():
    X, y, _, _ = load_mnist()
    rows = np.random.RandomState(1).permutation(len(X))[:N_RECORDS]
    X = X[rows].reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4))  # every four pixels as one
    return X.reshape(N_RECORDS, -1).astype(np.float32), y[rows]


def purchase_rows():
    return binary_records(N_RECORDS, 600, 100, 1.6, seed=2)


def location_rows():
    return binary_records(N_RECORDS, 446, 30, 1.35, seed=2)


RECIPES = {
    "MLP": MLPClassifier((64,), max_iter=40, batch_size=32),
    "RF": RandomForestClassifier(50),
    "GB": HistGradientBoostingClassifier(
        max_iter=15, max_leaf_nodes=15, early_stopping=False
    ),
}
# A boosted tree per class is too much for 30 or 100 of them.
FEW = {
    "Adult": (adult_rows, ("MLP", "RF", "GB")),
    "MNIST": (mnist_rows, ("MLP", "RF", "GB")),
    "records like those of Purchase-100": (purchase_rows, ("MLP", "RF")),
    "records like those of Location-30": (location_rows, ("MLP", "RF")),
}
ATTACKS = {
    "LiRA, fixed": lambda *a, **k: LikelihoodRatio(*a, variance="fixed", **k),
    "LiRA, per example": lambda *a, **k: LikelihoodRatio(*a, variance="per_example", **k),
    "RMIA": RMIA,
    "LiRA, shrunken": lambda *a, **k: LikelihoodRatio(*a, variance="shrunken", **k),
}
OURS = "LiRA, shrunken"


def few_shadows(name):
    """Online attacks on several targets of each recipe, from 4 to 32 shadow models."""
    make, recipes = FEW[name]
    X, y = make()
    records = make_records(X, y)
    rng = np.random.RandomState(0)
    draws = draw_subsets(len(y), max(N_SHADOWS), len(y) // 2, rng)
    draws += [np.sort(rng.permutation(len(y))[: len(y) // 2]) for _ in range(N_TARGETS)]
    rows = []
    for recipe in recipes:
        seeds = rng.randint(2**31 - 1, size=len(draws))
        with warnings.catch_warnings(action="ignore"):
            models = fit_many(RECIPES[recipe], X, y, draws, seeds)
        models = [Remembered(model) for model in models]
        for n in N_SHADOWS:
            shadows = TrainedShadows(models[:n], draws[:n])
            found = {attack: [] for attack in ATTACKS}
            for target, own in zip(models[-N_TARGETS:], draws[-N_TARGETS:], strict=True):
                member = np.isin(np.arange(len(y)), own)
                for attack, judge in ATTACKS.items():
                    judge = judge(
                        FrozenEstimator(target),
                        shadow_estimator=shadows,
                        n_shadow_models=n,
                        mode="online",
                    )
                    scores = judge.fit(records).decision_function(records)
                    found[attack].append(
                        (roc_auc_score(member, scores), tpr_at_fpr(member, scores))
                    )
            row = {"target": recipe, "shadows": n}
            for i, figure in enumerate(("AUC", "TPR@1%FPR")):
                for attack, values in found.items():
                    row[f"{figure} {attack}"] = float(np.mean(values, axis=0)[i])
            ours = np.array(found.pop(OURS))
            for i, figure in enumerate(("AUC", "TPR")):
                best = max(found.values(), key=lambda v: np.mean(v, axis=0)[i])
                ahead = ours[:, i] - np.array(best)[:, i]
                row[f"ahead, {figure}"] = float(ahead.mean())
                error = ahead.std(ddof=1) / np.sqrt(N_TARGETS)
                row[f"s.e., {figure}"] = float(error)
            rows.append(row)
    claims = [_ahead(rows, n) for n in N_SHADOWS]
    remark = (
        f"{N_TARGETS} targets of each recipe, means; {N_RECORDS} records, each target "
        "and each shadow model trained on a random half. `ahead` is by how much the "
        "shrunken ratio is above the best of the three others, with the standard error "
        "of the mean over targets, each with itself. Its parts were chosen on other "
        "tables."
    )
    return [Table(f"Membership: few shadow models, {name}", rows, claims, [remark])]


def _ahead(rows, n):
    rows = [row for row in rows if row["shadows"] == n]
    worst = [min(row[f"ahead, {figure}"] for row in rows) for figure in ("AUC", "TPR")]
    behind = any(
        row[f"ahead, {figure}"] < -2 * row[f"s.e., {figure}"] - 0.002
        for row in rows
        for figure in ("AUC", "TPR")
    )
    return Claim(
        f"{n} shadow models: shrunken LiRA less the best of LiRA and RMIA, on the worst "
        f"of {len(rows)} targets, AUC and TPR@1%FPR",
        f"{worst[0]:+.3f}, {worst[1]:+.3f}",
        not behind,
        "no less than 0, up to two standard errors and .002",
    )


# Shadow models as targets ---------------------------------------------------------------


class Told(ClassifierMixin, BaseEstimator):
    """A classifier that answers one table of rows, as it was told."""

    def __init__(self, proba):
        self.proba, self.classes_ = proba, np.arange(proba.shape[1])

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, X, y=None):
        return self

    def predict_proba(self, X):
        return self.proba

    def predict(self, X):
        return self.proba.argmax(axis=1)


def finite_pool(args, n_records=1000, n_shadow_models=16, n_seeds=2):
    """Shadow models that play the target, judged by the others of their pool."""
    found = {}
    for seed in range(n_seeds):
        rng = np.random.RandomState(seed)
        played = without_gap(seed)
        X, y = played.own[:n_records, :-1], played.own[:n_records, -1].astype(int)
        records = make_records(X, y)
        draws = draw_subsets(n_records, n_shadow_models, n_records // 2, rng)
        draws += [
            np.sort(rng.permutation(n_records)[: n_records // 2])
            for _ in range(n_shadow_models)
        ]
        trained = [np.isin(np.arange(n_records), rows) for rows in draws]
        seeds = rng.randint(2**31 - 1, size=len(draws))
        linear = fit_many(LogisticRegression(), X, y, draws, seeds)
        answers = {
            "linear": [model.predict_proba(X) for model in linear],
            "answers without a cause": softmax(
                rng.normal(size=(len(draws), n_records, 4)), 2
            ),
        }
        for target, told in answers.items():
            models = [Told(proba) for proba in told]
            for i in range(len(draws)):
                ways = {"a target of its own": range(n_shadow_models - 2)}  # as many
                if i < n_shadow_models:  # draws come in pairs that share no row
                    others = [j for j in range(n_shadow_models) if j != i]
                    ways = {"all others": others}
                    ways["without its complement"] = [j for j in others if j != i ^ 1]
                for way, judges in ways.items():
                    for variance in ("per_example", "shrunken"):
                        attack = LikelihoodRatio(
                            FrozenEstimator(models[i]),
                            shadow_estimator=TrainedShadows(
                                [models[j] for j in judges], [draws[j] for j in judges]
                            ),
                            n_shadow_models=len(judges),
                            mode="online",
                            variance=variance,
                        )
                        scores = attack.fit(records).decision_function(records)
                        area = roc_auc_score(trained[i], scores)
                        found.setdefault((target, variance, way), []).append(area)
    rows, claims = [], []
    for target, variance in dict.fromkeys(key[:2] for key in found):
        row = {"target": target, "variance": variance}
        for way in ("all others", "without its complement", "a target of its own"):
            areas = found[target, variance, way]
            row[way] = float(np.mean(areas))
            row[f"s.e., {way}"] = float(np.std(areas, ddof=1) / np.sqrt(len(areas)))
        rows.append(row)
        truth = 0.5 if target != "linear" else row["a target of its own"]
        error = row["s.e., without its complement"]
        error = np.hypot(error, row["s.e., a target of its own"])
        claims.append(
            Claim(
                f"{target}, {variance}: AUC without the complement",
                f"{row['without its complement']:.3f}",
                bool(abs(row["without its complement"] - truth) <= 3 * error),
                f"{truth:.3f}, up to three standard errors ({error:.3f})",
                f"{row['all others']:.3f}, all others",
            )
        )
    remark = (
        f"{n_records:,} rows of the target without a gap, {n_shadow_models} shadow "
        f"models on random halves of them, in pairs that share no row; {n_seeds} seeds. "
        "Each shadow model plays the target, as it does where scores are calibrated. As "
        "each record is in exactly half of all, how many of the others have it tells "
        "whether the one that plays has it. Left without its complement, they do not "
        "know; that is what is done always, since figures with the bias have no use. A "
        "target that was not drawn with the shadow models, as any that is audited, has "
        "none."
    )
    title = "Membership: shadow models that tell on each other"
    return [Table(title, rows, claims, [remark])]


# Regressors -----------------------------------------------------------------------------


def hours_rows(n=700):
    import pandas as pd

    table = pd.read_parquet(data_path("adult.parquet")).drop(columns="split")
    table = table.sample(n, random_state=2)
    hours = next(column for column in table.columns if column.startswith("hours"))
    X = pd.get_dummies(table.drop(columns=hours)).to_numpy(float)
    return StandardScaler().fit_transform(X), table[hours].to_numpy(float)


REGRESSIONS = {
    "hours of Adult": hours_rows,
    "Friedman 2": lambda: make_friedman2(700, noise=150.0, random_state=5),
    "Friedman 3": lambda: make_friedman3(700, noise=0.2, random_state=5),
}
REGRESSORS = {
    "RF": RandomForestRegressor(30, random_state=0),
    "GB": HistGradientBoostingRegressor(max_iter=40, max_leaf_nodes=15),
    "3 neighbours": make_pipeline(StandardScaler(), KNeighborsRegressor(3)),
    "tree of depth 7": DecisionTreeRegressor(max_depth=7, random_state=0),
}


def regressors(args, n_shadow_models=16):
    """Attacks on regressors, beside the threshold of the residual."""
    rows, claims = [], []
    for table, make in REGRESSIONS.items():
        X, y = make()
        for name, recipe in REGRESSORS.items():
            (played,) = MembershipGame(recipe, random_state=0).play(X, y)
            member, found = played.membership, {}
            shadows = {"n_shadow_models": n_shadow_models, "mode": "online"}
            attacks = {
                "residual": LossThreshold(played.target),
                "LiRA": LikelihoodRatio(played.target, **shadows),
                "RMIA": RMIA(played.target, **shadows),
            }
            for attack, judge in attacks.items():
                scores = judge.fit(played.records).decision_function(played.records)
                found[attack] = roc_auc_score(member, scores)
                found[f"{attack}, TPR@1%FPR"] = tpr_at_fpr(member, scores)
            row = {"table": table, "target": name}
            row |= {
                "R2 of members": played.train_accuracy,
                "others": played.test_accuracy,
            }
            rows.append(row | found)
            claims.append(
                Claim(
                    f"{table}, {name}: AUC of LiRA",
                    f"{found['LiRA']:.3f}",
                    found["LiRA"] >= found["residual"],
                    f"at least the {found['residual']:.3f} of the residual",
                )
            )
    remark = f"{n_shadow_models} shadow models, online; half of 700 records are members."
    return [Table("Membership: regressors", rows, claims, [remark])]
