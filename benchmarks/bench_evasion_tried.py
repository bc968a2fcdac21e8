"""Ideas of the literature that were tried for gradient attacks, and what came of them.

Each is written here, on top of the package: it goes into the package only where it finds
more at the same number of gradient passes, or the same in four fifths of the time.

Run it from the repository's root, for example::

    python benchmarks/bench_evasion_tried.py --write
    python benchmarks/bench_evasion_tried.py --only cycles
"""

import argparse
import time

import _common as common
import numpy as np
import torch
from _results import Table, record
from threadpoolctl import threadpool_limits

from sklearn_advsec.evasion import AutoProjectedGradientDescent, ProjectedGradientDescent
from sklearn_advsec.evasion._goal import margin, rank_others
from sklearn_advsec.evasion._gradient._base import ConstantStep, descend
from sklearn_advsec.pretrained import PretrainedModule

# Networks, the radius at which some rows stand, and some fall; and rows.
VICTIMS = {
    "undefended": (0.1, 500),
    "robust": (0.3, 400),
    "residual": (0.05, 200),
}
STEPS = 40
CYCLING = 100  # rows
FASTER = 0.8


# The ideas ----------------------------------------------------------------------------


def probability_margin(logits, labels):
    """Largest other probability less that of the label (arXiv:2411.15210)."""
    return margin(torch.softmax(logits, dim=1), labels)


class ProbabilityMarginPGD(ProjectedGradientDescent):
    """PGD on the probability margin."""

    def _loss(self):
        return probability_margin


class ProbabilityMarginAPGD(AutoProjectedGradientDescent):
    """APGD on the probability margin."""

    def _loss(self):
        return probability_margin


class MaltAPGD(AutoProjectedGradientDescent):
    """Targeted APGD towards the classes that are nearest to first order.

    Classes are ranked by the difference of logits over the norm of its gradient
    (arXiv:2407.02240), which costs a gradient for each of them.
    """

    def _restarts(self, state):
        access, goal, rows = state.access, state.goal, state.open_rows()
        labels = goal.labels[rows]
        others = rank_others(access.logits(access.x[rows], rows), labels)

        def differences(logits, at):
            own = logits.gather(1, labels[at, None])
            return logits.gather(1, others[at]) - own

        logits, slopes = access.jacobian(access.x[rows], rows, differences)
        size = slopes.flatten(2).abs().sum(2).clamp_min(1e-12)
        away = differences(logits, slice(None)).abs() / size
        order = others.gather(1, away.argsort(dim=1, stable=True))
        for k in range(self.n_targets):
            goal.toward = torch.zeros_like(goal.labels)
            goal.toward[rows] = order[:, k]
            super(AutoProjectedGradientDescent, self)._restarts(state)


class CycleStep(ConstantStep):
    """A step of one length that knows which rows were there before.

    Steps along the sign, inside a box, soon repeat themselves (arXiv:2503.19347). Points
    are told apart by a random projection of each, and compared with those of all steps.
    """

    def __init__(self, ball, step_size, like):
        super().__init__(ball, step_size)
        generator = torch.Generator().manual_seed(0)
        self.weights = torch.rand(like[0].numel(), generator=generator).to(like)
        self.marks = like.new_empty((len(like), 0))

    def step(self, delta, logits, gradient, lower, upper, goal):
        delta = super().step(delta, logits, gradient, lower, upper, goal)
        mark = (delta.flatten(1) @ self.weights)[:, None]
        self.again = (self.marks == mark).any(1)
        self.marks = torch.cat([self.marks, mark], dim=1)
        return delta

    def select(self, rows):
        super().select(rows)
        self.marks = self.marks[rows]


class CyclePGD(ProjectedGradientDescent):
    """PGD whose rows end where their steps begin to repeat themselves."""

    every = 10

    def _steps(self, state, start, early_stopping):
        ball = self._ball()
        point = torch.zeros_like(state.access.x) if start is None else start
        rows, done = state.open_rows(), 0
        rule = CycleStep(ball, self._step_size(ball), point[rows])
        while done < self.max_iter and len(rows):
            n_steps = min(self.every, self.max_iter - done)
            left, x_adv = descend(state, rule, start=point, max_iter=n_steps)
            done += n_steps
            point = point.clone()
            point[left] = x_adv - state.access.x[left]
            again = rule.again
            if again.any():  # these would go on in circles
                self._record_last(state, left[again], x_adv[again])
                state.finished[left[again]] = True
                rule.select(torch.nonzero(~again).flatten())
            rows = left[~again]
        return rows, state.access.x[rows] + point[rows]


# Trials -------------------------------------------------------------------------------


def victim(name):
    """Return a network, its radius, and test images that it gets right."""
    eps, n = VICTIMS[name]
    module = common.reference_model(name)
    _, _, X, y = common.load_mnist()
    with torch.no_grad():
        right = module(torch.as_tensor(X[: 2 * n])).argmax(1).numpy() == y[: 2 * n]
    X, y = X[: 2 * n][right][:n], y[: 2 * n][right][:n]
    return module, eps, X, y


