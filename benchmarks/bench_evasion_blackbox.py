"""Attacks by scores and labels against the other libraries, and against random search.

All get the same victim, rows and, where the library takes one, the same budget of queries
for each row. What they return is judged by one pass of the victim. Queries are those that
the victim saw, counted from outside, for each row on average.

Run it from the repository's root, for example::

    python benchmarks/bench_evasion_blackbox.py --rounds 3 --write
    python benchmarks/bench_evasion_blackbox.py --only square hsj
"""

import argparse
import warnings

import _common as common
import numpy as np
import torch
from _results import Claim, Table, record
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from torch import nn

OURS = common.OURS
RANDOM = "random search"

# What is compared: title, rows, queries per row, the radius of a success (None: any).
NETWORK_ROWS = {
    "square": ("Square Linf .3", 300, 1000, np.inf, 0.3),
    "square-l2": ("Square L2 2", 300, 1000, 2, 2.0),
    "hsj": ("HopSkipJump L2", 100, 2430, 2, None),
    "hsj-linf": ("HopSkipJump Linf", 100, 2430, np.inf, None),
    "one-pixel-1": ("One pixel", 60, 3000, 0, 1),
    "one-pixel-3": ("Three pixels", 60, 3000, 0, 3),
    "one-pixel-5": ("Five pixels", 60, 3000, 0, 5),
    "simba": ("SimBA, pixels", 30, 2000, 2, None),
    "simba-dct": ("SimBA, DCT", 30, 2000, 2, None),
    "zoo": ("ZOO", 10, 8483, 2, None),
    "nes": ("NES Linf .3", 100, 1000, np.inf, 0.3),
    "rays": ("RayS Linf", 60, 1000, np.inf, None),
    "pointwise": ("Pointwise", 60, 1000, 0, None),
}


# Ours -----------------------------------------------------------------------------------


def our_attacks(name, n_queries, eps):
    """Our attack for a row, and its variants."""

    def build(evasion):
        budget = dict(max_queries=n_queries, bounds=(0, 1))
        ball = budget | dict(eps=eps)
        if name.startswith("square"):
            norm = 2 if "l2" in name else np.inf
            variants = {"": evasion.SquareAttack(norm=norm, **ball)}
            if name.endswith("forest"):  # one call of which costs what a hundred rows do
                many = evasion.SquareAttack(norm=norm, n_proposals=8, **ball)
                variants[", 8 squares at once"] = many
            return variants
        if name.startswith("hsj"):
            norm = np.inf if "linf" in name else 2
            return {
                "": evasion.HopSkipJump(norm=norm, **budget),
                ", from data": evasion.HopSkipJump(norm=norm, start="data", **budget),
            }
        if name.startswith("one-pixel"):
            return {"": evasion.OnePixel(n_pixels=eps, **budget)}
        if name.startswith("simba"):
            return {
                "": evasion.SimBA(basis="dct" if "dct" in name else "pixel", **budget)
            }
        if name == "zoo":
            return {"": evasion.ZerothOrderOptimization(**budget)}
        if name == "nes":
            return {
                "": evasion.NaturalEvolutionStrategy(**ball),
                ", top 1": evasion.NaturalEvolutionStrategy(top_k=1, **ball),
            }
        if name == "rays":
            return {"": evasion.RayS(**budget)}
        return {"": evasion.PointwiseAttack(**budget)}

    return common.available(build, "sklearn_advsec.evasion")


def our_runners(name, victim, data, X, y, n_queries, eps):
    attacks = our_attacks(name, n_queries, eps)
    if isinstance(attacks, str):
        return {OURS: attacks}
    runners = {}
    for variant, attack in attacks.items():
        attack.set_params(estimator=victim).fit(*data)
        runners[OURS + variant] = lambda attack=attack: attack.run(X, y).X_adv
    return runners


