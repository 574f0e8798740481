import math

import pytest
import torch

from handful.training.optimizers import Lars


def stepped(weights, gradients, **options):
    parameter = torch.nn.Parameter(torch.tensor(weights))
    optimizer = Lars([parameter], **options)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return parameter.detach()


def test_one_step_by_hand():
    """|w| = 5, |g| = 13: w - lr * trust * 5 / 13 * g."""
    found = stepped([3.0, 4.0], [[5.0, 12.0]], lr=2.0, trust=0.01)
    ratio = 0.01 * 5 / 13
    torch.testing.assert_close(found, torch.tensor([3 - 2 * ratio * 5, 4 - 2 * ratio * 12]))


def test_two_steps_with_momentum_and_decay_by_hand():
    lr, momentum, decay, trust = 0.5, 0.9, 0.1, 0.02
    w, v = [2.0, -1.0], [0.0, 0.0]
    gradients = [[1.0, 4.0], [-3.0, 0.5]]
    for raw in gradients:
        g = [raw[i] + decay * w[i] for i in range(2)]
        ratio = trust * math.hypot(*w) / math.hypot(*g)
        v = [momentum * v[i] + lr * ratio * g[i] for i in range(2)]
        w = [w[i] - v[i] for i in range(2)]
    options = {"lr": lr, "momentum": momentum, "weight_decay": decay, "trust": trust}
    torch.testing.assert_close(stepped([2.0, -1.0], gradients, **options), torch.tensor(w))


def test_the_rate_is_inside_the_momentum_buffer():
    """A step made at a high rate stays long in the buffer when the rate falls."""
    parameter = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = Lars([{"params": [parameter], "adapt": False}], lr=1.0, momentum=0.5)
    parameter.grad = torch.tensor([1.0])
    optimizer.step()  # buffer 1, weight 0
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()  # buffer 0.5 * 1 + 0.1 * 1
    assert parameter.item() == pytest.approx(-0.6)


def test_without_weight_decay_the_trust_ratio_still_counts():
    found = stepped([1.0], [[100.0]], lr=1.0, weight_decay=0.0)
    assert found.item() == pytest.approx(1 - 0.001)


def test_an_excluded_group_is_plain_sgd_with_momentum():
    parameter, other = (torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    ours = Lars([{"params": [parameter], "adapt": False}], lr=0.1, momentum=0.9)
    sgd = torch.optim.SGD([other], lr=0.1, momentum=0.9)
    for number in range(3):
        parameter.grad = other.grad = torch.tensor([0.3 * number, 1.0])
        ours.step()
        sgd.step()
    torch.testing.assert_close(parameter, other)


@pytest.mark.parametrize("weights, gradient", [([0.0], [2.0]), ([2.0], [0.0])])
def test_zero_weights_or_gradients_have_the_ratio_1(weights, gradient):
    found = stepped(weights, [gradient], lr=0.5)
    assert math.isclose(found.item(), weights[0] - 0.5 * gradient[0])
