"""Gradient attacks of all kinds beside the other libraries: what they find, and how fast.

Everybody gets the same network, the same images (which it gets right), and the same
number of steps. What comes back is judged by one float32 pass of the network, outside of
the timed region. A row without a success counts as infinitely far away.

Run it from the repository's root, for example::

    python benchmarks/bench_evasion_gradient.py --rounds 2 --write
    python benchmarks/bench_evasion_gradient.py --only fmn-l2 cw peers
"""

import argparse
import sys
import types
import warnings
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import _common as common
import numpy as np
import torch
from _results import Claim, Table, record
from torch import nn

OURS = common.OURS
NETWORKS = {
    "undefended": "undefended",
    "robust": "adversarially trained",
    "residual": "residual with batch normalisation",
    "resnet18": "ResNet-18 of 16 channels at first, digits of 3x32x32",
}
THREE = ["undefended", "robust", "resnet18"]
RANDOM = {"random": "ResNet-18 of 16 channels at first, random weights, images 3x32x32"}
LARGE = ["resnet18", "random"]
NAMES = NETWORKS | RANDOM
LP = {np.inf: "Linf", 2: "L2", 1: "L1", 0: "L0"}

# Title, networks, rows, norm, radius (None: as near as possible), steps.
ROWS = {
    "apgd": ("APGD on the cross-entropy", THREE, 1000, np.inf, 0.3, 100),
    "pgd-resnet": ("PGD", LARGE, 32, np.inf, 8 / 255, 20),
    "apgd-resnet": ("APGD on the cross-entropy", LARGE, 32, np.inf, 8 / 255, 20),
    "autoattack": ("AutoAttack", ["robust", "resnet18"], 100, np.inf, 0.3, 100),
    "deepfool": ("DeepFool", THREE, 100, 2, None, 50),
    "deepfool-linf": ("DeepFool", THREE, 100, np.inf, None, 50),
    "cw": ("Carlini-Wagner, 9 searches", THREE, 30, 2, None, 100),
    "cw-few": ("Carlini-Wagner, 9 searches", THREE, 2, 2, None, 100),
    "jsma": ("JSMA, target y + 1, at most 20 % of the pixels", THREE, 20, 0, None, None),
    "fab-linf": ("FAB", THREE, 50, np.inf, None, 100),
    "fab-l2": ("FAB", THREE, 50, 2, None, 100),
    "fab-l1": ("FAB", THREE, 50, 1, None, 100),
    "fmn-linf": ("FMN", NETWORKS, 100, np.inf, None, 100),
    "fmn-l2": ("FMN", NETWORKS, 100, 2, None, 100),
    "fmn-l1": ("FMN", NETWORKS, 100, 1, None, 100),
    "fmn-l0": ("FMN", THREE, 100, 0, None, 100),
    "sigma-zero": ("Sigma-zero", NETWORKS, 100, 0, None, 100),
    "universal": ("Universal perturbation", THREE, 200, np.inf, 0.3, 20),
}
# Rows where the network is large; 8 where nothing is said.
FEW = {"pgd-resnet": 32, "apgd-resnet": 32, "apgd": 16, "cw": 2, "cw-few": 1, "jsma": 2}
FEW |= {"fab-linf": 4, "fab-l2": 4, "fab-l1": 4}
SLACK = 0.005  # of robust accuracy and success, and relative for norms
AUTOATTACK_TIME = 0.7  # of torchattacks'
CHECKED = ", the last step checked"

# AutoAttack beside the standard version, which takes 100 steps and 5000 queries.
SHORTER = {
    "10 steps": dict(max_iter=10),
    "10 steps, 3000 queries": dict(max_iter=10, square_queries=3000),
}

# In whose tables adv-lib's other methods stand beside ours, but are not compared: it is
# fast minimum norm, and sigma-zero, that are to be as near and as fast as anything.
SAME_METHOD = {
    "deepfool": "DeepFool",
    "deepfool-linf": "DeepFool",
    "cw": "Carlini-Wagner",
    "fab-linf": "FAB",
    "fab-l2": "FAB",
    "fab-l1": "FAB",
    "fmn-l0": "FMN",
}

