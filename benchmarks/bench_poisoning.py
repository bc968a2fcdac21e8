"""Poison in training data: what attacks do to retrained models, and what bounds them.

    python benchmarks/bench_poisoning.py [--only SECTION ...] [--write]

Every attack is measured after retraining from the arrays that it returned, with a new
seed, and stands beside a cheap rival; every sanitizer beside random and chosen poison,
and beside clean data. Times are CPU seconds of one thread.
"""

import argparse
import shlex
import sys
import time
import warnings
from functools import partial

import numpy as np
import pandas as pd
from _common import available, data_path
from _results import Claim, Table, record
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.preprocessing import KBinsDiscretizer
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_limits

from sklearn_advsec.poisoning import (
    RONI,
    CertifiedPoisoningBound,
    DeepPartitionAggregation,
    DegreeOfSimilarity,
    FakeUsers,
    InfluenceSanitizer,
    KNNSanitizer,
    LabelFlipping,
    LossTrimming,
    MatrixFactorization,
    MinMaxPoisoning,
    PCAVarSelect,
    SphereSlabSanitizer,
    SVMPoisoning,
    TreePoisoning,
    injection_report,
)
from sklearn_advsec.threat import FeatureConstraints


def log(row):
    print(row, file=sys.stderr, flush=True)


# Data ---------------------------------------------------------------------------------


def digits(one, other):
    """Return two MNIST classes as rows in [0, 1]: X and y of training, then of test."""
    parts = []
    with np.load(data_path("mnist.npz")) as arrays:
        for part in ("train", "test"):
            y = arrays[f"y_{part}"].astype(int)
            of = np.isin(y, (one, other))
            parts += [arrays[f"X_{part}"][of].reshape(of.sum(), -1) / 255.0, y[of]]
    return parts


def one_hot(name):
    """Return a table in one-hot bins, split in two, and what makes its rows valid."""
    if name == "Adult":
        frame = pd.read_parquet(data_path("adult.parquet"))
        y = frame["income"].astype(str).str.startswith(">").to_numpy().astype(int)
        X, kinds = frame.drop(columns=["income", "split"]), None
        numbers = X.select_dtypes("number")
        kinds = [pd.get_dummies(X[c]) for c in X if c not in numbers]
        binned, groups = bins(numbers.to_numpy(float), 5)
        X = np.hstack([binned, *(k.to_numpy(float) for k in kinds)])
        groups += [k.shape[1] for k in kinds]
        keep = np.random.RandomState(0).permutation(len(y))[:6000]
        X, y = X[keep], y[keep]
    else:
        target = {"phishing_url": "status", "spambase": "spam"}[name]
        frame = pd.read_parquet(data_path(f"{name}.parquet"))
        y = pd.factorize(frame[target], sort=True)[0]
        X, groups = bins(frame.drop(columns=target).to_numpy(float), 10)
    constraints, at = FeatureConstraints.from_frame(X), 0
    for j, size in enumerate(groups):
        if size > 1:
            columns = list(range(at, at + size))
            constraints.set(columns, kind="binary", lower=0.0, upper=1.0, step=None)
            constraints.set(columns, group=f"column {j}")
        at += size
    split = train_test_split(X, y, train_size=0.7, random_state=0, stratify=y)
    return (*(split[i] for i in (0, 2, 1, 3)), constraints)


