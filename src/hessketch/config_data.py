"""What a config asks of its data sets that a schema cannot say: that they exist, are large enough and fit networks."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hessketch.data.catalog import describe
from hessketch.data.dataset import SIDE
from hessketch.errors import InputError

_OF_IMAGES = ("vgg11", "resnet18", "resnet18_smooth", "3c3d", "allcnnc")


def dataset_problems(where: str, name: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """An unknown name, or more examples of a class than there are; `where` is the key of the section."""
    try:
        dataset = describe(name)
    except InputError as error:
        yield f"{where}.{name}: {error}"
        return
    for key, available in (
        ("examples_per_class", dataset.train_per_class),
        ("test_examples_per_class", dataset.test_per_class),
    ):
        given = settings.get(key)
        for size in given if isinstance(given, list) else [given]:
            if type(size) is int and available and size > min(available):
                yield (
                    f"{where}.{name}.{key}: {size} given, the smallest class has {min(available)}; "
                    "allowed: at most that"
                )


def network_problems(where: str, networks: Iterable[Mapping[str, Any]], datasets: Iterable[str]) -> Iterator[str]:
    """Networks of 32x32 images on data that are vectors or smaller images; `where` is the key of the networks."""
    networks = list(networks)
    for name in map(str, datasets):
        needed = _needed_instead_of(name)
        for network in networks:
            if needed and network.get("name") in _OF_IMAGES:
                yield f"{where}: {network['name']} needs {needed}; allowed there: mlp, mlp_tanh"


def _needed_instead_of(name: str) -> str:
    """What a network of images needs and a data set does not hold; nothing for one of 32x32 and an unknown one."""
    try:
        side = describe(name).prepared_side
    except InputError:  # `dataset_problems` names it
        return ""
    if side is None:
        return f"images, {name} holds vectors"
    return "" if side == SIDE else f"images of {SIDE}x{SIDE}, those of {name} are {side}x{side}"


def has_batch_norm(networks: Iterable[Mapping[str, Any]]) -> bool:
    """Whether any network of a config, its defaults not yet filled, has batch norm."""
    return any(network.get("norm", "batch") == "batch" for network in networks)
