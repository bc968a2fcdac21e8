"""Membership from few shadow models, and from regressors: targets of one pool each."""

import warnings

import numpy as np
from _common import data_path, load_mnist
from _privacy_data import binary_records
from _results import Claim, Table
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_friedman2, make_friedman3
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.frozen import FrozenEstimator
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
