"""Fused blocks against the separate layers that they stand for."""

import copy

import pytest
import torch
from torch import nn

from skaudioemb.encoders.byol import make_byol_encoder
from skaudioemb.pretraining.fused import FusedSequential, fuse


def make_pair(n_inputs=1, seed=0):
    torch.manual_seed(seed)
    layers = []
    for n_channels in (6, 5):
        layers += [
            nn.Conv2d(n_inputs, n_channels, 3, padding=1),
            nn.BatchNorm2d(n_channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        n_inputs = n_channels
    plain = nn.ModuleDict({"features": nn.Sequential(*layers)}).double()
    with torch.no_grad():
        for layer in layers[1::4]:
            layer.weight.normal_()  # of either sign: a minimum where it is negative
            layer.bias.normal_()
    return plain["features"], fuse(copy.deepcopy(plain))["features"]


@pytest.mark.parametrize("n_inputs", [1, 4])
def test_equal_to_separate_layers(n_inputs):
    plain, fused = make_pair(n_inputs)
    assert isinstance(fused, FusedSequential)
    x = torch.randn(7, n_inputs, 9, 14, dtype=torch.float64)
    x[:2, :, :4] = 0.3  # equal values, of which the first is the peak
    results = []
    for network in (plain, fused):
        own = x.clone().requires_grad_()
        y = network(own)
        (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
        grads = {name: p.grad for name, p in network.named_parameters()}
        results.append((y, own.grad, grads, dict(network.named_buffers())))
    (y, grad, grads, buffers), (y2, grad2, grads2, buffers2) = results
    torch.testing.assert_close(y2, y)
    torch.testing.assert_close(grad2, grad)
    for name, expected in grads.items():
        # A bias before batch normalisation has no effect, hence no gradient.
        found = torch.zeros_like(expected) if grads2[name] is None else grads2[name]
        torch.testing.assert_close(found, expected, msg=name, atol=1e-12, rtol=1e-7)
    for name, expected in buffers.items():
        torch.testing.assert_close(buffers2[name], expected, msg=name)


def test_state_dict_and_evaluation_stay():
    plain, fused = make_pair()
    assert list(fused.state_dict()) == list(plain.state_dict())
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    assert torch.equal(fused.eval()(x), plain.eval()(x))


def test_running_statistics_of_an_average_over_all_batches():
    plain, fused = make_pair()
    for network in (plain, fused):
        network[1].momentum = None
        for k in range(3):
            torch.manual_seed(k)
            network(torch.randn(4, 1, 8, 8, dtype=torch.float64))
    torch.testing.assert_close(fused[1].running_var, plain[1].running_var)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(3)],
        [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2, 1)],
        [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.GELU(), nn.MaxPool2d(2)],
        [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()],
        [
            nn.Conv2d(1, 2, 3),
            nn.BatchNorm2d(2, affine=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ],
    ],
)
def test_other_layers_are_left_alone(layers):
    network = nn.ModuleDict({"features": nn.Sequential(*layers)})
    assert type(fuse(network)["features"]) is nn.Sequential


@pytest.mark.parametrize("name", ["audiontt2020", "audiontt2022"])
def test_encoders_of_byol_a_are_fused(name):
    encoder = fuse(make_byol_encoder(name))
    assert any(isinstance(module, FusedSequential) for module in encoder.modules())