def random_search(module, X, y, norm, eps, n_queries):
    """The cheap rival: random changes of the allowed kind, the same for all rows.

    Where no radius is given, uniform noise of random strength; the nearest success stays.
    """
    x0 = torch.as_tensor(X)
    label = torch.as_tensor(y)

    def run():
        generator = torch.Generator().manual_seed(0)
        best, found = x0.clone(), torch.zeros(len(x0), dtype=torch.bool)
        nearest = torch.full((len(x0),), torch.inf)

        def uniform(*shape):
            return torch.rand(shape, generator=generator)

        for _ in range(n_queries):
            rows = torch.nonzero(~found if eps is not None else torch.ones(len(x0))).T[0]
            if not len(rows):
                break
            x = x0[rows]
            if norm == 0:
                share = eps or int(1 + 200 * uniform(1))
                at = torch.randperm(x[0].numel(), generator=generator)[:share]
                new = x.flatten(1).clone()
                new[:, at] = uniform(share)
                new = new.reshape(x.shape)
            else:
                noise = 2 * uniform(*x.shape[1:]) - 1
                if norm == 2:
                    noise = noise / noise.norm()
                largest = eps if eps is not None else (1.0 if norm == np.inf else 15.0)
                strength = largest if eps is not None else largest * float(uniform(1))
                noise = noise.sign() if norm == np.inf and eps is not None else noise
                new = (x + strength * noise).clamp(0, 1)
            with torch.no_grad():
                wrong = module(new).argmax(1) != label[rows]
            size = torch.linalg.vector_norm((new - x).flatten(1), ord=norm, dim=1)
            better = wrong & (size < nearest[rows])
            best[rows[better]] = new[better]
            nearest[rows[better]] = size[better]
            found[rows[better]] = True
        return best

    return run


# Peers ----------------------------------------------------------------------------------


