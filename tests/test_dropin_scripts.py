"""Scripts of several editions of the course, unchanged: with the folder's own NumPy layers, and on fastnet."""
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cifar_files
import numpy as np
import pytest
from fastnet.kernels.codegen.cache import CACHE

import fastnet

ROOT = Path(fastnet.__file__).parent.parent
SCRIPTS = Path(__file__).parent / "dropin_scripts"

# script: the dataset.py that lies in its folder, what the drop-in says, and a sequential.py of its own if it has one
CASES = {
    "rates_2018.py": ("rows_2018", "cifar100 returns 4 classes drawn with replacement, rows"),
    "test_data_2018.py": ("images_2018", "cifar100 returns 4 classes drawn with replacement, images"),
    "run_cifar100_2019.py": ("rows_2019", "cifar100 returns 5 classes drawn without replacement, rows"),
    "better_cifar_2019.py": ("rows_2019", "'layers' is fastnet"),
    "own_loop_2019.py": ("rows_2019", "'layers' is fastnet"),
    "chosen_2019.py": ("chosen", "cifar100 returns 5 classes drawn without replacement, rows"),
    "own_layer_2019.py": ("changed", "cifar100 is the function of"),
    "faces.py": ("faces", "fit got 60 targets for 48 samples; it uses the first 48"),
    "run_cifar100_next.py": ("images_2019", "cifar100 returns 3 classes drawn without replacement, images"),
    "processes.py": ("rows_2019", "'layers' is fastnet"),
    "layers/run_inside.py": ("rows_2019", "'full' is fastnet's, not"),
    "column_labels_2019.py": ("rows_2019", "with fastnet's layers, because its predict returns an array of shape (21, 1)", "column"),
    "saving_2019.py": ("rows_2019", "with fastnet's layers, because it has the methods load, save", "saving"),
    "printing_2019.py": ("rows_2019", "with fastnet's layers, because its fit takes print_output", "printing"),
    "growing_2019.py": ("rows_2019", "with fastnet's layers, because its fit returns a list", "growing"),
    "cpickle_2018.py": ("cpickle", "cifar100 returns 5 classes drawn without replacement, rows"),
    "three_classes_2019.py": ("constant", "cifar100 returns 3 classes drawn without replacement, rows"),
    "single_file_2019.py": ("rows_2019", "layers.py"),
}

# So that files of 0.3 MB count as CIFAR-100's. Found by every Python that starts, behind the drop-in's own.
SMALL_FILES = """
import fastnet.dataset._files as files
files.N_IMAGES = {sizes}
files.MD5 = {digests}
"""


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """A folder with CIFAR-100's files, small ones, and one with the sitecustomize that accepts them."""
    folder = tmp_path_factory.mktemp("cifar")
    cifar_files.write(folder / "cifar-100-python", cifar_files.contents())
    digests = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in (folder / "cifar-100-python").iterdir()}
    (folder / "sitecustomize.py").write_text(SMALL_FILES.format(sizes=cifar_files.N_IMAGES, digests=digests))
    return folder


@pytest.fixture
def course(tmp_path, cifar):
    """Makes a participant's folder for a script, and runs it there, by plain Python or with the drop-in."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FASTNET_")}
    environment |= {"PYTHONPATH": os.pathsep.join([str(cifar), str(ROOT)]), "XDG_CACHE_HOME": str(cifar / "cache")}
    if CACHE is not None:
        environment["FASTNET_CACHE_DIR"] = str(CACHE.parent)  # compiled kernels, unlike images, are those of all tests

    def run(script, dataset, sequential, *options):
        folder = tmp_path / ("fastnet" if options else "numpy")
        if script.startswith("single_file"):
            folder.mkdir()
            texts = [(SCRIPTS.parent / "check_styles" / "as_printed.py").read_text().replace("x + 1e-9", "x"), (SCRIPTS / "datasets" / f"{dataset}.py").read_text()]
            (folder / "layers.py").write_text("\n\n".join(texts))
        else:
            shutil.copytree(SCRIPTS / "layers", folder / "layers")
            shutil.copy(SCRIPTS / "datasets" / f"{dataset}.py", folder / "layers" / "dataset.py")
        if sequential:
            shutil.copy(SCRIPTS / "sequentials" / f"{sequential}.py", folder / "layers" / "sequential.py")
        if dataset == "cpickle" and not options:  # what it would have been in Python 2
            shutil.copy(SCRIPTS / "datasets" / "rows_2019.py", folder / "layers" / "dataset.py")
        (folder / "cifar-100-python").mkdir()
        for file in (cifar / "cifar-100-python").iterdir():
            shutil.copy2(file, folder / "cifar-100-python")
        if not (folder / script).exists():
            shutil.copy(SCRIPTS / script, folder / script)
        done = subprocess.run([sys.executable, *options, script], cwd=folder, env=environment, capture_output=True,
                              text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        with np.load(folder / "result.npz") as result:
            return dict(result), done.stderr, folder

    return run


@pytest.mark.parametrize("script", CASES)
def test_a_script_finds_the_same_with_numpy_layers_and_on_fastnet(course, script):
    dataset, said, *sequential = CASES[script]
    sequential = sequential[0] if sequential else None
    expected, _, _ = course(script, dataset, sequential)
    found, stderr, folder = course(script, dataset, sequential, "-m", "fastnet.dropin")
    assert said in stderr
    assert ("Sequential is that of" in stderr) is (sequential is not None or script.startswith("single_file"))
    assert (SCRIPTS / script).read_bytes() == (folder / script).read_bytes(), "unchanged"
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape and found[name].dtype.kind == value.dtype.kind, name
        if value.dtype.kind == "f":
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-11, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], value, err_msg=name)
    losses = next(expected[name] for name in ("loss", "losses", "curves", "train_loss") if name in expected)
    assert np.isfinite(losses).all() and np.ptp(losses) > 0.01, "the script trains"


def test_the_courses_unit_tests_pass_on_fastnet(tmp_path):
    shutil.copytree(SCRIPTS / "layers", tmp_path / "layers")
    shutil.copytree(SCRIPTS / "test", tmp_path / "test")
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "fastnet.dropin", "-m", "unittest", "discover", "test"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and "Ran 22 tests" in done.stderr, done.stderr
    assert "comes from" not in done.stderr and "layers.conv is" not in done.stderr, "fastnet's own layers, all of them"
