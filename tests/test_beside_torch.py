"""Every layer and every option of training beside PyTorch: the losses of four epochs, in float64, to 1e-10."""
import numpy as np
import pytest
from fastnet.kernels.dropout import dropout_forward

from fastnet import (
    AveragePoolLayer,
    BatchNormLayer,
    ConvLayer,
    CrossEntropyLayer,
    DropoutLayer,
    FlattenLayer,
    FullLayer,
    LeakyReluLayer,
    MaxPoolLayer,
    MeanSquaredErrorLayer,
    ReluLayer,
    Sequential,
    SigmoidLayer,
    SoftMaxLayer,
    TanhLayer,
)

torch = pytest.importorskip("torch")

ROWS, IMAGES, CLASSES = (9,), (3, 9, 11), 4
EPOCHS, BATCH = 4, 16


def mlp(*between):
    return lambda: [FullLayer(9, 12, rng=0), *(make() for make in between), FullLayer(12, CLASSES, rng=1), SoftMaxLayer()]


def cnn(*layers):
    def made():
        stack = [make() for make in layers]
        shape = IMAGES
        for layer in stack:
            shape = layer.output_shape(shape)
        return [*stack, FlattenLayer(), FullLayer(int(np.prod(shape)), CLASSES, rng=9), SoftMaxLayer()]

    return made


def conv(n_i, n_o, h, **options):
    return lambda: ConvLayer(n_i, n_o, h, rng=n_o, **options)


