"""The page at the end of a sweep, in a real browser: at two widths, light and dark."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Place
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from scripts import screenshots
from src.measure.stats import Interval, Verdict, paired_drop, verdict
from src.results.comparison import Comparison, Findings
from src.results.report import figures, numbers, tables
from src.results.report.page import page
from src.results.report.rendering import MANY_COMPARISONS, drawn
from src.results.report.sentences import description, footnotes, sentence
from src.results.variant import Result
from src.settings.sections import Compare

LOOKS = [(width, scheme) for width in (1280, 400) for scheme in ("light", "dark")]

# Pairs of texts in what is shown of the figures whose boxes meet by more than a pixel.
OVERLAPPING = """
const texts = [...document.querySelectorAll("figure svg text")].filter((t) => t.getClientRects().length);
const boxes = texts.map((t) => [t.textContent, t.closest("svg"), t.getBoundingClientRect()]);
const pairs = [];
boxes.forEach(([a, s, p], i) => boxes.slice(i + 1).forEach(([b, r, q]) => {
  if (s === r && p.left + 1 < q.right && q.left + 1 < p.right && p.top + 1 < q.bottom && q.top + 1 < p.bottom)
    pairs.push(`${a} / ${b}`);
}));
return [texts.length, pairs];
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with screenshots.browser(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


def look(browser: webdriver.Chrome, file: Path, width: int, scheme: str) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    browser.get(file.as_uri())


def written(twelve) -> Path:
    return next(Path(line.split()[1]) for line in twelve[1].stdout.splitlines() if line.startswith("report "))


@pytest.fixture(scope="module")
def html(twelve) -> Path:
    return twelve[0].folder / written(twelve)


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_it_opens_without_error_and_no_label_covers_another(html: Path, browser, width: int, scheme: str) -> None:
    look(browser, html, width, scheme)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    texts, overlapping = browser.execute_script(OVERLAPPING)
    assert texts > 30
    assert overlapping == []
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_table_sorts_by_a_click_on_its_headings(html: Path, browser) -> None:
    look(browser, html, 1280, "light")

    def column(index: int) -> list[str]:
        cells = browser.find_elements(By.CSS_SELECTOR, f"table:first-of-type tbody td:nth-child({index + 1})")
        return [cell.get_attribute("data-value") for cell in cells[:12]]

    headings = browser.find_elements(By.CSS_SELECTOR, "th button")
    size = [heading.text for heading in headings].index("gzip")
    headings[size].click()
    assert column(size) == sorted(column(size), key=float)
    headings[size].click()
    assert column(size) == sorted(column(size), key=float, reverse=True)
    headings[0].click()
    assert column(0) == sorted(column(0))


def test_pointing_at_a_variant_tells_what_it_is(html: Path, browser) -> None:
    look(browser, html, 1280, "light")
    point = next(
        element
        for element in browser.find_elements(By.CSS_SELECTOR, "svg [data-variant='p1-f16']")
        if element.is_displayed()
    )
    ActionChains(browser).scroll_to_element(point).move_to_element(point).perform()
    tip = browser.find_element(By.ID, "tip").text
    assert tip.startswith("p1-f16\n")
    assert "test accuracy" in tip
    assert "gzip" in tip


def test_it_needs_nothing_but_itself(html: Path) -> None:
    text = html.read_text()
    assert not re.findall(
        r"""(?:src|srcset)=["'](?!data:)|<link [^>]*href=["'](?!data:)|@import|url\(["']?http""", text
    )
    assert len(text) < 400_000


def test_it_is_kept_with_the_figures_in_the_parent_run(twelve, html: Path) -> None:
    place: Place = twelve[0]
    store = place.store()
    sweep = min(store.search("tags.kind = 'sweep'"), key=lambda sweep: sweep.started)
    assert store.file(sweep.run_id, "report.html").read_text() == html.read_text()
    for name in ("accuracy_over_size", "accuracy_over_latency", "latency"):
        assert store.file(sweep.run_id, f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
    # Pruning and quantization multiply as often as the dense baseline.
    assert not store.file(sweep.run_id, "figures/latency.png").with_stem("accuracy_over_multiply_adds").exists()


def test_every_part_of_it_is_there(html: Path) -> None:
    text = html.read_text()
    for heading in (
        "Accuracy over size", "Accuracy over latency", "Latency", "Verdicts", "Size by layer",
        "Transforms and quantization together", "Lineage", "To repeat it",
    ):  # fmt: skip
        assert f"<h2>{heading}</h2>" in text
    assert "python -m src.run -m experiment=smoke" in text
    assert "/runs/" in text, "links to MLflow"


# --- Without a sweep -------------------------------------------------------------------------------------------


IMAGES = {"test": 1000, "validation": 1000}


def rows(*drops: tuple[str, int, float]) -> tuple[Result, ...]:
    """A dense baseline right on 900 of 1,000 images, and variants that lost `drop` of them, of so many gzip bytes."""
    dense = np.arange(1000) < 900
    accuracy = {"test_accuracy": 0.9, "validation_accuracy": 0.9}
    made = [Result("none-none", metrics={**accuracy, "gzip_bytes": 1e6, "sparsity": 0.0}, is_baseline=True)]
    for name, lost, gzip_bytes in drops:
        found = paired_drop(dense, np.arange(1000) < 900 - lost)
        metrics = {
            "test_accuracy": 0.9 - lost / 1000,
            "gzip_bytes": gzip_bytes,
            "gzip_ratio": gzip_bytes / 1e6,
            "sparsity": 0.0,
        }
        made.append(
            Result(
                name,
                metrics=metrics,
                test_accuracy_drop=found.drop,
                validation_accuracy_drop=found.drop,
                verdict=verdict(found, 0.01),
                digest=name,
            )
        )
    return tuple(made)


def test_the_sentence_names_the_smallest_that_is_surely_within_the_margin() -> None:
    found = Comparison("", rows(("p1-drq", 1, 2e5), ("p2-drq", 50, 1e5), ("none-drq", 0, 3e5)), IMAGES)
    said = sentence(found, Compare(0.01))
    assert said.startswith("p1-drq: 5.00 × smaller, drop +0.1 points [")
    assert said.endswith(" on 1,000 test images: equal within the margin (chosen on 1,000 validation images)")


def test_the_sentence_never_answers_with_what_is_not_smaller() -> None:
    """A transform that changed nothing leaves the baseline's own file."""
    same = ("clip-none", 0, 1e6)
    assert (
        sentence(Comparison("", rows(same), IMAGES), Compare(0.01)) == "No variant is smaller than the dense baseline"
    )
    said = sentence(Comparison("", rows(same, ("p2-drq", 50, 1e5)), IMAGES), Compare(0.01))
    assert "nearest is p2-drq" in said


def test_the_sentence_says_when_none_is() -> None:
    found = Comparison("", rows(("p2-drq", 50, 1e5)), IMAGES)
    said = sentence(found, Compare(0.01))
    assert said.startswith("No variant is sure to stay within 1 point of the dense baseline on the 1,000 validation")
    assert "equal predictions" not in said
    # Of 1,000 images none may change, and still 3.84 / 1,003.84 is possible (Newcombe).
    assert sentence(found, Compare(0.002)).endswith(": equal predictions on so few images leave 0.4 possible")


def test_a_failed_variant_and_the_same_file_under_two_names_are_said_on_top() -> None:
    same = rows(("p1-fiq", 1, 2e5), ("p2-fiq", 1, 2e5))
    same = (
        *same[:2],
        Result(**{**vars(same[2]), "digest": "p1-fiq"}),
        Result("p2-drq", failed="it broke <so>"),
    )
    sweep = Findings("sweep", "today", (Comparison("", same, {"test": 1000}),), Compare(), {"what": "x"})
    text = page(sweep, drawn(sweep))
    assert "p1-fiq, p2-fiq are equal to the byte: measured once, for both." in text
    assert "it broke &lt;so&gt;" in text


def test_a_verdict_of_two_words_is_whole_on_the_page_and_in_the_table() -> None:
    found = paired_drop(np.arange(1000) < 900, np.arange(1000) < 905)
    row = dataclasses.replace(rows(("p1-drq", -5, 2e5))[1], verdict=Verdict("no worse"), test_accuracy_drop=found.drop)
    dense, _ = rows(("p1-drq", -5, 2e5))
    sweep = Findings("sweep", "today", (Comparison("", (dense, row), IMAGES),), Compare(), {"what": "x"})
    cell = re.search(r'data-value="no worse">(.*?)</td>', page(sweep, drawn(sweep)))
    assert cell
    assert re.sub("<[^>]*>", "", cell[1]).strip().endswith("no worse")
    assert "no worse" in tables.markdown([dense, row], 0.95)


def test_what_was_left_out_is_said_with_its_reason_once() -> None:
    left_out = (("qat-f16", "has no integers"), ("p1-qat-f16", "has no integers"), ("c16-w4", "is <clustered>"))
    one = Comparison("", rows(("p1-drq", 1, 2e5)), {"test": 1000})
    sweep = Findings("sweep", "today", (one,), Compare(), {"what": "x"}, left_out=left_out)
    assert sweep.reasons == {"has no integers": ["qat-f16", "p1-qat-f16"], "is <clustered>": ["c16-w4"]}
    text = page(sweep, drawn(sweep))
    assert text.count("has no integers") == 1
    assert "<h2>Left out</h2>" in text
    assert "is &lt;clustered&gt;" in text
    nothing = dataclasses.replace(sweep, left_out=())
    assert "Left out" not in page(nothing, drawn(nothing))


def test_each_training_of_a_sweep_has_a_section_of_its_own() -> None:
    of_seeds = tuple(Comparison(f"seed={seed}", rows(("p1-drq", seed, 2e5)), IMAGES) for seed in (1, 50))
    sweep = Findings("sweep", "today", of_seeds, Compare(), {"what": "x", "command": "run -m seed=1,50"})
    text = page(sweep, drawn(sweep))
    assert "<h1>run -m seed=1,50</h1>" in text
    for seed in (1, 50):
        assert f"<h2>seed={seed}</h2>" in text
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids)), "figures of one page share no id"


