"""results/index.html: a page to look at all tables of results/, as they stand there.

    python tools/results_page.py

Every tool that writes into results/ makes it anew. It is made of the files beside it and of nothing else: *.md, whose
tables can be sorted there, figures, and links to the same as CSV and LaTeX. A file stands with the table whose name its
own begins with, NAME_epochs.png with NAME, and after all tables where there is none. Where an experiment that a CSV
file names lies in checkpoints/, with a page of eval.py's, the browser finds it and links it.
"""

import argparse
import html
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from commands import cli
from evaluation import page
from system.files import write_text
from tools.results import BAR, RESULTS, read_rows

LINKED = (".csv", ".tex", ".pdf", ".png", ".md")
FIGURE = ".png"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write()
    print(f"Written: {RESULTS / 'index.html'}")


def write() -> None:
    names = sorted((path.stem for path in RESULTS.glob("*.md")), key=lambda name: (name != "tables", name))
    files_of = defaultdict(list)
    for path in files(LINKED):
        files_of[table_of(path.stem, names)].append(path.name)
    texts = {name: as_html((RESULTS / f"{name}.md").read_text(encoding="utf-8")) for name in names}
    sections = [section(name, files_of[name], text) for name, text in texts.items()]
    if others := files_of[""]:
        names.append("others")
        sections.append(section("others", others))
    contents = "".join(f'<a href="#{html.escape(name)}">{html.escape(name)}</a>\n' for name in names)
    of_tables = f'<p class="links">Tables: {contents}<a href="#experiments">experiments</a></p>'
    body = "\n".join([of_tables, *sections, experiments()])
    write_text(RESULTS / "index.html", page.filled(Path(__file__).with_suffix(".html"), BODY=body))


def follow(written: Iterable[Path]) -> None:
    """Make the page anew where one of the files lies in results/."""
    if any(path.resolve().parent == RESULTS.resolve() for path in written):
        write()


def files(suffixes: Iterable[str]) -> list[Path]:
    return sorted(path for path in RESULTS.iterdir() if path.suffix in suffixes)


def table_of(stem: str, tables: Iterable[str]) -> str:
    """The longest of the tables' names that a file's begins with, as NAME or NAME_…; "" where there is none."""
    return max((name for name in tables if f"{stem}_".startswith(f"{name}_")), key=len, default="")


def links(names: Iterable[str]) -> str:
    return " ".join(f'<a href="{html.escape(name)}">{html.escape(name)}</a>' for name in names)


def section(name: str, there: Iterable[str], text: str = "") -> str:
    """Links to the files that are there, those of them that are figures, and the text."""
    lines = [f'<section id="{html.escape(name)}">', f"<h2>{html.escape(name)}</h2>"]
    lines.append(f'<p class="links">{links(there)}</p>')
    shown = [html.escape(file) for file in there if file.endswith(FIGURE)]
    images = "\n".join(f'<a href="{file}"><img src="{file}" alt="the figure of {file}"></a>' for file in shown)
    lines += [f'<p class="figures">{images}</p>'] if images else []
    return "\n".join([*lines, text, "</section>"])


def experiments() -> str:
    """Every experiment that a CSV file names, and which files do."""
    found = defaultdict(list)
    for path in files([".csv"]):
        rows = read_rows(path)
        named = [row.get("experiment") or row.get("experiments") or "" for row in rows]
        for name in dict.fromkeys(name for names in named for name in names.split(", ") if name):
            found[name].append(path.stem)
    items = [
        f"<li><span>{html.escape(name)}</span> in {html.escape(', '.join(tables))}"
        for name, tables in sorted(found.items())
    ]
    return "\n".join(['<section id="experiments">', "<h2>experiments</h2>", "<ul>", *items, "</ul>", "</section>"])


# -- Markdown, as far as our tools write it ---------------------------------------------------------------------------


def as_html(text: str) -> str:
    """Headings, paragraphs, lists and tables; the first heading is the section's own."""
    blocks = re.split(r"\n\s*\n", text.strip())
    return "\n".join(block(part.splitlines()) for part in blocks if not part.startswith("# "))


def block(lines: list[str]) -> str:
    if lines[0].startswith("|"):
        return table([cells(line) for line in lines])
    if lines[0].startswith("#"):
        return f"<h3>{inline(lines[0].lstrip('# '))}</h3>"
    if lines[0].startswith("- "):
        items = "\n".join(lines)[2:].split("\n- ")
        return "<ul>" + "".join(f"<li>{inline(item)}" for item in items) + "</ul>"
    return f"<p>{inline(' '.join(lines))}</p>"


def cells(line: str) -> list[str]:
    return [cell.strip().replace(BAR, "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def table(rows: list[list[str]]) -> str:
    """The second row is Markdown's rule."""
    head = "".join(f'<th scope="col"><button>{inline(cell)}</button></th>' for cell in rows[0])
    body = "\n".join("<tr>" + "".join(f"<td>{inline(cell)}</td>" for cell in row) + "</tr>" for row in rows[2:])
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="table"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def inline(text: str) -> str:
    """Text with its code and emphasis."""
    parts = re.split(r"`([^`]+)`", text)  # every other one is code
    return "".join(
        f"<code>{html.escape(part)}</code>"
        if i % 2
        else re.sub(r"\*([^*\s][^*]*)\*", r"<em>\1</em>", html.escape(part))
        for i, part in enumerate(parts)
    )


if __name__ == "__main__":
    cli.run(main)
