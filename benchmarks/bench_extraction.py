"""Extraction attacks: what a copy costs in queries, and how good it is.

ART has no equation solving, no path-finding and no Jacobian substitute; where it has the
attack, it runs beside ours on the same victim, pool and budget. Every victim counts the
rows that it is sent, and that count is what the tables show. No copy shares its seed with
the victim: a network that starts from the victim's own initial weights ends up nearer to
it than any attack would get.

Run it from the repository's root, for example::

    python benchmarks/bench_extraction.py --only lr trees relu digits
    python benchmarks/bench_extraction.py --only papernot --write
"""

import argparse
import shlex
import sys
import time
import warnings

import _common as common
import numpy as np
import torch
from _results import Claim, Table, record
from sklearn.datasets import (
    load_breast_cancer,
    load_digits,
    load_iris,
    load_wine,
    make_classification,
)
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from sklearn_advsec.extraction import (
    ActiveExtraction,
    CopycatCNN,
    EquationSolving,
    JacobianSubstitute,
    KnockoffNets,
    PathFinding,
    ReLUExtraction,
    RoundedProbabilities,
)

OURS = common.OURS
DATA = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "digits": load_digits,
}
# Queries of plain path-finding on the same trees: the figures to halve.
TREE_QUERIES = {"iris": 677, "wine": 1376, "breast_cancer": 3906, "digits": 62876}


class Counted:
    """A remote victim that counts the rows it is sent."""

    def __init__(self, model):
        self.model = model
        self.classes_ = model.classes_
        self.n_rows = 0
        if hasattr(model, "predict_proba"):
            self.predict_proba = lambda X: self._count("predict_proba", X)
        if hasattr(model, "apply"):
            self.apply = model.apply  # comes in one answer with the output

    def predict(self, X):
        return self._count("predict", X)

    def _count(self, method, X):
        self.n_rows += len(X)
        return getattr(self.model, method)(X)


def measured(attack, X, X_test):
    """Fit an attack; return it, its report, the rows the victim saw and CPU seconds."""
    victim = attack.estimator
    start = time.process_time()
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        attack.fit(X)
    seconds, n_rows = time.process_time() - start, victim.n_rows
    assert n_rows == attack.n_queries_, (n_rows, attack.n_queries_)
    report = attack.extraction_report(X_test)
    note = "; ".join(str(w.message)[:80] for w in notes if w.category is UserWarning)
    return attack, report, {"queries": n_rows, "CPU s": seconds, "note": note}


# Logistic regression --------------------------------------------------------------------


def linear_truth(model):
    """Return coefficients and intercepts on raw features, of sum 0 over the classes."""
    if hasattr(model, "steps"):
        scaler, last = model[0], model[-1]
        coef = last.coef_ / scaler.scale_
        intercept = last.intercept_ - coef @ scaler.mean_
    else:
        coef, intercept = model.coef_, model.intercept_
    if len(coef) > 1:
        coef, intercept = coef - coef.mean(axis=0), intercept - intercept.mean()
    return coef, intercept


