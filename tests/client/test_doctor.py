"""``longspan doctor``: what it finds, and what it says a machine can hold."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from longspan.client._cli.checks import Finding, Verdict
from longspan.client._cli.checks_accelerator import accelerator
from longspan.client._cli.checks_capacity import Device, capacity, devices
from longspan.client._cli.gpus import Gpu, parse_gpus
from longspan.client._cli.known_models import KnownModel, known_models
from longspan.client._cli.probing import Kernel, Probe, run_probe
from longspan.worker.models.geometry import GPU_SHARE, HOST_SHARE, PAGE_TOKENS
from tests.client.command import longspan
from tests.client.peer import running_peer

GIB = 1 << 30
H200 = Gpu("NVIDIA H200", 141 * GIB, "9.0")
T4 = Gpu("Tesla T4", 15 * GIB, "7.5")
VOCABULARY = {"Qwen-1.5B": 151_936, "Llama": 128_256, "Qwen": 152_064}
INTERMEDIATE = {1536: 8960, 3584: 18944, 4096: 14336}


def named(findings: list[Finding], name: str) -> Finding:
    """The one finding of this name."""
    [found] = [one for one in findings if one.name == name]
    return found


async def test_the_doctor_finds_the_server_it_is_told_and_never_loads_torch_itself() -> None:
    """One run of everything: the checks pass, and torch stays in another process."""
    program = (
        "import sys\n"
        "from longspan.client.__main__ import main\n"
        "status = main(['doctor', '--json', '--server', sys.argv[1]])\n"
        'print(\'{"event": "torch", "loaded": %s}\' % str(\'torch\' in sys.modules).lower())\n'
        "sys.exit(status)\n"
    )
    async with running_peer() as (_, target):
        process = await _python("-c", program, target)
        out, _ = await process.communicate()
    lines = [json.loads(line) for line in out.decode().splitlines()]
    found = {one.get("name"): one for one in lines}
    assert process.returncode == 0, out
    assert found["python"]["verdict"] == "ok"
    assert found["server"]["detail"] == f"{target} serves"
    assert {"cpu bfloat16", "flash-attn 2", "flash-attn 3", "flash-attn 4"} <= found.keys()
    fits = [one for one in lines if one.get("device") == "cpu"]
    assert [one["model"] for one in fits] == [one.name for one in known_models()]
    assert lines[-1] == {"event": "torch", "loaded": False}


async def test_the_doctor_fails_on_a_server_or_a_model_folder_that_is_not_there(
    tmp_path: Path, without_libraries: None
) -> None:
    """What was named and does not work is status 1, with the reason."""
    done = await longspan("doctor", "--server", "127.0.0.1:1", "--model", str(tmp_path / "none"))
    assert done.status == 1
    assert "broken  server" in done.out
    assert "broken  capacity" in done.out
    assert "absent  torch              OSError: no such driver" in done.out


@pytest.fixture
def without_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch and two kernels that cannot be imported, before all others on the path."""
    folder = tmp_path / "broken"
    (folder / "flash_attn").mkdir(parents=True)
    (folder / "torch.py").write_text("raise OSError('no such driver\\nsecond line')")
    (folder / "flash_attn" / "__init__.py").write_text("import einops_that_is_absent")
    (folder / "flash_attn_interface.py").write_text("raise RuntimeError('undefined symbol')")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_libraries_that_cannot_be_imported_are_named_with_the_reason(
    without_libraries: None,
) -> None:
    """A broken build is told from an absent one, and breaks nothing but its own line."""
    probe = run_probe()
    assert (probe.torch, probe.error, probe.gpus) == ("", "OSError: no such driver", ())
    errors = {kernel.name: kernel.error for kernel in probe.kernels}
    assert "einops_that_is_absent" in errors["flash-attn 2"]
    assert errors["flash-attn 3"] == "RuntimeError: undefined symbol"
    assert errors["torch varlen"] == "OSError: no such driver"


