"""curvd for PyTorch models on CPU: fully connected layers and convolutions by hooks; only what is not contiguous is copied.

    with curvd_torch.Service(model, MPI.COMM_WORLD, curvature_ranks=1) as service:   # the same model on every rank
        if not service.is_worker:
            service.serve()
        for x, y in batches if service.is_worker else ():                            # a worker's own
            model.zero_grad()
            loss(model(x), y).backward()                                             # loss: a mean over the batch
            service.step(lr)

nn.Linear and nn.Conv2d (zero padding; each group is a layer) are preconditioned. All other trainable parameters are
layers that are not: they get the workers' averaged gradients, and steps of the same kind. Buffers, such as the running
statistics of a batch normalisation, are left alone.
"""
from functools import partial

import curvd
import torch
from mpi4py import MPI
from torch import nn

_PLAIN = "plain:"  # begins the names of layers that are not preconditioned


def _image_sizes(model, example):
    """{convolution: (height, width) of its input}; the model is as before."""
    sizes, modes = {}, {m: m.training for m in model.modules()}

    def note(module, inputs):
        sizes[module] = tuple(inputs[0].shape[-2:])

    hooks = [m.register_forward_pre_hook(note) for m in modes if isinstance(m, nn.Conv2d)]
    if hooks and example is None:
        raise ValueError("the model has convolutions: an example of its input is needed, example=x[:1]")
    if hooks:
        with torch.no_grad():
            model.eval()(example)
    for hook in hooks:
        hook.remove()
    for m, mode in modes.items():
        m.training = mode
    return sizes


def _is_known(module):
    """Can its layer be preconditioned?"""
    is_kind = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.padding_mode == "zeros"
                                                and not isinstance(module.padding, str))
    return is_kind and module.weight.requires_grad and (module.bias is None or module.bias.requires_grad)


class Service(curvd.Context):
    """The service of one model, planned. Collective; parameters of rank 0 go to all ranks. example: an input, for
    models with convolutions. options: as for curvd.Context."""

    def __init__(self, model, comm=MPI.COMM_WORLD, example=None, **options):
        skip = ",".join(filter(None, (options.pop("skip", ""), _PLAIN + "*")))
        super().__init__(comm, skip=skip, **options)
        self._places = []  # of each layer: weight, bias, slice of their first dimension; None: a layer of all numbers
        self._hooks = []
        sizes, seen = _image_sizes(model, example), set()
        for name, module in model.named_modules():
            is_used = isinstance(module, nn.Linear) or module in sizes
            if is_used and _is_known(module) and id(module.weight) not in seen:
                layers = self._add_module(name or "model", module, sizes.get(module))
                seen.update(map(id, module.parameters(recurse=False)))
                forward = partial(self._forward, layers, isinstance(module, nn.Linear))
                self._hooks.append(module.register_forward_hook(forward))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and id(parameter) not in seen:
                self.add_layer(_PLAIN + name, parameter.numel(), 1, bias=False)
                self._places.append((parameter, None, None))
        for parameter in model.parameters():
            comm.Bcast(parameter.detach().numpy(), root=0)
        self.plan()

    def _add_module(self, name, module, size):
        """Adds the module, or each of its groups; returns [(layer, inputs, outputs)], slices of channels."""
        groups, has_bias = getattr(module, "groups", 1), module.bias is not None
        n_out, n_in, *kernel = module.weight.shape
        added = []
        for i in range(groups):
            part = name if groups == 1 else f"{name}:{i}"
            outputs = slice(i * n_out // groups, (i + 1) * n_out // groups)
            if size is None:
                layer = self.add_layer(part, n_in, n_out, has_bias)
            else:
                layer = self.add_conv(part, n_in, n_out // groups, size, kernel, module.stride, module.padding,
                                      module.dilation, has_bias)
            added.append((layer, slice(i * n_in, (i + 1) * n_in), outputs))
            self._places.append((module.weight, module.bias, outputs))
        return added

    def _forward(self, layers, is_flat, _, inputs, output):
        if self.is_worker and self.wants_capture and output.requires_grad:
            a = inputs[0].detach()
            output.grad_fn.register_hook(lambda _, gradients: self._backward(layers, is_flat, a, gradients[0]))

    def _backward(self, layers, is_flat, a, g):
        if is_flat:  # a Linear takes any number of leading dimensions
            a, g = a.reshape(-1, a.shape[-1]), g.reshape(-1, g.shape[-1])
        a, g = a.contiguous().numpy(), g.contiguous().numpy()
        for layer, inputs, outputs in layers:
            self.capture(layer, a[:, inputs], g[:, outputs])

    def _gradient(self, weight, bias, outputs, is_update):
        if weight.grad is None:  # no part of this loss
            weight.grad = torch.zeros_like(weight)
        if bias is not None and bias.grad is None:
            bias.grad = torch.zeros_like(bias)
        tensors = [weight.grad, bias.grad if bias is not None else None]
        if is_update:
            tensors += [weight.detach(), bias.detach() if bias is not None else None]
        if outputs is None:
            return curvd.gradient(*(t.view(1, -1).numpy() if t is not None else None for t in tensors))
        return curvd.gradient(*(t[outputs].numpy() if t is not None else None for t in tensors))

    def close(self):
        for hook in self._hooks:
            hook.remove()
        super().close()

    def step(self, lr, update=True):
        """Collective over the workers: gradients are averaged, and W <- W - lr * direction. update False: .grad holds
        the direction afterwards, for an optimizer that does the rest."""
        super().step(lr, [self._gradient(*place, update) for place in self._places])