def bench_lr(args):
    rows = []
    for name, load in DATA.items():
        X, y = load(return_X_y=True)
        X, X_test, y, _ = train_test_split(X, y, stratify=y, random_state=0)
        for scaled in (False, True):
            model = LogisticRegression(max_iter=10_000 if name != "digits" else 300)
            if scaled:
                model = make_pipeline(StandardScaler(), model)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(X, y)
            coef, intercept = linear_truth(model)
            attack, report, row = measured(EquationSolving(Counted(model)), X, X_test)
            varies = np.ptp(X, axis=0) > 0
            error = np.abs(attack.coef_ - coef)[:, varies]
            row = {
                "victim": f"{name}{', scaled' if scaled else ''}",
                "answers": "exact",
                "d + 1": X.shape[1] + 1,
                **row,
                "max rel. error coef": float((error / np.abs(coef[:, varies])).max()),
                "intercept": float(
                    (np.abs(attack.intercept_ - intercept) / np.abs(intercept)).max()
                ),
            }
            rows.append(_with_fidelity(row, report))
            for decimals in (5, 3, 2):
                served = RoundedProbabilities(FrozenEstimator(model), decimals).fit(X)
                attack, report, row = measured(
                    EquationSolving(Counted(served)), X, X_test
                )
                row = {
                    "victim": rows[-1]["victim"],
                    "answers": f"{decimals} decimals",
                    "d + 1": X.shape[1] + 1,
                    **row,
                }
                rows.append(_with_fidelity(row, report))
    errors = [max(r[k] for k in _ERRORS) for r in rows if r["answers"] == "exact"]
    lines = [verdict("largest relative error from d + 1 queries", max(errors), most=1e-6)]
    for answers, least in (
        ("5 decimals", 0.999),
        ("3 decimals", 0.99),
        ("2 decimals", 0.95),
    ):
        for digits in (False, True):
            found = [
                min(row["fidelity test"], row["fidelity uniform"])
                for row in rows
                if row["answers"] == answers
                and row["victim"].startswith("digits") == digits
            ]
            data = "digits" if digits else "iris, wine, breast_cancer"
            text = f"lowest fidelity at {answers}, 10 (d + 1) queries, {data}"
            lines.append(verdict(text, min(found), least=least))
    return rows, lines


_ERRORS = ("max rel. error coef", "intercept")


def verdict(text, value, *, least=None, most=None, above=None):
    """Say whether a figure that was wanted is reached."""
    if most is not None:
        good, wanted = value <= most, f"at most {most:g}"
    elif above is not None:
        good, wanted = value > above, f"above {above:.4g}"
    else:
        good, wanted = value >= least, f"at least {least:g}"
    return Claim(text, f"{value:.5g}", bool(good), wanted)


def bench_labels(args):
    rows = []
    for name in ("iris", "wine", "breast_cancer", "digits"):
        X, y = DATA[name](return_X_y=True)
        X, X_test, y, _ = train_test_split(X, y, stratify=y, random_state=0)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(X, y)
        coef, intercept = linear_truth(model)
        attack = EquationSolving(Counted(model), knowledge="label")
        attack, report, row = measured(attack, X, X_test)
        found = np.column_stack([attack.coef_, attack.intercept_])
        truth = np.column_stack([coef, intercept])
        if len(found) > 1:
            found = found - found.mean(axis=0)
        scale = (found * truth).sum() / (found**2).sum()
        error = np.abs(scale * found - truth).max() / np.abs(truth).max()
        row = {"victim": f"{name}, scaled", "d + 1": X.shape[1] + 1, **row}
        rows.append(_with_fidelity({**row, "error up to scale": float(error)}, report))
    note = (
        "On iris, the outer two of three classes do not touch: the ratio of the two "
        "boundaries' scales is open, whatever is asked."
    )
    return rows, [note]


