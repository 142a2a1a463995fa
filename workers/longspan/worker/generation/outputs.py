"""Makes the outputs of one model's sequences."""

from __future__ import annotations

from typing import Any

from longspan.worker.models.decoder_files import DecoderFiles
from longspan.worker.models.vocabulary import open_tokenizer
from longspan.worker.sampling.detokeniser import Detokeniser
from longspan.worker.sampling.grammar import Grammars
from longspan.worker.sampling.output import Output
from longspan.worker.sampling.params import SamplingParams
from longspan.worker.sampling.pieces import Pieces


class Outputs:
    """What all sequences share: the tokenizer's pieces, and its grammars.

    Raises:
        StartFailure: the tokenizer cannot be streamed or constrained.
    """

    def __init__(self, files: DecoderFiles) -> None:
        tokenizer: Any = open_tokenizer(files.folder, files.vocabulary)
        self._pieces = Pieces(tokenizer)
        self._grammars = Grammars(tokenizer, files.vocabulary, files.stop_tokens)
        self._stop_tokens = files.stop_tokens
        self.vocabulary = files.vocabulary

    def open(self, params: SamplingParams) -> Output:
        """A fresh output.

        Raises:
            BadGrammar: the request's grammar does not compile.
        """
        constraint = self._grammars.compile(params.grammar) if params.grammar else None
        return Output(params, Detokeniser(self._pieces), self._stop_tokens, constraint)