# What the tables do not say by themselves of the peers, by the names of the rows.
REMARKS = {
    "autoattack": [
        "torchattacks' AutoAttack takes 10 steps in each of its gradient attacks, the "
        "default of its classes, instead of the paper's 100; '100 steps' are its own "
        "classes put together with 100. With 10 steps most of the time is the square "
        "attack's, 5000 forward passes for each row that stands, and the same for all."
    ],
    "pgd-resnet": [
        "torchattacks does not ask what its last step has come to, and adv-lib returns "
        "the best of the points before it; with one step more it has looked at as many "
        "points as ours, which also asks about the rows as they were, as a row that is "
        "wrong already is a success that did not move."
    ],
    "universal": ["ART's is made of FGSM steps of 0.1."],
    "deepfool": [
        "torchattacks multiplies each single step, not their sum, by the overshoot, and "
        "clips after it: what fails ends next to the boundary."
    ],
    "cw": [
        "foolbox's successes are black images, as the last column counts: pixels at the "
        "edge of the box begin where the tanh is flat, and the whole digit is erased.",
        "torchattacks has no search over c, and gets its default c = 1 and 900 steps.",
    ],
    "fmn-l2": [
        "foolbox does not project: L2FMNAttack.project scales by min(1, norms / norms), "
        "which is 1. Its radius has no effect.",
        "TR takes the adaptive steps of its paper: of 0.001 each, adv-lib's default, a "
        "hundred reach no boundary. ALMA and PDGD have their default rates, which are "
        "made for 1000 and 500 steps.",
    ],
    "sigma-zero": [
        "Settings are the paper's. Steps twice as long change fewer features of the "
        "undefended network's images (others than these), and more of those of the "
        "network that was trained on adversarial ones."
    ],
}


# The libraries ------------------------------------------------------------------------


def torchattacks_runner(name, module, X, y, norm, eps, steps):
    def build(torchattacks):
        rule = dict(norm=LP[norm], steps=steps)
        if name == "pgd-resnet":
            attack = torchattacks.PGD(module, eps=eps, alpha=2 / 255, steps=steps)
        elif name.startswith("apgd"):
            attack = torchattacks.APGD(module, eps=eps, loss="ce", **rule)
        elif name == "autoattack":
            attack = torchattacks.AutoAttack(module, eps=eps, norm=LP[norm], seed=0)
        elif name == "as-in-paper":  # the parts of its AutoAttack, with other steps
            ball = dict(eps=eps, norm=LP[norm], seed=0)
            parts = [
                torchattacks.APGD(module, steps=steps, loss="ce", **ball),
                torchattacks.APGDT(module, steps=steps, **ball),
                torchattacks.FAB(module, steps=steps, multi_targeted=True, **ball),
                torchattacks.Square(module, n_queries=5000, **ball),
            ]
            attack = torchattacks.MultiAttack(parts)
        elif name == "deepfool":
            attack = torchattacks.DeepFool(module, steps=steps)
        elif name == "cw":
            # It has no search over c: this is its default, c = 1.
            attack = torchattacks.CW(module, steps=9 * steps, lr=0.01)
        elif name.startswith("fab"):
            # What it finds farther away than eps it throws away.
            largest = np.linalg.norm(np.ones(X[0].size), norm)
            attack = torchattacks.FAB(module, eps=largest, **rule)
        elif name == "jsma":
            attack = torchattacks.JSMA(module, theta=1.0, gamma=0.2)
            attack.set_mode_targeted_by_label(quiet=True)
        else:
            return None
        x = torch.as_tensor(X)
        label = torch.as_tensor((y + 1) % 10 if name == "jsma" else y)
        return lambda: attack(x, label).detach()

    return common.available(build, "torchattacks")