def test_the_drivers_table_is_read() -> None:
    """Name, memory and capability; lines that say something else are passed over."""
    table = "NVIDIA H200, 143771, 9.0\nTesla T4, [N/A], 7.5\n\nNo devices were found\n"
    assert parse_gpus(table) == (Gpu("NVIDIA H200", 143_771 << 20, "9.0"),)


def test_a_gpu_that_torch_cannot_use_is_said() -> None:
    """A CPU build of torch beside a GPU is the commonest mistake of an installation."""
    probe = Probe(torch="2.9+cpu", error="", gpus=(), kernels=(), attention="cpu")
    found = named(list(accelerator(probe, (H200,))), "gpu 0")
    assert found.verdict is Verdict.ABSENT
    assert "141.0 GiB, compute capability 9.0; this torch cannot use it" in found.detail


@pytest.mark.parametrize(("gpus", "verdict"), [((H200,), "broken"), ((), "absent")])
def test_a_broken_kernel_is_a_fault_only_where_there_is_a_gpu(
    gpus: tuple[Gpu, ...], verdict: str
) -> None:
    """A worker on a GPU takes what is installed; on a CPU nobody asks for it."""
    kernels = (Kernel("flash-attn 3", "", "ImportError: x"), Kernel("flash-attn 2", "2.8.3", ""))
    probe = Probe(torch="2.9", error="", gpus=gpus, kernels=kernels, attention="flash-attn 2")
    found = list(accelerator(probe, gpus))
    assert named(found, "flash-attn 3").verdict.value == verdict
    assert named(found, "flash-attn 2").detail == "2.8.3"


@pytest.mark.parametrize("model", known_models(), ids=lambda model: model.name)
def test_the_parameters_of_the_known_models_agree_with_their_sizes(model: KnownModel) -> None:
    """The published count is what embeddings, attention and feed-forward layers add up to."""
    hidden, layers = model.config["hidden_size"], model.config["num_hidden_layers"]
    heads, kv_heads = model.config["num_attention_heads"], model.config["num_key_value_heads"]
    wide = INTERMEDIATE.get(hidden) or (13824 if layers == 48 else 27648)
    llama = "Llama" in model.name
    vocabulary = VOCABULARY["Llama" if llama else "Qwen-1.5B" if hidden == 1536 else "Qwen"]
    kv = hidden // heads * kv_heads
    attention = 2 * hidden * hidden + 2 * hidden * kv + (0 if llama else hidden + 2 * kv)
    layer = attention + 3 * hidden * wide + 2 * hidden
    assert model.parameters == layers * layer + 2 * vocabulary * hidden + hidden