def torchattacks_runner(name, module, X, y, n_queries, eps):
    x, label = torch.as_tensor(X), torch.as_tensor(y)

    def build(torchattacks):
        if name.startswith("square"):
            attack = torchattacks.Square(
                module,
                norm="L2" if "l2" in name else "Linf",
                eps=eps,
                n_queries=n_queries,
            )
        elif name.startswith("one-pixel"):
            # Its population is the largest multiple of the genes that fits, at least one.
            genes = 3 * eps
            population = max(1, 30 // genes) * genes
            attack = torchattacks.OnePixel(
                module,
                pixels=eps,
                steps=n_queries // population - 1,
                popsize=30,
                inf_batch=128,
            )
        else:
            return "no such attack"
        return lambda: attack(x, label)

    return common.available(build, "torchattacks")


def foolbox_runner(name, module, X, y, n_queries, eps):
    def build(foolbox, attacks):
        if name.startswith("hsj"):
            attack = attacks.HopSkipJumpAttack(
                steps=_hsj_steps(n_queries),
                constraint="linf" if "linf" in name else "l2",
                max_gradient_eval_steps=n_queries,
            )
        elif name == "pointwise":
            attack = attacks.PointwiseAttack()
        else:
            return "no such attack"
        model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
        x, label = torch.as_tensor(X), torch.as_tensor(y)
        return lambda: attack(model, x, label, epsilons=None)[1]

    return common.available(build, "foolbox", "foolbox.attacks")


def cleverhans_runner(name, module, X, y, n_queries, eps):
    def build(hsj):
        if not name.startswith("hsj"):
            return "no such attack"
        x = torch.as_tensor(X)
        norm = np.inf if "linf" in name else 2
        return lambda: hsj.hop_skip_jump_attack(
            module,
            x,
            norm,
            clip_min=0,
            clip_max=1,
            num_iterations=_hsj_steps(n_queries),
            max_num_evals=n_queries,
            verbose=False,
        ).detach()

    return common.available(build, "cleverhans.torch.attacks.hop_skip_jump_attack")


def art_runner(name, module, X, y, n_queries, eps):
    def build(evasion, classification):
        network = module
        if name.startswith("hsj") or name == "zoo":  # it sends float64
            network = _Cast(module)
        model = classification.PyTorchClassifier(
            nn.Sequential(network, nn.Softmax(1))
            if name.startswith("simba")
            else network,
            loss=nn.CrossEntropyLoss(),
            input_shape=X.shape[1:],
            nb_classes=10,
            clip_values=(0, 1),
            device_type="cpu",
        )
        attack = _art_attack(evasion, model, name, n_queries, eps)
        if isinstance(attack, str):
            return attack
        labels = np.eye(10)[y] if name.startswith("simba") else y
        return lambda: attack.generate(X, labels)

    return common.available(build, "art.attacks.evasion", "art.estimators.classification")


def _art_attack(evasion, model, name, n_queries, eps):
    if name.startswith("square"):
        norm = 2 if "l2" in name else np.inf
        return evasion.SquareAttack(
            model, norm=norm, eps=eps, max_iter=n_queries, nb_restarts=1, verbose=False
        )
    if name.startswith("hsj"):
        return evasion.HopSkipJump(
            model,
            norm=np.inf if "linf" in name else 2,
            max_iter=_hsj_steps(n_queries),
            max_eval=n_queries,
            init_eval=100,
            verbose=False,
        )
    if name.startswith("one-pixel"):
        # Its evolution asks about 400 rows in a generation, and takes no budget.
        steps = max(1, n_queries // 400 - 1)
        return evasion.PixelAttack(model, th=eps, es=1, max_iter=steps, verbose=False)
    if name.startswith("simba"):
        dct = "dct" in name
        return evasion.SimBA(
            model,
            attack="dct" if dct else "px",
            max_iter=n_queries // 2,  # of up to two queries each
            epsilon=0.2,
            order="diag" if dct else "random",
            freq_dim=28 if dct else 4,
            stride=1,
            batch_size=1,
            verbose=False,
        )
    if name == "zoo":
        return evasion.ZooAttack(
            model,
            max_iter=100,
            binary_search_steps=1,
            initial_const=10.0,
            learning_rate=0.1,
            use_resize=False,
            use_importance=False,
            nb_parallel=42,
            variable_h=0.1,
            verbose=False,
        )
    return "no such attack"


class _Cast(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x.float())


def _hsj_steps(n_queries):
    """Iterations whose queries (100 sqrt(t) neighbours, 17 for bisections) fit."""
    spent, step = 0, 0
    while spent + 100 * np.sqrt(step + 1) + 17 <= n_queries:
        step += 1
        spent += 100 * np.sqrt(step) + 17
    return step


# Networks -------------------------------------------------------------------------------


def network_row(name, model, args):
    """Run one row of the comparison on a reference network; return its table."""
    title, n, n_queries, norm, eps = NETWORK_ROWS[name]
    n = args.n or n
    module = common.reference_model(model)
    X_train, y_train, X, y = common.load_mnist()
    right = module(torch.as_tensor(X[: 2 * n])).argmax(1).numpy() == y[: 2 * n]
    X, y = X[: 2 * n][right][:n], y[: 2 * n][right][:n]
    from sklearn_advsec.pretrained import PretrainedModule

    victim = PretrainedModule(module, classes=range(10))
    data = X_train[:1000], y_train[:1000]
    runners = {
        "torchattacks": torchattacks_runner(name, module, X, y, n_queries, eps),
        "foolbox": foolbox_runner(name, module, X, y, n_queries, eps),
        "cleverhans": cleverhans_runner(name, module, X, y, n_queries, eps),
        "ART": art_runner(name, module, X, y, n_queries, eps),
    }
    runners = {k: v for k, v in runners.items() if v != "no such attack"}
    runners |= our_runners(name, victim, data, X, y, n_queries, eps)
    runners[f"{OURS}'s rival, {RANDOM}"] = random_search(
        module, X, y, norm, eps, n_queries
    )
    rows = common.compare(
        runners,
        args.rounds,
        lambda X_adv: quality(
            lambda x: module(torch.as_tensor(x)).argmax(1).numpy(), X, y, X_adv, norm, eps
        ),
    )
    for row in rows:
        if "forwards per row" in row:
            row["queries per row"] = row.pop("forwards per row")
    clean = "undefended" if model == "undefended" else "adversarially trained"
    heading = f"{title}, {clean} network, n {n}, {n_queries} queries for each row"
    return Table(heading, rows, claims(rows, n))


def quality(predict, X, y, X_adv, norm, eps):
    """Judge adversarial rows: how many succeed, and how far they were moved."""
    X_adv = np.asarray(X_adv, dtype=X.dtype)
    with torch.no_grad():
        wrong = predict(X_adv) != y
    delta = (X_adv - X).reshape(len(X), -1).astype(np.float64)
    if norm == 0:
        size = (np.abs(delta) > 1e-7).sum(1).astype(float)
    else:
        size = np.linalg.norm(delta, ord=norm, axis=1)
    columns = {"success": float(wrong.mean())}
    if eps is None:
        # A row without success counts as infinitely far away.
        columns["median distance"] = float(np.median(np.where(wrong, size, np.inf)))
        reached = np.median(size[wrong]) if wrong.any() else np.nan
        columns["of successes"] = float(reached)
    else:
        columns["largest distance"] = f"{size.max():.4g}"
    return columns


def claims(rows, n):
    """Say whether we are as good as the best peer, and as fast as such a peer.

    Three rows of a hundred are within the noise of these random attacks (by five seeds of
    one of them, its success was .68 to .74), and so are 3 % of a median distance.
    """
    key = "median distance" if "median distance" in rows[-1] else "success"
    judged = {r["runner"]: r for r in rows if key in r}
    peers = [r for name, r in judged.items() if not name.startswith(OURS)]
    if not peers or OURS not in judged:
        return []
    sign = -1 if key == "median distance" else 1
    peer = max(peers, key=lambda r: sign * r[key])
    best = sign * peer[key]
    least = 1.03 * best if sign < 0 else best - max(0.03, 1 / n)  # best < 0 for distances
    good = [r for r in peers if sign * r[key] >= least - 1e-9]
    fastest = min(good, key=lambda r: r["CPU s"])
    found = []
    for name, row in judged.items():
        if not name.startswith(OURS) or RANDOM in name:
            continue
        found.append(
            Claim(
                f"{name}: {key}",
                f"{row[key]:.3g}",
                bool(sign * row[key] >= least - 1e-9),
                "as good as the peer, within 3 %",
                f"{sign * best:.3g} ({peer['runner']})",
            )
        )
        if np.isfinite(best):  # else no peer is as good: there is no time to compare
            ratio = row["CPU s"] / fastest["CPU s"]
            text = f"{name}: time, of that of {fastest['runner']}"
            met = bool(ratio <= 1)
            found.append(Claim(text, f"{ratio:.2f}x", met, "at most 1x", "1x"))
    return found


# scikit-learn ---------------------------------------------------------------------------


def digits_row(args):
    """One, three and five pixels of digits; return the table."""
    X, y = load_digits(return_X_y=True)
    X = X / 16
    n, n_queries, parts = args.n or 100, 1000, []
    for victim in (
        LogisticRegression(max_iter=1000),
        RandomForestClassifier(n_estimators=50, random_state=0),
        MLPClassifier((64,), random_state=0, max_iter=300),
    ):
        victim.fit(X[:1200], y[:1200])
        right = victim.predict(X[1200:]) == y[1200:]
        rows, labels = X[1200:][right][:n], y[1200:][right][:n]
        for k in (1, 3, 5):
            attack = our_attacks("one-pixel", n_queries, k)[""]
            attack.set_params(estimator=FrozenEstimator(victim), image_shape=(8, 8))
            result = attack.fit(X[:1200]).run(rows, labels)
            rng = np.random.RandomState(0)
            found = np.zeros(n, dtype=bool)
            for _ in range(n_queries):
                tried = rows[~found]
                tried[:, rng.choice(64, k, replace=False)] = rng.uniform(size=k)
                found[~found] |= victim.predict(tried) != labels[~found]
                if found.all():
                    break
            parts.append(
                {
                    "victim": type(victim).__name__,
                    "pixels": k,
                    f"{OURS}, success": float(result.success.mean()),
                    "median queries of successes": float(
                        np.median(result.n_queries[result.success])
                    ),
                    f"{RANDOM}, success": float(found.mean()),
                }
            )
    heading = f"A few pixels of digits (8 x 8), n {n}, {n_queries} queries for each row"
    return Table(heading, parts)


def forest_row(args):
    """Square and HopSkipJump on a forest's pipeline; return the table."""
    X, y = load_breast_cancer(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(X))
    X, y = X[order], y[order]
    low, high = X.min(0), X.max(0)
    X = (X - low) / (high - low)
    n = args.n or 20
    seen = _CountingScaler()
    victim = make_pipeline(
        seen, RandomForestClassifier(n_estimators=50, random_state=0)
    ).fit(X[200:], y[200:])
    right = victim.predict(X[:200]) == y[:200]
    rows, labels = X[:200][right][:n], y[:200][right][:n]
    parts = []
    for title, name, n_queries, norm, eps in (
        ("Square Linf .1", "square-forest", 200, np.inf, 0.1),
        ("HopSkipJump L2", "hsj", 600, 2, None),
    ):
        runners = {
            "ART": _art_forest(name, victim, rows, labels, n_queries, eps),
            **our_runners(
                name,
                FrozenEstimator(victim),
                (X[200:], y[200:]),
                rows,
                labels,
                n_queries,
                eps,
            ),
        }
        counts = {}

        def counted(runner, name, counts=counts):
            def run():
                seen.n_rows = seen.n_calls = 0
                result = runner()
                counts[name] = seen.n_rows / len(rows), seen.n_calls
                return result

            return run if callable(runner) else runner

        runners = {k: counted(v, k) for k, v in runners.items()}
        found = common.compare(
            runners,
            args.rounds,
            lambda X_adv, norm=norm, eps=eps: quality(
                victim.predict, rows, labels, X_adv, norm, eps
            ),
        )
        for row in found:
            if "CPU s" not in row:
                continue
            row["queries per row"], row["calls of the victim"] = counts[row["runner"]]
            row["ms per query"] = 1e3 * row["CPU s"] / row["queries per row"] / n
        art = next(r for r in found if r["runner"] == "ART")
        for row in found:
            if row["runner"].startswith(OURS) and "CPU s" in art:
                row["speed"] = f"{1 / row['ratio']:.1f}x"
                share = art["ms per query"] / row["ms per query"]
                row["speed per query"] = f"{share:.1f}x"
        parts += [{"attack": title} | row for row in found]
    return Table(f"Pipeline of MinMaxScaler and a forest of 50 trees, n {n}", parts)


class _CountingScaler(MinMaxScaler):
    """Counts the rows that go through the pipeline, whoever sends them."""

    n_rows = n_calls = 0

    def transform(self, X):
        self.n_rows += len(X)
        self.n_calls += 1
        return super().transform(X)


def _art_forest(name, victim, X, y, n_queries, eps):
    def build(evasion, classification):
        # Its wrapper of scikit-learn refuses pipelines; those of functions do not. Square
        # only takes what claims to be a network, and images larger than its first square:
        # the 30 columns become 5 x 6 pixels.
        if name != "square-forest":
            model = classification.BlackBoxClassifier(
                victim.predict_proba, X.shape[1:], 2, clip_values=(0, 1)
            )
            attack = _art_attack(evasion, model, name, n_queries, eps)
            return lambda: attack.generate(X.astype(np.float32), np.eye(2)[y])
        shape = (1, 5, 6)
        model = classification.BlackBoxClassifierNeuralNetwork(
            lambda x: victim.predict_proba(np.reshape(x, (len(x), -1))),
            shape,
            2,
            channels_first=True,
            clip_values=(0, 1),
        )
        attack = _art_attack(evasion, model, name, n_queries, eps)
        attack.set_params(p_init=0.5)
        images = X.reshape(-1, *shape).astype(np.float32)
        return lambda: attack.generate(images, np.eye(2)[y]).reshape(X.shape)

    return common.available(build, "art.attacks.evasion", "art.estimators.classification")


def main():
    alone = {"forest": forest_row, "digits": digits_row}
    names = [*NETWORK_ROWS, *alone]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, help="rows to attack (default: by attack)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[], choices=names)
    parser.add_argument("--models", nargs="+", default=["undefended", "robust"])
    parser.add_argument("--write", action="store_true", help="keep the results")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")  # the peers' own

    sections = []
    for name in args.only or names:
        for model in [None] if name in alone else args.models:
            row = alone[name](args) if name in alone else network_row(name, model, args)
            sections.append(row)
            print(row, end="\n\n", flush=True)
    if args.write:
        command = (
            f"python benchmarks/bench_evasion_blackbox.py --rounds {args.rounds} --write"
        )
        record("evasion_blackbox", "evasion", command, sections)


if __name__ == "__main__":
    main()
