"""What a closed sweep leaves for a person: the page and figures as files, the table and the next steps on screen."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from src.console.terminal import Terminal
from src.data import UNREADABLE
from src.results.comparison import Findings
from src.results.report import tables
from src.results.report.sentences import footnotes, sentence
from src.settings import credentials
from src.store.address import elsewhere
from src.store.store import Store

REPORTS = Path("mlruns/reports")
REPORT = "report.html"


def write(findings: Findings, store: Store, parent: str) -> None:
    """Writes the page and the figures into the parent run and into a folder of this machine."""
    from src.results.report.page import page  # here: the first line on screen need not wait for matplotlib
    from src.results.report.rendering import drawn

    folder = REPORTS / findings.name
    folder.mkdir(parents=True, exist_ok=True)
    if unreadable := dict.fromkeys(line for comparison in findings.comparisons for line in comparison.unreadable):
        (folder / UNREADABLE).write_text("\n".join(unreadable) + "\n", encoding="utf-8")
        store.keep(parent, folder / UNREADABLE)
    pictures = drawn(findings)
    for number, its in enumerate(pictures, start=1):
        for name, content in its.png.items():
            file = folder / (f"{name}.png" if len(pictures) == 1 else f"{name}_{number}.png")
            file.write_bytes(content)
            store.keep(parent, file, "figures")
    (folder / REPORT).write_text(page(findings, pictures), encoding="utf-8")
    store.keep(parent, folder / REPORT)


def show(findings: Findings, store: Store, parent: str) -> None:
    """Prints what was found, and the commands that go on from there."""
    console, judged = Terminal(soft_wrap=False, highlight=False), findings.judged
    tables.print_table(findings.results, console, judged.confidence)
    for comparison in findings.comparisons:
        for line in (f"{sentence(comparison, judged)}.", *footnotes(comparison)):
            console.print(line, markup=False)
    for why, names in findings.reasons.items():
        console.print(f"left out: {', '.join(names)}: {why}", markup=False)
    settings = elsewhere(store.uri, store.experiment)
    ui = ["--backend-store-uri", store.uri] if any(part.startswith("tracking.uri=") for part in settings) else []
    compared = any(result.test_accuracy_drop for result in findings.results)
    steps = {
        "report": str(REPORTS / findings.name / REPORT),
        "store": store.place,
        "runs": store.url(parent) if store.is_server else credentials.to_give() + _make("ui", ui),
        "choose": credentials.to_give() + _make("pick", settings) if compared else "",
    }
    for step, how in steps.items():
        if how:
            console.print(f"{step:8}{how}", markup=False, soft_wrap=True)


def _make(target: str, arguments: Sequence[str]) -> str:
    return f"make {target}" + (f' ARGS="{shlex.join(arguments)}"' if arguments else "")
