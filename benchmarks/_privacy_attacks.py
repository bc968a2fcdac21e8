"""All attacks, ART's beside ours, on the overfitted targets of the privacy benchmark."""

import sys
import tempfile
import time

import _privacy_data as data
import numpy as np
from _common import available
from _results import Claim, Table
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.utils import _safe_indexing

from sklearn_advsec import privacy
from sklearn_advsec.metrics import bootstrap_interval, roc_auc_interval, tpr_at_fpr
from sklearn_advsec.privacy._signals import true_probability

# Attacks by labels take long: they are given fewer records to judge, all the same; and
# they draw at random what they ask, so that each is run with several seeds.
N_LABEL_ONLY, N_SEEDS = 400, 3

# What is asked for on the target like Location-30.
WANTED = {
    "ShadowModels, 16": ("AUC", 0.90),
    "LiRA online, 64, per-example variance": ("TPR@1%FPR", 0.40),
    "LiRA offline, 64, per-example variance": ("TPR@1%FPR", 0.29),
    "RMIA, 32 references": ("TPR@1%FPR", 0.31),
    "LossThreshold": ("AUC", 0.84),
    "BoundaryDistance, distances alone, 500 queries": ("AUC", 0.78),
}


def log(row):
    cells = (f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values())
    print("  " + "  ".join(cells), file=sys.stderr, flush=True)


def at_one_percent(y_true, y_score):
    return tpr_at_fpr(y_true, y_score, fpr=0.01)


def at_least(text, value, wanted):
    return Claim(text, f"{value:.3g}", bool(value >= wanted), f"at least {wanted}")