def test_what_fits_is_what_the_weights_leave() -> None:
    """The 7B model on a T4, which has no bfloat16: 4 bytes a number do not fit in 15 GiB."""
    places = devices((H200, H200, T4))
    assert [place.name for place in places] == ["NVIDIA H200", "Tesla T4", "cpu"]
    assumed, *fits = capacity(None, places)
    assert "nothing else in memory" in assumed.detail
    found = {(one.facts["device"], one.facts["model"]): one for one in fits}
    fitting = found["NVIDIA H200", "DeepSeek-R1-Distill-Qwen-32B"]
    left = int((141 * GIB - 2 * 32_763_876_352) * GPU_SHARE)
    kv_bytes = 64 * 2 * 8 * 128 * 2
    assert fitting.facts["kv_bytes_per_token"] == kv_bytes
    whole = min(131_072, left // (256 * kv_bytes) * 256)
    tokens = dict.fromkeys(("full", "hybrid", "hierarchical", "hybrid-exact"), whole)
    copies = 48 * 8 * (256 * (64 + 2) + 4 * 128)
    tokens["hybrid-4bit"] = min(131_072, left // (256 * kv_bytes + copies) * 256)
    tokens |= {"window": 131_072, "summary": 131_072, "lean": 131_072}
    host = fitting.facts["kv_host_bytes"] // (48 * 2 * 8 * 128 * 2 * 256)
    tokens["hybrid-host"] = min(131_072, host * 256)
    assert fitting.facts["tokens"] == tokens
    assert found["Tesla T4", "DeepSeek-R1-Distill-Qwen-7B"].verdict is Verdict.ABSENT
    assert "weights do not fit" in found["Tesla T4", "DeepSeek-R1-Distill-Qwen-7B"].detail


def test_a_folder_is_measured_by_its_own_files(tmp_path: Path) -> None:
    """Weights by the headers of the safetensors, KV by config.json."""
    _folder(tmp_path)
    kv_bytes = 2 * 2 * 2 * 16 * 4
    memory = 4_000 + int(3 * 256 * kv_bytes / HOST_SHARE)
    _, found = capacity(tmp_path, [Device("cpu", memory, bfloat16=False)])
    assert found.facts["weight_bytes"] == 4_000
    tokens = {
        "full": 768,
        "hybrid": 768,
        "hierarchical": 768,
        "hybrid-exact": 768,
        "hybrid-host": 0,
        "hybrid-4bit": 512,
        "window": 768,
        "summary": 512,
        "lean": 512,
    }
    assert found.facts["tokens"] == tokens
    _, less = capacity(tmp_path, [Device("cpu", memory - 2, bfloat16=False)])
    assert less.facts["tokens"]["full"] == 512


@pytest.mark.parametrize(("name", "torch_name"), [("cpu", "cpu"), ("NVIDIA H200", "cuda:0")])
def test_what_is_promised_is_what_a_worker_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, torch_name: str
) -> None:
    """The same pages as a worker counts, where the weights are all that is in memory."""
    import torch

    from longspan.worker.generation import kv_memory
    from longspan.worker.models.probe import LayerShape

    memory = 10_000_000
    _folder(tmp_path)
    _, found = capacity(tmp_path, [Device(name, memory, bfloat16=False)])
    monkeypatch.setattr(kv_memory, "free_bytes", lambda device: memory - 4_000)
    shapes = [LayerShape(4, 2, 16, 16, latent=False)] * 2
    page_bytes = 256 * 4 * sum(shape.numbers for shape in shapes)
    pages = kv_memory.frame_count(page_bytes, (1,), torch.device(torch_name), None)
    assert found.facts["tokens"]["full"] == pages * PAGE_TOKENS
    assert f"{found.facts['kv_share']:.0%} of the rest" in found.detail


def _folder(path: Path) -> None:
    """Four thousand bytes of weights, and layers that keep 512 bytes for a token."""
    config = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4}
    config |= {"num_key_value_heads": 2, "max_position_embeddings": 1 << 20}
    (path / "config.json").write_text(json.dumps(config))
    save_file({"a": np.zeros((100, 10), np.float16)}, path / "model.safetensors")


@pytest.mark.parametrize("config", ["[]", "{", "{}"])
def test_a_folder_that_says_nothing_of_its_size_is_a_fault(tmp_path: Path, config: str) -> None:
    """The finding names the folder instead of guessing."""
    (tmp_path / "config.json").write_text(config)
    [found] = capacity(tmp_path, [Device("cpu", GIB, bfloat16=False)])
    assert found.verdict is Verdict.BROKEN
    assert str(tmp_path) in found.detail


def test_without_a_worker_the_capacity_is_not_known() -> None:
    """A client-only installation says so, and goes on."""
    program = (
        "import sys\n"
        "sys.modules['longspan.worker'] = None\n"
        "from longspan.client._cli.checks_capacity import Device, capacity\n"
        "[one] = capacity(None, [Device('cpu', 1, False)])\n"
        "print(one.verdict.value, one.detail)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("absent not known without a worker: no longspan.worker")


async def _python(*arguments: str) -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if "LONGSPAN" not in name}
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, env=environment
    )
