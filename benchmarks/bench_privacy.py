"""Membership inference: speed of the shadow engine, and what each attack finds.

    python benchmarks/bench_privacy.py --write
    python benchmarks/bench_privacy.py --only speed --device cuda --n-models 256

`speed` trains the same shadow models with everybody's engine. `location`, `purchase`,
`adult` and `mnist` run all attacks, ART's beside ours, on an overfitted target each;
Location-30 and Purchase-100 themselves are not used, the records are synthetic. `no-gap`
looks for false alarms; `coarse` audits forests, neighbours and rounded services;
`few-...` ask how far 4 to 32 shadow models lead, `finite-pool` what they know of each
other; `regressors` audits these; `one-run` how much of a known epsilon one training
proves.
`defenses` measures what regularisation, early stopping and DP-SGD buy. A GPU is used only
where `--device` names one.
"""

import argparse
import shlex
import sys
import tempfile
import time
import warnings
from functools import cache

import _privacy_data as data
import numpy as np
import torch
from _privacy_attacks import adult, at_one_percent, location, log, mnist, purchase
from _privacy_few import FEW, few_shadows, finite_pool, regressors
from _privacy_speed import speed
from _results import Claim, Table, record
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits
from torch import nn

from sklearn_advsec import privacy
from sklearn_advsec.metrics import clopper_pearson, roc_auc_interval

# No gap ---------------------------------------------------------------------------------


def no_gap(args, n_seeds=20):
    intervals, gaps = {}, []
    names = {
        "GapAttack": {},
        "LossThreshold": {},
        "ModifiedEntropy": {},
        "QuantileMembership": {},
        "ShadowModels": {"n_shadow_models": 4},
        "RMIA": {"n_shadow_models": 8},
        "LikelihoodRatio": {"n_shadow_models": 16},
        "LikelihoodRatio, online": {"n_shadow_models": 16, "mode": "online"},
        "BoundaryDistance": {"max_queries": 100},
        "BoundaryDistance, alone": {"max_queries": 100, "n_shadow_models": 0},
    }
    joint = 1 - 0.05 / (n_seeds * len(names))  # all together are right in 95 of 100
    for seed in range(n_seeds):
        played = data.without_gap(seed)
        gaps.append(played.accuracy[0] - played.accuracy[1])
        for name, parameters in names.items():
            few = slice(None, None, 10 if name.startswith("Boundary") else 1)
            kind = getattr(privacy, name.partition(",")[0])
            attack = kind(played.target, **parameters)
            if "online" in name:
                attack.set_params(candidates=played.audited)
            scores = attack.fit(played.own[few]).decision_function(played.audited[few])
            truth = played.member[few]
            intervals.setdefault(name, []).append(
                (
                    roc_auc_score(truth, scores),
                    *roc_auc_interval(truth, scores, joint),
                    *roc_auc_interval(truth, scores, 0.95),
                )
            )
    rows = []
    for name, values in intervals.items():
        auc, low, high, low_one, high_one = np.array(values).T
        rows.append(
            {
                "attack": name,
                "mean AUC": float(auc.mean()),
                "least": float(auc.min()),
                "largest": float(auc.max()),
                "intervals with .5, joint 95 %": int(
                    ((low <= 0.5) & (high >= 0.5)).sum()
                ),
                "each 95 %": int(((low_one <= 0.5) & (high_one >= 0.5)).sum()),
            }
        )
    held = all(row["intervals with .5, joint 95 %"] == n_seeds for row in rows)
    remark = (
        f"{data.without_gap.__doc__} {n_seeds} targets; train less test accuracy "
        f"{np.mean(gaps):.4f} on average. Of {n_seeds} intervals at 95 %, one is "
        "expected to miss; joint ones all hold with 95 %."
    )
    claim = Claim(
        "every joint interval contains .5", "yes" if held else "no", held, "yes"
    )
    return [Table("Membership: a target without a gap", rows, [claim], [remark])]


# Coarse probabilities -------------------------------------------------------------------


