"""Figures as files and as parts of the page: SVG that takes its colours and font from the page, and PNG."""

import functools
import io
import multiprocessing
import os
import re
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from src.results.comparison import Comparison, DamagedImage, Findings
from src.results.report.figures import figures
from src.results.report.look import COLOURS, short
from src.settings.sections import Compare

SMALLEST_PICTURE = 96  # pixels
MANY_COMPARISONS = 8  # take longer to draw than more processes to start


@dataclass(frozen=True)
class Drawn:
    """The figures of a comparison by name: for the page, wide and narrow, and as PNG files."""

    svg: Mapping[str, Sequence[str]]
    png: Mapping[str, bytes]


def drawn(findings: Findings) -> list[Drawn]:
    """The figures of every comparison; of many, on all cores."""
    every = list(enumerate(findings.comparisons))
    draw = functools.partial(_drawn, judged=findings.judged)
    if len(every) < MANY_COMPARISONS:
        return list(map(draw, every))
    # Ctrl-C is the parent's to answer.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), spawn, initializer=signal.signal, initargs=ignore) as processes:
        return list(processes.map(draw, every))


def _drawn(numbered: tuple[int, Comparison], judged: Compare) -> Drawn:
    index, comparison = numbered
    wide = figures(comparison, judged)
    narrow = figures(comparison, judged, "narrow")
    files = {name: png(figure) for name, figure in wide.items()}
    if comparison.damaged:
        files["damaged_images"] = pictures(comparison.damaged)
    on_page = {
        name: [svg(wide[name], f"{name}-wide-{index}"), svg(narrow[name], f"{name}-narrow-{index}")] for name in wide
    }
    return Drawn(on_page, files)


def svg(figure: Figure, name: str) -> str:
    """As an `<svg>` element for the page: text stays text, colours are variables, and what has a gid has
    `data-variant`. `name` keeps the ids of several figures apart."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    drawn = text.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.S)
    drawn = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" class="{name}" role="img">', drawn)
    drawn = re.sub(r'id="variant:([^"]*)"', r'data-variant="\1"', drawn)
    drawn = re.sub(r' id="(?!p|m|C)[^"]*"', "", drawn)
    drawn = re.sub(r"(font: [\d.]+px )[^;\"]*", r"\1var(--font)", drawn)
    drawn = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{name}-", drawn)
    for variable, colour in COLOURS.items():
        drawn = drawn.replace(colour, f"var(--{variable})")
    return drawn


def png(figure: Figure) -> bytes:
    """At 160 dots per inch, on white."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=160, facecolor=COLOURS["paper"], metadata={"Software": None})
    return picture.getvalue()


def picture(pixels: np.ndarray) -> Image.Image:
    """uint8 `[height, width, channels]` as large as it is to be looked at: small ones enlarged without smoothing."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if image.width < SMALLEST_PICTURE:
        factor = -(-SMALLEST_PICTURE // image.width)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((2 * SMALLEST_PICTURE, 2 * SMALLEST_PICTURE))
    return image


def pictures(damaged: Sequence[DamagedImage]) -> bytes:
    """The damaged images side by side, each under its true class, as PNG."""
    drawn = [picture(image.pixels) for image in damaged]
    side, columns = 2 * SMALLEST_PICTURE, min(6, len(damaged))
    height = max(one.height for one in drawn) + 56
    sheet = Image.new("RGB", ((side + 16) * columns, height * -(-len(damaged) // columns)), COLOURS["paper"])
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for position, (image, one) in enumerate(zip(damaged, drawn, strict=True)):
        line, column = divmod(position, columns)
        middle, top = (side + 16) * column + (side + 16) // 2, height * line
        wrong = max(image.wrong.values(), key=list(image.wrong.values()).count)
        said = f"{short(image.label, 22)}\n{len(image.wrong)} wrong, most {short(wrong, 10)}"
        draw.multiline_text((middle, top + 6), said, COLOURS["ink"], font, anchor="ma", align="center")
        sheet.paste(one, (middle - one.width // 2, top + 50))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()
