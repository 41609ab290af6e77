"""A user's own PyTorch model by curvd_torch.py: a small convolutional network tells stripes apart; one step is compared
with exact K-FAC in dense fp64, of a fully connected layer, a convolution and a grouped one. Run by python3 -m mpi4py."""
import curvd_torch
import numpy as np
import torch
from kfac_direction import OPTIONS, direction, distance, factor
from mpi4py import MPI
from torch import nn
from torch.nn import functional

COMM = MPI.COMM_WORLD
N_IMAGES, N_STEPS, N_CLASSES = 192, 50, 4


def require(is_so, what):
    if not is_so:
        raise AssertionError(what)


def images(first, n):
    """Every n-th image, from the first on: 8 x 8 stripes of four directions, each with a phase of its own, in noise."""
    i = torch.arange(first, N_IMAGES, n)
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    noise = torch.randn(N_IMAGES, 1, 8, 8, generator=torch.Generator().manual_seed(3))[i]
    angle = (i % N_CLASSES).view(-1, 1, 1) * torch.pi / N_CLASSES
    wave = torch.sin(1.6 * (x * torch.cos(angle) + y * torch.sin(angle)) + 2.4 * i.view(-1, 1, 1))
    return wave.unsqueeze(1) + 0.5 * noise, i % N_CLASSES


def make_model():
    torch.manual_seed(7 + COMM.rank)  # parameters of rank 0 go to all
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
                         nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2), nn.ReLU(inplace=True), nn.Flatten(),
                         nn.Linear(72, N_CLASSES))


def train(curvature_ranks):
    model = make_model()
    with curvd_torch.Service(model, COMM, example=images(0, 64)[0], curvature_ranks=curvature_ranks) as service:
        if not service.is_worker:
            service.serve()
            return
        x, label = images(service.worker_index, service.worker_count)
        for step in range(N_STEPS):
            model.zero_grad()
            functional.cross_entropy(model(x), label).backward()
            service.step(0.01 * (1 - step / N_STEPS))
    x, label = images(0, 1)
    right = int((model(x).argmax(1) == label).sum())
    if COMM.rank == 0:
        print(f"{right} of {N_IMAGES} images are told right")
    require(right >= 0.98 * N_IMAGES, f"{right} of {N_IMAGES} images are told right, after {N_STEPS} steps")


# ---- one step ----


class Seen:
    """Inputs and output gradients of the layers, by torch's own means."""

    def __init__(self, modules):
        self.a, self.g = {}, {}
        for module in modules:
            module.register_forward_hook(self.forward)

    def forward(self, module, inputs, output):
        self.a[module] = inputs[0].detach().double()
        output.register_hook(lambda g: self.g.__setitem__(module, g.double()))


def rows_of(module, a, g):
    """Rows (any, n) of A and of G, per example's loss; of a convolution patches, and gradients over the root of their
    count: Omega is summed over positions, Gamma averaged (Grosse and Martens 2016)."""
    if isinstance(module, nn.Linear):
        return a, g * len(g)
    patches = functional.unfold(a, module.kernel_size, module.dilation, module.padding, module.stride)
    g = g.flatten(2) * len(g)
    return [x.transpose(1, 2).flatten(0, 1) for x in (patches, g / g.shape[2] ** 0.5)]


def parts_of(module, seen):
    """Of each group: a, g, weight and bias of the gradient."""
    groups = getattr(module, "groups", 1)
    tensors = [seen.a[module].chunk(groups, 1), seen.g[module].chunk(groups, 1), module.weight.grad.chunk(groups)]
    return zip(*tensors, module.bias.grad.chunk(groups))


def joined(weight, bias):
    return np.hstack([weight.detach().flatten(1).double().numpy(), bias.detach().double().numpy()[:, None]])


def compare(curvature_ranks, rows=6, damping=0.1, exponent=0.5):
    """Largest relative distance of a direction from dense K-FAC's."""
    torch.manual_seed(11)
    model = nn.Sequential(nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=1), nn.Tanh(),
                          nn.Conv2d(4, 6, 2, groups=2, dilation=2), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 5 * 2, 3))
    modules = [m for m in model if not isinstance(m, (nn.Tanh, nn.Flatten))]
    x = torch.randn(COMM.size * rows, 2, 7, 7).chunk(COMM.size)[COMM.rank]
    label = torch.arange(rows) % 3
    options = dict(OPTIONS, damping=damping, exponent_a=exponent, exponent_g=exponent)
    found = 0.0
    with curvd_torch.Service(model, COMM, example=x, curvature_ranks=curvature_ranks, **options) as service:
        mine = None
        seen = Seen(modules)
        if service.is_worker:
            functional.cross_entropy(model(x), label).backward()
            mine = [[t.numpy() for t in rows_of(m, a, g)] + [joined(w, b)]
                    for m in modules for a, g, w, b in parts_of(m, seen)]
            service.step(1.0, update=False)
            service.finish()
        else:
            service.serve()
        all_rows = [y for y in COMM.allgather(mine) if y is not None]
        if mine is None:
            return found
        made = [joined(w, b) for m in modules for _, _, w, b in parts_of(m, seen)]
        for i, direction_made in enumerate(made):
            a, g = (np.vstack([y[i][k] for y in all_rows]) for k in (0, 1))
            n = rows * len(all_rows)
            gradient = sum(y[i][2] for y in all_rows) / len(all_rows)
            A, G = factor(a, n, True), factor(g, n)
            found = max(found, distance(direction_made, direction(A, G, gradient, damping, exponent)))
    return found


def main():
    for curvature_ranks in range(min(COMM.size, 2)):
        far = compare(curvature_ranks)
        require(far < 1e-4, f"C = {curvature_ranks}: {far} from dense K-FAC")
        train(curvature_ranks)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
