"""A checkpoint rebuilds its network; one of another network is refused."""

import pytest
import torch
from torch import nn

from hessketch.checkpoints import Architecture, load_weights, read_architecture, save_model
from hessketch.errors import InputError
from hessketch.records import write_tensors

ARCHITECTURE = Architecture("mlp", (1, 4, 4), 3, width=0.5, norm="batch")


def _network(width: int = 5) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def test_weights_buffers_and_architecture_come_back(tmp_path):
    saved, loaded = _network(), _network()
    saved[1].running_mean.normal_()
    save_model(saved, ARCHITECTURE, tmp_path / "m.safetensors", run="a/b")
    metadata = load_weights(loaded, tmp_path / "m.safetensors")
    assert metadata["run"] == "a/b"
    assert read_architecture(tmp_path / "m.safetensors") == ARCHITECTURE
    tensors = zip(saved.state_dict().values(), loaded.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in tensors)


def test_a_checkpoint_of_another_network_is_refused_with_the_differences(tmp_path):
    save_model(_network(6), ARCHITECTURE, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=r"another network: 0\.weight has shape \(6, 4\).*and 4 more"):
        load_weights(_network(5), tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=r"1\.weight is missing"):
        load_weights(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6)), _only_first_layer(tmp_path))


def _only_first_layer(folder):
    write_tensors(nn.Sequential(nn.Linear(4, 6)).state_dict(), folder / "part.safetensors")
    return folder / "part.safetensors"


def test_a_file_cannot_choose_code_to_import_and_says_how_to_allow_it(tmp_path):
    stored = Architecture("evil_module:make", (1, 4, 4), 3, width=0.5, norm="none")
    save_model(_network(), stored, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="add --network evil_module:make --norm none --width 0"):
        read_architecture(tmp_path / "m.safetensors")


def test_a_file_without_architecture_asks_for_the_network(tmp_path):
    with pytest.raises(InputError, match="name the network"):
        read_architecture(_only_first_layer(tmp_path))
