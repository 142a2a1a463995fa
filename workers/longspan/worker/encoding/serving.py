"""An encoder, ready to serve."""

from __future__ import annotations

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.encoding.encoder import Encoder
from longspan.worker.encoding.loading import load_encoder
from longspan.worker.encoding.workload import Encoding
from longspan.worker.gpus import open_gpu
from longspan.worker.limits import StepLimits
from longspan.worker.model_files import ModelFiles, find_model
from longspan.worker.options import WorkerOptions
from longspan.worker.resources import resident_bytes
from longspan.worker.served import Served


def serve_encoder(options: WorkerOptions) -> Served:
    """Load and check the encoder.

    Raises:
        StartFailure: it cannot be loaded as configured.
    """
    files = find_model(options.model)
    encoder = load_encoder(files, device=options.device, dtype=options.dtype)
    limits = step_limits(encoder, options.step_tokens)
    gpu = open_gpu(encoder.device)
    return Served(
        ready=_ready(files, encoder),
        open=lambda _: Encoding(encoder.run, rules=encoder.rules, limits=limits),
        look=lambda: pb.Resources(memory_bytes=resident_bytes(), gpus=gpu.read()),
    )


def step_limits(encoder: Encoder, step_tokens: int | None) -> StepLimits:
    """The step's size: as asked, else by device; never too small for the longest text."""
    default = StepLimits()
    budget = step_tokens or encoder.step_tokens(default.budget_tokens)
    return StepLimits(budget_tokens=max(budget, encoder.rules.max_tokens), texts=default.texts)


def _ready(files: ModelFiles, encoder: Encoder) -> pb.Event:
    return pb.Event(
        ready=pb.Ready(
            model=files.name,
            fingerprint=files.fingerprint,
            dtype=str(encoder.dtype).removeprefix("torch."),
            dimension=encoder.rules.dimension,
            max_tokens=encoder.rules.max_tokens,
            device=str(encoder.device),
        )
    )
