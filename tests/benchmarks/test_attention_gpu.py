"""What is measured on a GPU runs on a CPU in small."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from benchmarks.attention_gpu import Bench, Sizes, depths, integrated, measure
from benchmarks.attention_layer import Geometry
from benchmarks.generation_gpu import Ceilings
from benchmarks.generation_models import ModelSize
from benchmarks.policies_gpu import ALL_SELECT, Part
from benchmarks.policies_gpu import measure as read_all

from longspan.worker.attention.base import Backend
from longspan.worker.attention.cpu import CpuBackend

SIZES = Sizes(1536, (3072,), 6144, depths=2, decodes=((2, 6144),), rounds=1, layers=1)


def test_every_policy_is_measured_on_every_kernel() -> None:
    """Full attention has a ratio of at most 1 to the fastest full one; rows say what was done."""
    geometry = Geometry(2, 1, 16, torch.device("cpu"), torch.float32)
    kernels: dict[str, Backend] = {"cpu": CpuBackend(), "the same again": CpuBackend()}
    rows = list(measure(Bench(kernels, geometry, Ceilings(1e12, 1e11), SIZES)))
    works = [str(row["work"]) for row in rows]
    assert works.count("prefill of 3072") == 10
    assert works.count("prefill of 6144") == 6  # the second kernel's full attention alone
    assert works.count("2 tokens behind 6144") == 8
    assert sum(work.startswith("selecting pages") for work in works) == 2
    full = [row["full's time / its"] for row in rows if row["policy"] == "full"]
    assert full.count(1.0) >= 3
    assert all(float(str(ratio)) <= 1.0 for ratio in full)


def test_chunks_between_those_timed_are_interpolated() -> None:
    """Full attention's chunks grow evenly, so that a few tell the sum of all."""
    assert depths(Sizes(), 1_048_576) == [0, 16, 32, 47, 63]
    assert depths(Sizes(), 131_072) == list(range(8))
    sizes = replace(Sizes(), depths=2)
    timed = depths(sizes, 1_048_576)
    assert integrated(timed, [1.0 + chunk for chunk in timed], 64) == pytest.approx(64 * 65 / 2)


def test_prompts_are_read_under_each_policy() -> None:
    """The one of the policy file, too; what a policy sees is in its row."""
    size = ModelSize(hidden=64, intermediate=64, layers=1, heads=1, kv_heads=1, vocabulary=500)
    policies = ("full", "window", ALL_SELECT)
    part = Part(size, 32_768, (17_408,), 512, "cpu", "float32", 4096, policies)
    rows = list(read_all(part))
    assert [str(row["policy"]).replace(" ", "-") for row in rows] == list(policies)
    full, window, selecting = (float(str(row["keys seen"])[:-1]) for row in rows)
    assert window < selecting < full == 100.0
