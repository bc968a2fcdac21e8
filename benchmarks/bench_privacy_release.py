"""The audit of a model before its release, beside SACRO-ML 2.0.1 in the same run.

    python benchmarks/bench_privacy_release.py --write
    python benchmarks/bench_privacy_release.py --only adult --models RF MLP --write

`adult`, `hospital` and `credit` audit models on one table each; `no-gap` counts the
audits of models without a gap in which any record is flagged; `folds` compares an audit
by models of a cross-validation with RMIA and shadow models of its own; `counting` says
who is in by counts of forests. The peer is optional (see `_privacy_sacro.py`).
"""

import argparse
import json
import shlex
import sys
import time
import warnings

import _privacy_data as data
import _privacy_sacro as peer
import numpy as np
import pandas as pd
from _common import data_path
from _results import RESULTS, Claim, Table, record
from sklearn.base import clone
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import RepeatedStratifiedKFold, cross_validate
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

from sklearn_advsec.privacy import (
    DRAFT,
    RMIA,
    LikelihoodRatio,
    LossThreshold,
    PrivacyAudit,
    TrainedShadows,
    counting_certificate,
    make_records,
)

N_SHADOWS, N_SHADOWS_PEER = 40, 100
N_RECORDS = 800
N_SHADOWS_FOLDS, WANTED_AREA = 32, 0.02


def adult():
    """Adult: 400 members of 800 rows, numbers scaled and texts one-hot."""
    table = pd.read_parquet(data_path("adult.parquet")).drop(columns="split")
    table = table.sample(N_RECORDS, random_state=0).reset_index(drop=True)
    y = np.unique(table.pop("income"), return_inverse=True)[1]
    X = pd.get_dummies(table).to_numpy(float)
    return StandardScaler().fit_transform(X).round(4), y


def hospital():
    """Like a hospital's: ages, districts, days of stay, laboratory values; 800 rows."""
    rng = np.random.RandomState(0)
    n = N_RECORDS
    X = np.column_stack(
        [
            rng.randint(18, 95, n),
            rng.randint(0, 30, n),
            rng.poisson(4, n),
            rng.normal(size=(n, 10)).round(2),
        ]
    )
    risk = (X[:, 0] - 60) / 20 + X[:, 3] + X[:, 4] + 1.5 * rng.normal(size=n)
    return X, (risk > 0).astype(int)


def credit():
    """Like one of loans: ten ratings, ten amounts, a noisy label; 800 rows."""
    return data.credit_like(0, N_RECORDS)


TABLES = {"adult": adult, "hospital": hospital, "credit": credit}


def models():
    """Return the recipes; those of an optional package only where it is there."""
    found = {
        "RF": RandomForestClassifier(50, random_state=0),
        "ExtraTrees": ExtraTreesClassifier(50, random_state=0),
        "HistGB": HistGradientBoostingClassifier(max_iter=40, random_state=0),
        "MLP": MLPClassifier(64, max_iter=60, random_state=0),
        "kNN": KNeighborsClassifier(5),
    }
    try:
        from xgboost import XGBClassifier
    except ImportError:
        return found
    found["XGB"] = XGBClassifier(n_estimators=40, random_state=0, n_jobs=1)
    return found


def audited(args, name):
    """Audit each model on a table, beside the peer."""
    X, y = TABLES[name]()
    members = [
        np.random.RandomState(seed + 1).permutation(len(y)) < len(y) // 2
        for seed in range(args.targets)
    ]
    try:
        sacro = peer.load()
    except ImportError as error:
        sacro = None
        print(f"without the peer: {error}", file=sys.stderr)
    title = f"Release: {TABLES[name].__doc__.partition(':')[0]}, models of one table"
    rows, claims = kept(title)
    for key, recipe in models().items():
        if args.models and key not in args.models:
            continue
        row, own_claims = one_model(key, recipe, X, y, members, sacro)
        print(row, flush=True)
        rows = [r for r in rows if r["model"] != key] + [row]
        claims = [c for c in claims if not c.claim.startswith(f"{key}:")] + own_claims
    remark = (
        f"{TABLES[name].__doc__} Several targets of a recipe, each trained on "
        f"another half, means; {N_SHADOWS} shadow models of ours, which serve all "
        f"attacks, and {N_SHADOWS_PEER} of SACRO-ML's LiRA (its default). TPR is at 1 % "
        "FPR, which is 4 of the 400 others, of the best attack of each: that of the "
        "largest mean. Its interval, and that of the difference, which is in percent "
        "points, are by resampling the records of each target, the same ones for both. "
        "CPU seconds are of that attack alone, with its shadow models, on one thread; "
        "beside them those of the whole audit (all attacks, p-values, structure), and of "
        "all attacks of the peer; both, QMIA, the structure and the flags are of the "
        "first target, and so is SACRO-ML's worst case where its LiRA runs. QMIA of "
        "SACRO-ML fits its thresholds to the non-members on which it is then judged, so "
        "its figure is shown, and is not among the best. kNN takes no random_state, "
        "which SACRO-ML sets: there, LiRA cannot run."
    )
    if any("targets" not in row for row in rows):
        remark += (
            " A row without a number of targets is of an earlier run, with one target, "
            "32 shadow models of ours, and all attacks together among the best."
        )
    return [Table(title, rows, claims, [remark])]