def bench_networks(args):
    """Equation solving for networks of one hidden layer (Tramer's MLP)."""
    rows = []
    tasks = [("iris", load_iris(return_X_y=True), 5)]
    X, y = make_classification(
        1000, 20, n_informative=10, n_classes=5, n_clusters_per_class=1, random_state=0
    )
    tasks.append(("made up, 5 classes", (X, y), 20))
    for name, (X, y), n_hidden in tasks:
        X, X_test, y, _ = train_test_split(X, y, stratify=y, random_state=0)
        model = MLPClassifier(
            n_hidden, activation="tanh", alpha=1e-2, max_iter=1000, random_state=7
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = make_pipeline(StandardScaler(), model).fit(X, y)
        attack = EquationSolving(Counted(model), n_hidden=n_hidden, n_restarts=3)
        _, report, row = measured(attack, X, X_test)
        n_unknown = sum(a.size for a in [*model[-1].coefs_, *model[-1].intercepts_])
        row = {"victim": f"MLP-{n_hidden} on {name}", "unknowns": n_unknown, **row}
        rows.append(_with_fidelity(row, report))
    return rows, []


def _with_fidelity(row, report):
    row["fidelity test"] = 1 - report["R_test"]
    row["fidelity uniform"] = 1 - report["R_unif"]
    return row


# Trees ----------------------------------------------------------------------------------


def bench_trees(args):
    rows = []
    for name, load in DATA.items():
        X, y = load(return_X_y=True)
        tree = DecisionTreeClassifier(random_state=0).fit(X, y)
        pools = {"resolution of the data guessed": X}
        # Data without a resolution: nothing to guess.
        noise = np.random.RandomState(0).uniform(-1, 1, X.shape) * X.std(axis=0)
        low, high = X.min(axis=0), X.max(axis=0)
        rough = np.clip(X + 1e-3 * noise, low, high)
        rough[0], rough[1] = low, high
        pools["every bit bisected"] = rough
        for label, pool in pools.items():
            attack = PathFinding(Counted(tree))
            if label == "every bit bisected":
                attack.set_params(bounds=(low, high))
            attack, report, row = measured(attack, pool, X)
            row = {
                "victim": name,
                "thresholds": label,
                "leaves": tree.get_n_leaves(),
                "leaves found": attack.n_leaves_,
                **row,
                "queries per leaf": row["queries"] / attack.n_leaves_,
                "plain path-finding": TREE_QUERIES[name],
                "times fewer": TREE_QUERIES[name] / row["queries"],
                "R_test": report["R_test"],
                "R_unif": report["R_unif"],
                "sum of volumes": f"{attack.volumes_.sum():.12f}",
            }
            rows.append(row)
    wrong = max(max(row["R_test"], row["R_unif"]) for row in rows)
    lines = [verdict("largest R_test or R_unif", wrong, most=0)]
    share = max(1 / row["times fewer"] for row in rows)
    lines.append(verdict("queries, of plain path-finding's", share, most=0.5))
    return rows, lines


def bench_trees_by_output(args):
    """Without leaf ids: equal outputs hide leaves."""
    rows = []
    for name in ("iris", "wine", "breast_cancer"):
        X, y = DATA[name](return_X_y=True)
        tree = DecisionTreeClassifier(random_state=0).fit(X, y)
        attack = PathFinding(Counted(tree), identity="output")
        attack, report, row = measured(attack, X, X)
        rows.append(
            {
                "victim": name,
                "leaves": tree.get_n_leaves(),
                **row,
                "R_test": report["R_test"],
                "R_unif": report["R_unif"],
                "stated bound (uniform, 95 %)": attack.inexact_share_,
            }
        )
    return rows, []


# ReLU networks --------------------------------------------------------------------------


def digits_data(seed=0, test_size=0.25):
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16, y, stratify=y, test_size=test_size, random_state=seed)


def bench_relu(args):
    rows = []
    X, X_test, y, y_test = digits_data()
    scaler = StandardScaler().fit(X)
    X, X_test = scaler.transform(X), scaler.transform(X_test)
    for n_hidden in (16, 4):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Without shrinkage: weights near 0 of constant pixels hang ART's search.
            model = MLPClassifier(n_hidden, alpha=0, max_iter=300, random_state=1)
            model.fit(X, y)
        victim = f"64-{n_hidden}-10 (accuracy {model.score(X_test, y_test):.3f})"
        attack, report, row = measured(ReLUExtraction(Counted(model)), X, X_test)
        row = {"victim": victim, "runner": OURS, **row, "units": attack.n_hidden_}
        rows.append(_with_fidelity(row, report))
        for draw in range(3):  # of the one line that it searches
            runner = f"art FunctionallyEquivalentExtraction, draw {draw}"
            result = _art_relu(model, n_hidden, X, X_test, draw)
            rows.append({"victim": victim, "runner": runner, **result})
    ours = [row for row in rows if row["runner"] == OURS]
    worst = min(min(row["fidelity test"], row["fidelity uniform"]) for row in ours)
    queries = max(row["queries"] for row in ours)
    return rows, [
        verdict("lowest fidelity", worst, least=0.9999),
        verdict("largest number of queries", queries, most=70_375),
    ]


