"""``longspan fidelity``: what attention policies cost a checkpoint in accuracy."""

from __future__ import annotations

import json as json_module

import typer

from longspan.client._cli.fidelity_options import (
    CalibrationChoice,
    GridChoice,
    Model,
    ReadingChoice,
    arguments,
)
from longspan.client._cli.fidelity_table import Tables
from longspan.client._cli.measuring import Failed, events
from longspan.client._cli.options import Json


def fidelity(
    model: Model,
    reading_choice: ReadingChoice,
    grid_choice: GridChoice,
    calibration_choice: CalibrationChoice,
    json: Json = False,
) -> None:
    """Measure what attention policies cost a decoder, or make a policy for it.

    Lengths by depths by policies: a number is hidden in long text and asked for; and what the
    policy sees and computes is compared with full attention. Writes fidelity.json, and a heat map
    where matplotlib is installed. With --calibrate: finds the layers that need the whole document.
    """
    tables = Tables()
    options = arguments(reading_choice, grid_choice, calibration_choice)
    try:
        for event in events([f"--model={model}", *options]):
            if json:
                print(json_module.dumps(event), flush=True)
            else:
                tables.event(event)
    except Failed as failed:
        raise typer.Exit(failed.status) from failed