def foolbox_runner(name, module, X, y, norm, eps, steps):
    def build(foolbox, attacks):
        if name == "deepfool":
            attack = attacks.L2DeepFoolAttack(steps=steps)
        elif name == "deepfool-linf":
            attack = attacks.LinfDeepFoolAttack(steps=steps)
        elif name == "cw":
            attack = attacks.L2CarliniWagnerAttack(9, steps=steps, stepsize=0.01)
        elif name.startswith("fmn"):
            cls = {
                np.inf: attacks.LInfFMNAttack,
                2: attacks.L2FMNAttack,
                1: attacks.L1FMNAttack,
                0: attacks.L0FMNAttack,
            }[norm]
            attack = cls(steps=steps)
        else:
            return None
        model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
        x, label = torch.as_tensor(X), torch.as_tensor(y)
        return lambda: attack(model, x, label, epsilons=None)[1]

    return common.available(build, "foolbox", "foolbox.attacks")


def _advlib():
    """Import adv-lib's attacks; what it needs for drawing and for LPIPS stays away."""
    absent = [n for n in ("torchvision", "visdom") if find_spec(n) is None]
    for name in absent:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].models = None
    try:
        return import_module("adv_lib.attacks")
    finally:
        for name in absent:
            del sys.modules[name]


def advlib_runners(name, module, X, y, norm, eps, steps):
    """Everything of adv-lib that has the same aim, by its name."""
    try:
        lib = _advlib()
        from adv_lib.attacks.carlini_wagner import carlini_wagner_l2
        from adv_lib.attacks.fast_adaptive_boundary import fab
        from adv_lib.attacks.trust_region import tr
    except Exception as error:
        return {"adv-lib": f"not importable: {error}"}
    if name.startswith("pgd"):
        step = dict(steps=steps, absolute_step_size=2 / 255)
        found = {"PGD": partial(lib.pgd_linf, ε=eps, **step)}
    elif name.startswith("apgd"):
        rule = dict(eps=eps, norm=norm, n_iter=steps, loss_function="ce")
        found = {"APGD": partial(lib.apgd, **rule)}
    elif eps is not None or name in ("jsma", "cw-few"):
        return {}
    else:
        n = 9 * steps if name == "cw" else steps
        found = {
            "FMN": partial(lib.fmn, norm=norm, steps=n),
            "PDPGD": partial(lib.pdpgd, norm=norm, num_steps=n),
        }
        if norm == 0:
            found["PDPGD"] = partial(found["PDPGD"], proximal_operator=23)
            found["sigma-zero"] = partial(lib.sigma_zero, num_steps=n)
        if norm == 1:
            found["ALMA"] = partial(lib.alma, distance="l1", num_steps=n)
        if norm == 2:
            found.pop("PDPGD", None)
            if name == "cw":
                rule = dict(learning_rate=0.01, max_iterations=steps)
                found["Carlini-Wagner"] = partial(carlini_wagner_l2, **rule)
            found |= {
                "DDN": partial(lib.ddn, steps=n, levels=None),
                "ALMA": partial(lib.alma, distance="l2", num_steps=n),
                "PDGD": partial(lib.pdgd, num_steps=n),
                "SuperDeepFool": partial(lib.sdf, steps=steps),
            }
        if norm in (2, np.inf):
            # Its steps of 0.001 would not get anywhere: the adaptive ones of the paper.
            found["TR"] = partial(tr, iter=n, p=norm, adaptive=True)
            if name.startswith("deepfool"):
                found["DeepFool"] = partial(lib.df, steps=n, norm=norm)
        if name.startswith("fab"):
            found["FAB"] = partial(fab, norm=norm, n_iter=n)
    x, label = torch.as_tensor(X), torch.as_tensor(y)
    # They write into what they are given.
    return {
        f"adv-lib {method}": partial(
            lambda run: run(module, x.clone(), label.clone()).detach(), run
        )
        for method, run in found.items()
    }


def cleverhans_runner(name, module, X, y, norm, eps, steps):
    def build(cw):
        if name != "cw":
            return None
        x, label = torch.as_tensor(X), torch.as_tensor(y)
        return lambda: cw.carlini_wagner_l2(
            module,
            x,
            10,
            label,
            lr=0.01,
            initial_const=0.001,
            binary_search_steps=9,
            max_iterations=steps,
        ).detach()

    return common.available(build, "cleverhans.torch.attacks.carlini_wagner_l2")


