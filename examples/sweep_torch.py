"""Which learning rate for a PyTorch model? `fastnet.sweep` runs any training function.

    pip install torch scikit-learn
    python examples/sweep_torch.py
"""
import numpy as np
import torch
from sklearn.datasets import load_digits

from fastnet.sweep import sweep

X, Y = load_digits(return_X_y=True)
ORDER = np.random.default_rng(0).permutation(len(X))
X, Y = torch.tensor(X[ORDER] / 16 - 0.5, dtype=torch.float32), torch.tensor(Y[ORDER])


def train(trial):
    """Yield the numbers of each epoch; the sweep may suspend the function there and resume it later."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Dropout(trial.params["dropout"]),
                                torch.nn.Linear(32, 10))  # drawn from torch's generator, which has the trial's seed
    optimizer = torch.optim.SGD(model.parameters(), trial.lr)
    for _ in range(trial.epochs):
        model.train()
        total = 0.0
        for rows in torch.randperm(800).split(32):
            loss = torch.nn.functional.cross_entropy(model(X[rows]), Y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) / 25
        model.eval()
        with torch.no_grad():
            right = model(X[800:1200]).argmax(1) == Y[800:1200]
        yield {"loss": total, "val_accuracy": right}
    with torch.no_grad():
        test = (model(X[1200:]).argmax(1) == Y[1200:]).float().mean()
    yield {"test_accuracy": float(test)}


def main(epochs=20, seeds=3):
    """Print the table, and return the result."""
    result = sweep(train, lrs="1e-3:10:log9", epochs=epochs, seeds=seeds, params={"dropout": [0.0, 0.5]},
                   metric=("val_accuracy", "max"), search="halving")
    print(result)
    return result


if __name__ == "__main__":
    main()
