"""How little the audits of the tests do."""

from sklearn_advsec.audit import _audit, _evasion, _extraction, _poisoning
from sklearn_advsec.audit._section import Effort

TINY = Effort(
    n_rows=12,
    n_records=200,
    n_training_rows=150,
    n_cv_rows=60,
    max_queries=60,
    extraction_queries=(20,),
    n_shadow_models=2,
    shares=(0.1, 0.2),
    time_limit=30.0,
)


def do_little(monkeypatch, *, defenses=True):
    """Let audits do next to nothing, and leave the trainings of defenses out."""
    monkeypatch.setitem(_audit.BUDGETS, "quick", TINY)
    if not defenses:
        for module in (_evasion, _extraction, _poisoning):
            monkeypatch.setattr(module, "_defenses", lambda subject: {})