def art_runner(name, module, X, y, norm, eps, steps):
    def build(evasion, classification):
        model = classification.PyTorchClassifier(
            module,
            loss=nn.CrossEntropyLoss(),
            input_shape=X.shape[1:],
            nb_classes=10,
            clip_values=(0, 1),
            device_type="cpu",
        )
        rest = dict(batch_size=len(X), verbose=False)
        if name == "apgd":
            attack = evasion.AutoProjectedGradientDescent(
                model,
                norm=norm,
                eps=eps,
                eps_step=2 * eps,
                max_iter=steps,
                nb_random_init=1,
                loss_type="cross_entropy",
                **rest,
            )
        elif name == "deepfool":
            attack = evasion.DeepFool(model, max_iter=steps, epsilon=0.02, **rest)
        elif name == "cw-few":
            attack = evasion.CarliniL2Method(
                model,
                learning_rate=0.01,
                binary_search_steps=9,
                max_iter=steps,
                initial_const=0.001,
                **rest,
            )
        elif name == "jsma":
            attack = evasion.SaliencyMapMethod(model, theta=1.0, gamma=0.2, **rest)
            target = np.eye(10, dtype=np.float32)[(y + 1) % 10]
            return lambda: attack.generate(X, target)
        elif name == "universal":
            attack = evasion.UniversalPerturbation(
                model, "fgsm", dict(eps=0.1), max_iter=steps, eps=eps, **rest
            )
            return lambda: _noise(attack, X)
        else:
            return None
        return lambda: attack.generate(X, y)

    return common.available(build, "art.attacks.evasion", "art.estimators.classification")


def _noise(attack, X):
    attack.generate(X)
    return attack.noise[0]


PEERS = {
    "torchattacks": torchattacks_runner,
    "foolbox": foolbox_runner,
    "cleverhans": cleverhans_runner,
    "ART": art_runner,
}


def our_runner(name, module, X, y, norm, eps, steps, **budget):
    """Time `run` alone, as `fit` has nothing to learn here but the box."""

    def build(evasion, pretrained):
        victim = pretrained.PretrainedModule(module, classes=range(10))
        goal = {}
        if name == "pgd-resnet":
            attack = evasion.ProjectedGradientDescent(
                eps=eps, step_size=2 / 255, max_iter=steps, random_start=True
            )
        elif name.startswith("apgd"):
            attack = evasion.AutoProjectedGradientDescent(eps=eps, max_iter=steps)
        elif name == "autoattack":
            attack = evasion.AutoAttack(eps=eps, max_iter=steps)
        elif name.startswith("deepfool"):
            attack = evasion.DeepFool(norm=norm, max_iter=steps)
        elif name.startswith("cw"):
            attack = evasion.CarliniWagner(max_iter=steps)
        elif name == "jsma":
            attack = evasion.JacobianSaliencyMap(gamma=0.2, goal="targeted")
            goal = dict(target=(y + 1) % 10)
        elif name.startswith("fab"):
            attack = evasion.FastAdaptiveBoundary(norm=norm, max_iter=steps)
        elif name == "sigma-zero":
            attack = evasion.SigmaZero(max_iter=steps)
        elif name.startswith("fmn"):
            attack = evasion.FastMinimumNorm(norm=norm, max_iter=steps)
        else:
            attack = evasion.UniversalPerturbation(eps=eps, max_iter=steps)
        attack.set_params(estimator=victim, bounds=(0, 1), **budget)
        if name == "universal":
            return lambda: attack.fit(X).perturbation_
        attack.fit(X, y)
        return lambda: attack.run(X, **goal or dict(y=y)).X_adv

    return common.available(build, "sklearn_advsec.evasion", "sklearn_advsec.pretrained")


# The comparison -----------------------------------------------------------------------