def _art_relu(model, n_hidden, X, X_test, draw, limit=200_000):
    def build(extraction, classifiers):
        module = torch.nn.Sequential(
            torch.nn.Linear(64, n_hidden), torch.nn.ReLU(), torch.nn.Linear(n_hidden, 10)
        ).double()
        with torch.no_grad():
            for layer, weight, bias in zip(
                (module[0], module[2]), model.coefs_, model.intercepts_, strict=True
            ):
                layer.weight.copy_(torch.as_tensor(weight.T))
                layer.bias.copy_(torch.as_tensor(bias))
        count = [0]

        class Double(classifiers.PyTorchClassifier):
            def predict(self, x, batch_size=128, training_mode=False, **kwargs):
                count[0] += len(x)
                if count[0] > limit:
                    raise TimeoutError(f"stopped after {limit} queries")
                with torch.no_grad():
                    return module(torch.as_tensor(np.asarray(x, np.float64))).numpy()

        victim = Double(module, torch.nn.CrossEntropyLoss(), (64,), 10)
        attack = extraction.FunctionallyEquivalentExtraction(victim, num_neurons=n_hidden)
        start = time.process_time()
        try:
            np.random.seed(draw)  # what ART draws from
            copy = attack.extract(X[:100].astype(np.float64))
        except Exception as error:
            return {"queries": count[0], "note": f"fails: {error}"[:100]}
        row = {"queries": count[0], "CPU s": time.process_time() - start}
        rng = np.random.RandomState(0)
        uniform = rng.uniform(X.min(axis=0), X.max(axis=0), size=(10_000, 64))
        for name, rows in (("fidelity test", X_test), ("fidelity uniform", uniform)):
            same = copy.predict(rows).argmax(axis=1) == model.predict(rows)
            row[name] = float(same.mean())
        return row

    result = common.available(
        build, "art.attacks.extraction", "art.estimators.classification"
    )
    return {"note": result} if isinstance(result, str) else result


# Digits, labels only --------------------------------------------------------------------


def bench_digits(args):
    rows = []
    for n in (100, 700):
        ours = {
            "CopycatCNN": lambda v, s, n=n: CopycatCNN(v, max_queries=n, random_state=s),
            "KnockoffNets, labels": lambda v, s, n=n: KnockoffNets(
                v, knowledge="label", max_queries=n, random_state=s
            ),
            "KnockoffNets, scores": lambda v, s, n=n: KnockoffNets(
                v, max_queries=n, random_state=s
            ),
            "ActiveExtraction k_center, SVC": lambda v, s, n=n: ActiveExtraction(
                v,
                surrogate=SVC(C=10),
                strategy="k_center",
                knowledge="label",
                uniform_share=0.1,
                max_queries=n,
                random_state=s,
            ),
            "ActiveExtraction uncertainty": lambda v, s, n=n: ActiveExtraction(
                v,
                strategy="uncertainty",
                knowledge="label",
                uniform_share=0.1,
                max_queries=n,
                random_state=s,
            ),
        }
        found = {}
        for seed in range(args.seeds):
            X, X_test, y, _ = digits_data(seed, test_size=0.4)
            model = MLPClassifier((64,), max_iter=300, random_state=100 + seed).fit(X, y)
            for name, make in ours.items():
                _, report, row = measured(make(Counted(model), seed), X, X_test)
                found.setdefault(f"{OURS} {name}", []).append(
                    (row["queries"], 1 - report["R_test"], 1 - report["R_unif"])
                )
            for name, result in _art_digits(
                model, n, X, X_test, y, seed, args.adaptive
            ).items():
                found.setdefault(name, []).append(result)
        for name, results in found.items():
            if isinstance(results[0], str):
                rows.append({"budget": n, "runner": name, "note": results[0]})
                continue
            queries, test, uniform = np.mean(results, axis=0)
            rows.append(
                {
                    "budget": n,
                    "runner": name,
                    "queries": int(queries),
                    "fidelity test": float(test),
                    "fidelity uniform": float(uniform),
                }
            )
    lines = []
    for n, *anchor in ((100, 0.869, 0.26), (700, 0.978, 0.437)):
        for key, stated in zip(
            ("fidelity test", "fidelity uniform"), anchor, strict=True
        ):
            # By labels, all of them; the best row is that of one attack.
            row = max(_labelled(rows, n, OURS), key=lambda row: row["fidelity uniform"])
            peers = [row[key] for row in _labelled(rows, n, "art") if key in row]
            text = f"{row['runner']}, {n} labels, {key}"
            lines.append(verdict(text, row[key], above=max([stated, *peers])))
    return rows, lines


