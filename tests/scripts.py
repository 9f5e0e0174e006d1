"""What the tests of the scripts share: a small file of images."""
import numpy as np


def image_file(path, n_train=60, n_test=30):
    """Write an .npz of 32 x 32 images of three classes that differ in brightness, some noise on them."""
    rng = np.random.default_rng(0)

    def images(n):
        labels = np.arange(n) % 3
        return rng.integers(0, 100, (n, 3072), dtype=np.uint8) + (60 * labels[:, None]).astype(np.uint8), labels

    (x_train, y_train), (x_test, y_test) = images(n_train), images(n_test)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, names=["dark", "grey", "light"])
    return path
