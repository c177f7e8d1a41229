"""Results → tables, figures, page. Pure: rows in, text and pictures out."""

from src.results.report.rows import Comparison, Damaged, Effect, Origin, Row, Sweep, duplicates, ordered
from src.results.report.tables import as_csv, as_json, markdown, print_table

__all__ = [
    "Comparison",
    "Damaged",
    "Effect",
    "Origin",
    "Row",
    "Sweep",
    "as_csv",
    "as_json",
    "duplicates",
    "markdown",
    "ordered",
    "print_table",
]
