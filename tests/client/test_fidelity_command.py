"""``longspan fidelity`` as a process: its tables, its files, and how it fails."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from longspan.client._cli.fidelity_options import (
    CalibrationChoice,
    GridChoice,
    Kept,
    ReadingChoice,
    arguments,
)
from longspan.client._cli.fidelity_table import cell_row, layer_row
from tests.client.command import longspan
from tests.worker.decoders import CHATML
from tests.worker.planted import LAYER, planted_decoder

POLICY: dict[str, Any] = {
    "version": 1,
    "name": "few",
    "layers": [
        {"kind": "full"},
        {"kind": "window", "prefix_pages": 1, "window_pages": 1},
        {"kind": "hybrid", "prefix_pages": 1, "window_pages": 1, "selected_pages": 1},
    ],
}
CELL = {
    "length": 32_768, "depth": 0.5, "policy": "window", "found": False, "rank": 1234,
    "log_probability": -9.876, "mass": 0.5, "mass_p5": 0.125, "error": 0.25,
    "perplexity_change": 0.031, "kv_bytes": 3 << 19, "prefill_s": 1.234, "token_s": 0.0123,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of which one kv head looks everywhere."""
    pytest.importorskip("torch", reason="needs a worker")
    folder = Path(tmp_path_factory.mktemp("planted"))
    return planted_decoder(folder, context_tokens=4096, chat_template=CHATML)


async def test_a_grid_is_a_table_a_file_and_a_map(folder: Path, tmp_path: Path) -> None:
    """Every length, depth and policy has its line; full attention is there unasked, and first."""
    policy = tmp_path / "few.json"
    policy.write_text(json.dumps(POLICY))
    done = await longspan(
        "fidelity", "--model", str(folder), "--dtype", "float32", "--lengths", "1500,1800",
        "--depths", "0.2,0.5", "--policies", f"window,{policy}", "--answer-tokens", "3",
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.status == 0, done.err
    head, *rows = done.out.splitlines()
    assert head.split()[:4] == ["tokens", "depth", "policy", "found"]
    places = [(row.split()[0], row.split()[1]) for row in rows]
    assert places[::3] == [("1,500", "0.2"), ("1,500", "0.5"), ("1,800", "0.2"), ("1,800", "0.5")]
    assert [row.split()[2] for row in rows] == ["full", "window", "few"] * 4
    assert all(row.split()[6:9] == ["100.0%", "100.0%", "0.0%"] for row in rows[::3])
    assert "3 layers, float32 on cpu, asked in its chat template" in done.err
    content = json.loads((tmp_path / "out" / "fidelity.json").read_text())
    assert [" ".join(cell_row(cell)).split() for cell in content["cells"]] == [
        row.split() for row in rows
    ]
    few = content["cells"][-1]
    assert few["layers"][0] == {"mass": 1.0, "mass_p5": 1.0, "error": 0.0}
    assert few["layers"][1]["mass"] < 1


async def test_calibration_is_a_table_and_a_policy(folder: Path, tmp_path: Path) -> None:
    """The planted layer sees everything, the others get a window."""
    path = tmp_path / "policy.json"
    done = await longspan(
        "fidelity", "--model", str(folder), "--dtype", "float32", "--lengths", "2048",
        "--window-pages", "1", "--calibrate", str(path),
    )  # fmt: skip
    assert done.status == 0, done.err
    kinds = [row.split()[1] for row in done.out.splitlines()[1:]]
    assert kinds == ["full" if layer == LAYER else "window" for layer in range(3)]
    assert "short: 2048 tokens are 2.7 times what the window sees" in done.err
    content = json.loads(path.read_text())
    assert (content["name"], content["calibration"]["text"]) == ("calibrated", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--model", "nowhere", "--lengths", "long"], "argument --lengths"), ([], "--model")],
)
async def test_a_wrong_option_is_a_fault_of_usage(options: list[str], message: str) -> None:
    done = await longspan("fidelity", *options)
    assert done.status == 2
    assert message in done.err
    assert done.out == ""


async def test_torch_is_loaded_by_another_process_and_missed_by_its_name() -> None:
    """The command line itself never imports it, and says how to get it."""
    program = (
        "import sys\n"
        "from longspan.client.__main__ import main\n"
        "status = main(['fidelity', '--model', 'nowhere'])\n"
        "assert status == 1 and 'torch' not in sys.modules\n"
        "sys.modules['torch'] = None\n"
        "assert main(['fidelity', '--model', 'nowhere']) == 1\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 0, err
    lines = err.decode().splitlines()
    assert lines == [
        "longspan: model folder nowhere does not exist",
        "longspan: fidelity needs torch: pip install 'longspan[worker]'",
    ]


def test_numbers_are_shown_as_people_read_them() -> None:
    assert cell_row(CELL) == (
        "32,768", "0.5", "window", "no", "1,234", "-9.88", "50.0%", "12.5%", "25.0%", "+3.1%",
        "1.5", "1.23", "12.3",
    )  # fmt: skip
    assert cell_row(CELL | {"log_probability": -0.0001})[5] == "0.00"
    layer = {"layer": 3, "kind": "full", "lost_mass": [0.1, 0.2], "output_error": [0.5, 0.4]}
    assert layer_row(layer | {"needs_document": [True, True]}) == (
        "3", "full", "20.0%", "50.0%", "0, 1",
    )  # fmt: skip
    assert layer_row(layer | {"needs_document": [False, False]})[-1] == "none"
    assert layer_row({"layer": 0, "kind": "full", "own_window": True})[:2] == ("0", "its own")


def test_what_was_not_said_is_left_to_the_program() -> None:
    given = arguments(
        ReadingChoice(lengths="1,2"), GridChoice(), CalibrationChoice(kept=Kept.HYBRID)
    )
    assert list(given) == ["--dtype=auto", "--device=cpu", "--lengths=1,2", "--kept=hybrid"]
