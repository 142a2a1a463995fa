"""A rotation that spreads what is large in a few numbers over many: Walsh and Hadamard's.

A product of two vectors stays what it was when both are rotated, and a vector whose numbers are
alike is stored in few bits with less loss (QuaRot, arXiv:2404.00456).
"""

from __future__ import annotations

import torch


def hadamard(d: int, device: torch.device) -> torch.Tensor:
    """The rotation of vectors of ``d`` numbers, float32 [m, m]; it is its own inverse.

    ``m`` is the largest power of two that divides ``d``: so many neighbours are mixed.
    """
    matrix = torch.ones(1, 1, device=device)
    while len(matrix) < (d & -d):
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix.div_(len(matrix) ** 0.5)


def rotated(vectors: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """``vectors`` [.., d] rotated, in float32."""
    parts = vectors.reshape(-1, len(rotation)).float()
    return (parts @ rotation).view(vectors.shape)
