"""``fidelity.json`` and the heat maps beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from longspan.worker.failures import StartFailure

JSON, IMAGE = "fidelity.json", "fidelity.png"
VERSION = 1
NO_IMAGE = "no heat map without matplotlib: pip install 'longspan[fidelity]'"
Cell = Mapping[str, Any]


def make_folder(folder: Path) -> None:
    """Make the folder of the report before anything is measured.

    Raises:
        StartFailure: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartFailure(f"folder {folder} cannot be made: {error.strerror}") from error


def write_json(folder: Path, model: Mapping[str, Any], cells: Sequence[Cell]) -> Path:
    """Write all numbers."""
    path = folder / JSON
    content = {"version": VERSION, "model": model, "cells": cells}
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return path


def can_draw() -> bool:
    """True where matplotlib is installed."""
    return find_spec("matplotlib") is not None


def write_image(folder: Path, cells: Sequence[Cell]) -> Path:
    """Draw a map for each policy: lengths across, depths down, a cross where the number was
    not in the answer, and as colour its probability a token."""
    figures: Any = import_module("matplotlib.figure")
    policies = list(dict.fromkeys(cell["policy"] for cell in cells))
    lengths = sorted({cell["length"] for cell in cells})
    depths = sorted({cell["depth"] for cell in cells})
    size = (2.2 + len(policies) * (1.2 + 0.6 * len(lengths)), 2.2 + 0.4 * len(depths))
    figure = figures.Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(policies), squeeze=False, sharey=True)[0]
    for axis, policy in zip(axes, policies, strict=True):
        of_policy = {(c["depth"], c["length"]): c for c in cells if c["policy"] == policy}
        image = _draw(axis, policy, of_policy, depths, lengths)
    axes[0].set_ylabel("depth of the hidden number")
    figure.colorbar(image, ax=axes, label="probability of a token of the number")
    path = folder / IMAGE
    figure.savefig(path, dpi=150)
    return path


def _draw(
    axis: Any,
    policy: str,
    cells: Mapping[tuple[float, int], Cell],
    depths: Sequence[float],
    lengths: Sequence[int],
) -> Any:
    import numpy as np

    logs = [[cells[depth, length]["log_probability"] for length in lengths] for depth in depths]
    image = axis.imshow(np.exp(logs), vmin=0.0, vmax=1.0, cmap="viridis", aspect="auto")
    axis.set_title(policy)
    axis.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths], rotation=45)
    axis.set_yticks(range(len(depths)), [f"{depth:g}" for depth in depths])
    axis.set_xlabel("tokens")
    for row, depth in enumerate(depths):
        for column, length in enumerate(lengths):
            if not cells[depth, length]["found"]:
                axis.text(column, row, "×", color="white", ha="center", va="center")
    return image
