"""The command that copies EM: fetch."""

import argparse
from pathlib import Path

from ensemble.cli import bars, console
from ensemble.cli.options import Commands, add_request, command, default_out, request_of
from ensemble.support import EnsembleError, counted


def add_data_commands(commands: Commands) -> None:
    """Add it."""
    text = "Copy the EM that a recipe needs from a URL to a folder, for machines that reach no network."
    parser = command(commands, "fetch", _fetch, text)
    add_request(parser)
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="where it goes; build with --data DIR there"
    )


def _fetch(arguments: argparse.Namespace) -> int:
    from ensemble.plan import em_needed, prepare, registry_of
    from ensemble.storage import EMFiles, is_url

    if not is_url(arguments.data):
        raise EnsembleError(f"--data {arguments.data}: lies on this machine; name a URL to fetch from")
    request = request_of(arguments, default_out(arguments))
    prepared = prepare(request, registry_of(request.out))
    boxes = em_needed(prepared.plan, prepared.em)
    if not boxes:
        raise EnsembleError(f"{request.recipe}: its recipe runs no network on these crops, so it needs no EM")
    with bars.progress() as progress:
        files = EMFiles.under(prepared.em, boxes)
        fetched = files.fetch(arguments.to, progress)
    console.line(f"{counted(fetched, 'file')} fetched, {len(files.files):,} in all: build with --data {arguments.to}")
    return 0
