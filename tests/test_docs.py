"""What the pages of the documentation tell readers to type."""

import ast
import re
import sys
import textwrap
from email.message import Message
from importlib import import_module
from pathlib import Path

import pytest
from sklearn.utils import estimator_html_repr

from sklearn_advsec import _sklearn
from sklearn_advsec.evasion import ProjectedGradientDescent
from sklearn_advsec.privacy import GapAttack

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


@pytest.fixture
def address(monkeypatch):
    """Let the project's metadata have these addresses."""

    def metadata(*urls):
        made = Message()
        for url in urls:
            made["Project-URL"] = url
        monkeypatch.setattr(_sklearn, "metadata", lambda name: made)
        _sklearn.page_of_a_class.cache_clear()

    yield metadata
    _sklearn.page_of_a_class.cache_clear()


def test_estimators_link_to_the_pages_that_are_made_of_them(
    address, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(DOCS)
    address("Source, https://code.example", "Documentation, https://docs.example/main/")
    import_module("api_reference").write(tmp_path)
    del sys.modules["api_reference"]
    wrong, n_links = {}, 0
    for page in sorted(tmp_path.glob("sklearn_advsec*.rst")):
        text = page.read_text()
        module = import_module(re.search(r"(?m)^\.\. currentmodule:: (.*)$", text)[1])
        folder = re.search(r"(?m)^   :toctree: (.*)$", text)[1]
        for name in re.findall(r"(?m)^   (\w+)$", text.partition(".. autosummary::")[2]):
            documented = getattr(module, name)
            if not isinstance(documented, type) or not hasattr(
                documented, "_get_doc_link"
            ):
                continue
            link = object.__new__(documented)._get_doc_link()
            n_links += 1
            made = f"api/{folder}/{module.__name__}.{name}.html"
            if link != f"https://docs.example/main/{made}":
                wrong[name] = link
    assert wrong == {} and n_links > 100


def test_links_are_of_what_has_a_page_and_need_an_address(address):
    class Mine(ProjectedGradientDescent):
        pass

    address("Documentation, https://docs.example")
    page = "https://docs.example/api/generated/sklearn_advsec.privacy.GapAttack.html"
    assert page in estimator_html_repr(GapAttack(None))
    assert Mine()._get_doc_link() == ""
    assert _sklearn.BaseEstimator()._get_doc_link() == ""
    address("Source, https://code.example")
    assert GapAttack(None)._get_doc_link() == ""
    assert "docs.example" not in estimator_html_repr(GapAttack(None))