def coarse(args, n_shadow_models=32):
    """Attacks on targets whose probabilities know few values, and on one network."""
    rows, claims = [], []
    audits = [data.credit_like(seed) for seed in range(5)]
    for name, recipe in data.coarse_recipes().items():
        row, ahead = {"target": name}, []
        for X, y in audits:
            member = np.arange(len(y)) % 2 == 0
            target = FrozenEstimator(clone(recipe).fit(X[member], y[member]))
            records = privacy.make_records(X, y)
            memory = tempfile.TemporaryDirectory()
            shadows = {"n_shadow_models": n_shadow_models, "memory": memory.name}
            attacks = {
                "LossThreshold": privacy.LossThreshold(target),
                "LiRA offline": privacy.LikelihoodRatio(target, **shadows),
                "LiRA online": privacy.LikelihoodRatio(target, mode="online", **shadows),
                "RMIA": privacy.RMIA(target, **shadows),
            }
            found = {
                key: roc_auc_score(member, attack.fit(records).decision_function(records))
                for key, attack in attacks.items()
            }
            memory.cleanup()  # all attacks took the same shadow models
            for key, auc in found.items():
                row[key] = row.get(key, 0.0) + auc / len(audits)
            ahead.append(found["LiRA online"] - found["LiRA offline"])
            row["step"] = attacks["LiRA online"].resolution_
        rows.append(row)
        loss, offline, online, _ = (row[key] for key in attacks)
        error = np.std(ahead, ddof=1) / np.sqrt(len(ahead))
        row["online less offline"], row["s.e."] = float(np.mean(ahead)), float(error)
        claims.append(
            Claim(
                f"{name}: AUC of LiRA online, mean over {len(audits)} tables",
                f"{online:.3f}",
                bool(online >= offline >= loss),
                f"at least {offline:.3f} offline, and that the {loss:.3f} of the loss",
            )
        )
    remark = (
        f"{n_shadow_models} shadow models, {len(audits)} tables of 700 records of 20 "
        "columns, half of them members. `step` is what the attack measured of the "
        "target's probabilities, and 0 where they are fine."
    )
    return [Table("Membership: coarse probabilities", rows, claims, [remark])]


# One run --------------------------------------------------------------------------------


def one_run(args, n_canaries=10_000, delta=1e-5, n_runs=4000):
    """Epsilon proved by one run of the Gaussian mechanism, whose epsilon is known."""
    guesses = {"any": 500, "gaussian": 500, "independent": 5500}
    wanted = {1.0: 0.85, 4.0: 3.0, 8.0: 5.5}

    @cache
    def bound(n_correct, premise):
        counts = {"n_guesses": guesses[premise], "n_canaries": n_canaries}
        return privacy.epsilon_from_guesses(
            n_correct, **counts, delta=delta, premise=premise
        )

    rows, claims = [], []
    for epsilon, least in wanted.items():
        mu = gaussian_mu(epsilon, delta)
        rng, found = np.random.RandomState(0), {premise: [] for premise in guesses}
        for _ in range(n_runs):
            included = rng.uniform(size=n_canaries) < 0.5
            score = mu * (included - 0.5) + rng.normal(size=n_canaries)
            right = ((score > 0) == included)[np.argsort(-np.abs(score))]
            for premise, n in guesses.items():
                found[premise].append(bound(int(right[:n].sum()), premise))
        row = {"true epsilon": epsilon}
        for premise, bounds in found.items():
            above = int((np.array(bounds) > epsilon).sum())
            low, high = clopper_pearson(above, n_runs, 0.95)
            row[f"{premise}, mean"] = float(np.mean(bounds))
            row[f"{premise}, above the truth"] = above / n_runs
            row[f"{premise}, 95 %"] = f"{low:.4f}-{high:.4f}"
            if premise == "any":
                continue
            claims.append(
                Claim(
                    f"epsilon {epsilon:.0f}, premise {premise!r}: mean bound, and share "
                    f"of {n_runs} runs above the truth",
                    f"{row[f'{premise}, mean']:.3f}, {above / n_runs:.2%}",
                    bool(row[f"{premise}, mean"] >= least and low <= 0.05),
                    f"at least {least}; 5 % is not below the 95 % interval",
                )
            )
        rows.append(row)
    remark = (
        f"{n_canaries:,} canaries with noise of their own, delta {delta:g}, confidence "
        f"95 %; guesses about {guesses} canaries. The premise 'gaussian' allows canaries "
        "to have anything to do with each other, 'independent' does not. At 95 % "
        "confidence, a bound without slack is above the truth in 5 % of all runs, and "
        "in more than 5 % of every other few hundred: hence so many runs."
    )
    return [Table("One-run audit of the Gaussian mechanism", rows, claims, [remark])]