class Judged:
    """The scores of attacks on the records of one target, and the table of them."""

    def __init__(self, played):
        self.played, self.rows, self.scores = played, [], {}
        self.some = np.random.RandomState(0).permutation(len(played.member))
        self.some = self.some[:N_LABEL_ONLY]

    def judge(self, label, attack, fit_on, few=False):
        """Run one of our attacks, on all audited records or on those for labels."""
        at = self.some if few else np.arange(len(self.played.member))
        self.report(label, at, *self._run(attack, fit_on, at))
        return attack

    def judge_seeds(self, label, attack, fit_on):
        """Run one of our attacks by labels with each seed."""
        runs = []
        for seed in range(N_SEEDS):
            attack = clone(attack).set_params(random_state=seed)
            runs.append(self._run(attack, fit_on, self.some))
            assert attack.n_queries_.max() <= attack.max_queries
        self.report_median(label, runs)

    def _run(self, attack, fit_on, at):
        audited, start = self.played.audited, time.process_time()
        scores = attack.fit(fit_on).decision_function(_safe_indexing(audited, at))
        return scores, scores > 0, time.process_time() - start

    def report_median(self, label, runs):
        """Report the run of median AUC among those of an attack by labels."""
        truth = self.played.member[self.some]
        areas = [roc_auc_score(truth, scores) for scores, _, _ in runs]
        middle = int(np.argsort(areas)[len(areas) // 2])
        seeds = f"{min(areas):.3f}-{max(areas):.3f}"
        self.report(label, self.some, *runs[middle], seeds=seeds)

    def report(self, label, at, scores, decisions, seconds, seeds=""):
        truth = self.played.member[at]
        tpr, interval = "", ""
        if (~truth).sum() >= 1000:  # below, it rests on fewer than ten records
            tpr = at_one_percent(truth, scores)
            interval = "{:.3f}-{:.3f}".format(
                *bootstrap_interval(at_one_percent, truth, scores, n_bootstraps=300)
            )
        self.scores[label] = at, np.asarray(scores, dtype=float)
        self.rows.append(
            {
                "attack": label,
                "records": len(at),
                "AUC": roc_auc_score(truth, scores),
                "95 %": "{:.3f}-{:.3f}".format(*roc_auc_interval(truth, scores)),
                f"{N_SEEDS} seeds": seeds,
                "balanced accuracy": ""
                if decisions is None
                else balanced_accuracy_score(truth, decisions),
                "TPR@1%FPR": tpr,
                "95 % ": interval,
                "CPU s": seconds,
            }
        )
        log(self.rows[-1])

    def beside(self, label, other):
        """Say which attack has the larger AUC on the same records, and how sure."""
        (at, ours), (there, theirs) = self.scores[label], self.scores[other]
        assert np.array_equal(at, there)
        truth = self.played.member[at]
        found, wanted = roc_auc_score(truth, ours), roc_auc_score(truth, theirs)
        low, high = difference_interval(truth, ours, theirs)
        return Claim(
            f"{label}: AUC (difference {found - wanted:+.3f}, 95 % {low:+.3f} to "
            f"{high:+.3f})",
            f"{found:.3f}",
            bool(found >= wanted),
            "at least the other's",
            f"{wanted:.3f} ({other})",
        )

    def best(self, start):
        """Return the attack of the largest AUC among those whose names start so."""
        rows = [row for row in self.rows if row["attack"].startswith(start)]
        return max(rows, key=lambda row: row["AUC"])["attack"]


def difference_interval(truth, one, other, n_bootstraps=1000):
    """Bootstrap the difference of two areas on the same records."""
    rng = np.random.RandomState(0)
    members, others = np.flatnonzero(truth), np.flatnonzero(~truth)
    differences = []
    for _ in range(n_bootstraps):
        rows = np.r_[rng.choice(members, len(members)), rng.choice(others, len(others))]
        areas = [rankdata(scores[rows])[: len(members)].mean() for scores in (one, other)]
        differences.append((areas[0] - areas[1]) / len(others))
    return np.quantile(differences, [0.025, 0.975])


def attacks_on(title, make):
    played = make()
    target, own, judged = played.target, played.own, Judged(played)
    judge = judged.judge
    with tempfile.TemporaryDirectory() as memory:
        shadows = {"memory": memory, "n_shadow_models": 64}
        judge("GapAttack", privacy.GapAttack(target), own)
        judge("LossThreshold", privacy.LossThreshold(target), own)
        judge("ModifiedEntropy", privacy.ModifiedEntropy(target), own)
        judge("QuantileMembership", privacy.QuantileMembership(target), own)
        attack = privacy.ShadowModels(target, memory=memory)
        chosen = judge("ShadowModels, 16", attack, own).features_
        for features in ("top_k", "posterior"):
            attack = clone(attack).set_params(features=features)
            judge(f"ShadowModels, 16, features={features!r}", attack, own)
        judge("RMIA, 1 reference", privacy.RMIA(target, n_shadow_models=1), own)
        rmia = privacy.RMIA(target, n_shadow_models=32)
        judge("RMIA, 32 references", rmia, own)
        lira = privacy.LikelihoodRatio(target, **shadows)
        for mode in ("offline", "online"):
            for variance in ("fixed", "per_example"):
                attack = clone(lira).set_params(mode=mode, variance=variance)
                label = f"LiRA {mode}, 64, {variance.replace('_', '-')} variance"
                judge(label, attack, played.audited)
        attack = privacy.RMIA(target, **shadows)
        judge("RMIA, 32 of 64 per record, from the same pool", attack, played.audited)
    judge("Labels only: gap", privacy.GapAttack(target), own, few=True)
    boundary = privacy.BoundaryDistance(target)
    judged.judge_seeds("BoundaryDistance, 500 queries", boundary, own)
    for budget in (500, 920):
        alone = clone(boundary).set_params(n_shadow_models=0, max_queries=budget)
        label = f"BoundaryDistance, distances alone, {budget} queries"
        judged.judge_seeds(label, alone, own[:200])
    art = available(lambda module: module, "_privacy_art")
    if not isinstance(art, str):
        for found in art.attacks(played):
            judged.report(*found)
        for label, runs in art.by_labels(played, judged.some, N_SEEDS):
            judged.report_median(label, runs)
    accuracy = (
        f"{make.__doc__} Train accuracy {played.accuracy[0]:.3f}, test accuracy "
        f"{played.accuracy[1]:.3f}. Attacks that follow another of the same kind are "
        "handed its shadow models, and their CPU seconds are without them. What its "
        f"attack model sees, {chosen!r}, ShadowModels chose by shadow models that it "
        "left out, not by the audited records. Attacks by "
        f"labels, and ART's, judge the same {N_LABEL_ONLY} records, of which 1 % of "
        "non-members would be two: no such rate is given. Where there are "
        f"{N_SEEDS} seeds, the row is the run of median AUC, and their range stands "
        "beside it. BoundaryDistance asks about no record more often than it says; of "
        "ART's attack, which gives up where 100 random points have the record's label, "
        "the mean is given."
    )
    claims = _comparisons(judged) + [_privacy_meter(rmia, played)]
    return judged, Table(f"Membership: {title}", judged.rows, claims, [accuracy])


def _comparisons(judged):
    """Compare with ART's attack of the same kind, or else with the loss threshold."""
    floor = [
        judged.beside(label, "LossThreshold")
        for label in (
            "ModifiedEntropy",
            "QuantileMembership",
            "RMIA, 32 references",
            "LiRA offline, 64, per-example variance",
            "LiRA online, 64, per-example variance",
        )
    ]
    if not any(label.startswith("ART") for label in judged.scores):
        return floor
    alone = "BoundaryDistance, distances alone"
    # The loss threshold stands in where ART has nothing of the kind. Quantile regression
    # has to learn from few records how hard each is, which shadow models measure.
    return [
        judged.beside("GapAttack", "ART, rule"),
        judged.beside("ShadowModels, 16", judged.best("ART, ShadowModels")),
        judged.beside("BoundaryDistance, 500 queries", judged.best("ART, HopSkipJump")),
        judged.beside(f"{alone}, 500 queries", judged.best("ART, HopSkipJump, 8 steps")),
        judged.beside(f"{alone}, 920 queries", judged.best("ART, HopSkipJump, 5 steps")),
        *floor,
    ]


def _privacy_meter(rmia, played):
    """Compute RMIA by the definition of privacy-meter v2, from the same signals."""

    def signals(records):
        records = rmia._records(records)
        proba = played.target.predict_proba(records.features)
        return (
            true_probability(proba, records.codes),
            rmia._shadow_signals(records, true_probability),
            rmia._trained_on(records),
        )

    target_x, references_x, _ = signals(played.audited)
    target_z, references_z, trained = signals(played.own)
    pairs = zip(references_z.T, trained.T, strict=True)
    left = [references[~used] for references, used in pairs]
    prior_x = (1 + rmia.a) / 2 * references_x.mean(axis=0) + (1 - rmia.a) / 2
    prior_z = np.array([(1 + rmia.a) / 2 * r.mean() + (1 - rmia.a) / 2 for r in left])
    ratio_x, ratio_z = target_x / prior_x, target_z / prior_z
    expected = np.array([np.mean(ratio / ratio_z > rmia.gamma) for ratio in ratio_x])
    found = rmia.decision_function(played.audited) + rmia.threshold_
    difference = float(np.abs(found - expected).max())
    return Claim(
        "RMIA, 32 references: largest difference from privacy-meter v2's definition",
        f"{difference:.2g}",
        difference <= 1e-6,
        "at most 1e-6",
    )


def location(args):
    judged, table = attacks_on("a target like that of Location-30", data.location)
    found = {row["attack"]: row for row in judged.rows}
    table.claims += [
        at_least(f"{label}, {column}", found[label][column], wanted)
        for label, (column, wanted) in WANTED.items()
    ]
    return [table]


def purchase(args):
    return [attacks_on("a target like those of Purchase-100", data.purchase)[1]]


def adult(args):
    return [attacks_on("Adult", data.adult)[1]]


def mnist(args):
    return [attacks_on("MNIST", data.mnist)[1]]
