"""The commands about registered models: register, models …, soup."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ensemble.cli import bars, console
from ensemble.cli.options import Commands, command
from ensemble.support import EXIT_FAULTS_FOUND, EnsembleError, RegistryError

if TYPE_CHECKING:
    from registry import ModelVersion, Registry


def add_model_commands(commands: Commands) -> None:
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


def _add_register(commands: Commands) -> None:
    text = "Register a trained checkpoint with its card; without one, write a draft of it."
    register = command(commands, "register", _register, text)
    register.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a file, nnU-Net folder or MONAI bundle")
    register.add_argument("--card", type=Path, metavar="CARD.yaml", help="without it a draft is written, to be filled")
    register.add_argument("--alias", metavar="NAME", help="such as champion")
    register.add_argument("--weights", metavar="KEY", help="which, where a checkpoint holds several: ema_state_dict, …")


def _register(arguments: argparse.Namespace) -> int:
    from registry import Registry, load_card

    if arguments.card is None:
        return _draft(arguments.checkpoint, arguments.weights)
    store = Registry()
    version = store.register(
        arguments.checkpoint,
        load_card(arguments.card),
        alias=arguments.alias,
        card_path=arguments.card,
        weights_key=arguments.weights,
    )
    aliases = "".join(f" @{alias}" for alias in version.aliases)
    console.line(f"registered {version.name} version {version.version}{aliases} in {store.address}")
    return 0


def _draft(checkpoint: Path, weights_key: str | None) -> int:
    from registry import draft_card

    made = draft_card(checkpoint, weights_key)
    chosen = "" if weights_key is None else f" --weights {weights_key}"
    file = Path(f"{made.values['name']}.card.yaml")
    then = f"ensemble register {checkpoint} --card {file}{chosen}"
    if file.exists():
        raise EnsembleError(f"{file}: is there already; fill it and run {then}, or delete it")
    text = made.text().encode("utf-8", "backslashreplace")
    try:
        file.write_bytes(text)
    except OSError as error:
        raise EnsembleError(f"{file}: cannot write the draft here: {error.strerror}") from error
    console.line(f"wrote {file}, a draft of the card; these lines need you:")
    for question in made.questions(file):
        console.line(f"  {question}")
    console.line(f"then: {then}")
    return 0


def _resolve(store: "Registry", reference: str) -> "ModelVersion":
    """A version by ``models:/NAME@ALIAS``, ``NAME@ALIAS``, ``NAME/VERSION``, or the latest of ``NAME``."""
    plain = reference.removeprefix("models:/")
    if re.fullmatch(r"[\w.-]+", plain):
        usable = [version for version in store.versions(plain) if version.retired is None]
        if not usable:
            raise RegistryError(f"{plain}: every version was retired; register another")
        return usable[-1]
    return store.resolve(f"models:/{plain}")


_REFERENCE = "NAME, NAME@ALIAS or NAME/VERSION"


def _add_list(verbs: Commands) -> None:
    parser = command(verbs, "list", _list, "List what is registered.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="one model, with its history")


def _list(arguments: argparse.Namespace) -> int:
    from registry import Registry

    store = Registry()
    versions = store.versions(arguments.name)
    console.models(versions, store.address)
    console.broken(store.broken)
    if arguments.name is not None:
        console.history(versions, store.moves(arguments.name))
    return 0


def _add_verify(verbs: Commands) -> None:
    text = "Replay a model's golden input here and tell how far its answer is from the one stored."
    parser = command(verbs, "verify", _verify, text)
    parser.add_argument("reference", metavar="NAME", help=f"{_REFERENCE}; NAME alone: all its versions")
    parser.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:1, mps (default: cpu)")


def _verify(arguments: argparse.Namespace) -> int:
    from ensemble.predict import find_device
    from registry import Registry, verify_model

    store = Registry()
    bare = re.fullmatch(r"[\w.-]+", arguments.reference)
    versions = store.versions(arguments.reference) if bare else [_resolve(store, arguments.reference)]
    device = find_device(arguments.device)
    verifications = [verify_model(store, version, device) for version in versions]
    console.verified(verifications)
    console.broken(store.broken)
    holds = not store.broken and all(verification.holds for verification in verifications)
    return 0 if holds else EXIT_FAULTS_FOUND


def _add_compare(verbs: Commands) -> None:
    parser = command(verbs, "compare", _compare, "Show what differs between two models, and who scores better.")
    parser.add_argument("a", metavar="A", help=_REFERENCE)
    parser.add_argument("b", metavar="B", help=_REFERENCE)


def _compare(arguments: argparse.Namespace) -> int:
    from registry import Registry, compare_models

    store = Registry()
    console.compared(compare_models(store, _resolve(store, arguments.a), _resolve(store, arguments.b)))
    return 0


def _add_alias(verbs: Commands) -> None:
    parser = command(verbs, "alias", _alias, "Let an alias mean another version from now on, and say why.")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("alias", metavar="ALIAS")
    parser.add_argument("version", type=int, metavar="VERSION")
    parser.add_argument("--reason", required=True, metavar="TEXT")


def _alias(arguments: argparse.Namespace) -> int:
    from registry import Registry

    Registry().set_alias(arguments.name, arguments.alias, arguments.version, arguments.reason)
    console.line(f"models:/{arguments.name}@{arguments.alias} means version {arguments.version} now")
    return 0


def _add_retire(verbs: Commands) -> None:
    parser = command(verbs, "retire", _retire, "Take a version out of use; it stays listed, with the reason.")
    parser.add_argument("reference", metavar="NAME/VERSION")
    parser.add_argument("--reason", required=True, metavar="TEXT")


def _retire(arguments: argparse.Namespace) -> int:
    from registry import Registry

    store = Registry()
    version = store.resolve(f"models:/{arguments.reference.removeprefix('models:/')}")
    store.retire(version, arguments.reason)
    console.line(f"{version.uri} is retired: {arguments.reason}")
    return 0


def _add_export(verbs: Commands) -> None:
    parser = command(verbs, "export", _export, "Write a model as one file, for those without your registry.")
    parser.add_argument("reference", metavar="NAME", help=_REFERENCE)
    parser.add_argument("file", type=Path, metavar="FILE")


def _export(arguments: argparse.Namespace) -> int:
    from registry import Registry, export_model

    store = Registry()
    version = _resolve(store, arguments.reference)
    export_model(store, version, arguments.file)
    console.line(f"wrote {version.uri} to {arguments.file}; read it with ensemble models import {arguments.file}")
    return 0


def _add_import(verbs: Commands) -> None:
    parser = command(verbs, "import", _import, "Register a model from the file that export wrote.")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--alias", metavar="NAME", help="such as champion")


def _import(arguments: argparse.Namespace) -> int:
    from registry import Registry, import_model

    version = import_model(Registry(), arguments.file, arguments.alias)
    console.line(f"registered {version.uri}; it gives its golden answer here")
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


def _add_soup(commands: Commands) -> None:
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
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("build/predictions"),
        metavar="DIR",
        help="stored predictions, shared with builds (default: build/predictions)",
    )
    parser.add_argument("--leaky", action="store_true", help="score even on crops that members were trained on")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers such as 2,1,1") from error


def _soup(arguments: argparse.Namespace) -> int:
    from ensemble.tune import AveragingOptions, Validation, average_checkpoints
    from registry import Registry, load_card, member_in_file, registered_member

    store = Registry()
    card = load_card(arguments.card) if arguments.card else None
    members = []
    for text in arguments.members:
        if Path(text).is_file():
            if card is None:
                raise EnsembleError(f"{text}: a file tells too little of its network; give --card CARD.yaml")
            members.append(member_in_file(Path(text), card))
        else:
            members.append(registered_member(store, _resolve(store, text)))
    if (arguments.truth is None) != (arguments.manifest is None):
        raise EnsembleError("--truth and --manifest belong together; give both, or neither")
    validation = None
    if arguments.truth is not None:
        validation = Validation(
            arguments.truth, arguments.manifest, arguments.data, leaky=arguments.leaky, cache=arguments.cache
        )
    options = AveragingOptions(arguments.how, arguments.weights, arguments.decay, arguments.same_origin)
    with bars.progress() as progress:
        soup = average_checkpoints(
            members,
            arguments.name,
            options,
            store,
            validation=validation,
            alias=arguments.alias,
            progress=progress,
        )
    console.soup(soup)
    return 0