def test_figures_of_many_trainings_are_drawn_side_by_side_and_are_the_same() -> None:
    many = tuple(Comparison(f"seed={i}", rows(("p1-drq", i, 2e5)), IMAGES) for i in range(MANY_COMPARISONS))
    side_by_side = drawn(Findings("sweep", "today", many, Compare(), {}))
    one = drawn(Findings("sweep", "today", many[:1], Compare(), {}))
    assert len(side_by_side) == len(many)
    assert side_by_side[0] == one[0]
    assert len({drawn.png["accuracy_over_size"] for drawn in side_by_side}) == len(many)


def test_forty_variants_leave_no_label_on_another() -> None:
    many = rows(*((f"p{i}-drq", i % 7, 1e5 * (1 + i % 11 / 10)) for i in range(40)))
    figure = figures.accuracy_over(figures.AXES["accuracy_over_size"], Comparison("", many), 0.01, 0.95, "narrow")
    figure.draw_without_rendering()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert len(texts) >= 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def costing(*costs: tuple[float, float]) -> tuple[Result, ...]:
    """A dense baseline and variants of so many multiply-adds and milliseconds."""
    made = rows(*((f"n{i}-drq", i, 2e5) for i in range(len(costs) - 1)))
    return tuple(
        dataclasses.replace(
            result, metrics={**result.metrics, "parameters": 5e4, "multiply_adds": count, "latency_ms_median": ms}
        )
        for result, (count, ms) in zip(made, costs, strict=True)
    )