def _labelled(rows, n, runner):
    return [
        row
        for row in rows
        if row["budget"] == n
        and row["runner"].startswith(runner)
        and "scores" not in row["runner"]
    ]


def _art_digits(model, n, X, X_test, y, seed, adaptive=False):
    def build(extraction, classifiers):
        count = [0]

        def answer(rows):
            count[0] += len(rows)
            return model.predict_proba(rows)

        found = {}
        rng = np.random.RandomState(1)
        uniform = rng.uniform(X.min(axis=0), X.max(axis=0), size=(10_000, 64))
        attacks = {
            "art CopycatCNN": (extraction.CopycatCNN, {}),
            "art KnockoffNets random": (
                extraction.KnockoffNets,
                {"sampling_strategy": "random", "verbose": False},
            ),
        }
        if adaptive:  # trains after every query: hours for 700 of them
            params = {"sampling_strategy": "adaptive", "verbose": False}
            attacks["art KnockoffNets adaptive"] = (extraction.KnockoffNets, params)
        for name, (cls, params) in attacks.items():
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002 (what ART draws from)
            count[0] = 0
            victim = classifiers.BlackBoxClassifier(answer, (64,), 10)
            module = torch.nn.Sequential(
                torch.nn.Linear(64, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10)
            )
            thief = classifiers.PyTorchClassifier(
                module,
                torch.nn.CrossEntropyLoss(),
                (64,),
                10,
                optimizer=torch.optim.Adam(module.parameters(), lr=1e-3),
                device_type="cpu",
            )
            attack = cls(
                victim,
                batch_size_fit=32,
                batch_size_query=32,
                nb_epochs=100,
                nb_stolen=n,
                **params,
            )
            try:
                thief = attack.extract(
                    X.astype(np.float32), np.eye(10)[y], thieved_classifier=thief
                )
            except Exception as error:
                found[name] = f"fails: {error}"[:100]
                continue
            scores = [
                float(
                    (
                        thief.predict(r.astype(np.float32)).argmax(1) == model.predict(r)
                    ).mean()
                )
                for r in (X_test, uniform)
            ]
            found[name] = (count[0], *scores)
        return found

    result = common.available(
        build, "art.attacks.extraction", "art.estimators.classification"
    )
    return {"art": result} if isinstance(result, str) else result


# Papernot on MNIST ----------------------------------------------------------------------

# The paper's share of its FGSM examples that MetaMind's network misclassified.
PAPER = {150: "-", 1600: "-", 6400: ".8424"}


