"""The report as a page: one file without scripts, in which all is escaped."""

import base64
import math
import struct
import unicodedata
import zlib
from contextlib import contextmanager
from importlib import resources

_TEMPLATES = ("base.html", "report.html", "comparison.html")
# The longest text, and rows of a table, that are shown.
_LONGEST = 1000
_MOST_ROWS = 300
# What is drawn, in the units of the picture.
_WIDTH, _LEFT, _RIGHT, _TOP, _PLOT, _BELOW, _KEY = 480, 52, 468, 10, 230, 44, 18
_STYLES = 6
_KNOWLEDGE = ("gradient", "score", "label", "training data")
# The metrics of which the smallest value is the worst.
_SMALL_IS_BAD = ("robust accuracy", "share still right")


def write(text, path):
    """Write a page to a file, or return it where there is none."""
    if path is None:
        return text
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return None


@contextmanager
def _figures_that_can_be_drawn():
    """Say so where the figures of a report, which may be a file's, are none.

    The schema leaves them to each section; all else was checked when it was read.
    """
    wrong = (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError)
    try:
        yield
    except (*wrong, AttributeError) as error:
        raise ValueError(
            "The figures of the report are not those of an audit, and cannot be drawn: "
            f"{type(error).__name__}: {error}"
        ) from error


@_figures_that_can_be_drawn()
def render(report):
    """Return the page of a report."""
    parts = [_part(i, part) for i, part in enumerate(report["sections"])]
    references = {
        finding["attack"]: finding["reference"]
        for part in report["sections"]
        for finding in part["findings"]
        if finding["reference"]
    }
    untested = [row for part in report["sections"] for row in part["untested"]]
    return (
        _environment()
        .get_template("report.html")
        .render(
            **{name: report[name] for name in ("audit", "victim", "data", "warnings")},
            schema_version=report["schema_version"],
            parts=parts,
            matrix=_matrix(report["sections"]),
            untested=_table(
                ["threat", "what:", "reason:"],
                [[row["threat"], row["what"], row["reason"]] for row in untested],
            ),
            references=sorted(references.items()),
        )
    )


@_figures_that_can_be_drawn()
def render_comparison(comparison):
    """Return the page of two audits side by side."""
    both = comparison.before, comparison.after
    rows = [
        [
            row["threat"] or "-",
            row["figure"],
            _with_interval(row, "before"),
            _with_interval(row, "after"),
            {"text": row["verdict"], "kind": _kind(row["verdict"])},
        ]
        for row in comparison.rows()
    ]
    heads = ["threat", "figure:", "before#", "after#", "verdict"]
    return (
        _environment()
        .get_template("comparison.html")
        .render(
            names=[report["victim"]["name"] for report in both],
            charts=_compared_curves(both),
            sides=[
                {
                    "name": report["victim"]["name"],
                    "text": report["victim"]["text"],
                    "headlines": [part["headline"] for part in report["sections"]],
                }
                for report in both
            ],
            **_table(heads, rows),
        )
    )


