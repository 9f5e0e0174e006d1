import numpy as np


def fer2013():
    """
    A loader of one's own: small grey images in three classes, for training, validation and test
    """
    rng = np.random.RandomState(0)
    sets = []
    for n in (60, 20, 20):
        labels = rng.randint(0, 3, n)
        images = rng.uniform(-0.5, 0.5, (n, 1, 12, 12))
        for image, label in zip(images, labels):
            image[0, 4 * label:4 * label + 4] += 1.5
        sets.append((images, onehot(labels)))
    (x_train, y_train), (x_val, y_val), (x_test, y_test) = sets
    return (x_train, y_train), (x_val, y_val.argmax(1)), (x_test, y_test.argmax(1))


def onehot(y):
    return np.eye(3)[y]
