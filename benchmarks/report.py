"""Render the pages of the benchmarks from ``results/*.json``.

    python benchmarks/report.py

``README.md`` has one line a claim, what was missed first; ``results/<family>.md`` the
tables of a family. Nothing is measured here, and no page is read.
"""

import json
from pathlib import Path

from _results import RESULTS, markdown

HEAD = """# Benchmarks

What this package claims of itself, beside the best peer that does the same thing in the
same run; what was missed comes first. Rendered from `results/*.json` by `make
bench-report`; `make bench` measures everything anew. Peers get the same victims, rows and
budgets; seconds are CPU seconds of one thread, taken in turns.
"""


def read():
    """Return the files' content by family: `{family: [(name, content), ...]}`."""
    families = {}
    for path in sorted(RESULTS.glob("*.json")):
        content = json.loads(path.read_text())
        families.setdefault(content["family"], []).append((path.stem, content))
    return families


def summary(families):
    """Return the page of claims: those that were missed, then those that were met."""
    lines = {False: [], True: []}
    for family, files in families.items():
        for _, content in files:
            for table in content["tables"]:
                link = f"[{family}](results/{family}.md#{anchor(table['title'])})"
                for claim in table["claims"]:
                    line = cells(claim)
                    line["claim"] = f"{table['title']}: {claim['claim']}"
                    lines[claim["met"]].append(
                        line | {"date": table["date"], "table": link}
                    )
    missed, met = lines[False], lines[True]
    return "\n".join(
        [
            HEAD,
            f"## Missed: {len(missed)} of {len(missed) + len(met)}\n",
            markdown(missed, aligned=False),
            "\n## Met\n",
            markdown(met, aligned=False),
            "\n## Tables\n",
            *(f"* [{family}](results/{family}.md)" for family in families),
            "",
        ]
    )


def cells(claim):
    """Return the cells of a claim."""
    return {
        "claim": claim["claim"],
        "ours": claim["ours"],
        "best peer": claim["peer"],
        "wanted": claim["wanted"],
        "met?": "yes" if claim["met"] else "**no**",
    }


def anchor(title):
    """Return the anchor that markdown viewers give to a heading."""
    kept = [c for c in title.lower() if c.isalnum() or c in " -_"]
    return "".join(kept).replace(" ", "-")


def page(family, files):
    """Return the page of a family: its environments once, then all tables."""
    machines = list(
        dict.fromkeys(m for _, content in files for m in content["environments"])
    )
    parts = [f"# Benchmarks: {family}"]
    parts += [f"Machine {i}: {machine}" for i, machine in enumerate(machines, 1)]
    for _, content in files:
        for table in content["tables"]:
            machine = machines.index(content["environments"][table["environment"]]) + 1
            parts += [
                f"## {table['title']}",
                f"`{table['command']}`, {table['date']}, machine {machine}",
                markdown(table["rows"]),
                *table["remarks"],
            ]
            if table["claims"]:
                parts.append(markdown([cells(claim) for claim in table["claims"]]))
    return "\n\n".join(part for part in parts if part) + "\n"


def main():
    families = read()
    (Path(__file__).parent / "README.md").write_text(summary(families))
    for family, files in families.items():
        (RESULTS / f"{family}.md").write_text(page(family, files))


if __name__ == "__main__":
    main()