def test_accuracy_is_drawn_over_each_cost_in_which_variants_differ() -> None:
    def drawn_of(results: tuple[Result, ...]) -> list[str]:
        return list(figures.figures(Comparison("", results, IMAGES), Compare()))

    assert drawn_of(rows(("p1-drq", 1, 2e5))) == ["accuracy_over_size"], "of before there were counts, and not timed"
    assert drawn_of(costing((4e6, 2), (4e6, 1))) == ["accuracy_over_size", "accuracy_over_latency"]
    assert drawn_of(costing((4e6, 2), (1e6, 1))) == [
        *("accuracy_over_size", "accuracy_over_multiply_adds", "accuracy_over_latency")
    ]
    one_uncounted = (*costing((4e6, 2), (1e6, 1)), *rows(("old-drq", 1, 3e5))[1:])
    assert "accuracy_over_multiply_adds" in drawn_of(one_uncounted)


def test_each_figure_of_accuracy_says_its_numbers_and_its_front_in_words() -> None:
    results = costing((4.25e6, 2), (1.5e6, 0.75), (1.5e6, 1.25))
    sweep = Findings("sweep", "today", (Comparison("", results, IMAGES),), Compare(), {"what": "x"})
    text = page(sweep, drawn(sweep))
    assert re.findall(r'<figure role="group" aria-label="([^"]*)"', text) == [
        "none-none: 90.0 % at 1.00 MB; n0-drq: 90.0 % at 200.0 kB; n1-drq: 89.9 % at 200.0 kB",
        "none-none: 90.0 % at 4.25 M multiply-adds; n0-drq: 90.0 % at 1.50 M multiply-adds; "
        "n1-drq: 89.9 % at 1.50 M multiply-adds",
        "none-none: 90.0 % at 2.00 ms; n0-drq: 90.0 % at 0.75 ms; n1-drq: 89.9 % at 1.25 ms",
    ]
    ticks = [set(re.findall(r">([^<>]+)</text>", figure)) for figure in re.findall(r"<figure.*?</figure>", text, re.S)]
    assert {"1 MB"} < ticks[0]
    assert {"2 M", "multiply-adds of an inference"} < ticks[1]
    assert {"1", "2", "median latency, ms"} < ticks[2]
    # n0-drq is nowhere beaten, so that there is no line to explain.
    assert "Pareto" not in text


