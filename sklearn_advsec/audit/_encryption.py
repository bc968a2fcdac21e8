"""Encryption: whether a model that answers encrypted questions still says the same."""

import time

import numpy as np

from .._estimators import unwrap
from .._sklearn import _safe_indexing
from ..encryption import EncryptedClassifier, EncryptedRegressor
from ..metrics import clopper_pearson
from ._section import Bracket, Finding, Section, SectionReport, Task, Untested, unfinished

_KINDS = (EncryptedClassifier, EncryptedRegressor)
# Rows that are encrypted.
_N_ROWS = 32
_REFERENCE = (
    'J. H. Cheon, A. Kim, M. Kim, Y. Song, "Homomorphic encryption for arithmetic of '
    'approximate numbers", ASIACRYPT 2017.'
)


class EncryptionSection(Section):
    """Whether encrypted answers are those of the model; see :class:`Section`.

    For an :class:`~sklearn_advsec.encryption.EncryptedClassifier` or regressor, as the
    threat "encryption".
    """

    threat = "encryption"
    title = "Encryption"
    question = "Are encrypted answers those of the model?"
    identifiers = {"AI Act": "confidentiality"}

    def tasks(self, subject):
        """List one run on encrypted rows."""
        if not isinstance(unwrap(subject.estimator), _KINDS):
            reason = f"{subject.name} does not compute on encrypted rows"
            return [], [Untested("encryption", "encrypted answers", reason)]
        untested = [
            Untested(
                "encryption",
                "the cryptography itself",
                "it is the library's, with parameters for 128-bit security",
            )
        ]
        return [Task("encryption", "encrypted predictions")], untested

    def perform(self, subject, task):
        """Predict encrypted rows, and the same in the clear."""
        model = unwrap(subject.estimator)
        rows = subject.test_rows(_N_ROWS)
        X, begin = _safe_indexing(subject.X_test, rows), time.monotonic()
        encrypted = np.asarray(model.predict(X))
        seconds = (time.monotonic() - begin) / len(rows)
        plain = np.asarray(unwrap(model.estimator_).predict(X))
        if subject.is_regressor:
            error = np.abs(encrypted - plain) / (np.std(plain) or 1.0)
            return {"errors": error, "seconds": seconds}
        return {"same": encrypted == plain, "seconds": seconds}

    def report(self, subject, outcomes):
        """Say how many answers agree, or how far they are off."""
        report = SectionReport()
        report.findings += unfinished(outcomes, goal="agreement", reference=_REFERENCE)
        (outcome,) = outcomes
        if outcome.status != "done":
            report.headline = "No encrypted answer was computed."
            return report
        evidence = outcome.evidence
        shared = {
            "knowledge": "",
            "goal": "agreement",
            "seconds": outcome.seconds,
            "reference": _REFERENCE,
            "note": f"{evidence['seconds']:.2f} s a row",
        }
        if "errors" in evidence:
            worst = float(evidence["errors"].max())
            metric, n = "largest error, in standard deviations", len(evidence["errors"])
            report.findings.append(
                Finding(
                    "encryption", outcome.task.name, metric=metric, value=worst, n=n,
                    baseline=0.0, baseline_is="in the clear", **shared,
                )
            )  # fmt: skip
            report.headline = (
                f"The largest error of {n} encrypted answers is {worst:.2g} standard "
                f"deviations; {evidence['seconds']:.2f} s a row."
            )
            return report
        agreed, n = int(evidence["same"].sum()), len(evidence["same"])
        low, high = clopper_pearson(agreed, n)
        report.findings.append(
            Finding(
                "encryption", outcome.task.name, metric="agreement", value=agreed / n,
                low=low, high=high, n=n,
                baseline=1.0, baseline_is="in the clear", **shared,
            )
        )  # fmt: skip
        report.brackets.append(
            Bracket(
                "encryption",
                "agreement of encrypted answers with the model in the clear",
                None,
                agreed / n,
                agreed / n,
                "measured",
                "measured",
                low,
                high,
                n,
            )
        )
        report.headline = (
            f"{agreed} of {n} encrypted answers are those of the model in the clear; "
            f"{evidence['seconds']:.2f} s a row."
        )
        return report
