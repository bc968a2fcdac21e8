"""What the pages of the documentation tell readers to type."""

import ast
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
EXAMPLES = sorted((DOCS.parent / "examples").glob("plot_*.py"))


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


def _names_of_figures(block):
    """Return the names that a block binds to a new figure and its axes."""
    return {
        name.id
        for node in ast.walk(block)
        if isinstance(node, ast.Assign) and "plt.subplots(" in ast.unparse(node.value)
        for target in node.targets
        for name in ast.walk(target)
        if isinstance(name, ast.Name)
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_figures_of_the_gallery_are_finished_in_the_block_that_makes_them(path):
    # The gallery takes its picture at the end of that block.
    made = set()
    for text in re.split(r"(?m)^# %%", path.read_text()):
        if "__main__" in text:  # the figure is saved, by scripts
            continue
        block = ast.parse(text)
        own = _names_of_figures(block)
        used = {node.id for node in ast.walk(block) if isinstance(node, ast.Name)}
        assert not (used & made) - own, f"{(used & made) - own} are drawn on too late"
        made |= own - {"_"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_titles_of_the_gallery_have_bars_of_their_length(path):
    over, title, under = path.read_text().split("\n")[1:4]
    assert set(over) == {"="} and over == under and len(over) >= len(title)
