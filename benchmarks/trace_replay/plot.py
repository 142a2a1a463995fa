"""Hit rates over capacity, one panel a trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

_COLOURS = [f"C{number}" for number in range(10)] + ["navy", "darkgreen", "gold"]
_MARKERS = "os^vDPX*<>h"


def write_plot(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A line for each cache; dashed, the bound of a cache without end."""
    figures: Any = import_module("matplotlib.figure")
    traces = list(dict.fromkeys(row["trace"] for row in rows))
    figure = figures.Figure(figsize=(5.5 * len(traces), 5.5), layout="constrained")
    axes = figure.subplots(1, len(traces), squeeze=False)[0]
    for axis, trace in zip(axes, traces, strict=True):
        _draw(axis, trace, [row for row in rows if row["trace"] == trace])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)


def _draw(axis: Any, trace: str, rows: Sequence[Mapping[str, Any]]) -> None:
    for number, cache in enumerate(dict.fromkeys(row["cache"] for row in rows)):
        own = [row for row in rows if row["cache"] == cache]
        rates = [row["blocks %"] for row in own]
        if own[0]["capacity %"] == "":
            axis.axhline(rates[0], color="black", linestyle="--", linewidth=1, label=cache)
            continue
        capacities = [row["capacity %"] for row in own]
        look = {"color": _COLOURS[number % len(_COLOURS)], "marker": _MARKERS[number % 11]}
        axis.plot(capacities, rates, label=cache, ms=4, linewidth=1, **look)
    axis.set_title(trace)
    axis.set_xlabel("capacity, % of the distinct blocks")
    axis.set_ylabel("blocks found, %")
    axis.grid(alpha=0.3)
