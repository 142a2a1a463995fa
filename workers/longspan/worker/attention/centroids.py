"""What is kept of pages for those who do not look into them: mean keys and mean values."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longspan.worker.attention.policy import CENTROID_TOKENS


@dataclass(frozen=True, slots=True, eq=False)
class Centroids:
    """The mean key and value of every part of a page, one slot a page.

    Attributes:
        keys: [kv_heads, slots, parts, d].
        values: [kv_heads, slots, parts, dv]; a view of the keys where the model caches latents.
        tokens: how many tokens one part has.
    """

    keys: torch.Tensor
    values: torch.Tensor
    tokens: int = CENTROID_TOKENS

    @property
    def parts(self) -> int:
        """Centroids of one page."""
        return self.keys.shape[2]

    def write(self, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Take the means of whole pages.

        ``slots`` is int64 [pages]; ``keys`` and ``values`` are [pages, kv_heads, page tokens, d]
        and [.., dv].
        """
        self.keys[:, slots] = means(keys, self.tokens).to(self.keys.dtype)
        if self.keys.data_ptr() != self.values.data_ptr():
            self.values[:, slots] = means(values, self.tokens).to(self.values.dtype)


def make_centroids(
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    tokens: int = CENTROID_TOKENS,
    pages: int | None = None,
) -> Centroids:
    """Room for the centroids of a pool, or of so many pages, uninitialised.

    ``keys`` is [pages, kv_heads, page tokens, d], ``values`` [.., dv] or a view of the keys.
    """
    lying, kv_heads, page_tokens, d = keys.shape
    assert page_tokens % tokens == 0
    shape = (kv_heads, lying if pages is None else pages, page_tokens // tokens)
    means_of_keys = keys.new_empty(*shape, d)
    if keys.data_ptr() == values.data_ptr():
        return Centroids(means_of_keys, means_of_keys[..., : values.shape[-1]], tokens)
    return Centroids(means_of_keys, values.new_empty(*shape, values.shape[-1]), tokens)


def means(pages: torch.Tensor, tokens: int) -> torch.Tensor:
    """The mean of every ``tokens`` of whole pages, in float32.

    ``pages`` is [pages, kv_heads, page tokens, d]; the result [kv_heads, pages, parts, d].
    """
    parts = pages.view(*pages.shape[:2], -1, tokens, pages.shape[3])
    return parts.mean(3, dtype=torch.float32).transpose(0, 1)
