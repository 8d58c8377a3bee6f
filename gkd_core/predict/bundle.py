"""A bundle on disk: a folder of safetensors, manifest and model card, written whole and opened as data alone."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import torch

from gkd_core.errors import GkdError, WeightsError
from gkd_core.files import atomic_folder
from gkd_core.messages import given_value
from gkd_core.models.segmentor import Segmentor as Network
from gkd_core.models.segmentor import recorded_segmentor
from gkd_core.models.tensor_files import read_checked
from gkd_core.models.weights import load_into
from gkd_core.predict.card import CARD, render_card
from gkd_core.predict.known import FILE, Known, read_known, write_known
from gkd_core.predict.manifest import Bundle, BundleFile, Program
from gkd_core.predict.watch import pooled_dim
from gkd_core.records import MANIFEST, kind_of, sha256_of
from gkd_core.untrusted import safe_join

WEIGHTS = "student.safetensors"


def write_bundle(bundle: Bundle, weights: Path, target: Path, known: Known | None = None) -> Bundle:
    """Write a bundle as the folder `target`, whole or not at all; in the place of an older bundle, of nothing else.

    Args:
        bundle: what it is to say; its `files` are filled in here.
        weights: the safetensors that its model describes.
        known: statistics of the images that it knows, to be stored with it.

    Returns:
        the bundle as it was written.

    Raises:
        WeightsError: the weights are not those of the record.
        GkdError: something else stands at `target`.
    """
    check_replaceable(target)
    with atomic_folder(target) as folder:
        shutil.copyfile(weights, folder / WEIGHTS)
        if sha256_of(folder / WEIGHTS) != bundle.model.sha256:
            raise WeightsError(f"{weights}: its content is not what the manifest beside it describes; restore the file")
        bundle = bundle.model_copy(update={"known": None if known is None else known.record()})
        (folder / CARD).write_text(render_card(bundle), encoding="utf-8")
        names = [WEIGHTS, CARD]
        if known is not None:
            write_known(known, folder / FILE)
            names.append(FILE)
        whole = bundle.model_dump() | {
            "model": bundle.model.model_copy(update={"weights": WEIGHTS}),
            "files": tuple(described(folder / name) for name in names),
        }
        written = Bundle.model_validate(whole)
        written.write(folder / MANIFEST)
        open_known(folder, *open_bundle(folder))  # what cannot be opened gets no name
    return written


def add_program(folder: Path, bundle: Bundle, file: Path, program: Program) -> Bundle:
    """Put a program into a bundle, whole or not at all; a former one of its name goes.

    Args:
        bundle: as it was read from the folder.
        file: the program, called as `program` says.

    Returns:
        the bundle as it is now.

    Raises:
        GkdError, WeightsError: the bundle is no longer what it was when it was read, or is damaged.
    """
    if read_bundle(folder) != bundle:
        raise GkdError(f"{folder}: was changed meanwhile; export again")
    with atomic_folder(folder) as target:
        kept = [each.name for each in bundle.files if each.name not in (program.file, CARD)]
        for name in kept:
            shutil.copyfile(folder / name, target / name)
        shutil.copyfile(file, target / program.file)
        others = tuple(each for each in bundle.programs if each.file != program.file)
        described_anew = bundle.model_copy(update={"programs": (*others, program)})
        (target / CARD).write_text(render_card(described_anew), encoding="utf-8")
        files = tuple(described(target / name) for name in (*kept, CARD, program.file))
        written = Bundle.model_validate(described_anew.model_dump() | {"files": files})
        written.write(target / MANIFEST)
        open_bundle(target)  # what cannot be opened gets no name
    return written


def described(file: Path) -> BundleFile:
    """A file as a manifest lists it."""
    return BundleFile(name=file.name, size=file.stat().st_size, sha256=sha256_of(file))


def check_replaceable(target: Path) -> None:
    """Raise `GkdError` unless a bundle may be written to `target`: nothing is there, an empty folder, or a bundle."""
    if not target.exists() and not target.is_symlink():
        return
    if target.is_dir() and not target.is_symlink() and (not any(target.iterdir()) or kind_of(target) == "bundle"):
        return
    raise GkdError(f"{target}: is there already and is no bundle; choose another name, such as student.gkd")


def read_bundle(folder: Path) -> Bundle:
    """The manifest of a bundle whose files are all there, each of the size and content that it states.

    Raises:
        GkdError: the folder is no bundle, or is one of another version.
        WeightsError: a file is missing, or is not what the manifest describes.
    """
    if kind_of(folder) != "bundle":
        raise GkdError(f"{folder}: is no bundle; give a folder that `gkd bundle` wrote")
    bundle = Bundle.read(folder / MANIFEST)
    for file in bundle.files:
        _check(folder, file)
    return bundle


def open_bundle(folder: Path) -> tuple[Bundle, Network]:
    """A bundle and its network, in evaluation mode on the CPU. Nothing in it is run.

    Raises:
        GkdError, WeightsError: as `read_bundle`; or the weights are not of the network that the manifest describes.
    """
    bundle = read_bundle(folder)
    weights = folder / bundle.model.weights
    tensors = read_checked(weights, bundle.model.sha256, str(folder / MANIFEST))
    _check_depth(bundle, len(tensors), weights)
    stated = sum(tensor.numel() for tensor in tensors.values())
    with torch.device("meta"):
        asked = sum(tensor.numel() for tensor in recorded_segmentor(bundle.model).state_dict().values())
    if asked > stated:  # before room is made for it
        raise WeightsError(f"{weights}: holds {stated} numbers, the network of {MANIFEST} has {asked}; fetch the bundle again")
    network = recorded_segmentor(bundle.model)
    load_into(network, tensors, str(weights))
    mean, std = network.encoder.normalisation
    if (mean, std) != (bundle.mean, bundle.std):
        raise WeightsError(f"{folder / MANIFEST}: normalises by {bundle.mean}, {bundle.std}, its network by {mean}, {std}")
    return bundle, network.eval()


def open_known(folder: Path, bundle: Bundle, network: Network) -> Known | None:
    """The statistics of the images that a bundle's student knows; None where it has none.

    Args:
        bundle, network: as `open_bundle` gave them for the folder.

    Raises:
        WeightsError: they are damaged, or are of vectors of another length than the network gives.
    """
    if bundle.known is None:
        return None
    (digest,) = (file.sha256 for file in bundle.files if file.name == bundle.known.file)
    return read_known(folder / bundle.known.file, bundle.known, digest, pooled_dim(network))


def _check_depth(bundle: Bundle, tensors: int, weights: Path) -> None:
    """Refuse more layers than there are tensors: each costs time, even where it gets no room."""
    record = bundle.model
    layers = {"depth": record.encoder.options.get("depth", 1)}
    if record.decoder == "mask2former":
        layers |= record.mask2former.model_dump(include={"decoder_layers", "pixel_layers"})
    for key, count in layers.items():
        if not isinstance(count, int) or count > tensors:
            raise WeightsError(
                f"{weights}: holds {tensors} tensors, {MANIFEST} has {key} {given_value(count)}; fetch the bundle again"
            )


def _check(folder: Path, file: BundleFile) -> None:
    path = safe_join(folder, file.name)
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file, but the manifest lists it; fetch the bundle again") from None
    if not stat.S_ISREG(status.st_mode):
        raise WeightsError(f"{path}: a link, folder or device and no file; fetch the bundle again")
    if status.st_size != file.size or sha256_of(path) != file.sha256:
        raise WeightsError(f"{path}: its content is not what {MANIFEST} describes; fetch the bundle again")
