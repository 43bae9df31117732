"""The command line: parse, call, exit code. Wrong input is one line on stderr and exit code 2."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

from ensemble import __version__
from ensemble.cli.build_commands import add_build_commands
from ensemble.cli.data_commands import add_data_commands
from ensemble.cli.model_commands import add_model_commands, with_verb
from ensemble.cli.options import Run
from ensemble.cli.result_commands import add_result_commands
from ensemble.support import (
    EXIT_INTERRUPTED,
    EXIT_WRONG_INPUT,
    EnsembleError,
    is_disk_full,
    keep_freed_memory,
    one_line,
    plain_line,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    # threads that spin while they wait slow each other down several times where cores are shared
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # parts of jobs differ a little in size, and what one left would not do for the next
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    keep_freed_memory()
    arguments = _parser().parse_args(with_verb(sys.argv[1:] if argv is None else argv))
    if not os.environ.get("PYTHONWARNINGS"):
        warnings.filterwarnings("ignore")  # libraries' advice to programmers; ours goes through errors and say()
    run: Run = arguments.run
    try:
        return run(arguments)
    except EnsembleError as error:
        print(f"ensemble: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if not is_disk_full(error):
            if error.filename is None:
                raise
            print(f"ensemble: {plain_line(str(error.filename))}: {error.strerror}", file=sys.stderr)
            return EXIT_WRONG_INPUT
        where = f" ({plain_line(str(error.filename))})" if error.filename else ""
        print(f"ensemble: the disk is full{where}; free some space and run the same command again", file=sys.stderr)
    except MemoryError as error:
        print(
            f"ensemble: out of memory{f' ({one_line(error)})' if error.args else ''}; give smaller crops",
            file=sys.stderr,
        )
    except KeyboardInterrupt:
        print("\nensemble: interrupted; run the same command again to go on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_WRONG_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ensemble", description="Build one consistent challenge submission from several trained models."
    )
    parser.add_argument("--version", action="version", version=f"ensemble {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_build_commands(commands)
    add_data_commands(commands)
    add_result_commands(commands)
    add_model_commands(commands)
    return parser
