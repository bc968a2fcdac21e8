"""The page: nothing of the user's data is run, and it says all in text, too."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from audits import do_little
from data import bundled
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from sklearn_advsec.audit import SecurityAudit
from sklearn_advsec.audit._page import show

HOSTILE = (
    "\"'><script>alert(1)</script><img src=x onerror=alert(1)>\u202eevil\u2066 😀 "
    "{{ 7 * 7 }}"
)


@pytest.fixture(scope="module")
def report():
    X, y = bundled("digits")
    X, y = X[y < 3], y[y < 3]
    with pytest.MonkeyPatch.context() as patch:
        do_little(patch, defenses=False)
        model = LogisticRegression(max_iter=200).fit(X[:150], y[:150])
        audit = SecurityAudit(FrozenEstimator(model), image_shape=(8, 8), eps=0.1)
        return audit.fit(X[:150], y[:150], X[150:270], y[150:270]).report_


class Page(HTMLParser):
    """Collects the tags of a page, and looks whether they are closed."""

    VOID = {"meta", "link", "img", "line", "circle", "path"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.ids = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def page_of(report):
    return SecurityAudit.from_json(json.dumps(report)).to_html()


def hostile(value):
    """Put what harms into every text of a report that a user's data may reach."""
    if isinstance(value, dict):
        kept = ("threat", "status", "kind", "gives", "constraints", "schema_version")
        return {k: v if k in kept else hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(item) for item in value]
    return f"{value}{HOSTILE}" if isinstance(value, str) else value


@pytest.mark.long
def test_nothing_of_the_data_is_run(report):
    text = page_of(hostile(report))
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "embed", "form", "base"}
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        assert not (set(attrs) & {"style", "srcdoc", "action"})
        for name in ("src", "href"):
            assert attrs.get(name, "#").startswith(("#", "data:")), attrs
    assert "{{ 7 * 7 }}" in text and "\u202e" not in text and "\u2066" not in text
    assert "\\u202e" in text


def test_the_page_asks_nobody_for_anything(report):
    text = page_of(report)
    assert 'http-equiv="Content-Security-Policy"' in text
    assert not re.search(r"(src|href|url\(|@import)[=\s]*[\"']?(https?:)?//", text)
    assert len(text) < 2_000_000


def test_every_figure_has_a_text_and_a_table(report):
    page = Page(page_of(report))
    charts = [attrs for tag, attrs in page.tags if tag == "svg"]
    assert len(charts) == 4
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in charts)
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) >= 3 and all(attrs["alt"] for attrs in pictures)
    assert len([tag for tag, _ in page.tags if tag == "table"]) >= 4
    assert len(page.ids) == len(set(page.ids))
    links = [attrs["href"][1:] for tag, attrs in page.tags if tag == "a"]
    assert set(links) <= set(page.ids)


def test_a_page_stays_small_for_many_columns(report):
    many = json.loads(json.dumps(report))
    findings = many["sections"][0]["findings"]
    many["sections"][0]["findings"] = findings * 2000
    many["warnings"] = ["x" * 100_000]
    assert len(page_of(many)) < 2_000_000


def test_texts_are_cut_and_what_is_hidden_is_shown():
    assert show("a" * 100, 10) == "a" * 9 + "…"
    assert show("a\u202eb\x00") == "a\\u202eb\\u0000"
    assert show("👩\u200d🔬") == "👩\u200d🔬"
    assert show(None) == "-" and show(0.5) == "0.500"


def test_hostile_columns_and_labels_go_through_an_audit(monkeypatch):
    pd = pytest.importorskip("pandas")
    do_little(monkeypatch, defenses=False)
    X, y = bundled("iris")
    names = ["<script>alert(1)</script>", "'\"&", "\u202eabc", "😀=1+1"]
    frame = pd.DataFrame(X, columns=names)
    labels = np.array(["<b>", '"quoted"', "=cmd()"])[y]
    model = LogisticRegression(max_iter=500).fit(frame[::2], labels[::2])
    audit = SecurityAudit(FrozenEstimator(model), ["evasion"])
    audit.fit(frame[::2], labels[::2], frame[1::2], labels[1::2])
    page = Page(audit.to_html())
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<script>" in json.dumps(audit.report_)


# In a browser ---------------------------------------------------------------------------

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)


def browse(tmp_path, path, *options):
    """Open a page in a browser without a window, and return what it says."""
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0",
        *options, path.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium to open the page with")
@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_in_a_browser(report, tmp_path, width, dark):
    """No error, no request, nothing wider than the screen, and a way by keyboard.

    The page itself allows no scripts, so that a copy without this rule is measured.
    """
    page = tmp_path / "page.html"
    page.write_text(page_of(report), encoding="utf-8")
    options = [f"--window-size={width},900"]
    options += ["--blink-settings=preferredColorScheme=0"] if dark else []
    found = browse(tmp_path, page, *options, f"--screenshot={tmp_path / 'page.png'}")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert "CONSOLE" not in found.stderr, found.stderr
    log = tmp_path / "net.json"
    browse(tmp_path, page, *options, f"--log-net-log={log}", "--dump-dom")
    asked = set(re.findall(r'"url":"(https?://[^"]*)"', log.read_text()))
    assert not {url for url in asked if "google" not in url and "gvt1" not in url}
    measured = """<script>onload = () => {
      const a = [...document.querySelectorAll('a, summary, [tabindex]')];
      const wide = [...document.querySelectorAll('body *')].filter(e =>
        !e.closest('.scroll, .skip') && e.getBoundingClientRect().right > innerWidth + 1);
      parent.postMessage(JSON.stringify([document.documentElement.scrollWidth, innerWidth,
        wide.length, a.length, a.filter(e => e.tabIndex !== 0).length,
        getComputedStyle(document.body).backgroundColor]), '*');
    }</script>"""
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8"))
    page.write_text(text.replace("</head>", measured + "</head>"), encoding="utf-8")
    # A window is 500 pixels wide at least, a frame in it is not.
    frame = tmp_path / "frame.html"
    frame.write_text(
        "<title></title><script>onmessage = e => { document.title = e.data; }</script>"
        f'<iframe src="page.html" style="width: {width}px; height: 900px"></iframe>'
    )
    dom = browse(tmp_path, frame, *options, "--dump-dom", "--timeout=5000").stdout
    title = re.search(r"<title>(\[.*?\])</title>", dom).group(1)
    across, inner, n_wide, n_links, n_unreachable, colour = json.loads(title)
    assert inner <= width and across <= inner and n_wide == 0
    assert n_links > 8 and n_unreachable == 0
    assert colour == ("rgb(15, 20, 26)" if dark else "rgb(255, 255, 255)")
