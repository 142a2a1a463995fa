"""Fidelity as tables on a terminal, row by row while it is measured."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

Event = dict[str, Any]
MIB = 1 << 20

CELL = (
    ("tokens", 7),
    ("depth", 5),
    ("policy", 12),
    ("found", 5),
    ("rank", 6),
    ("log p", 7),
    ("mass", 6),
    ("p5", 6),
    ("error", 6),
    ("ppl", 7),
    ("KV MiB", 8),
    ("prefill s", 9),
    ("token ms", 8),
)
LAYER = (("layer", 5), ("policy", 8), ("lost mass", 9), ("error", 7), ("kv heads that need all", 0))


class Tables:
    """Prints events to standard output; what is no result to standard error."""

    def __init__(self) -> None:
        self._headed = False

    def event(self, event: Event) -> None:
        """Print one event."""
        match event["event"]:
            case "model":
                print(_model(event), file=sys.stderr, flush=True)
            case "cell":
                self._row(CELL, cell_row(event))
            case "layer":
                self._row(LAYER, layer_row(event))
            case "note":
                print(event["message"], file=sys.stderr, flush=True)
            case "written":
                print(f"wrote {event['path']}", file=sys.stderr, flush=True)

    def _row(self, columns: Sequence[tuple[str, int]], values: Sequence[str]) -> None:
        if not self._headed:
            self._headed = True
            print(_line(columns, [name for name, _ in columns]))
        print(_line(columns, values), flush=True)


def cell_row(cell: Event) -> tuple[str, ...]:
    """One measurement, as text."""
    return (
        f"{cell['length']:,}",
        f"{cell['depth']:g}",
        cell["policy"],
        "yes" if cell["found"] else "no",
        f"{cell['rank']:,}",
        f"{round(cell['log_probability'], 2) + 0.0:.2f}",  # no minus before zero
        f"{cell['mass']:.1%}",
        f"{cell['mass_p5']:.1%}",
        f"{cell['error']:.1%}",
        f"{cell['perplexity_change']:+.1%}",
        f"{cell['kv_bytes'] / MIB:,.1f}",
        f"{cell['prefill_s']:.2f}",
        f"{1000 * cell['token_s']:.1f}",
    )


def layer_row(layer: Event) -> tuple[str, ...]:
    """What a window would lose in one layer, as text: the numbers of its worst kv heads."""
    if layer.get("own_window"):
        return (str(layer["layer"]), "its own", "", "", "")
    needing = [str(head) for head, needs in enumerate(layer["needs_document"]) if needs]
    return (
        str(layer["layer"]),
        layer["kind"],
        f"{max(layer['lost_mass']):.1%}",
        f"{max(layer['output_error']):.1%}",
        ", ".join(needing) or "none",
    )


def _line(columns: Sequence[tuple[str, int]], values: Sequence[str]) -> str:
    cells = [
        value.ljust(width) if name in ("policy", "kv heads that need all") else value.rjust(width)
        for (name, width), value in zip(columns, values, strict=True)
    ]
    return "  ".join(cells).rstrip()


def _model(model: Event) -> str:
    prompt = "its chat template" if model["chat_template"] else "plain text"
    return (
        f"{model['name']}: {model['layers']} layers, {model['dtype']} on {model['device']}, "
        f"asked in {prompt}"
    )