def tried(attacks, module, X, y, rounds=2):
    """Run attacks in turn; return what each found, and what it cost."""
    estimator = PretrainedModule(module, classes=range(10))
    rows, seconds = {}, {name: [] for name in attacks}
    with threadpool_limits(1):
        for _ in range(rounds):
            for name, attack in attacks.items():
                attack.set_params(estimator=estimator, bounds=(0, 1)).fit(X)
                with common.recorded_passes() as passes:
                    start = time.process_time()
                    result = attack.run(X, y)
                    seconds[name].append(time.process_time() - start)
                asked, with_gradient = np.array(passes).T
                rows[name] = {
                    "attack": name,
                    "robust accuracy": result.robust_accuracy,
                    "gradients per row": asked[with_gradient == 1].sum() / len(X),
                }
    for name, row in rows.items():
        row["CPU s"] = float(np.median(seconds[name]))
    return rows


def verdict(idea, found, before):
    """Say whether an idea finds more than what is there."""
    outcome = "more" if found < before else "no more"
    return f"{idea} finds {outcome}: {found:.3f} are robust, {before:.3f} without it."


def losses(name):
    """Compare what is ascended."""
    module, eps, X, y = victim(name)
    shared = dict(eps=eps, max_iter=STEPS)
    attacks = {
        f"PGD, {loss}": ProjectedGradientDescent(loss=loss, **shared)
        for loss in ("cross_entropy", "margin", "dlr")
    }
    attacks["PGD, probability margin"] = ProbabilityMarginPGD(**shared)
    attacks |= {
        f"APGD, {loss}": AutoProjectedGradientDescent(loss=loss, **shared)
        for loss in ("cross_entropy", "margin", "dlr")
    }
    attacks["APGD, probability margin"] = ProbabilityMarginAPGD(**shared)
    rows = tried(attacks, module, X, y, rounds=1)
    remarks = ["Rows leave when they fall: a better loss takes fewer gradients."]
    for kind in ("PGD", "APGD"):
        accuracy = {
            key: row["robust accuracy"]
            for key, row in rows.items()
            if key.startswith(f"{kind},")
        }
        ours = accuracy.pop(f"{kind}, probability margin")
        best = min(accuracy.values())
        remarks.append(verdict(f"{kind} on the probability margin", ours, best))
    return Table(
        f"Tried: probability margin as the loss, {name} network, Linf {eps:g}, "
        f"{STEPS} steps, n {len(X)}",
        list(rows.values()),
        remarks=remarks,
    )


def targets(name):
    """Compare by what the targets of targeted attacks are chosen."""
    module, eps, X, y = victim(name)
    attacks = {}
    for n in (1, 2, 3):
        rest = dict(eps=eps, max_iter=STEPS, loss="targeted_dlr", n_targets=n)
        attacks[f"{n} by logits"] = AutoProjectedGradientDescent(**rest)
        attacks[f"{n} by MALT"] = MaltAPGD(**rest)
    rows = tried(attacks, module, X, y, rounds=1)
    remarks = [
        "With all nine targets of ten classes, as AutoAttack has them, both are the same "
        "but for their order.",
    ]
    remarks += [
        verdict(
            f"Targeted at {n} by MALT, it",
            rows[f"{n} by MALT"]["robust accuracy"],
            rows[f"{n} by logits"]["robust accuracy"],
        )
        for n in (1, 2, 3)
    ]
    return Table(
        f"Tried: targets by MALT, {name} network, Linf {eps:g}, {STEPS} steps of "
        f"targeted APGD, n {len(X)}",
        list(rows.values()),
        remarks=remarks,
    )


def cycles(name):
    """Compare with an end where steps repeat themselves."""
    module, eps, X, y = victim(name)
    X, y = X[:CYCLING], y[:CYCLING]
    shown, remarks = [], []
    for share in (1 / 10, 1 / 40):
        rest = dict(eps=eps, max_iter=100, step_size=share * eps)
        text = f"steps of {share:g} eps"
        attacks = {
            f"PGD, {text}": ProjectedGradientDescent(**rest),
            f"PGD with cycles, {text}": CyclePGD(**rest),
        }
        plain, found = tried(attacks, module, X, y, rounds=3).values()
        ratio = found["CPU s"] / plain["CPU s"]
        remarks.append(
            f"With {text}, an end at cycles takes {ratio:.2f}x the time "
            f"({FASTER}x was wanted), and finds {found['robust accuracy']:.3f} robust, "
            f"{plain['robust accuracy']:.3f} without it."
        )
        shown += [plain, found]
    return Table(
        f"Tried: an end where steps repeat themselves, {name} network, Linf {eps:g}, "
        f"100 steps, n {len(X)}",
        shown,
        remarks=remarks,
    )


TRIALS = {"losses": losses, "targets": targets, "cycles": cycles}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], choices=[*TRIALS, *VICTIMS])
    parser.add_argument("--write", action="store_true", help="keep the results")
    args = parser.parse_args()
    command = "python benchmarks/bench_evasion_tried.py --write"
    for name in [name for name in VICTIMS if name in args.only] or VICTIMS:
        for trial in [trial for trial in TRIALS if trial in args.only] or TRIALS:
            table = TRIALS[trial](name)
            print(table, end="\n\n", flush=True)
            if args.write:
                record("evasion_tried", "evasion", command, [table])


if __name__ == "__main__":
    main()
