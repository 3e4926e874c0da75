"""Printed tables."""

from collections.abc import Sequence
from typing import Any

from agent.records.console import format_return

_HEADER = ("agent", "env", "step", "episodes", "mean", "std", "median", "min", "max", "IQM", "95 % interval", "length")
_STATISTICS = ("return_mean", "return_std", "return_median", "return_min", "return_max", "return_iqm")


def show_evaluations(results: Sequence[dict[str, Any]]) -> None:
    """Prints the table, and below it the human-normalised scores of the games that have one."""
    print(evaluation_table(results))
    for result in results:
        if "human_normalised" in result:
            print(f"human-normalised score of {result['label']}: {100 * result['human_normalised']:.1f} %")


def evaluation_table(results: Sequence[dict[str, object]]) -> str:
    """Formats one line for each agent, below a header."""
    return aligned([_HEADER, *map(_evaluation_row, results)])


def _evaluation_row(result: dict[str, Any]) -> list[str]:
    low, high = result["return_ci95"]
    return [
        *(str(result[name]) for name in ("label", "env", "global_step", "episodes")),
        *(format_return(result[name]) for name in _STATISTICS),
        f"{format_return(low)} … {format_return(high)}",
        f"{result['length_mean']:.1f}",
    ]


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Formats rows of equal length as lines; each column is as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
