"""Gaussian prior and posterior over a network's weights, and the posterior's error on examples.

The prior N(theta_0, diag(sigma_j^2)) is set before training: sigma_j is a multiple of the initial scale of weight j.
The posterior N(theta, diag(1 / nu_j)) is as wide as the prior but where the loss is curved: nu_j is the larger of H_jj
and 1 / sigma_j^2 (Li, Gu, Zhou, Chen and Banerjee 2020).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hessketch.curvature.losses import Loss, correct
from hessketch.curvature.operators import select_parameters
from hessketch.curvature.points import ParameterSpace, means_at
from hessketch.data.examples import Examples
from hessketch.errors import InputError
from hessketch.linalg.vectors import ProgressCallback, no_progress

_NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_PROBE_INPUTS = 256
_PROBE_SEED = 0
# Numbers of the posterior's weights that are drawn at once.
_PARAMETERS_AT_ONCE = {"cpu": 2**22, "cuda": 2**28}


def require_same_network(model: nn.Module, initial_state: Mapping[str, Tensor]) -> None:
    """Raises InputError naming the first difference of names or shapes to the model's own state; also for no state."""
    if not isinstance(initial_state, Mapping) or not all(isinstance(t, Tensor) for t in initial_state.values()):
        advice = "its state_dict()" if isinstance(initial_state, nn.Module) else "the state_dict() of the network then"
        raise InputError(f"initial_state is {type(initial_state).__name__}; give {advice}")
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in initial_state.items()}
    for name in [*expected, *found]:
        if expected.get(name) != found.get(name):
            raise InputError(
                f"the initial state is of another network: {name} has shape {found.get(name, 'none, it is missing')} "
                f"and the network's is {expected.get(name, 'none, it has no such tensor')}; give the state dict that "
                "this network's training started from"
            )


def flat_parameters(model: nn.Module, state: Mapping[str, Tensor]) -> Tensor:
    """A state dict's values (p,), float64, of the parameters that require a gradient, in the operators' order."""
    chosen = select_parameters(model)
    device = next(iter(chosen.values())).device
    return torch.cat([state[name].detach().to(device, torch.float64).reshape(-1) for name in chosen])


def initial_scales(model: nn.Module, initial_state: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """The scale (p,), float64, of each weight at initialisation: what a multiplier of sigma counts in.

    - a weight tensor: the root mean square of its initial values;
    - weight and bias of a normalisation: that of its weight;
    - the bias of any other layer, which starts at 0 and says nothing by itself: the root mean square of the layer's
      outputs at initialisation, in answer to 256 standard normal inputs (`inputs` lends the shape only, so that the
      prior stays independent of the data);
    - where that is 0, 1.

    When the layers of a ReLU network are rescaled, a bias grows with all layers before it and not with its own alone:
    so does the layer's output, and with the initial state rescaled alike every scale follows exactly.
    """
    outputs = _output_scales(model, initial_state, inputs)
    pieces = []
    for name, parameter in select_parameters(model).items():
        owner, _, kind = name.rpartition(".")
        module = model.get_submodule(owner)
        scale = _root_mean_square(initial_state[name])
        if isinstance(module, _NORMALISATIONS):
            scale = _root_mean_square(initial_state[f"{owner}.weight" if owner else "weight"])
        elif kind == "bias" and owner in outputs:
            scale = outputs[owner]
        pieces.append(torch.full((parameter.numel(),), scale or 1.0, dtype=torch.float64, device=parameter.device))
    return torch.cat(pieces)


def _root_mean_square(tensor: Tensor) -> float:
    return float(tensor.detach().double().square().mean().sqrt())


def _output_scales(model: nn.Module, initial_state: Mapping[str, Tensor], inputs: Tensor) -> dict[str, float]:
    """Root mean square of the output of every module that has a bias of its own."""
    like = next(iter(select_parameters(model).values()))
    generator = torch.Generator().manual_seed(_PROBE_SEED)
    probe = torch.randn(_PROBE_INPUTS, *inputs.shape[1:], generator=generator).to(like)
    state = {name: tensor.detach().to(like.device) for name, tensor in initial_state.items()}
    state = {name: t.to(like.dtype) if t.is_floating_point() else t for name, t in state.items()}
    found: dict[str, float] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(getattr(module, "bias", None), nn.Parameter):

            def look(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
                found[name] = _root_mean_square(output)

            hooks.append(module.register_forward_hook(look))
    try:
        with torch.no_grad():
            functional_call(model, state, (probe,))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _wrong(loss: Loss) -> Callable[[Tensor, Tensor], Tensor]:
    """Of outputs and targets 1.0 for a wrong prediction, 0.0 for a right one, shape (n,)."""
    return lambda outputs, targets: (~correct(outputs, targets, loss)).double()


def posterior_errors(
    space: ParameterSpace,
    deviations: Tensor,
    loss: Loss,
    splits: list[Examples],
    samples: int,
    seed: int,
    progress: ProgressCallback | None = None,
) -> Tensor:
    """Share of wrong predictions (splits, grid, samples), float64, of networks drawn from N(theta, diag(deviations^2)).

    `deviations` (grid, p) are those of several posteriors; sample number i is the same standard normal vector in each
    of them, so that they differ by their widths alone. `loss` tells which predictions are right. Vectorised in chunks
    that do not change the samples.
    """
    generator = torch.Generator().manual_seed(seed)
    p = len(space.theta)
    most = max(1, _PARAMETERS_AT_ONCE["cuda" if space.device.type == "cuda" else "cpu"] // p)
    found, report, wrong = [], progress or no_progress, _wrong(loss)
    for first in range(0, samples, most):
        count = min(most, samples - first)
        normal = torch.stack([torch.randn(p, generator=generator) for _ in range(count)]).to(space.theta)
        rows = [
            torch.stack([means_at(space, space.theta + normal * d.to(normal), split, wrong) for split in splits])
            for d in deviations
        ]
        found.append(torch.stack(rows, 1))
        report(first + count, samples)
    return torch.cat(found, 2)


def errors_at(space: ParameterSpace, loss: Loss, splits: list[Examples]) -> list[float]:
    """Share of wrong predictions of the network itself on each split."""
    return [float(means_at(space, space.theta[None], split, _wrong(loss))) for split in splits]