@pytest.mark.parametrize("axis", figures.AXES.values(), ids=figures.AXES)
@pytest.mark.parametrize(("low", "high"), [(1.04, 1.13), (6.3, 6.5), (0.0123, 0.0125), (1, 1000)])
def test_an_axis_has_ticks_however_close_the_costs_are(axis: figures.Axis, low: float, high: float) -> None:
    scale = 1 if axis.metric == "latency_ms_median" else 1e7
    results = [
        dataclasses.replace(result, metrics={**result.metrics, axis.metric: scale * cost})
        for result, cost in zip(rows(("p1-drq", 1, 2e5)), (low, high), strict=True)
    ]
    for style in ("wide", "narrow"):
        figure = figures.accuracy_over(axis, Comparison("", tuple(results)), 0.01, 0.95, style)
        written = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        assert 2 <= len(written) == len(set(written)) <= 10


def test_numbers_of_parameters_and_multiply_adds_are_short() -> None:
    assert [numbers.count(n) for n in (0, 999, 57_482, 12_501_632, 4.1e9)] == ["0", "999", "57.5 k", "12.5 M", "4.10 G"]


@pytest.mark.parametrize(
    ("speedup", "word"),
    [
        (Interval(1.0, 0.98, 1.02), "same"),
        (Interval(1.55, 0.77, 2.25), "unsure"),
        (Interval(1.04, 1.01, 1.07), "unsure"),
    ],
)
def test_no_difference_is_the_same_only_where_the_interval_is_narrow(speedup: Interval, word: str) -> None:
    (dense, row) = rows(("p1-drq", 1, 2e5))
    row = dataclasses.replace(row, speedup=speedup, no_difference=True)
    sweep = Findings("sweep", "today", (Comparison("", (dense, row), {"test": 1000}),), Compare(), {"what": ""})
    assert f"| {word} |" in tables.markdown([dense, row], 0.95)
    assert ("[0.770, 2.25]" in page(sweep, drawn(sweep))) == (speedup.low == 0.77)