def network_row(name, network, args):
    """Run one row of the comparison on a reference network; return its table."""
    title, _, n, norm, eps, steps = ROWS[name]
    n = args.n or (FEW.get(name, 8) if network == "resnet18" else n)
    module, X, y = _victim(network)
    if name == "jsma":  # two pixels each
        steps = int(0.2 * X[0].size / 2)
    given = (name, module, X[:n], y[:n], norm, eps, steps)
    runners = {}
    if "ours" not in args.only:
        runners = {library: make(*given) for library, make in PEERS.items()}
        runners |= advlib_runners(*given)
        runners = {library: run for library, run in runners.items() if run is not None}
        if name == "autoattack":
            runners["torchattacks, 100 steps"] = torchattacks_runner(
                "as-in-paper", *given[1:]
            )
        if name == "pgd-resnet":  # neither says what the last step has come to
            runners["torchattacks" + CHECKED] = _checked(runners["torchattacks"], module)
            longer = advlib_runners(*given[:-1], steps + 1)
            runners |= {peer + CHECKED: run for peer, run in longer.items()}
    if "peers" not in args.only:
        runners[OURS] = our_runner(*given)
        if name == "autoattack":
            for variant, budget in SHORTER.items():
                runners[f"{OURS}, {variant}"] = our_runner(*given, **budget)

    def quality(result):
        if name == "universal":
            return _fooling(module, X[:n], X[-2000:], y[-2000:], result)
        return _quality(module, X[:n], y[:n], result, norm, eps, name)

    rows = common.compare(runners, args.rounds, quality)
    if name == "universal":  # one perturbation is no row
        for row in rows:
            row.pop("gradients per row", None), row.pop("forwards per row", None)
    within = "" if eps is None else f" {eps:g}"
    return Table(
        f"{title}, {LP[norm]}{within}, {steps} steps, {NAMES[network]}, n {n}",
        rows,
        claims(name, rows),
        REMARKS.get(name, []) + _other_methods(name),
    )


def _checked(run, module):
    """Let a peer's rows be classified too, as whoever counts its successes has to."""

    def run_and_check():
        x_adv = run()
        with torch.no_grad():
            module(x_adv)
        return x_adv

    return run if isinstance(run, str) else run_and_check


def _other_methods(name):
    if name not in SAME_METHOD:
        return []
    return [
        f"Claims are about {SAME_METHOD[name]} alone; for what else adv-lib has, the "
        "tables of FMN and sigma-zero compare."
    ]


def _victim(network):
    """Return a network, and images that it gets right."""
    if network in RANDOM:
        module, X = common.random_resnet()
        return module, X, _labels(module, X)
    module = common.reference_model(network)
    _, _, X, y = common.reference_images(network)
    right = _labels(module, X) == y
    return module, X[right], y[right]


def _labels(module, X):
    with torch.no_grad():
        return np.concatenate(
            [module(part).argmax(1).numpy() for part in torch.as_tensor(X).split(500)]
        )


def _quality(module, X, y, X_adv, norm, eps, name):
    """Judge adversarial images: how many there are, and how far away."""
    X_adv = np.asarray(X_adv, dtype=np.float32)
    with torch.no_grad():
        predicted = module(torch.as_tensor(X_adv)).argmax(1).numpy()
    success = predicted == (y + 1) % 10 if name == "jsma" else predicted != y
    delta = (X_adv - X).reshape(len(X), -1).astype(np.float64)
    if norm == 0:
        size = (np.abs(delta) > 1e-6).sum(1).astype(float)
    else:
        size = np.linalg.norm(delta, ord=norm, axis=1)
    columns = {}
    if eps is None:
        columns["success"] = float(success.mean())
        columns["median norm"] = float(np.median(np.where(success, size, np.inf)))
        if norm == 0:
            columns["mean norm"] = float(np.where(success, size, X[0].size).mean())
        columns["of successes"] = float(np.median(size[success])) if any(success) else ""
    else:
        columns["robust accuracy"] = float(1 - success.mean())
        columns["largest norm"] = f"{size.max():.5f}"
    columns["box"] = f"{X_adv.min():.4g} to {X_adv.max():.4g}"
    if name == "cw":
        columns["black images"] = int((X_adv.reshape(len(X), -1).max(1) < 0.01).sum())
    return columns


