"""``python -m longspan.worker``: one worker process."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from longspan.worker.allocator import one_arena
from longspan.worker.failures import StartFailure, UnforeseenFailure, loading
from longspan.worker.logs import log_to_stderr


def positive(text: str) -> int:
    """A whole number above zero, from the command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def batches(text: str) -> tuple[int, int, int]:
    """Three batch sizes, from the command line."""
    smallest, optimum, largest = (positive(part) for part in text.split(","))
    if not smallest <= optimum <= largest:
        raise argparse.ArgumentTypeError(f"{text} does not ascend")
    return smallest, optimum, largest


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="longspan-worker", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="unix socket to serve on")
    parser.add_argument(
        "--model", required=True, help="a Hugging Face model folder; 'embedded' for its encoder"
    )
    parser.add_argument("--role", choices=["encoder", "decoder"], default="encoder")
    parser.add_argument(
        "--dtype", choices=["auto", "float32", "bfloat16", "float16"], default="auto"
    )
    parser.add_argument("--threads", type=positive, help="CPU threads (default: one a core)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument(
        "--step-tokens", type=positive, help="tokens of one engine step (default: by device)"
    )
    parser.add_argument(
        "--kv-bytes", type=positive, help="memory for KV pages (default: by device)"
    )
    parser.add_argument(
        "--kv-tokens", type=positive, help="tokens that the KV pages must hold, whatever is free"
    )
    parser.add_argument(
        "--replicas",
        type=positive,
        default=1,
        help="decoders that share this device's memory, for the default of --kv-bytes",
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile the decoder with torch.compile"
    )
    parser.add_argument(
        "--decode-batches",
        type=batches,
        default=(1, 16, 32),
        metavar="MIN,OPT,MAX",
        help="decode batches captured as CUDA graphs (default: 1,16,32)",
    )
    parser.add_argument(
        "--attention",
        default="full",
        metavar="POLICY",
        help="attention policy of requests that name none, or a file that ends in .json "
        "(default: full)",
    )
    parser.add_argument(
        "--kv-host-bytes",
        type=positive,
        help="host memory for what a policy keeps there (default: by what is free)",
    )
    parser.add_argument(
        "--host-replicas",
        type=positive,
        default=1,
        help="decoders that share the host's memory, whatever their devices, for the default of "
        "--kv-host-bytes",
    )
    parser.add_argument(
        "--attention-maps",
        type=Path,
        metavar="FILE",
        help="feature maps distilled from the model, which hierarchical-linear needs",
    )
    parser.add_argument(
        "--kv-ram-bytes", type=int, default=0, help="host memory for KV pages that left the pool"
    )
    parser.add_argument("--kv-disk", type=Path, help="folder for KV pages on an SSD")
    parser.add_argument(
        "--kv-disk-bytes", type=int, default=16 << 30, help="what they may take there"
    )
    parser.add_argument(
        "--kv-disk-floor", type=int, default=1 << 30, help="what they leave free there"
    )
    parser.add_argument(
        "--kv-disk-share", type=float, default=1.0, help="what part of it a tenant may take"
    )
    parser.add_argument(
        "--tracing-endpoint", help="OTLP collector of a decoder's spans (default: none)"
    )
    parser.add_argument(
        "--log-level", choices=["debug", "info", "warning", "error"], default="info"
    )
    parser.add_argument(
        "--watch-stdin", action="store_true", help="end when standard input reaches its end"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker; return the exit status."""
    options = vars(parse(argv))
    os.umask(0o077)
    one_arena()
    log_to_stderr(options["log_level"])
    if options["watch_stdin"]:
        from longspan.worker.parent import die_with_parent

        die_with_parent()
    try:
        with loading():  # a torch that cannot be imported will not be importable next time
            from longspan.worker.options import WorkerOptions
            from longspan.worker.process import run_worker
        run_worker(WorkerOptions.of(options))
    except StartFailure as failure:
        if isinstance(failure, UnforeseenFailure):
            traceback.print_exception(failure.__cause__)
        # The last line is what the parent shows.
        print(f"longspan-worker: {failure}", file=sys.stderr)
        return failure.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
