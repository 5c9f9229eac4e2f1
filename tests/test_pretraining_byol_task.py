"""BYOL's networks and loss against the reference's numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from skaudioemb.pretraining.byol_task import (
    Byol,
    Head,
    average_into,
    spread,
    symmetric_loss,
)

GOLDEN = Path(__file__).parent / "golden" / "byol" / "training.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(np.array(arrays[name])) for name in arrays}


def test_loss_and_gradients_are_the_golden_ones(golden):
    p1, p2 = (golden[f"loss/p{k}"].clone().requires_grad_() for k in (1, 2))
    losses = symmetric_loss((p1, p2), (golden["loss/z1"], golden["loss/z2"]))
    torch.testing.assert_close(losses, golden["loss/per_item"], atol=1e-5, rtol=1e-5)
    losses.mean().backward()
    torch.testing.assert_close(p1.grad, golden["loss/grad_p1"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(p2.grad, golden["loss/grad_p2"], atol=1e-5, rtol=1e-5)


def test_average_is_the_golden_one(golden):
    target, online = nn.Linear(8, 1, bias=False), nn.Linear(8, 1, bias=False)
    target.weight.data[0] = golden["ema/target_start"]
    for step in range(3):
        online.weight.data[0] = golden["ema/online_per_step"][step]
        average_into(target, online, float(golden["ema/tau"]))
        expected = golden["ema/target_after_step"][step]
        torch.testing.assert_close(target.weight.data[0], expected)


HEAD_NAMES = {"lin1": "0", "bn": "1", "lin2": "3"}


def head_weights(golden, prefix):
    """Return a golden head's tensors under our names."""
    names = [name for name in golden if name.startswith(prefix + "/")]
    pairs = [(name.removeprefix(prefix + "/").split("."), name) for name in names]
    return {f"{HEAD_NAMES[layer]}.{kind}": golden[n] for (layer, kind), n in pairs}


def test_heads_are_the_golden_ones(golden):
    head = Head(12, 20, 10)
    head.load_state_dict(head_weights(golden, "mlp/before"))
    close = torch.testing.assert_close
    close(head(golden["mlp/in"]), golden["mlp/out_train_mode"], atol=1e-5, rtol=1e-5)
    close(head[1].running_mean, golden["mlp/after/bn.running_mean"])
    close(head[1].running_var, golden["mlp/after/bn.running_var"])
    evaluated = head.eval()(golden["mlp/in"])
    close(evaluated, golden["mlp/out_eval_mode_after"], atol=1e-5, rtol=1e-5)


def network_weights(golden, prefix):
    """Return a golden network's tensors under the names of ours."""
    whole = {name.removeprefix(prefix + "/"): golden[name] for name in golden}
    weights = {}
    for name, value in whole.items():
        part, _, rest = name.partition(".")
        if part == "net":
            layer, kind = rest.split(".")
            weights[f"encoder.{ {'lin': 1, 'bn': 2}[layer] }.{kind}"] = value
        elif part == "projector":
            layer, kind = rest.split(".")
            weights[f"projector.{HEAD_NAMES[layer]}.{kind}"] = value
    return weights


def test_three_steps_are_the_golden_ones(golden):
    encoder = nn.Sequential(
        nn.Flatten(), nn.Linear(48, 12), nn.BatchNorm1d(12), nn.ReLU()
    )
    byol = Byol(encoder, 12, 16, 8)
    byol.online.load_state_dict(network_weights(golden, "steps/init/online"))
    byol.target.load_state_dict(byol.online.state_dict())
    byol.predictor.load_state_dict(head_weights(golden, "steps/init/predictor"))
    optimizer = torch.optim.SGD(byol.parameters(), float(golden["steps/lr_sgd"]))
    for step in range(3):
        views = [golden[f"steps/view{k}"][step] for k in (1, 2)]
        _, predictions, targets = byol(*views)
        loss = symmetric_loss(predictions, targets).mean()
        assert loss.item() == pytest.approx(golden["steps/loss"][step].item(), abs=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        byol.average()
    for name in ("online", "target"):
        expected = network_weights(golden, f"steps/final/{name}")
        found = getattr(byol, name).state_dict()
        assert expected.keys() == found.keys()
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    expected = head_weights(golden, "steps/final/predictor")
    found = byol.predictor.state_dict()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_target_follows_by_a_known_share():
    byol = Byol(nn.Linear(5, 12), 12, 16, 8, tau=0.9)
    online = {name: p.detach() for name, p in byol.online.named_parameters()}
    for parameter in byol.target.parameters():
        parameter.data.zero_()
    for _ in range(5):
        byol.average()
    for name, parameter in byol.target.named_parameters():
        torch.testing.assert_close(parameter.data, online[name] * (1 - 0.9**5))


def test_sizes_of_the_heads_are_those_of_the_paper():
    counts = [
        sum(p.numel() for p in Head(*sizes).parameters())
        for sizes in ((256, 4096, 256), (2048, 4096, 6373), (6373, 4096, 6373))
    ]
    assert counts == [2_109_696, 34_511_077, 52_226_277]


def test_spread_tells_a_collapse():
    torch.manual_seed(0)
    healthy = torch.randn(2000, 16)
    assert spread(healthy).item() == pytest.approx(16**-0.5, rel=0.05)
    assert spread(healthy[:1].repeat(50, 1) * torch.rand(50, 1)).item() < 1e-6