def _fooling(module, X, X_new, y_new, noise):
    """Judge a universal perturbation by images that it was not made for."""
    noise = np.asarray(noise).reshape(1, *X.shape[1:])
    return {
        "robust accuracy": common.accuracy(module, np.clip(X_new + noise, 0, 1), y_new),
        "largest norm": f"{np.abs(noise).max():.5f}",
    }


def claims(name, rows):
    """Say whether we are as good as the best peer, and as fast as those who are, too."""
    rows = [row for row in rows if "CPU s" in row]
    peers = [row for row in rows if not row["runner"].startswith(OURS)]
    if name in SAME_METHOD:
        peers = [
            row
            for row in peers
            if row["runner"] == f"adv-lib {SAME_METHOD[name]}"
            or not row["runner"].startswith("adv-lib")
        ]
    ours = [row for row in rows if row["runner"].startswith(OURS)]
    return [claim for row in ours for claim in _claims(name, row, peers) if peers]


def _claims(name, ours, peers):
    runner = ours["runner"]
    if "robust accuracy" in ours:
        best = min(peers, key=lambda row: row["robust accuracy"])
        found, least = ours["robust accuracy"], best["robust accuracy"]
        yield Claim(
            f"{runner}: robust accuracy",
            f"{found:.3f}",
            bool(found <= least + SLACK),
            f"at most the peer's + {SLACK:g}",
            f"{least:.3f} ({best['runner']})",
        )
        as_good = [row for row in peers if row["robust accuracy"] <= found + SLACK]
    else:
        norm = min(row["median norm"] for row in peers)
        success = max(row["success"] for row in peers)
        good = ours["success"] >= success - SLACK
        good &= ours["median norm"] <= norm * (1 + SLACK)
        if "mean norm" in ours:
            least = min(row["mean norm"] for row in peers)
            yield Claim(
                f"{runner}: mean norm",
                f"{ours['mean norm']:.2f}",
                bool(ours["mean norm"] <= least * (1 + SLACK)),
                f"as good as the best of the peers, within {SLACK:g}",
                f"{least:.2f}",
            )
        yield Claim(
            f"{runner}: success and median norm",
            f"{ours['success']:.2f} and {ours['median norm']:.4g}",
            bool(good),
            f"both as good as the best of the peers, within {SLACK:g}",
            f"{success:.2f} and {norm:.4g}",
        )
        as_good = [
            row
            for row in peers
            if row["success"] >= ours["success"] - SLACK
            and row["median norm"] <= ours["median norm"] * (1 + SLACK)
        ]
    limit = 1
    if name == "autoattack":
        as_good, limit = peers, AUTOATTACK_TIME
    else:  # where no peer is as good, there is no time to compare
        checked = [row for row in as_good if row["runner"].endswith(CHECKED)]
        groups = [row for row in as_good if row not in checked], checked
        as_good = [min(g, key=lambda row: row["CPU s"]) for g in groups if g]
    if name.endswith("resnet"):
        key = "gradients per row"
        least = min(row[key] for row in peers)
        yield Claim(
            f"{runner}: gradients per row",
            f"{ours[key]:.2f}",
            bool(ours[key] <= least),
            "at most the least of the peers",
            f"{least:.2f}",
        )
    for row in as_good:
        ratio = ours["CPU s"] / row["CPU s"]
        text = f"{runner}: time, of that of {row['runner']}"
        met = bool(ratio <= limit)
        yield Claim(text, f"{ratio:.2f}x", met, f"at most {limit:g}x", "1x")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, help="rows to attack (default: by attack)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        choices=[*ROWS, *NAMES, "peers", "ours"],
        help="some of the comparisons, or one side of them",
    )
    parser.add_argument("--write", action="store_true", help="keep the results")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")  # the peers' own

    networks = [name for name in NAMES if name in args.only] or list(NAMES)
    command = (
        f"python benchmarks/bench_evasion_gradient.py --rounds {args.rounds} --write"
    )
    for name in [name for name in ROWS if name in args.only] or ROWS:
        for network in ROWS[name][1]:
            if network in networks:
                section = network_row(name, network, args)
                print(section, end="\n\n", flush=True)
                if args.write:
                    record("evasion_gradient", "evasion", command, [section])


if __name__ == "__main__":
    main()
