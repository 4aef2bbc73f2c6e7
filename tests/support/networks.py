"""Modules of Linear and Conv2d layers to prune, every parameter and running statistic random."""

import torch
from support.arrays import rotating
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "softplus": nn.Softplus, "relu": nn.ReLU, "silu": nn.SiLU}


class Functional(nn.Module):
    """The functional forms of what the others have as modules."""

    def __init__(self, sigma):
        super().__init__()
        self.sigma = sigma()
        self.conv1, self.norm, self.conv2 = nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 4, 2)
        self.fc1, self.fc2 = nn.Linear(4 * 4, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = F.max_pool2d(self.sigma(self.norm(self.conv1(x.unsqueeze(1)))), 2, 1)
        x = F.avg_pool2d(F.leaky_relu(self.conv2(x)), 2, stride=1, padding=1, count_include_pad=False)
        x = F.adaptive_avg_pool2d(x, 2)
        x = F.dropout(x.reshape(x.size(0), -1), 0.5, self.training)
        return F.log_softmax(self.fc2(torch.tanh(self.fc1(x)).relu()), 1)


def mlp(sigma):
    return nn.Sequential(nn.Linear(4, 7), sigma(), nn.Linear(7, 5), sigma(), nn.Linear(5, 3))


def norm_mlp(sigma):
    first = (nn.Linear(4, 7, bias=False), nn.BatchNorm1d(7), sigma(), nn.Dropout(0.5))
    return nn.Sequential(nn.BatchNorm1d(4), *first, nn.Linear(7, 5), sigma(), nn.BatchNorm1d(5), nn.Linear(5, 3))


def conv(sigma):
    """Batch norm, both kinds of pooling, flattened channels of 4 pixels, no zero padding."""
    first = (nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), sigma(), nn.MaxPool2d(2, 1))
    second = (nn.Conv2d(5, 4, (3, 2), bias=False), nn.BatchNorm2d(4), sigma(), nn.AdaptiveAvgPool2d(2))
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(16, 6), sigma(), nn.Linear(6, 3))


def padded(sigma):
    """Padding of several modes, stride 2, dilation."""
    first = (nn.Conv2d(2, 5, 3, padding=1, stride=2), sigma(), nn.Conv2d(5, 4, 3, padding="same"), sigma())
    second = (nn.Conv2d(4, 6, (3, 2), padding=(2, 1), dilation=2, padding_mode="reflect"), sigma(), nn.AvgPool2d(2))
    return nn.Sequential(*first, *second, nn.Conv2d(6, 3, 2, stride=(2, 1), padding=1), nn.Flatten())


MODULES = {"mlp": mlp, "norm_mlp": norm_mlp, "conv": conv, "padded": padded, "functional": Functional}
SHAPES = {"mlp": (4,), "norm_mlp": (4,), "conv": (2, 8, 8), "padded": (2, 8, 8), "functional": (8, 8)}
CASES = rotating(MODULES, ACTIVATIONS, times=2)


def make(name, activation="softplus", seed=0):
    """A float64 module in eval mode, with random parameters and running statistics."""
    module = MODULES[name](ACTIVATIONS[activation]).double().eval()
    return randomised(module, seed)


def randomised(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())):
            tensor.copy_(0.6 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
        for name, tensor in module.named_buffers():
            if name.endswith("running_var"):
                tensor.abs_().add_(0.3)
    return module


def sample(name, rows=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, *SHAPES[name], generator=generator, dtype=torch.float64)


def random_keep(module, links, seed=0):
    """About half of each layer's neurons, one at least."""
    generator = torch.Generator().manual_seed(seed)
    keep = []
    for link in links[:-1]:
        kept = torch.rand(link.n_out, generator=generator) < 0.5
        kept[int(torch.randint(link.n_out, (), generator=generator))] = True
        keep.append(kept)
    return keep


def state_of(module):
    """All that recording must leave alone: tensors, gradients, flags and hooks."""
    tensors = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    grads = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    flags = [(part.training, len(part._forward_hooks), len(part._forward_pre_hooks)) for part in module.modules()]
    return tensors, grads, flags, [p.requires_grad for p in module.parameters()]


def assert_same_state(before, after):
    assert before[2:] == after[2:]
    assert all(torch.equal(tensor, after[0][name]) for name, tensor in before[0].items())
    for old, new in zip(before[1], after[1], strict=True):
        assert old is None if new is None else torch.equal(old, new)