def gaussian_mu(epsilon, delta):
    """Return how far apart normal numbers are that are just (epsilon, delta)-private."""

    def surplus(mu):
        upper, lower = norm.cdf(mu / 2 - epsilon / mu), norm.cdf(-mu / 2 - epsilon / mu)
        return upper - np.exp(epsilon) * lower - delta

    return brentq(surplus, 1e-3, 50.0)


# Defenses -------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, n_features=446, n_classes=30):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, 64), nn.Tanh(), nn.Linear(64, n_classes)
        )

    def forward(self, x):
        return self.layers(x)


def defenses(args):
    from skorch import NeuralNetClassifier

    X, y = data.binary_records(4800)
    net = NeuralNetClassifier(
        Net,
        criterion=nn.CrossEntropyLoss,
        lr=4.0,
        batch_size=120,
        max_epochs=40,
        train_split=None,
        verbose=0,
    )
    plain = data.location_net()
    recipes = {
        "none": plain,
        "L2 penalty 0.3": clone(plain).set_params(alpha=0.3),
        "L2 penalty 1": clone(plain).set_params(alpha=1.0),
        "early stopping": clone(plain).set_params(early_stopping=True, max_iter=200),
        "4 epochs": clone(plain).set_params(max_iter=4),
    }
    for epsilon in (50.0, 8.0, 2.0):
        recipes[f"DP-SGD, epsilon {epsilon:.0f}"] = privacy.DPSGDClassifier(
            net, epsilon=epsilon, random_state=0
        )
    rows = []
    for name, recipe in recipes.items():
        try:
            played = data.Played(recipe, X, y, 1200)
        except ImportError as error:
            rows.append({"defense": name, "note": f"skipped: {error}"})
            continue
        target, own = played.target, played.own
        rmia = privacy.RMIA(target, n_shadow_models=2 if "DP" in name else 8)
        scores = rmia.fit(own).decision_function(played.audited)
        loss = privacy.LossThreshold(target).fit(own).decision_function(played.audited)
        rows.append(
            {
                "defense": name,
                "train accuracy": played.accuracy[0],
                "test accuracy": played.accuracy[1],
                "epsilon": getattr(target, "epsilon_", ""),
                "loss AUC": roc_auc_score(played.member, loss),
                "RMIA AUC": roc_auc_score(played.member, scores),
                "RMIA TPR@1%FPR": at_one_percent(played.member, scores),
            }
        )
        log(rows[-1])
    title = "Membership: what defenses buy, on records like those of Location-30"
    return [Table(title, rows)]


SECTIONS = {
    "speed": speed,
    "location": location,
    "purchase": purchase,
    "adult": adult,
    "mnist": mnist,
    "no-gap": no_gap,
    "coarse": coarse,
    "few-adult": lambda args: few_shadows("Adult"),
    "few-mnist": lambda args: few_shadows("MNIST"),
    "few-purchase": lambda args: few_shadows(list(FEW)[2]),
    "few-location": lambda args: few_shadows(list(FEW)[3]),
    "finite-pool": finite_pool,
    "regressors": regressors,
    "one-run": one_run,
    "defenses": defenses,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--n-models", type=int, default=64, help="of 'speed'")
    parser.add_argument("--device", help="where 'speed' trains ours, e.g. cuda")
    parser.add_argument("--write", action="store_true", help="keep the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    command = shlex.join(["python", "benchmarks/bench_privacy.py", *sys.argv[1:]])
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key in args.only:
            print(f"{key} ...", file=sys.stderr, flush=True)
            start = time.process_time()
            tables = SECTIONS[key](args)
            seconds = time.process_time() - start
            tables[-1].remarks.append(f"({seconds:.0f} CPU s in all.)")
            print(*tables, sep="\n\n", flush=True)
            if args.write:  # at once: the next may be interrupted
                record("privacy", "privacy", command, tables)


if __name__ == "__main__":
    main()
