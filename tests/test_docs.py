"""What the pages of the documentation tell readers to type."""

import re
import textwrap
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"\.\. code-block:: python\n\n((?:(?: {3}.*)?\n)+)")
PAGES = {
    path.relative_to(DOCS).as_posix(): BLOCK.findall(path.read_text())
    for folder in (DOCS, DOCS / "user_guide")
    for path in sorted(folder.glob("*.rst"))
}


SLOW = {
    f"user_guide/{family}.rst"
    for family in "audit defense evasion extraction poisoning".split()
}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page in SLOW else ())
        for page, blocks in PAGES.items()
        if blocks
    ],
)
def test_code_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for block in PAGES[page]:
        exec(compile(textwrap.dedent(block), page, "exec"), names)