def bins(X, n_bins):
    X = X[:, X.std(0) > 0]
    binner = KBinsDiscretizer(
        n_bins, encode="onehot-dense", quantile_method="averaged_inverted_cdf"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bins too small to keep
        return binner.fit_transform(X), [int(n) for n in binner.n_bins_]


def timed(run):
    start = time.process_time()
    result = run()
    return result, time.process_time() - start


# Sections -----------------------------------------------------------------------------


def certificate(args):
    X, y, *_ = digits(1, 7)
    eps = (0.005, 0.01, 0.02, 0.03, 0.05)
    rows = []
    for rho, intercept in ((1.0, False), (0.9, True)):
        model = CertifiedPoisoningBound(eps=eps, rho=rho, fit_intercept=intercept)
        bound, seconds = timed(lambda model=model: model.fit(X, y))
        for j, share in enumerate(eps):
            upper, lower = bound.upper_[j], bound.attack_loss_[j]
            rows.append(
                {"rho": rho, "intercept": str(intercept), "eps": share}
                | {"upper bound": upper, "attack": lower}
                | {"gap": 1 - lower / upper, "CPU s (all eps)": seconds}
            )
            log(rows[-1])
    gaps = [row["gap"] for row in rows if row["eps"] >= 0.01]
    slowest = max(row["CPU s (all eps)"] for row in rows)
    known = {0.01: 0.0497, 0.03: 0.0623, 0.05: 0.0629}
    found = [r["upper bound"] for r in rows if r["rho"] == 0.9 and r["eps"] in known]
    off = np.abs(np.subtract(found, list(known.values()))).max()
    claims = [
        Claim(
            "bound of a model with an intercept, of norm .9, at eps .01, .03 and .05",
            ", ".join(f"{upper:.4f}" for upper in found),
            bool(off <= 1e-3),
            "within 1e-3 of .0497, .0623, .0629",
        ),
        Claim(
            "largest gap between bound and attack at eps >= .01",
            f"{max(gaps):.4f}",
            bool(0 <= min(gaps) and max(gaps) <= 0.005),
            "between 0 and .005",
        ),
        Claim(
            "1,000 steps for five shares", f"{slowest:.1f} s", slowest <= 20, "<= 20 s"
        ),
    ]
    remark = (
        "Both are proofs: the attack's column is a lower bound of the training loss on "
        "its poison. The bounds depend on the norm `rho`, and figures of other "
        "implementations compare at equal `rho` only. That of the wanted ones was not "
        "handed down: without an intercept no norm gives all three, with one .9 does."
    )
    return [Table("Certificate, MNIST-1-7, 70th percentile", rows, claims, [remark])]


def flips(args):
    shares, rows = (0.05, 0.1, 0.2), []
    X, y, X_test, y_test = digits(1, 7)
    models = {
        "LogisticRegression": (
            LogisticRegression(max_iter=2000),
            ("random", "farthest", "alfa", "gradient"),
        ),
        "SVC(linear)": (SVC(kernel="linear"), ("random", "farthest", "alfa")),
    }
    for name, (model, strategies) in models.items():
        for strategy in strategies:
            row = {"model": name, "flips": strategy}
            for share in shares:
                errors, seconds = [], []
                for seed in range(5):
                    order = np.random.RandomState(seed).permutation(len(y))
                    own, held = order[:500], order[500:1000]
                    attack = LabelFlipping(
                        model,
                        strategy=strategy,
                        budget=share,
                        validation=(X[held], y[held]),
                        random_state=seed,
                    )
                    poisoned, used = timed(
                        lambda attack=attack, own=own: attack.fit_resample(X[own], y[own])
                    )
                    seconds.append(used)
                    errors.append(1 - model.fit(*poisoned).score(X_test, y_test))
                row[f"error at {share:.0%}"] = float(np.mean(errors))
                row["most CPU s"] = max(*seconds, row.get("most CPU s", 0.0))
            rows.append(row)
            log(row)
    by = {row["flips"]: row for row in rows if row["model"] == "LogisticRegression"}
    ahead = [
        by["gradient"][f"error at {s:.0%}"] - by["farthest"][f"error at {s:.0%}"]
        for s in shares
    ]
    alfa = next(row for row in rows if row["flips"] == "alfa" and "SVC" in row["model"])
    alfa = [alfa[f"error at {s:.0%}"] for s in shares]
    claims = [
        Claim(
            "gradient ahead of farthest, in points, at 5, 10 and 20 %",
            ", ".join(f"{100 * a:.1f}" for a in ahead),
            bool(ahead[0] >= 0.01 and ahead[1] >= 0.01 and ahead[2] >= 0),
            ">= 1, 1 and 0",
        ),
        Claim(
            "slowest attack by gradient",
            f"{by['gradient']['most CPU s']:.1f} s",
            by["gradient"]["most CPU s"] <= 5,
            "<= 5 s",
        ),
        Claim(
            "alfa on the SVM",
            ", ".join(f"{a:.3f}" for a in alfa),
            all(a >= w for a, w in zip(alfa, (0.076, 0.139, 0.255), strict=True)),
            ">= .076, .139, .255",
        ),
    ]
    title = "Label flips, MNIST-1-7, 500 rows and 500 of validation, mean of 5 seeds"
    remark = (
        "The wanted figures of alfa are those of one draw of 500 rows, on which farthest "
        "flips give .079, .146 and .250: alfa beside them is .96, .95 and 1.02 times as "
        "harmful, here 1.00, 1.00 and 1.01 times. Over ten draws (seeds 0 to 9) alfa "
        "gives .079, .135 and .241, from .067 to .102, .117 to .154 and .221 to .263. "
        "Tried: C of 0.03 and 0.1, which give less harm; the alternations end by "
        "themselves after a few rounds."
    )
    return [Table(title, rows, claims, [remark])]


def points(args):
    rows = []
    for name in ("MNIST-4-9", "phishing_url", "spambase", "Adult"):
        if name == "MNIST-4-9":
            X, y, X_test, y_test = digits(4, 9)
            own = np.random.RandomState(0).permutation(len(y))[:2000]
            X, y, constraints = X[own], y[own], None
            model, steps = LinearSVC(C=0.01, random_state=0), 1000
        else:
            steps = 600  # chosen on other splits of spambase
            X, y, X_test, y_test, constraints = one_hot(name)
            model = GridSearchCV(
                LinearSVC(random_state=0), {"C": [0.001, 0.01, 0.1, 1]}, cv=3
            )
        settings = {"random flips": None, "any point": None}
        if constraints is not None:
            settings["valid points"] = constraints
        clean = 1 - model.fit(X, y).score(X_test, y_test)
        for kind, allowed in settings.items():
            attack = LabelFlipping(strategy="random", budget=0.03, random_state=0)
            if kind != "random flips":
                attack = MinMaxPoisoning(
                    model,
                    constraints=allowed,
                    rho=2.0,
                    max_iter=steps,
                    random_state=0,
                )
            (X_new, y_new), seconds = timed(
                lambda attack=attack, data=(X, y): attack.fit_resample(*data)
            )
            model.set_params(
                **{k: 1 for k in model.get_params() if k.endswith("random_state")}
            )
            error = 1 - model.fit(X_new, y_new).score(X_test, y_test)
            rows.append(
                {"data": f"{name} ({X.shape[0]} x {X.shape[1]})", "3 % of": kind}
                | {"clean error": clean, "error": error, "CPU s": seconds}
            )
            log(rows[-1])
    found = {(r["data"].split()[0], r["3 % of"]): r for r in rows}

    def claim(data, kind, least, gain):
        row = found[data, kind]
        value = row["error"] - (row["clean error"] if gain else 0)
        text = "rise of the error" if gain else "error"
        return Claim(
            f"{data}, {kind}: {text}", f"{value:.3f}", value >= least, f">= {least}"
        )

    claims = [
        claim("phishing_url", "any point", 0.14, False),
        claim("MNIST-4-9", "any point", 0.11, False),
        claim("phishing_url", "valid points", 0.025, True),
        claim("spambase", "valid points", 0.03, True),
    ]
    remark = (
        "Points pass sphere and slab of the 95th percentile. On tables, C is tuned anew "
        "on the poisoned rows, and by the attacker's surrogate. The wanted error on "
        "phishing_url is that of a model that errs on .073 of clean rows: a rise of "
        ".067. Tried against it: norms from 0.5 to 16, up to 1,000 steps, surrogates of "
        "C from 0.001 to 1, points of many steps and of one, KKTPoisoning and "
        "InfluencePoisoning, which do less; whatever C, errors end between .131 and .139."
    )
    title = "Min-max points, LinearSVC, after retraining"
    return [Table(title, rows, claims, [remark])]


def partitions(args):
    X, y, X_test, y_test = digits(1, 7)
    model = DeepPartitionAggregation(LinearSVC(), n_partitions=1000, random_state=0)
    _, fit = timed(lambda: model.fit(X, y))
    found, certify = timed(lambda: model.certify(X_test))
    right = np.where(found.y_pred == y_test, found.radius, -1)
    row = {
        "partitions": 1000,
        "accuracy": float(np.mean(found.y_pred == y_test)),
        "median certificate": float(np.median(right)),
        "CPU s, fit": fit,
        "CPU s, certify": certify,
    }
    log(row)
    good = row["accuracy"] >= 0.965 and row["median certificate"] >= 480
    claims = [
        Claim(
            "accuracy, and median certificate in rows",
            f"{row['accuracy']:.3f}, {row['median certificate']:.0f}",
            good,
            ">= .965 and >= 480",
        ),
        Claim("time of both", f"{fit + certify:.1f} s", fit + certify <= 5, "<= 5 s"),
    ]
    return [Table("Deep partition aggregation, MNIST-1-7", [row], claims)]


def sanitizers(args):
    X, y, X_test, y_test = digits(1, 7)
    model = LogisticRegression(max_iter=2000)
    sanitizing = {
        "none": None,
        "KNNSanitizer": KNNSanitizer(),
        "LossTrimming": LossTrimming(model, contamination=0.1, random_state=0),
        "InfluenceSanitizer": InfluenceSanitizer(model, contamination=0.1),
        "SphereSlabSanitizer": SphereSlabSanitizer(contamination=0.1),
    }
    rows = []
    for name, sanitizer in sanitizing.items():
        row = {"sanitizer": name}
        for poison in ("clean", "random", "farthest", "gradient"):
            errors, removed = [], []
            for seed in range(3):
                order = np.random.RandomState(seed).permutation(len(y))
                own, held = order[:500], order[500:1000]
                data = X[own], y[own]
                if poison != "clean":
                    data = LabelFlipping(
                        model,
                        strategy=poison,
                        budget=0.1,
                        validation=(X[held], y[held]),
                        random_state=seed,
                    ).fit_resample(*data)
                if sanitizer is not None:
                    data = sanitizer.fit_resample(*data)
                    kept, moved = sanitizer.sample_indices_, sanitizer.relabelled_
                    removed.append(1 - (len(kept) - len(moved)) / 500)
                errors.append(1 - model.fit(*data).score(X_test, y_test))
            row[f"error, {poison}"] = float(np.mean(errors))
            if poison == "clean" and removed:
                row["clean rows touched"] = float(np.mean(removed))
        rows.append(row)
        log(row)
    title = "Sanitizers, 10 % of flips, MNIST-1-7, 500 rows, mean of 3 seeds"
    return [Table(title, rows)]


def trees(args):
    rows, ahead = [], []
    for name in ("spambase", "Adult"):
        frame = pd.read_parquet(data_path(f"{name.lower()}.parquet"))
        target = {"spambase": "spam", "Adult": "income"}[name]
        y = frame[target].astype(str).str.startswith((">", "1")).to_numpy().astype(int)
        X = frame.drop(columns=[c for c in (target, "split") if c in frame])
        numbers = set(X.select_dtypes("number"))
        X = np.column_stack(
            [X[c] if c in numbers else pd.factorize(X[c], sort=True)[0] for c in X]
        ).astype(float)
        keep = np.random.RandomState(0).permutation(len(y))[:4000]
        X, X_test, y, y_test = train_test_split(
            X[keep], y[keep], train_size=1500, random_state=0, stratify=y[keep]
        )
        for model in (
            RandomForestClassifier(50, random_state=0),
            GradientBoostingClassifier(n_estimators=50, random_state=0),
        ):
            clean = 1 - model.fit(X, y).score(X_test, y_test)
            attacks = {
                "random": LabelFlipping(strategy="random", random_state=0),
                "farthest": LabelFlipping(model, strategy="farthest", random_state=0),
                "TreePoisoning": TreePoisoning(model, random_state=0),
            }
            found = {}
            for flips, attack in attacks.items():
                row = {"data": name, "model": type(model).__name__, "flips": flips}
                row["clean error"] = clean
                for share in (0.1, 0.2, 0.3):
                    data, seconds = timed(
                        lambda attack=attack, share=share, data=(X, y): attack.set_params(
                            budget=share
                        ).fit_resample(*data)
                    )
                    fitted = clone(model).set_params(random_state=1).fit(*data)
                    row[f"error at {share:.0%}"] = 1 - fitted.score(X_test, y_test)
                row["CPU s"] = seconds
                found[flips] = row
                rows.append(row)
                log(row)
            errors = [found[flips]["error at 20%"] for flips in attacks]
            ahead.append(errors[2] - max(errors[:2]))
    claims = [
        Claim(
            "TreePoisoning ahead of random and farthest flips at 20 %, in points, of "
            "each model",
            ", ".join(f"{100 * a:.1f}" for a in ahead),
            min(ahead) >= 0,
            ">= 0",
        )
    ]
    remark = (
        "TreePoisoning takes the leaves of the clean surrogate, and regrows no subtrees: "
        "the published attack does, and is not what is measured here. Trees of "
        "scikit-learn cannot be regrown in part with the result of a refit, and it would "
        "cost eight hours and more; the class's notes have the figures."
    )
    return [Table("Label flips against trees, 1,500 rows", rows, claims, [remark])]


def ratings(least=10):
    """Return MovieTweetings: users and items with so many ratings, or more."""
    frame = pd.read_parquet(data_path("movietweetings/ratings_100k.parquet"))
    size = 0
    while size != len(frame):
        size = len(frame)
        for column in ("user", "item"):
            counts = frame.groupby(column)[column].transform("size")
            frame = frame[counts >= least]
    users, items = (pd.factorize(frame[c])[0] for c in ("user", "item"))
    return csr_matrix((frame["rating"].to_numpy(float), (users, items)))


def recommenders(args):
    X, model, rows = ratings(), MatrixFactorization(), []
    n_users = X.shape[0]
    unpopular = np.argsort(np.bincount(X.indices), kind="stable")[:300]
    for strategy in (
        "random",
        "average",
        "bandwagon",
        "popular_average",
        "copied",
        "learned",
    ):
        found = []
        for seed in range(3):
            items = np.random.RandomState(seed).choice(unpopular, 10, replace=False)
            attack = FakeUsers(
                model,
                items=items,
                strategy=strategy,
                max_queries=25,
                random_state=seed,
            )
            poisoned, seconds = timed(lambda attack=attack: attack.fit_resample(X))
            report = injection_report(model, attack, X, random_state=seed + 100)
            row = {
                "prediction shift": report.prediction_shift,
                "HR@10": report.hit_rate,
                "HR@10, clean": report.clean_hit_rate,
                "realism (AUC)": report.realism,
                "queries": report.n_queries,
                "CPU s": seconds,
            }
            n_fake = report.n_fake
            for detector in (PCAVarSelect(), DegreeOfSimilarity()):
                scores = detector.fit(poisoned).scores_
                caught = np.argsort(-scores, kind="stable")[:n_fake] >= n_users
                row[f"precision, {type(detector).__name__}"] = float(caught.mean())
            found.append(row)
        mean = {name: float(np.mean([f[name] for f in found])) for name in found[0]}
        rows.append({"profiles": strategy} | mean)
        log(rows[-1])
    by = {row["profiles"]: row for row in rows}
    learned, average, copied = (by[name] for name in ("learned", "average", "copied"))
    shift = "prediction shift"
    claims = [
        Claim(
            "learned profiles: shift, and realism",
            f"{learned[shift]:.2f}, {learned['realism (AUC)']:.2f}",
            learned[shift] >= average[shift] and learned["realism (AUC)"] <= 0.75,
            "at least the shift of average profiles, <= .75",
            f"{average[shift]:.2f}, {average['realism (AUC)']:.2f} (average)",
        ),
        Claim(
            "learned profiles: shift and HR@10 beside copied real ones",
            f"{learned[shift]:.2f}, {learned['HR@10']:.3f}",
            learned[shift] >= copied[shift],
            "at least the shift of copied profiles",
            f"{copied[shift]:.2f}, {copied['HR@10']:.3f} (copied)",
        ),
    ]
    remark = (
        "Scores of real users without a rating of the items; ratings are from 0 to 10. "
        "Copied profiles are the bar: nothing looks more real. The attack and the report "
        "train the recommender with different seeds. The precision is that of the 5 % "
        "that a detector finds most suspicious; .05 is chance."
    )
    title = (
        f"Fake users, MovieTweetings ({X.shape[0]} x {X.shape[1]}), ALS, 5 % of fake "
        "users push 10 unpopular items, mean of 3 seeds"
    )
    return [Table(title, rows, claims, [remark])]


# Peers --------------------------------------------------------------------------------


def peers_svm(args):
    """Five points against an SVM of 100 rows: harm and time, ours and ART's."""
    X, y, X_test, y_test = digits(4, 9)
    y, y_test, rows = (y == 9).astype(int), (y_test == 9).astype(int), []
    order = np.random.RandomState(0).permutation(len(y))
    own, held = order[:100], order[100:180]
    box = FeatureConstraints.from_frame(X[own])
    box.set(list(range(X.shape[1])), kind="continuous", lower=0, upper=1, step=None)
    flipped = np.random.RandomState(0).choice(own, 5, replace=False)
    start = np.vstack([X[own], X[flipped]]), np.append(y[own], 1 - y[flipped])
    ours = SVMPoisoning(
        SVC(kernel="linear"),
        budget=5,
        constraints=box,
        validation=(X[held], y[held]),
        random_state=0,
    )
    runners = {
        "no poison": lambda: (X[own], y[own]),
        "five flipped rows more": lambda: start,
        "sklearn_advsec SVMPoisoning": lambda: ours.fit_resample(X[own], y[own]),
        "ART PoisoningAttackSVM": available(
            lambda *art: partial(
                art_svm_points, *art, X[own], y[own], X[held], y[held], start
            ),
            "art.estimators.classification.scikitlearn",
            "art.attacks.poisoning",
        ),
    }
    for name, run in runners.items():
        row = {"attack": name}
        if callable(run):
            data, row["CPU s"] = timed(run)
            row["error"] = 1 - SVC(kernel="linear").fit(*data).score(X_test, y_test)
        else:
            row["note"] = run
        rows.append(row)
        log(row)
    by = {row["attack"]: row for row in rows}
    one, other = by["sklearn_advsec SVMPoisoning"], by["ART PoisoningAttackSVM"]
    claim = Claim(
        "points against an SVM: error, and CPU seconds",
        f"{one['error']:.3f}, {one['CPU s']:.1f}",
        "error" not in other or one["error"] >= other["error"],
        "at least the peer's error",
        f"{other['error']:.3f}, {other['CPU s']:.1f} (ART)" if "error" in other else "",
    )
    title = "Five points against a linear SVM, MNIST-4-9, 100 rows"
    return [Table(title, rows, [claim])]


def art_svm_points(estimators, attacks, X, y, X_held, y_held, start):
    labels, n = np.eye(2), len(start[1]) - len(y)
    victim = estimators.ScikitlearnSVC(
        SVC(kernel="linear", probability=True), clip_values=(0, 1)
    )
    victim.fit(X, labels[y])
    attack = attacks.PoisoningAttackSVM(
        victim,
        step=0.5,
        eps=1.0,
        x_train=X,
        y_train=labels[y],
        x_val=X_held,
        y_val=labels[y_held],
        max_iter=20,
        verbose=False,
    )
    moved, _ = attack.poison(start[0][-n:].copy(), y=labels[start[1][-n:]])
    return np.vstack([X, moved]), start[1]


def peers_roni(args):
    """RONI on flipped labels: what is found, what it costs, ours and ART's."""
    X, y, *_ = digits(4, 9)
    y, rows = (y == 9).astype(int), []
    order = np.random.RandomState(0).permutation(len(y))
    own, trusted, held = order[:100], order[100:200], order[200:400]
    model = LogisticRegression()
    for strategy in ("none", "random", "gradient"):
        data = X[own], y[own]
        if strategy != "none":
            flips = LabelFlipping(
                model,
                strategy=strategy,
                budget=0.1,
                validation=(X[held], y[held]),
                random_state=0,
            )
            data = flips.fit_resample(*data)
        bad = data[1] != y[own]

        def ours(data=data, trusted=trusted):
            roni = RONI(
                model, trusted=(X[trusted], y[trusted]), contamination=0.2, random_state=0
            ).fit(*data)
            return np.isin(np.arange(100), roni.sample_indices_)

        runners = {
            "sklearn_advsec RONI": ours,
            "ART RONIDefense": available(
                lambda *art, data=(*data, X[trusted], y[trusted]): partial(
                    art_negative_impact, *art, *data
                ),
                "art.estimators.classification.scikitlearn",
                "art.defences.detector.poison",
            ),
        }
        for name, run in runners.items():
            row = {"sanitizer": name, "flips": strategy}
            if callable(run):
                kept, seconds = timed(run)
                caught = (bad & ~kept).sum()
                row |= {"recall": caught / bad.sum() if bad.any() else float("nan")}
                row |= {"precision": caught / max((~kept).sum(), 1)}
                row |= {"clean rows removed": (~bad & ~kept).sum() / (~bad).sum()}
                row |= {"CPU s": seconds}
            else:
                row["note"] = run
            rows.append(row)
            log(row)
    title = "RONI, MNIST-4-9, 100 rows, a tenth of the labels flipped, 100 trusted rows"
    remark = (
        "ART takes its quiz from the suspicious rows, ours from the trusted ones. ART's "
        "calibrated form trains once for each pair of rows, and is left out; its "
        "accuracy fails on labels as it asks for them, and is given as a function."
    )
    return [Table(title, rows, [], [remark])]


def art_negative_impact(estimators, detectors, X, y, X_trusted, y_trusted):
    np.random.seed(0)  # noqa: NPY002
    victim = estimators.ScikitlearnLogisticRegression(
        LogisticRegression(), clip_values=(0, 1)
    )
    labels = np.eye(2)
    victim.fit(X, labels[y])
    roni = detectors.RONIDefense(
        victim,
        X,
        labels[y],
        X_trusted,
        labels[y_trusted],
        perf_func=lambda one, other: np.mean(one.argmax(1) == other.argmax(1)),
        calibrated=False,
        eps=0.01,
    )
    return np.array(roni.detect_poison()[1]) == 1


def peers_partitions(args):
    """Deep partitions, ours and ART's."""
    n_parts = 250
    X, y, X_test, y_test = digits(1, 7)
    y, y_test = (y == 7).astype(int), (y_test == 7).astype(int)

    def ours():
        model = DeepPartitionAggregation(
            LinearSVC(), n_partitions=n_parts, random_state=0
        ).fit(X, y)
        return model.predict(X_test)

    def art(torch, estimators):
        def run():
            torch.manual_seed(0)
            module = torch.nn.Linear(X.shape[1], 2)
            member = estimators.PyTorchClassifier(
                module,
                torch.nn.CrossEntropyLoss(),
                (X.shape[1],),
                2,
                optimizer=torch.optim.Adam(module.parameters(), lr=0.01),
            )
            ensemble = estimators.DeepPartitionEnsemble(
                member,
                hash_function=lambda x: round(float(x.sum()) * 255) % n_parts,
                ensemble_size=n_parts,
                channels_first=True,
            )
            labels = np.eye(2, dtype=np.float32)[y]
            ensemble.fit(X.astype(np.float32), labels, batch_size=64, nb_epochs=20)
            return ensemble.predict(X_test.astype(np.float32)).argmax(1)

        return run

    rows = []
    runners = {
        "sklearn_advsec DeepPartitionAggregation": ours,
        "ART DeepPartitionEnsemble": available(
            art, "torch", "art.estimators.classification"
        ),
    }
    for name, run in runners.items():
        row = {"ensemble": name, "partitions": n_parts}
        if callable(run):
            predicted, seconds = timed(run)
            row |= {"accuracy": float(np.mean(predicted == y_test)), "CPU s": seconds}
        else:
            row["note"] = run
        rows.append(row)
        log(row)
    title = "Deep partition aggregation beside ART, MNIST-1-7"
    remark = (
        "Linear models: SVMs here; ART aggregates networks only, here of one layer and "
        "20 epochs, and issues no certificate. Its own hash, the sum of pixels in [0, "
        "1], leaves partitions empty, at which it fails: it gets the sum in 0 to 255."
    )
    return [Table(title, rows, [], [remark])]


SECTIONS = {
    "certificate": certificate,
    "flips": flips,
    "points": points,
    "partitions": partitions,
    "trees": trees,
    "sanitizers": sanitizers,
    "recommenders": recommenders,
    "peers_svm": peers_svm,
    "peers_roni": peers_roni,
    "peers_partitions": peers_partitions,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--write", action="store_true", help="keep the results")
    args = parser.parse_args()
    command = shlex.join(["python", "benchmarks/bench_poisoning.py", *sys.argv[1:]])
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key in args.only:
            print(f"{key} ...", file=sys.stderr, flush=True)
            tables = SECTIONS[key](args)
            print(*tables, sep="\n\n", flush=True)
            if args.write:  # at once: the next may be interrupted
                record("poisoning", "poisoning", command, tables)


if __name__ == "__main__":
    main()
