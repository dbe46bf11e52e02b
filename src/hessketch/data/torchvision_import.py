"""Imports torchvision beside any build of torch.

A torchvision wheel carries compiled operators for one build of torch. Beside another build (a CPU-only torch with
the package index's CUDA wheel of torchvision, for one) they cannot be loaded, and `import torchvision` fails: it
registers Python shape rules for the operators `nms` and `qnms` without looking whether they exist. The data sets
and their downloads need none of the operators, so it is enough to declare the two names; calling one of them still
fails, as it must.
"""

import importlib
import sys
from types import ModuleType

import torch

_ARGUMENTS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # a declaration lives as long as its library object


def import_torchvision() -> ModuleType:
    """The module torchvision, its data sets included; changes nothing where it loads by itself."""
    try:
        return _import()
    except RuntimeError as error:
        if _declared or "operator torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(operator + _ARGUMENTS)
    _declared.append(library)
    return _import()


def _import() -> ModuleType:
    importlib.import_module("torchvision.datasets")
    return sys.modules["torchvision"]
