"""The audit of a model: every threat in one call, on one page.

:class:`SecurityAudit` attacks a fitted model in all the ways that it allows; families
bring their part of it as a :class:`Section`. The page needs jinja2: ``pip install
"sklearn-advsec[audit]"``.
"""

from ._audit import SecurityAudit
from ._catalogue import catalogue
from ._comparison import AuditComparison
from ._document import schema
from ._section import (
    Bracket,
    Finding,
    Outcome,
    Recommendation,
    Section,
    SectionReport,
    Subject,
    Task,
    Untested,
)

__all__ = [
    "AuditComparison",
    "Bracket",
    "Finding",
    "Outcome",
    "Recommendation",
    "Section",
    "SectionReport",
    "SecurityAudit",
    "Subject",
    "Task",
    "Untested",
    "catalogue",
    "schema",
]