def show(value, most=60):
    """Return a value as a text of limited length, in which nothing is hidden.

    Characters that are not seen, or turn the direction of what follows, are written as
    their code points; what else may harm is escaped by the template.
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        return number(value)
    text = str(value)
    text = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(_visible(character) for character in text)


def _visible(character):
    category = unicodedata.category(character)
    joins = character in "\u200d\ufe0f"  # which make one emoji of several
    if category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") and not joins:
        return " " if character in "\t\n\r" else f"\\u{ord(character):04x}"
    return character


def number(value, digits=3):
    """Return a number for a reader."""
    if value is None:
        return "-"
    if isinstance(value, int) or float(value).is_integer() and abs(value) < 1e9:
        return f"{int(value)}"
    return f"{value:.{digits}g}" if abs(value) < 0.01 else f"{value:.{digits}f}"


def percent(value):
    """Return a share for a reader."""
    return "-" if value is None else f"{100 * value:.1f} %"


def _environment():
    try:
        import jinja2
    except ImportError:
        raise ImportError(
            'The page needs jinja2: pip install "sklearn-advsec[audit]".'
        ) from None
    folder = resources.files(__package__).joinpath("templates")
    sources = {
        name: folder.joinpath(name).read_text(encoding="utf-8") for name in _TEMPLATES
    }
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(sources),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
        # What comes without a filter is cut, and hides nothing, either.
        finalize=lambda value: show(value, _LONGEST) if type(value) is str else value,
    )
    environment.filters |= {"show": show, "percent": percent}
    return environment


# Tables ---------------------------------------------------------------------------------


def _table(names, rows):
    """Return heads and rows; a name ends with ":" for texts, and "#" for numbers."""
    heads = [
        {"name": name.rstrip(":#"), "n": name[-1] == "#", "text": name[-1] == ":"}
        for name in names
    ]
    shown = rows[:_MOST_ROWS]
    if len(rows) > _MOST_ROWS:
        rest = f"and {len(rows) - _MOST_ROWS} more (in the JSON report)"
        shown = [*shown, [rest, *[""] * (len(names) - 1)]]
    return {"heads": heads, "rows": shown}


def _with_interval(row, name=None):
    value, low, high = (
        (row["value"], row["low"], row["high"])
        if name is None
        else (row[name], row[f"{name}_low"], row[f"{name}_high"])
    )
    if value is None:
        return "not tested" if name else "-"
    if low is None or high is None:
        return number(value)
    return f"{number(value)} ({number(low)} to {number(high)})"


def _kind(verdict):
    return {"better": "good", "worse": "bad"}.get(verdict, "")


def _part(i, part):
    """Return what the page shows of a section."""
    figures = part["figures"]
    own = {"id": f"section-{i}", "charts": [], "examples": [], "exposed": None}
    drawn = {
        "evasion": _evasion_chart,
        "extraction": _extraction_chart,
        "privacy": _roc_chart,
        "poisoning": _poisoning_chart,
    }.get(part["threat"])
    if drawn is not None and figures:
        chart = drawn(figures)
        own["charts"] = [chart] if chart else []
    own["examples"] = [
        _example(example, figures.get("image_shape"))
        for example in figures.get("examples", [])
    ]
    if figures.get("exposed"):
        rows = [
            [str(r["row"]), r["of"], r["label"], number(r["score"])]
            for r in figures["exposed"]
        ]
        heads = ["row#", "of the rows for", "label:", "p-value#"]
        caption = (
            f"By {figures['exposed_by']}: how rare such answers are for rows that the "
            "model was not trained on. Rows for training are members, and those for test "
            "are false alarms"
        )
        own["exposed"] = {"caption": caption, **_table(heads, rows)}
    return own | {
        "title": part["title"],
        "question": part["question"],
        "headline": part["headline"],
        "identifiers": sorted(part["identifiers"].items()),
        "brackets": _table(
            ["quantity:", "at#", "from#", "by:", "to#", "by:", "interval#", "rows#"],
            [
                [
                    b["quantity"],
                    number(b["at"]),
                    number(b["lower"]),
                    b["lower_by"],
                    number(b["upper"]),
                    b["upper_by"],
                    "-"
                    if b["low"] is None
                    else f"{number(b['low'])} to {number(b['high'])}",
                    str(b["n"]),
                ]
                for b in part["brackets"]
            ],
        ),
        "findings": _table(
            [
                "attack", "knows", "parameters:", "metric", "figure#", "baseline:",
                "rows#", "queries#", "seconds#", "ATLAS", "NIST", "AI Act", "note:",
            ],
            [_finding(finding) for finding in part["findings"]],
        ),
        "recommendations": _table(
            [
                "defense", "metric:", "without#", "with#", "gain of a fold#",
                "accuracy without#", "with#", "better in every fold", "parameters:",
            ],
            [
                [
                    r["defense"],
                    f"{r['metric']}; {r['n_folds']} folds of {r['n']} rows",
                    number(r["before"]),
                    number(r["after"]),
                    f"{number(r['gain_low'])} to {number(r['gain_high'])}",
                    number(r["accuracy_before"]),
                    number(r["accuracy_after"]),
                    {"text": "yes" if r["every_fold_better"] else "no",
                     "kind": "good" if r["every_fold_better"] else ""},
                    r["parameters"],
                ]
                for r in part["recommendations"]
            ],
        ),
    }  # fmt: skip


def _finding(finding):
    done = finding["status"] == "done"
    figure = (
        _with_interval(finding) if done else {"text": finding["status"], "kind": "bad"}
    )
    baseline = "-"
    if finding["baseline"] is not None:
        baseline = f"{number(finding['baseline'])} ({finding['baseline_is']})"
    return [
        finding["attack"],
        finding["knowledge"],
        finding["parameters"] or "-",
        finding["metric"] or "-",
        figure,
        baseline,
        str(finding["n"] or "-"),
        str(finding["queries"] or "-"),
        f"{finding['seconds']:.1f}",
        finding["technique"] or "-",
        finding["nist"] or "-",
        finding["ai_act"] or "-",
        finding["note"] or "-",
    ]


def _matrix(sections):
    """Return the worst figure of each threat and goal, for each kind of knowledge."""
    rows = []
    for part in sections:
        goals = dict.fromkeys(f["goal"] for f in part["findings"] if f["goal"])
        for goal in goals or ("",):
            row = [f"{part['title']}: {goal}" if goal else part["title"]]
            for knowledge in _KNOWLEDGE:
                own = [
                    f
                    for f in part["findings"]
                    if f["goal"] == goal and f["knowledge"] == knowledge
                ]
                row.append(_worst(own))
            rows.append(row)
    names = ["goal:", *(f"{name}:" for name in _KNOWLEDGE)]
    return _table(names, rows)


def _worst(findings):
    if not findings:
        return {"text": "not tested", "kind": "soft"}
    known = [f for f in findings if f["value"] is not None]
    if not known:
        return {"text": f"nothing known ({findings[0]['status']})", "kind": "soft"}
    metric = known[0]["metric"]
    own = [f for f in known if f["metric"] == metric]
    pick = min if metric in _SMALL_IS_BAD else max
    worst = pick(own, key=lambda f: f["value"])
    return f"{metric} {number(worst['value'])} ({worst['attack']})"


# Pictures -------------------------------------------------------------------------------


def _example(example, shape):
    shown = {
        name: example[name] for name in ("row", "label", "before", "after", "attack")
    }
    shown |= {"pictures": None, "table": None, "caption": ""}
    shown["distance"] = number(example["distance"])
    if "pixels" in example:
        before, after = example["pixels"]
        change = [abs(a - b) for a, b in zip(after, before, strict=True)]
        largest = max(change) or 1
        pictures = (
            ("original", before),
            ("change, enlarged", [round(255 * c / largest) for c in change]),
            ("adversarial", after),
        )
        shown["pictures"] = [
            {
                "src": _png(pixels, shape),
                "alt": f"Test row {example['row']}, {name}",
                "caption": name,
            }
            for name, pixels in pictures
        ]
    elif "changes" in example:
        rows = [
            [
                c["feature"],
                c["before"],
                c["after"],
                "-" if c["share"] is None else percent(c["share"]),
            ]
            for c in example["changes"]
        ]
        more = example["n_changed"] - len(rows)
        shown["table"] = _table(["feature:", "before:", "after:", "of its range#"], rows)
        n_changed = example["n_changed"]
        shown["caption"] = f"{n_changed} feature{'s' if n_changed > 1 else ''} changed"
        if more > 0:
            shown["caption"] += f", the {len(rows)} largest changes"
    return shown


def _png(pixels, shape):
    """Return an image as the text of a link to itself."""
    shape = [int(n) for n in shape]
    if len(shape) == 2:
        channels, (height, width) = 1, shape
    elif shape[0] in (1, 3):
        channels, height, width = shape
    else:
        height, width, channels = shape
    plane = height * width
    first = len(shape) == 2 or shape[0] in (1, 3)
    colour = channels == 3
    lines = []
    for i in range(height):
        line = bytearray(1)
        for j in range(width):
            at = i * width + j
            for c in range(3 if colour else 1):
                line.append(pixels[c * plane + at if first else at * channels + c])
        lines.append(bytes(line))
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if colour else 0, 0, 0, 0)
    body = zlib.compress(b"".join(lines), 9)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", head), (b"IDAT", body), (b"IEND", b"")):
        check = zlib.crc32(kind + content)
        data += (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
        )
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


# Curves ---------------------------------------------------------------------------------


class _Axis:
    """Positions along an axis, and where its ticks are."""

    def __init__(self, low, high, begin, end, log=False):
        self.log = log
        self.low, self.high = (math.log10(low), math.log10(high)) if log else (low, high)
        if self.high <= self.low:
            self.high = self.low + 1
        self.begin, self.end = begin, end

    def at(self, value):
        """Return where a value is."""
        if self.log:
            value = math.log10(max(value, 10**self.low))
        share = (value - self.low) / (self.high - self.low)
        share = min(max(share, 0.0), 1.0)
        return round(self.begin + share * (self.end - self.begin), 1)

    def ticks(self):
        """Return ticks at round numbers."""
        if self.log:
            first, last = math.ceil(self.low - 1e-9), math.floor(self.high + 1e-9)
            values = [10.0**e for e in range(first, last + 1)]
            if len(values) < 3:  # less than two decades
                every = [
                    f * 10.0**e for e in range(first - 1, last + 1) for f in (1, 2, 5)
                ]
                least, most = 10**self.low * 0.999, 10**self.high * 1.001
                values = [v for v in every if least <= v <= most]
        else:
            step = 10 ** math.floor(math.log10(self.high - self.low))
            for part in (0.1, 0.2, 0.25, 0.5, 1.0):
                if (self.high - self.low) / (step * part) <= 6:
                    step *= part
                    break
            first = math.ceil(self.low / step - 1e-9)
            last = math.floor(self.high / step + 1e-9)
            values = [i * step for i in range(first, last + 1)]
        return [{"at": self.at(v), "text": f"{v:g}"} for v in values]


def _chart(title, lines, xlabel, ylabel, caption, *, x, y, band=None):
    """Return a chart of lines: each a name, points, and their intervals or None."""
    lines = lines[:_STYLES]
    left, top = _LEFT, _TOP + _KEY * len(lines)
    across, up = _Axis(*x[:2], left, _RIGHT, x[2]), None
    up = _Axis(*y[:2], top + _PLOT, top, y[2])
    series = []
    for i, (name, points, intervals) in enumerate(lines):
        placed = [(across.at(a), up.at(b)) for a, b in points]
        path = " ".join(f"{'L' if j else 'M'}{a} {b}" for j, (a, b) in enumerate(placed))
        bars = [
            (across.at(a), up.at(low), up.at(high))
            for (a, _), (low, high) in zip(points, intervals or (), strict=False)
            if low is not None and high is not None
        ]
        few = len(placed) <= 20
        series.append(
            {
                "name": name,
                "path": path,
                "style": i,
                "dots": placed if few else [],
                "bars": bars,
                "key": _TOP + _KEY * i + 4,
            }
        )
    closed = None
    if band is not None:
        above, below = ([(across.at(a), up.at(b)) for a, b in line] for line in band)
        points = [*above, *below[::-1]]
        closed = (
            " ".join(f"{'L' if j else 'M'}{a} {b}" for j, (a, b) in enumerate(points))
            + " Z"
        )
    ends = [
        f"{name}: from {number(points[0][1])} to {number(points[-1][1])}"
        for name, points, _ in lines
        if points
    ]
    return {
        "title": title,
        "alt": f"{title}. {ylabel} against {xlabel}. {'; '.join(ends)}.",
        "width": _WIDTH,
        "height": top + _PLOT + _BELOW,
        "left": left,
        "right": _RIGHT,
        "top": top,
        "bottom": top + _PLOT,
        "xticks": across.ticks(),
        "yticks": up.ticks(),
        "xlabel": xlabel,
        "ylabel": ylabel,
        "series": series,
        "band": closed,
        "caption": caption,
    }


def _evasion_chart(figures):
    curve = figures.get("curve")
    if not curve:
        return None
    attack = [(point["eps"], point["attack"]) for point in curve]
    proof = [(point["eps"], point["proof"]) for point in curve]
    lines = [("after all attacks (truth is not above)", attack, None)]
    band = None
    if any(value for _, value in proof[1:]):
        lines.append(("proved (truth is not below)", proof, None))
        band = attack, proof
    where = "in the shaded area" if band else "on the line, or below"
    chart = _chart(
        "Robustness curve",
        lines,
        "size of changes, as a share of each range",
        figures["quantity"],
        f"What is left under any change up to a size: the truth lies {where}.",
        x=(0, curve[-1]["eps"], False),
        y=(0, 1, False),
        band=band,
    )
    names = [line["attack"] for line in figures["per_attack"]]
    rows = [
        [
            number(point["eps"]),
            number(point["attack"]),
            number(point["proof"]),
            *(
                "-" if i == 0 else number(line["accuracy"][i - 1])
                for line in figures["per_attack"]
            ),
        ]
        for i, point in enumerate(curve)
    ]
    heads = ["size#", "all attacks#", "proved#", *(f"{name}#" for name in names)]
    caption = "Share still right, by size of changes, for all attacks and each alone"
    return {"chart": chart, "caption": caption, **_table(heads, rows)}


def _extraction_chart(figures):
    curves = figures.get("curve")
    if not curves:
        return None
    lines = [
        (c["attack"], [p[:2] for p in c["points"]], [p[2:] for p in c["points"]])
        for c in curves
    ]
    queries = [p[0] for c in curves for p in c["points"]]
    low, high = max(min(queries) / 2, 1), max(queries) * 1.5
    majority = figures["majority"]
    guess = ("always the most frequent label", [(low, majority), (high, majority)], None)
    floor = min([majority] + [p[2] for c in curves for p in c["points"]])
    chart = _chart(
        "Fidelity against queries",
        [*lines[: _STYLES - 1], guess],
        "queries",
        "agreement with the model",
        "How often a copy says what the model says, on test rows; intervals at 95 %.",
        x=(low, high, True),
        y=(max(0, math.floor(10 * floor) / 10), 1, False),
    )
    rows = [
        [
            c["attack"],
            str(int(p[0])),
            f"{number(p[1])} ({number(p[2])} to {number(p[3])})",
        ]
        for c in curves
        for p in c["points"]
    ]
    table = _table(["attack", "queries#", "fidelity#"], rows)
    return {"chart": chart, "caption": "Fidelity of copies", **table}


def _roc_chart(figures):
    curves = figures.get("roc")
    if not curves:
        return None
    low = 0.5 / figures["n_non_members"]
    lines = [("guessing", [(low, low), (1, 1)], None)]
    for c in curves[: _STYLES - 1]:
        points, last = [], None
        for fpr, tpr in zip(c["fpr"], c["tpr"], strict=True):
            a, b = max(fpr, low), max(tpr, low)
            if last is not None and a != last[0]:
                points.append((a, last[1]))  # steps
            points.append((a, b))
            last = a, b
        lines.insert(-1, (f"{c['attack']}, AUC {c['auc']:.3f}", points, None))
    chart = _chart(
        "Membership ROC, both axes logarithmic",
        lines,
        "false positive rate (others called members)",
        "true positive rate",
        "Rates below one record cannot be told from 0; they are drawn at half of it.",
        x=(low, 1, True),
        y=(low, 1, True),
    )
    rates = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5)
    rows = []
    for c in curves:
        row = [c["attack"], f"{c['auc']:.3f}"]
        for rate in rates:
            if rate * figures["n_non_members"] < 1:
                row.append("-")
                continue
            pairs = zip(c["fpr"], c["tpr"], strict=True)
            row.append(f"{max(t for f, t in pairs if f <= rate):.3f}")
        rows.append(row)
    heads = ["attack", "AUC#", *(f"TPR at {rate:g}#" for rate in rates)]
    return {"chart": chart, "caption": "Members found", **_table(heads, rows)}


def _poisoning_chart(figures):
    curves = figures.get("curve")
    if not curves:
        return None
    lines = [
        (c["attack"], [p[:2] for p in c["points"]], [p[2:] for p in c["points"]])
        for c in curves
    ]
    highest = max(p[3] or p[1] for c in curves for p in c["points"])
    if figures.get("bound"):
        lines.append(("no attack exceeds", figures["bound"], None))
        highest = max([highest] + [p[1] for p in figures["bound"]])
    chart = _chart(
        "Poisoning curve",
        lines,
        "share of the training rows",
        "test error",
        "Errors on clean test rows, after training on poisoned rows; intervals at 95 %.",
        x=(0, max(p[0] for c in curves for p in c["points"]), False),
        y=(0, min(1, math.ceil(10 * highest) / 10), False),
    )
    rows = [
        [
            c["attack"],
            percent(p[0]),
            number(p[1])
            if p[2] is None
            else f"{number(p[1])} ({number(p[2])} to {number(p[3])})",
        ]
        for c in curves
        for p in c["points"]
    ]
    table = _table(["attack", "poisoned#", "test error#"], rows)
    return {"chart": chart, "caption": "Test errors", **table}


def _compared_curves(both):
    """Return the robustness curves of both audits in one chart, if both have one."""
    found = []
    for report in both:
        part = next((p for p in report["sections"] if p["threat"] == "evasion"), None)
        found.append(part["figures"].get("curve") if part else None)
    if not all(found):
        return []
    names = ("before", "after")
    lines = [
        (f"{name}, after all attacks", [(p["eps"], p["attack"]) for p in curve], None)
        for name, curve in zip(names, found, strict=True)
    ]
    lines += [
        (f"{name}, proved", [(p["eps"], p["proof"]) for p in curve], None)
        for name, curve in zip(names, found, strict=True)
        if any(p["proof"] for p in curve[1:])
    ]
    chart = _chart(
        "Robustness curves",
        lines,
        "size of changes, as a share of each range",
        "share still right",
        "What is left under any change up to a size, before and after.",
        x=(0, max(curve[-1]["eps"] for curve in found), False),
        y=(0, 1, False),
    )
    rows = [
        [name, number(p["eps"]), number(p["attack"]), number(p["proof"])]
        for name, curve in zip(names, found, strict=True)
        for p in curve
    ]
    table = _table(["audit", "size#", "after all attacks#", "proved#"], rows)
    return [{"title": "Robustness", "chart": chart, "caption": "Robustness", **table}]