def kept(title):
    """Return rows and claims of an earlier run, for other models of the same table."""
    path = RESULTS / "privacy_release.json"
    if not path.exists():
        return [], []
    tables = json.loads(path.read_text())["tables"]
    found = next((t for t in tables if t["title"] == title), None)
    if found is None:
        return [], []
    return found["rows"], [Claim(**claim) for claim in found["claims"]]


def one_model(key, recipe, X, y, members, sacro):
    """Audit targets of one recipe; the whole of it, and its time, for the first."""
    ours, theirs = [], []
    for number, member in enumerate(members):
        target = clone(recipe).fit(X[member], y[member])
        ours.append(scores_of(FrozenEstimator(target), make_records(X, y)))
        if sacro is None:
            continue
        skipped = ()
        if number:  # for the first target only, where there is LiRA
            skipped = ("QMIA", "worst case") if "LiRA, online" in theirs[0] else ("QMIA",)
        theirs.append(peer.attacks(sacro, target, X, y, member, N_SHADOWS_PEER, skipped))
    model, member = clone(recipe).fit(X[members[0]], y[members[0]]), members[0]
    begin = time.process_time()
    audit = PrivacyAudit(FrozenEstimator(model), n_shadow_models=N_SHADOWS)
    audit.fit(make_records(X, y), members=member)
    seconds = time.process_time() - begin
    rates = {
        name: np.mean([rate(own[name], m) for own, m in zip(ours, members, strict=True)])
        for name in ours[0]
    }
    best = max(rates, key=rates.get)
    scores = [own[best] for own in ours]
    areas = {
        name: np.mean([area(own[name], m) for own, m in zip(ours, members, strict=True)])
        for name in ours[0]
    }
    widest = max(areas, key=areas.get)
    area_low, area_high = interval([own[widest] for own in ours], members, figure=area)
    low, high = interval(scores, members)
    row = {
        "model": key,
        "targets": len(members),
        "AUC": float(areas[widest]),
        "95 %": f"{area_low:.3f}-{area_high:.3f}",
        "TPR": float(rates[best]),
        "TPR 95 %": f"{low:.3f}-{high:.3f}",
        "attack": best,
        "flagged": int(audit.records_["flagged"].sum()),
        "CPU s": alone(best, model, X, y),
        "whole audit, CPU s": seconds,
    }
    if sacro is None:
        return row | {"note": "SACRO-ML is not installed"}, []
    return beside_peer(key, row, scores, members, theirs, sacro, audit, (model, X, y))


def scores_of(target, records):
    """Return the scores of attacks that share one set of shadow models."""
    ratio = LikelihoodRatio(target, n_shadow_models=N_SHADOWS, mode="online").fit(records)
    shadows = TrainedShadows(ratio.shadow_estimators_, ratio.shadow_indices_)
    gain = RMIA(target, shadow_estimator=shadows, n_shadow_models=N_SHADOWS)
    return {
        "LossThreshold": LossThreshold(target).fit(records).decision_function(records),
        "RMIA": gain.fit(records).decision_function(records),
        "LikelihoodRatio": ratio.decision_function(records),
    }


def alone(name, model, X, y):
    """Return the CPU seconds of one attack, with its shadow models."""
    kinds = {"LossThreshold": LossThreshold, "RMIA": RMIA}
    parameters = {} if name == "LossThreshold" else {"n_shadow_models": N_SHADOWS}
    if name == "LikelihoodRatio":
        parameters["mode"] = "online"
    attack = kinds.get(name, LikelihoodRatio)(FrozenEstimator(model), **parameters)
    begin = time.process_time()
    attack.fit(make_records(X, y)).decision_function(make_records(X, y))
    return time.process_time() - begin


