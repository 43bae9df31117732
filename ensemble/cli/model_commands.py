"""The commands about registered models: register, models …, soup."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from ensemble.cli.options import command
from ensemble.support.errors import EXIT_FAULTS_FOUND, EnsembleError, RegistryError


def add(commands) -> None:
    """Add register, models and soup."""
    _add_register(commands)
    models = commands.add_parser("models", help="List registered models; verify, compare, move, retire, hand on.")
    verbs = models.add_subparsers(metavar="VERB", required=True)
    for add_verb in _VERBS.values():
        add_verb(verbs)
    _add_soup(commands)


def with_verb(argv: Sequence[str]) -> list[str]:
    """``models`` and ``models NAME`` mean ``models list`` and ``models list NAME``."""
    argv = list(argv)
    if argv[:1] == ["models"] and not (len(argv) > 1 and argv[1] in (*_VERBS, "-h", "--help")):
        argv.insert(1, "list")
    return argv


def _add_register(commands) -> None:
    text = "Register a trained checkpoint with its card; without one, write a draft of it."
    register = command(commands, "register", _register, text)
    register.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a file, nnU-Net folder or MONAI bundle")
    register.add_argument("--card", type=Path, metavar="CARD.yaml", help="without it a draft is written, to be filled")
    register.add_argument("--alias", metavar="NAME", help="such as champion")


def _register(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from registry import card
    from registry.store import Store

    if arguments.card is None:
        return _draft(arguments.checkpoint)
    store = Store()
    version = store.register(
        arguments.checkpoint, card.load(arguments.card), alias=arguments.alias, card_path=arguments.card
    )
    aliases = "".join(f" @{alias}" for alias in version.aliases)
    terminal.line(f"registered {version.name} version {version.version}{aliases} in {store.tracking_uri}")
    return 0


def _draft(checkpoint: Path) -> int:
    from ensemble.cli import console as terminal
    from registry import draft

    made = draft.of(checkpoint)
    file = Path(f"{made.values['name']}.card.yaml")
    if file.exists():
        raise EnsembleError(
            f"{file}: is there already; fill it and run ensemble register {checkpoint} --card {file}, or delete it"
        )
    text = made.text().encode("utf-8", "backslashreplace")
    try:
        file.write_bytes(text)
    except OSError as error:
        raise EnsembleError(f"{file}: cannot write the draft here: {error.strerror}") from error
    terminal.line(f"wrote {file}, a draft of the card; these lines need you:")
    for question in made.questions(file):
        terminal.line(f"  {question}")
    terminal.line(f"then: ensemble register {checkpoint} --card {file}")
    return 0


def _resolve(store, reference: str):
    """A version by ``models:/NAME@ALIAS``, ``NAME@ALIAS``, ``NAME/VERSION``, or the latest of ``NAME``."""
    plain = reference.removeprefix("models:/")
    if re.fullmatch(r"[\w.-]+", plain):
        usable = [version for version in store.versions(plain) if version.retired is None]
        if not usable:
            raise RegistryError(f"{plain}: every version was retired; register another")
        return usable[-1]
    return store.resolve(f"models:/{plain}")


_REFERENCE = "NAME, NAME@ALIAS or NAME/VERSION"


def _add_list(verbs) -> None:
    parser = command(verbs, "list", _list, "List what is registered.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="one model, with its history")


def _list(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from registry.store import Store

    store = Store()
    versions = store.versions(arguments.name)
    terminal.models(versions, store.tracking_uri)
    for text in store.broken:
        terminal.line(f"broken: {text}")
    if arguments.name is not None:
        terminal.history(versions, store.moves(arguments.name))
    return 0


def _add_verify(verbs) -> None:
    text = "Replay a model's golden input here and tell how far its answer is from the one stored."
    parser = command(verbs, "verify", _verify, text)
    parser.add_argument("reference", metavar="NAME", help=f"{_REFERENCE}; NAME alone: all its versions")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:1, mps (default: cpu)")


def _verify(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from ensemble.predict.device import find_device
    from registry.store import Store
    from registry.verify import verify

    store = Store()
    bare = re.fullmatch(r"[\w.-]+", arguments.reference)
    versions = store.versions(arguments.reference) if bare else [_resolve(store, arguments.reference)]
    device = find_device(arguments.device)
    found = [verify(store, version, device) for version in versions]
    terminal.verified(found)
    return 0 if all(one.holds for one in found) else EXIT_FAULTS_FOUND


def _add_compare(verbs) -> None:
    parser = command(verbs, "compare", _compare, "Show what differs between two models, and who scores better.")
    parser.add_argument("a", metavar="A", help=_REFERENCE)
    parser.add_argument("b", metavar="B", help=_REFERENCE)


def _compare(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from registry.compare import compare
    from registry.store import Store

    store = Store()
    terminal.compared(compare(store, _resolve(store, arguments.a), _resolve(store, arguments.b)))
    return 0


def _add_alias(verbs) -> None:
    parser = command(verbs, "alias", _alias, "Let an alias mean another version from now on, and say why.")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("alias", metavar="ALIAS")
    parser.add_argument("version", type=int, metavar="VERSION")
    parser.add_argument("--reason", required=True, metavar="TEXT")


def _alias(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from registry.store import Store

    Store().set_alias(arguments.name, arguments.alias, arguments.version, arguments.reason)
    terminal.line(f"models:/{arguments.name}@{arguments.alias} means version {arguments.version} now")
    return 0


def _add_retire(verbs) -> None:
    parser = command(verbs, "retire", _retire, "Take a version out of use; it stays listed, with the reason.")
    parser.add_argument("reference", metavar="NAME/VERSION")
    parser.add_argument("--reason", required=True, metavar="TEXT")


def _retire(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from registry.store import Store

    store = Store()
    version = store.resolve(f"models:/{arguments.reference.removeprefix('models:/')}")
    store.retire(version, arguments.reason)
    terminal.line(f"{version.uri} is retired: {arguments.reason}")
    return 0


def _add_export(verbs) -> None:
    parser = command(verbs, "export", _export, "Write a model as one file, for those without your registry.")
    parser.add_argument("reference", metavar="NAME", help=_REFERENCE)
    parser.add_argument("file", type=Path, metavar="FILE")


def _export(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from registry import transfer
    from registry.store import Store

    store = Store()
    version = _resolve(store, arguments.reference)
    transfer.export(store, version, arguments.file)
    terminal.line(f"wrote {version.uri} to {arguments.file}; read it with ensemble models import {arguments.file}")
    return 0


def _add_import(verbs) -> None:
    parser = command(verbs, "import", _import, "Register a model from the file that export wrote.")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--alias", metavar="NAME", help="such as champion")


def _import(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from registry import transfer
    from registry.store import Store

    version = transfer.import_(Store(), arguments.file, arguments.alias)
    terminal.line(f"registered {version.uri}; it gives its golden answer here")
    return 0


_VERBS = {
    "list": _add_list,
    "verify": _add_verify,
    "compare": _add_compare,
    "alias": _add_alias,
    "retire": _add_retire,
    "export": _add_export,
    "import": _add_import,
}


def _add_soup(commands) -> None:
    text = "Make one model of several checkpoints of one network, by averaging their weights, and register it."
    parser = command(commands, "soup", _soup, text)
    parser.add_argument("members", nargs="+", metavar="MEMBER", help=f"{_REFERENCE}, or a checkpoint file with --card")
    parser.add_argument("--name", required=True, metavar="NAME", help="of the new model")
    parser.add_argument("--how", choices=["uniform", "weighted", "greedy", "ema"], default="uniform")
    parser.add_argument("--weights", type=_numbers, default=(), metavar="2,1,…", help="for weighted: one per member")
    parser.add_argument("--decay", type=float, default=0.9, help="for ema: what is kept at each member (default: 0.9)")
    parser.add_argument("--card", type=Path, metavar="CARD.yaml", help="the card of members that are files")
    parser.add_argument("--alias", metavar="NAME", help="such as champion")
    parser.add_argument("--same-origin", action="store_true", help="you know that all began as the same weights")
    parser.add_argument("--truth", type=Path, metavar="TRUTH.zarr", help="score members and soup; greedy needs it")
    parser.add_argument("--manifest", type=Path, metavar="CSV", help="the crops to score them on")
    parser.add_argument("--data", default="data", metavar="ROOT", help="folder or URL of the EM (default: data)")
    parser.add_argument("--leaky", action="store_true", help="score even on crops that members were trained on")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers such as 2,1,1") from error


def _soup(arguments: argparse.Namespace) -> int:
    from ensemble.cli import console as terminal
    from ensemble.tune.soup import Validation, average_checkpoints
    from registry import card as cards
    from registry import soup
    from registry.store import Store

    store = Store()
    known = cards.load(arguments.card) if arguments.card else None
    members = []
    for text in arguments.members:
        if Path(text).is_file():
            if known is None:
                raise EnsembleError(f"{text}: a file tells too little of its network; give --card CARD.yaml")
            members.append(soup.in_file(Path(text), known))
        else:
            members.append(soup.registered(store, _resolve(store, text)))
    if (arguments.truth is None) != (arguments.manifest is None):
        raise EnsembleError("--truth and --manifest belong together; give both, or neither")
    judged = arguments.truth and Validation(arguments.truth, arguments.manifest, arguments.data, leaky=arguments.leaky)
    with terminal.progress() as progress:
        made = average_checkpoints(
            members,
            arguments.name,
            arguments.how,
            store,
            given=arguments.weights,
            decay=arguments.decay,
            same_origin=arguments.same_origin,
            validation=judged,
            alias=arguments.alias,
            progress=progress,
        )
    terminal.soup(made)
    return 0