def test_an_undecided_drop_whose_interval_leaves_out_0_is_explained() -> None:
    (dense, row) = rows(("p1-drq", 1, 2e5))
    for interval, told in ((Interval(-0.02, -0.03, -0.01), True), (Interval(0, -0.02, 0.02), False)):
        undecided = dataclasses.replace(row, test_accuracy_drop=interval, verdict=Verdict("undecided", 5000))
        assert told == any("0 is outside" in line for line in footnotes(Comparison("", (dense, undecided))))


@pytest.mark.parametrize(
    ("number", "written"), [(0.00651, "0.00651"), (0.0176, "0.0176"), (1.234, "1.23"), (97.5, "97.5"), (1234.5, "1234")]
)
def test_three_digits(number: float, written: str) -> None:
    assert numbers.three(number) == written


@pytest.mark.parametrize(
    ("ratio", "written"),
    [(0.001, "0.00100"), (0.0117, "0.0117"), (0.5, "0.500"), (1.357, "1.36"), (9.996, "10.0"), (1234.5, "1,234")],
)
def test_how_many_times_has_three_digits_however_slow(ratio: float, written: str) -> None:
    assert numbers.times(ratio) == written


def test_a_variant_that_is_a_thousand_times_slower_is_described_as_that() -> None:
    (_, row) = rows(("p1-drq", 1, 2e5))
    slow = dataclasses.replace(row, speedup=Interval(0.001, 0.0009, 0.0011), no_difference=False)
    assert "0.00100 × as fast as it." in description(slow)


def test_a_table_of_twelve_fits_80_columns() -> None:
    from rich.console import Console

    wide = Interval(0.0204, -0.1012, 0.1042)
    row = Result(
        "none-none",
        metrics={"test_accuracy": 0.9311, "gzip_bytes": 97.5e6, "gzip_ratio": 0.098, "latency_ms_median": 123.4},
        test_accuracy_drop=wide,
        verdict=Verdict("undecided", 3),
        speedup=Interval(12.7, 2.6, 20.8),
    )
    console = Console(width=80, record=True)
    with console.capture() as printed:
        tables.print_table([row], console, 0.95)
    lines = printed.get().splitlines()
    assert len(lines) == 3, "no cell is folded"
    assert max(map(len, lines)) <= 80


def test_parameters_and_multiply_adds_are_in_the_table_where_there_is_room_and_on_the_page() -> None:
    from rich.console import Console

    results = [*costing((4.25e6, 2), (1.5e6, 0.75)), Result("n1-drq", failed="it broke")]

    def printed(width: int) -> list[str]:
        console = Console(width=width)
        with console.capture() as captured:
            tables.print_table(results, console, 0.95)
        return captured.get().splitlines()

    assert max(map(len, printed(80))) <= 80
    assert [line.split()[-1] for line in printed(80)][:1] == ["faster"]
    heading, _, dense, narrow, failed = printed(200)
    assert heading.split()[-2:] == ["parameters", "multiply-adds"]
    assert dense.endswith("50.0 k        4.25 M")
    assert narrow.endswith("50.0 k        1.50 M")
    assert failed.split() == ["n1-drq", "failed"]
    assert "| 50.0 k | 1.50 M |" in tables.markdown(results, 0.95)
    sweep = Findings("sweep", "today", (Comparison("", tuple(results), IMAGES),), Compare(), {"what": "x"})
    text = page(sweep, drawn(sweep))
    assert '<td data-value="1500000.0">1.50 M <small>50.0 k</small></td>' in text
    assert "1.50 M multiply-adds, 50.0 k parameters" in text
    headings = text.count('<th scope="col"')
    for row in re.findall(r"<tr.*?</tr>", text.partition("<tbody>")[2].partition("</tbody>")[0], re.S):
        assert row.count("<td") == headings