def rate(scores, member):
    """Return the TPR at 1 % FPR."""
    outside = scores[~member]
    return (scores[member] > np.sort(outside)[-1 - int(0.01 * len(outside))]).mean()


def area(scores, member):
    return roc_auc_score(member, scores)


def interval(scores, members, others=None, figure=rate, n_bootstraps=500):
    """Return the 95 % interval of a mean figure, or of its difference from another's."""
    rng, drawn = np.random.RandomState(0), np.zeros(n_bootstraps)
    for number, (own, member) in enumerate(zip(scores, members, strict=True)):
        inside, outside = np.flatnonzero(member), np.flatnonzero(~member)
        truth = np.arange(len(member)) < len(inside)
        for i in range(n_bootstraps):
            rows = np.append(
                rng.choice(inside, len(inside)), rng.choice(outside, len(outside))
            )
            drawn[i] += figure(own[rows], truth)
            if others is not None:
                drawn[i] -= figure(others[number][rows], truth)
    return np.quantile(drawn / len(members), [0.025, 0.975])


def beside_peer(key, row, scores, members, theirs, sacro, audit, target):
    judged = [name for name in theirs[0] if name != "QMIA"]
    figures = {
        name: [found[name] for found in theirs if name in found] for name in judged
    }
    rates = {name: np.mean([f["TPR"] for f in figures[name]]) for name in judged}
    best = max(rates, key=rates.get)
    peer_seconds = theirs[0][best]["CPU s"]
    row |= {
        "SACRO AUC": float(
            max(np.mean([f["AUC"] for f in figures[name]]) for name in judged)
        ),
        "SACRO TPR": float(rates[best]),
        "SACRO attack": best,
        "SACRO CPU s": peer_seconds,
        "SACRO, all CPU s": sum(found["CPU s"] for found in theirs[0].values()),
    }
    if "QMIA" in theirs[0]:
        row["QMIA TPR"] = theirs[0]["QMIA"]["TPR"]
    ahead = row["TPR"] - row["SACRO TPR"]
    if "scores" in theirs[0][best]:
        low, high = interval(scores, members, [found[best]["scores"] for found in theirs])
        row["ahead, 95 %"] = f"{100 * low:+.1f} to {100 * high:+.1f}"
    flags, cells = peer.structure(sacro, *target, members[0])
    own = {check["check"]: check["fails"] for check in audit.structure_.checks()}
    agree = all(own[name] == bool(flag) for name, flag in flags.items())
    row["structure agrees"] = "yes" if agree else "no"
    row["equal cells"] = float((audit.structure_.cell_size == cells).mean())
    claims = [
        Claim(
            f"{key}: members found at 1 % FPR, best of the attacks, {len(members)} "
            "targets (ahead in points, 95 %)",
            f"{row['TPR']:.3f} ({row.get('ahead, 95 %', 'not paired')})",
            bool(ahead >= 0),
            "at least the peer's best",
            f"{row['SACRO TPR']:.3f}, SACRO-ML {best}",
        ),
        Claim(
            f"{key}: CPU seconds of the best attack",
            f"{row['CPU s']:.1f}",
            bool(row["CPU s"] <= peer_seconds / 2),
            "half of the peer's",
            f"{peer_seconds:.1f}, SACRO-ML {best}",
        ),
        Claim(
            f"{key}: structural checks as SACRO-ML's",
            row["structure agrees"],
            agree,
            "yes",
        ),
    ]
    return row, claims


def no_gap(args, n_runs=100):
    """Count audits with a flagged record, of targets that have seen no record."""
    n_flagged = n_gaps = n_calibrated = n_holm = 0
    for seed in range(n_runs):
        rng = np.random.RandomState(seed)
        X = rng.normal(size=(260, 4)).round(2)
        y = (X[:, 0] + X[:, 1] + rng.logistic(size=260) > 0).astype(int)
        tree = DecisionTreeClassifier(max_depth=4, random_state=0)
        target = FrozenEstimator(tree.fit(X[160:], y[160:]))
        members = rng.permutation(160) < 80
        audit = PrivacyAudit(target, n_shadow_models=24)
        audit.fit(make_records(X[:160], y[:160]), members=members)
        n_flagged += bool(audit.records_["flagged"].any())
        n_holm += bool((audit.records_["p_adjusted"] <= audit.level).any())
        n_gaps += audit.has_gap_
        n_calibrated += audit.calibrated_
    row = {
        "audits": n_runs,
        "any record flagged": n_flagged,
        "a gap is claimed": n_gaps,
        "a p-value holds for all members": n_holm,
        "p-values from shadow models": n_calibrated,
    }
    claim = Claim(
        "audits without a gap in which any record is flagged",
        f"{n_flagged} of {n_runs}",
        n_flagged == 0,
        "0 at a level of 0.05",
    )
    remark = (
        "Trees of depth 4, trained on other rows of the same source; of 160 records, 80 "
        "that are called members by lot, 24 shadow models. To be flagged, a record needs "
        "a gap of the whole model and a p-value that holds for all members."
    )
    return [Table("Release: models without a gap", [row], [claim], [remark])]