NETWORKS = {
    "sigmoid": mlp(SigmoidLayer),
    "tanh": mlp(TanhLayer),
    "leaky ReLU": mlp(lambda: LeakyReluLayer(0.1)),
    "dropout": mlp(ReluLayer, lambda: DropoutLayer(0.4, 5)),
    "dropout first": lambda: [DropoutLayer(0.2, 3), FullLayer(9, CLASSES, rng=1), DropoutLayer(0.5, 4), SoftMaxLayer()],
    "batch norm": mlp(lambda: BatchNormLayer(12), ReluLayer),
    "batch norm, dropout": mlp(lambda: BatchNormLayer(12, eps=0.01, momentum=0.3), SigmoidLayer, lambda: DropoutLayer(0.3, 7)),
    "batch norm first": lambda: [BatchNormLayer(9), FullLayer(9, CLASSES, rng=1), SoftMaxLayer()],
    "He": lambda: [FullLayer(9, 12, rng=0, initializer="he"), ReluLayer(), FullLayer(12, CLASSES, rng=1), SoftMaxLayer()],
    "average pool": cnn(conv(3, 6, 3), ReluLayer, lambda: AveragePoolLayer(2), conv(6, 5, 3), lambda: AveragePoolLayer(3)),
    "strides": cnn(conv(3, 6, 3, stride=2), ReluLayer, conv(6, 17, 3, stride=2), ReluLayer),
    "valid": cnn(conv(3, 6, 5, padding="valid"), ReluLayer, lambda: MaxPoolLayer(2), conv(6, 5, 2, padding="valid"), TanhLayer),
    "pairs": cnn(conv(3, 16, 3, stride=(1, 2), padding=(0, 2)), TanhLayer, conv(16, 5, 4, stride=(3, 1), padding=(5, 0))),
    "padding": cnn(conv(3, 16, 3, padding=2), SigmoidLayer, conv(16, 18, 3, padding=0), TanhLayer),
    "1 x 1": cnn(conv(3, 8, 1, stride=2), TanhLayer, conv(8, 8, 1), TanhLayer),
    "pools that overlap": cnn(conv(3, 6, 3), lambda: MaxPoolLayer(3, 2), TanhLayer, conv(6, 7, 3),
                              lambda: MaxPoolLayer((2, 3), 1)),
    "pools with gaps": cnn(lambda: MaxPoolLayer(2, 3), conv(3, 6, 3), TanhLayer, lambda: MaxPoolLayer(1, (2, 1))),
    "batch norm of images": cnn(conv(3, 6, 3), lambda: BatchNormLayer(6), ReluLayer, lambda: AveragePoolLayer(2),
                                conv(6, 8, 3, stride=2), lambda: BatchNormLayer(8), ReluLayer, lambda: DropoutLayer(0.2, 1)),
    "batch norm behind a pool": cnn(conv(3, 6, 3), TanhLayer, lambda: MaxPoolLayer(2), lambda: BatchNormLayer(6), conv(6, 4, 3)),
    "mean squared error": lambda: [FullLayer(9, 12, rng=0), SigmoidLayer(), FullLayer(12, CLASSES, rng=1)],
}
OPTIMIZERS = {
    "sgd": ({}, torch.optim.SGD, {}),
    "momentum": ({"momentum": 0.9}, torch.optim.SGD, {"momentum": 0.9}),
    "nesterov": ({"momentum": 0.8, "nesterov": True}, torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
    "decay": ({"momentum": 0.5, "weight_decay": 0.1}, torch.optim.SGD, {"momentum": 0.5}),
    "adam": ({"optimizer": "adam"}, torch.optim.Adam, {}),
    "rmsprop": ({"optimizer": "rmsprop"}, torch.optim.RMSprop, {}),
}


class Masked(torch.nn.Module):
    """Multiplies by the masks of a dropout layer, one after the other."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.calls = layer, layer.calls

    def forward(self, x):
        mask, y = np.empty(x.shape), np.empty(x.shape)
        dropout_forward(y, mask, np.ones(x.shape), self.layer.rate, self.layer.seed, self.calls)
        self.calls += 1
        return x * torch.from_numpy(mask)


def torch_losses(model, x, t, lr, kind, options, decay):
    """The losses of PyTorch's modules, which begin with the model's parameters."""
    modules = list(model.to_torch())
    modules = [Masked(layer) if isinstance(layer, DropoutLayer) else module
               for layer, module in zip(model.layers, modules, strict=True)]
    by_class = isinstance(model.loss, CrossEntropyLayer)
    network = torch.nn.Sequential(*modules[:-1 if by_class else None]).train()
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim == 1]
    optimizer = kind([{"params": weights, "weight_decay": decay}, {"params": others}], lr=lr, **options)
    loss_of, losses = torch.nn.functional.cross_entropy if by_class else torch.nn.functional.mse_loss, []
    x, t = torch.from_numpy(x), torch.from_numpy(t)
    for _ in range(EPOCHS):
        of_batches = []
        for first in range(0, len(x), BATCH):
            loss = loss_of(network(x[first:first + BATCH]), t[first:first + BATCH])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            of_batches.append(loss.item())
        losses.append(np.mean(of_batches))
    return losses, network


@pytest.mark.parametrize(("name", "optimizer"), [*((name, "momentum") for name in NETWORKS),
                                                 *((name, optimizer) for optimizer in OPTIMIZERS if optimizer != "momentum"
                                                   for name in ("batch norm, dropout", "strides"))])
def test_losses_are_pytorch_s(name, optimizer):
    rng = np.random.default_rng(3)
    given, kind, options = OPTIMIZERS[optimizer]
    lr = 0.003 if "optimizer" in given else 0.05
    loss = (MeanSquaredErrorLayer if name == "mean squared error" else CrossEntropyLayer)
    model = Sequential(NETWORKS[name](), loss())
    images = any(isinstance(layer, FlattenLayer) for layer in model.layers)
    x = rng.standard_normal((40, *(IMAGES if images else ROWS)))
    t = np.eye(CLASSES)[rng.integers(0, CLASSES, 40)]
    expected, network = torch_losses(model, x, t, lr, kind, options, given.get("weight_decay", 0.0))
    engines = [e.name for e in model.explain(x, t, EPOCHS, BATCH, **given).estimates if e.refused is None]
    assert {"layers", "fused"} <= set(engines)
    for engine in engines:
        trained = Sequential(NETWORKS[name](), loss())
        losses = trained.fit(x, t, epochs=EPOCHS, lr=lr, batch_size=BATCH, engine=engine, **given)
        np.testing.assert_allclose(losses, expected, rtol=1e-10, err_msg=engine)
        for layer, module in zip(trained.layers, network, strict=False):
            if isinstance(layer, BatchNormLayer):
                np.testing.assert_allclose(layer.running_mean[0], module.running_mean.numpy(), atol=1e-10)
                np.testing.assert_allclose(layer.running_var[0], module.running_var.numpy(), rtol=1e-10)
        if not any(isinstance(layer, DropoutLayer) for layer in model.layers):
            with torch.no_grad():
                np.testing.assert_allclose(trained.eval().forward(x) if engine == "layers" else trained.predict_proba(x),
                                           _outputs(network.eval(), model, x), atol=1e-9)


def _outputs(network, model, x):
    scores = network(torch.from_numpy(x))
    return (scores.softmax(1) if isinstance(model.loss, CrossEntropyLayer) else scores).numpy()
