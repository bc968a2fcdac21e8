"""Sphinx builds the site from this directory: `make docs`."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import api_reference  # noqa: E402
import torch  # noqa: E402

import sklearn_advsec  # noqa: E402

torch.set_num_threads(1)

project = "sklearn_advsec"
author = "The sklearn_advsec developers"
copyright = f"2026, {author}"
version = release = sklearn_advsec.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_theme_options = {
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "navigation_with_keys": False,
}
html_show_sourcelink = False
autodoc_typehints = "none"  # the docstrings say more
default_role = "code"

# The pages that follow from the package itself; new ones are found by their names only.
api_reference.write(HERE / "api")
autosummary_generate = sorted(str(page) for page in (HERE / "api").glob("*.rst"))
# The members of a class are listed by the template; those of scikit-learn's own bases are
# documented there.
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "examples",
    "filename_pattern": os.environ.get("DOCS_EXAMPLES", r"/plot_"),
    "plot_gallery": os.environ.get("DOCS_GALLERY", "True"),
    "abort_on_example_error": True,
    "parallel": 2,
    "min_reported_time": 0,
    "show_memory": False,
    "reference_url": {"sklearn_advsec": None},
    "backreferences_dir": "api/backreferences",
    "doc_module": ("sklearn_advsec",),
    "default_thumb_file": None,
    "remove_config_comments": True,
}


def documented_here(app, what, name, member, skip, options):
    """Leave out what a class has from scikit-learn's bases."""
    module = getattr(member, "__module__", None) or ""
    return True if module.partition(".")[0] in ("sklearn", "torch", "skorch") else None


def setup(app):
    """Connect what is left out."""
    app.connect("autodoc-skip-member", documented_here)