def folds(args, n_rows=500):
    """Compare the audit by models of folds with RMIA and shadow models of its own."""
    X, y = data.credit_like(0, 2 * n_rows)
    foreign = data.credit_like(1, n_rows)
    member = np.arange(2 * n_rows) < n_rows
    recipes = {
        "RF": RandomForestClassifier(50, random_state=0),
        "GB": GradientBoostingClassifier(n_estimators=50, random_state=0),
        "MLP": make_pipeline(
            StandardScaler(), MLPClassifier(64, max_iter=150, random_state=0)
        ),
    }
    title = "Release: models of a cross-validation as shadow models"
    rows, claims = kept(title)
    for key, recipe in recipes.items():
        if args.models and key not in args.models:
            continue
        target = FrozenEstimator(clone(recipe).fit(X[member], y[member]))
        records = make_records(X, y)
        begin = time.process_time()
        attack = RMIA(target, n_shadow_models=N_SHADOWS_FOLDS).fit(records)
        paid = roc_auc_score(member, attack.decision_function(records))
        seconds = time.process_time() - begin
        done = cross_validate(
            recipe,
            X[member],
            y[member],
            cv=RepeatedStratifiedKFold(n_splits=4, n_repeats=5, random_state=0),
            return_estimator=True,
            return_indices=True,
        )
        rows_out = {"X_out": X[~member], "y_out": y[~member]}
        begin = time.process_time()
        released = PrivacyAudit.from_cross_validation(
            done, X[member], y[member], estimator=target, **rows_out
        )
        middle = time.process_time()
        alone = PrivacyAudit.from_cross_validation(done, X[member], y[member])
        end = time.process_time()
        stranger = PrivacyAudit.from_cross_validation(
            done,
            X[member],
            y[member],
            estimator=FrozenEstimator(clone(recipe).fit(*foreign)),
            **rows_out,
        )
        found = [
            a.results_.query("attack == 'RMIA' and metric == 'AUC'").iloc[0]
            for a in (released, alone, stranger)
        ]
        areas = [figure["value"] for figure in found[:2]]
        row = {
            "model": key,
            "RMIA, 32 shadow models": paid,
            "its CPU s": seconds,
            "folds, released model": areas[0],
            "CPU s": middle - begin,
            "folds alone": areas[1],
            "alone, CPU s": end - middle,
            "folds, model of other rows": found[2]["value"],
            "95 %": f"{found[2]['low']:.3f}-{found[2]['high']:.3f}",
        }
        print(row, flush=True)
        rows = [r for r in rows if r["model"] != key] + [row]
        claims = [c for c in claims if not c.claim.startswith(f"{key}:")]
        for name, value in zip(("released model", "folds alone"), areas, strict=True):
            claims.append(
                Claim(
                    f"{key}: AUC of RMIA by folds, {name}",
                    f"{value:.3f}",
                    bool(value >= paid - WANTED_AREA),
                    f"at most {WANTED_AREA} below {paid:.3f}, with {N_SHADOWS_FOLDS} "
                    "shadow models",
                )
            )
        claims.append(
            Claim(
                f"{key}: AUC of RMIA by folds, of a model that was trained on other rows",
                f"{row['folds, model of other rows']:.3f} ({row['95 %']})",
                bool(found[2]["low"] <= 0.5 <= found[2]["high"]),
                "0.5 is in the interval",
            )
        )
    remark = (
        f"{n_rows} rows in training and as many that are not; 5 x 4 folds. CPU seconds "
        "are of the audit (all attacks); the models were trained by the cross-validation "
        "before. All judge the same records, and all but `folds alone` the same model, "
        "which is trained on all rows of the search. Models of the folds know three "
        "quarters of these, and shadow models of one's own half of the rows in training "
        "and half of the others: what the former say without a record is nearer to what "
        "the target would have said without it, so that they mostly find more. That they "
        "find nothing in a model of other rows shows that it is no artefact. `folds "
        "alone` lets each model of a fold play the target, judged by those of other "
        "repetitions, and needs no rows but the training rows."
    )
    return [Table(title, rows, claims, [remark])]


