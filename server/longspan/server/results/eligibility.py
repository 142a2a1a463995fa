"""Which requests may be answered with an answer given before. Pure."""

from __future__ import annotations

from enum import Enum, auto

from longspan.server.decoder.options import GenerationOptions
from longspan.v1 import inference_service_pb2 as pb


class Mode(Enum):
    """What a request says about the result cache."""

    DEFAULT = auto()
    OFF = auto()
    FORCE = auto()


class Eligibility(Enum):
    """What becomes of a request."""

    NO = auto()
    YES = auto()
    # If the server draws the same seed for the same request.
    WITH_SEED = auto()


def eligibility(mode: Mode, options: GenerationOptions | None, *, any_seed: bool) -> Eligibility:
    """Whether the same request must have the same answer, or may have it.

    Args:
        options: None for an extractive answer, which is a function of the request.
        any_seed: the caller would take any other seed as well.
    """
    if mode is Mode.OFF:
        return Eligibility.NO
    if options is None or options.temperature == 0:
        return Eligibility.YES
    if options.seed is not None and not any_seed:
        return Eligibility.YES
    return Eligibility.WITH_SEED if mode is Mode.FORCE else Eligibility.NO


def was_cut_short(completed: pb.Completed, max_tokens: int) -> bool:
    """Whether the server's memory ended an answer, of which it may have more another time."""
    at_length = completed.finish_reason == pb.FINISH_REASON_LENGTH
    return at_length and completed.usage.output_tokens < max_tokens