class SubstituteCNN(torch.nn.Module):
    """The paper's kind of substitute: two convolutions with pooling, two layers."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(16, 32, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(32 * 49, 100),
            torch.nn.ReLU(),
            torch.nn.Linear(100, 10),
        )

    def forward(self, x):
        return self.layers(x)


def bench_papernot(args):
    from skorch import NeuralNetClassifier

    from sklearn_advsec.evasion import FastGradientMethod
    from sklearn_advsec.pretrained import PretrainedModule

    X, y, X_test, y_test = common.load_mnist()
    victim = PretrainedModule(common.reference_model("undefended"))
    seed, X_test, y_test = X_test[:150], X_test[5000:6000], y_test[5000:6000]
    right = victim.predict(X_test) == y_test
    rows = []
    for step_size, n in ((0.1, 150), (0.1, 1600), (0.1, 6400), (0.2, 1600), (0.2, 6400)):
        net = NeuralNetClassifier(
            SubstituteCNN,
            criterion=torch.nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            lr=1e-3,
            max_epochs=args.epochs,
            batch_size=32,
            train_split=None,
            verbose=0,
        )
        counted = Counted(victim)
        attack = JacobianSubstitute(
            counted,
            surrogate=net,
            n_rounds=12,
            step_size=step_size,
            flip_every=1,
            bounds=(0, 1),
            max_queries=n,
        )
        start = time.process_time()
        attack.fit(seed)
        seconds = time.process_time() - start
        assert counted.n_rows == attack.n_queries_
        fgsm = FastGradientMethod(FrozenEstimator(attack), eps=0.3, bounds=(0, 1))
        result = fgsm.fit(X_test).run(X_test, y_test)
        fooled = victim.predict(result.X_adv) != y_test
        noise = np.random.RandomState(0).choice([-0.3, 0.3], X_test.shape)
        noisy = np.clip(X_test + noise, 0, 1).astype(np.float32)
        rows.append(
            {
                "lambda": step_size,
                "queries": counted.n_rows,
                "rounds": attack.n_rounds_,
                "substitute accuracy": float(attack.score(X_test, y_test)),
                "fidelity": attack.fidelity(X_test),
                "victim fooled, FGSM .3": float(fooled.mean()),
                "transfer of victim's hits": float(fooled[right].mean()),
                "random signs .3": float((victim.predict(noisy) != y_test).mean()),
                "paper (MetaMind)": PAPER[n],
                "CPU s": seconds,
            }
        )
    note = (
        "The paper (arXiv:1602.02697) states its share for 6,400 queries of MetaMind's "
        "network, which is another victim than ours."
    )
    return rows, [note]


SECTIONS = {
    "lr": ("Logistic regression by equation solving", bench_lr),
    "labels": ("Logistic regression from labels only", bench_labels),
    "networks": ("Networks by non-linear least squares", bench_networks),
    "trees": ("Decision trees by path-finding", bench_trees),
    "outputs": ("Decision trees without leaf ids", bench_trees_by_output),
    "relu": ("ReLU networks", bench_relu),
    "digits": ("Digits MLP from 100 and 700 queries", bench_digits),
    "papernot": ("Jacobian substitute on MNIST", bench_papernot),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--seeds", type=int, default=3, help="victims of 'digits'")
    parser.add_argument("--epochs", type=int, default=10, help="of a substitute")
    parser.add_argument(
        "--adaptive", action="store_true", help="with ART's adaptive Knockoff in 'digits'"
    )
    parser.add_argument("--write", action="store_true", help="keep the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tables = []
    for key in args.only:
        title, bench = SECTIONS[key]
        rows, lines = bench(args)
        claims = [line for line in lines if isinstance(line, Claim)]
        remarks = [line for line in lines if not isinstance(line, Claim)]
        tables.append(Table(title, rows, claims, remarks))
        print(f"{tables[-1]}\n", flush=True)
    if args.write:
        command = shlex.join(["python", *sys.argv])
        record("extraction", "extraction", command, tables)


if __name__ == "__main__":
    main()