def counting(args):
    """Decide by counts who is in, on a table like COMPAS."""
    domain = [range(2), range(3), range(6), *[range(4)] * 3, range(16), range(2)]
    rng = np.random.RandomState(0)
    n = 2000
    X = np.column_stack(
        [
            rng.binomial(1, 0.8, n),
            rng.choice(3, n, p=[0.2, 0.57, 0.23]),
            rng.choice(6, n, p=[0.5, 0.34, 0.09, 0.05, 0.01, 0.01]),
            *np.minimum(rng.poisson(0.1, (3, n)), 3),
            np.minimum(rng.negative_binomial(0.7, 0.18, n), 15),
            rng.binomial(1, 0.35, n),
        ]
    )
    logit = 0.25 * X[:, 6] - 0.7 * X[:, 1] + 0.3 * X[:, 0] - 0.3
    y = (logit + rng.logistic(size=n) > 0).astype(int)
    train, records = np.arange(n) < n // 2, make_records(X, y)
    known = set(map(tuple, records[train]))
    truth = np.array([tuple(r) in known for r in records])
    rows, claims = [], []
    for n_trees, bootstrap, depth in (
        (10, False, None),
        (100, False, None),
        (100, False, 6),
        (50, True, None),
    ):
        forest = RandomForestClassifier(
            n_trees, bootstrap=bootstrap, max_depth=depth, random_state=0
        ).fit(X[train], y[train])
        begin = time.process_time()
        found = counting_certificate(forest, records, domain=domain, time_limit=10)
        seconds = time.process_time() - begin
        wrong = (found.status == "in") & ~truth | (found.status == "out") & truth
        row = {
            "trees": n_trees,
            "bootstrap": "yes" if bootstrap else "no",
            "max_depth": depth or "none",
            "decided": found.decided,
            "in": int((found.status == "in").sum()),
            "out": int((found.status == "out").sum()),
            "wrong": int(wrong.sum()),
            "CPU s": seconds,
        }
        if not bootstrap:
            begin = time.process_time()
            drawn = DRAFT(forest, domain, time_limit=10).reconstruct()
            row["DRAFT error"] = drawn.error(X[train]) if drawn.complete else "no time"
            row["DRAFT CPU s"] = time.process_time() - begin
        rows.append(row)
        name = f"{n_trees} trees, bootstrap {row['bootstrap']}, depth {row['max_depth']}"
        claims.append(
            Claim(
                f"{name}: records decided, wrong ones, CPU seconds",
                f"{found.decided:.3f}, {row['wrong']}, {seconds:.1f}",
                bool(found.decided >= 0.5 and not wrong.any() and seconds <= 60),
                "half, none, 60",
            )
        )
    drawn.rows = np.column_stack([rng.choice(c, train.sum()) for c in X[train].T])
    remark = (
        f"{n} records of 8 columns of small whole numbers (a domain of 73,728 points), "
        f"half of them members; {truth.mean():.2f} are in by their values. Values drawn "
        f"column by column, without any forest, are wrong to {drawn.error(X[train]):.3f}."
    )
    return [Table("Release: who is in, by counts", rows, claims, [remark])]


SECTIONS = {
    **{name: (lambda args, name=name: audited(args, name)) for name in TABLES},
    "no-gap": no_gap,
    "folds": folds,
    "counting": counting,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--models", nargs="+", help="some of a table's models")
    parser.add_argument("--targets", type=int, default=4, help="of each model of a table")
    parser.add_argument("--write", action="store_true", help="keep the results")
    args = parser.parse_args()
    command = "python benchmarks/bench_privacy_release.py"
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key in args.only:
            print(f"{key} ...", file=sys.stderr, flush=True)
            start = time.process_time()
            tables = SECTIONS[key](args)
            seconds = time.process_time() - start
            print(*tables, sep="\n\n", flush=True)
            print(f"({seconds:.0f} CPU s)", file=sys.stderr)
            if args.write:  # at once: the next may be interrupted
                how = shlex.join([*command.split(), "--only", key, "--write"])
                record("privacy_release", "privacy", how, tables)


if __name__ == "__main__":
    main()
