"""torchvision opens where its compiled operators are missing, and says what is wrong elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mpi_dcasgd import vision
from mpi_dcasgd.errors import DataError

ASK_TWICE = """
import gc, logging, sys
logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
from mpi_dcasgd.vision import torchvision
first = torchvision()
gc.collect()
assert torchvision() is first
"""

# What torchvision does when its library cannot be loaded: it describes operators that nobody has
# declared, after having imported submodules that stay behind when the import fails.
WITHOUT_OPERATORS = """
import torch
from . import extension
import torchvision.extension
assert not torchvision.extension.LOADED
for name in ("nms", "qnms"):
    torch.library.register_fake("torchvision::" + name)(lambda boxes, scores, threshold: boxes)
__version__ = "9.9"
"""


@pytest.mark.slow
def test_the_real_one_opens_and_its_models_run(processes) -> None:
    try:
        vision.torchvision()
    except DataError as error:
        pytest.skip(str(error))
    script = (
        "import torch\n"
        "model = first.models.get_model('squeezenet1_1', weights=None, num_classes=3)\n"
        "print(tuple(model(torch.zeros(1, 3, 32, 32)).shape), first.datasets.ImageFolder.__name__)"
    )
    finished = processes.run([sys.executable, "-W", "error", "-c", ASK_TWICE + script])
    assert finished.status == 0, str(finished)
    assert finished.stdout.splitlines()[-1] == "(1, 3) ImageFolder"


def test_missing_operators_are_declared_kept_alive_and_reported_once(
    processes, tmp_path: Path
) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(WITHOUT_OPERATORS)
    (package / "extension.py").write_text("LOADED = False\n")
    script = "import torch; print(torch.ops.torchvision.qnms.default._schema)"
    finished = processes.run(
        [sys.executable, "-c", ASK_TWICE + script], env={"PYTHONPATH": str(tmp_path)}
    )
    assert finished.status == 0, str(finished)
    told, schema = finished.stdout.splitlines()
    assert told.startswith("mpi_dcasgd: the compiled operators of torchvision 9.9 do not load")
    assert schema.startswith("torchvision::qnms(Tensor dets")


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ModuleNotFoundError("No module named 'torchvision'"), "pip install 'mpi-dcasgd[vision]'"),
        (RuntimeError("compiled with different CUDA major versions"), "goes with this PyTorch"),
    ],
)
def test_other_failures_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, told: str
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr(vision, "_import", fail)
    vision.torchvision.cache_clear()
    try:
        with pytest.raises(DataError) as caught:
            vision.torchvision()
    finally:
        vision.torchvision.cache_clear()
    assert told in str(caught.value)
    assert str(raised) in str(caught.value)


def test_a_module_of_ones_own_may_import_such_a_torchvision(processes, tmp_path: Path) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(WITHOUT_OPERATORS)
    (package / "extension.py").write_text("LOADED = False\n")
    (tmp_path / "my_models.py").write_text("import torchvision\nfound = torchvision.__version__\n")
    script = (
        "from mpi_dcasgd.extension import import_object\n"
        "print(import_object('my_models:found'), import_object('torchvision.extension:LOADED'))"
    )
    finished = processes.run([sys.executable, "-c", script], env={"PYTHONPATH": str(tmp_path)})
    assert finished.status == 0, str(finished)
    assert finished.stdout == "9.9 False\n"
