"""Names of code in job files, and models that are functions of the user's own."""

from __future__ import annotations

import doctest
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from torch import nn

import mpi_dcasgd
from mpi_dcasgd import extension
from mpi_dcasgd.config.load import job_as_text, job_as_yaml, load_job
from mpi_dcasgd.errors import ConfigError, UserError
from mpi_dcasgd.learning import hints
from mpi_dcasgd.learning.data import tensors
from mpi_dcasgd.learning.models import build_model, find_model

MODELS = '''
from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import nn

if TYPE_CHECKING:
    from nowhere import Thing


def net(widths: tuple[int, ...] = (4,), act: Literal["relu", "tanh"] = "relu", *, input_shape,
        num_classes: int, extras: dict[str, int] = {}, **more):
    """Layers."""
    extras["seen"] = 1
    return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[-1] ** 2, num_classes))


def must(width: int):
    return nn.Linear(64, 10)


def loose(thing: Thing, size=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


class Net(nn.Module):
    def __init__(self, num_classes: int, bias: bool = True):
        super().__init__()
        self.layer = nn.Linear(64, num_classes, bias=bias)

    def forward(self, x):
        return self.layer(x.flatten(1))


def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def nothing():
    return 3


def create(model_name: str, pretrained: bool = False, **settings):
    """As timm.create_model."""
    made = nn.Sequential(nn.Flatten(), nn.Linear(64, settings.pop("num_classes")))
    made.settings = settings
    return made


def named(name):
    return None


def star(*sizes):
    return None
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of functions; one name a test, since settings of functions are kept by name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    (tmp_path / "own_models.py").write_text(MODELS)


def make(name: str, **settings: Any) -> Any:
    return find_model(f"own_models:{name}")(name=f"own_models:{name}", **settings)


def test_a_functions_parameters_are_the_settings() -> None:
    model = make("net", widths=[8, 4], act="tanh")
    assert (model.widths, model.act, model.extras) == ((8, 4), "tanh", {})
    for wrong in ({"widths": [1.5]}, {"act": "elu"}, {"num_classes": 3}, {"wdith": 3}):
        with pytest.raises(ValidationError):
            make("net", **wrong)
    module = build_model(model, (1, 8, 8), 10)
    assert module[1].out_features == 10
    # What the function does to its arguments is not done to the settings, or to later ones.
    assert model.extras == make("net").extras == {}


def test_a_functions_settings_can_be_sent_and_written_down(tmp_path: Path) -> None:
    model = make("net", act="tanh")
    assert pickle.loads(pickle.dumps(model)) == model
    assert type(pickle.loads(pickle.dumps(model))) is type(model)
    file = tmp_path / "job.yaml"
    file.write_text(
        "epochs: 1\nbatch_size: 8\nlr: 0.1\ndata: {name: digits}\n"
        "model: {name: 'own_models:net', act: tanh}\n"
    )
    written = job_as_yaml(load_job(file))["model"]
    assert written == {"name": "own_models:net", "widths": [4], "act": "tanh", "extras": {}}


def test_a_setting_without_a_default_must_be_given(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "epochs: 1\nbatch_size: 8\nlr: 0.1\ndata: {name: digits}\n"
        "model: {name: 'own_models:must'}\n"
    )
    with pytest.raises(ConfigError, match=r"model.width: missing; give a whole number"):
        load_job(file)
    assert load_job(file, ["model.width=3"]).model == make("must", width=3)


def test_a_function_that_takes_any_keyword_is_given_any(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "epochs: 1\nbatch_size: 8\nlr: 0.1\ndata: {name: digits}\n"
        "model: {name: 'own_models:create', model_name: flat, drop_rate: 0.1, num_classes: 10}\n"
    )
    job = load_job(file)
    written = job_as_yaml(job)["model"]
    given = {"model_name": "flat", "drop_rate": 0.1, "num_classes": 10}
    assert written.items() >= {"name": "own_models:create", "pretrained": False, **given}.items()
    module = build_model(job.model, (1, 8, 8), 10)
    assert module.settings == {"drop_rate": 0.1}
    assert pickle.loads(pickle.dumps(job.model)) == job.model
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(job_as_text(job))
    assert load_job(resolved).model == job.model
    with pytest.raises(ConfigError) as caught:
        load_job(file, ["model={name: 'own_models:create', depth: 3, pretrained: 2}"])
    assert sorted(line.partition(";")[0] for line in caught.value.problems) == [
        "model.model_name: missing",
        "model.pretrained: got 2 (a whole number)",
    ]


def test_types_that_cannot_be_resolved_take_anything() -> None:
    assert make("loose", thing=[1], size="x").size == "x"


HINTS = """
import enum
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import nn

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"


def array(x: np.ndarray = None): return x
def number(x: int = None): return x
def iterator(x: Iterator[int] = (1,)): return x
def call(x: Callable[[int], int] = abs): return x
def color(x: Color = Color.RED): return x
def sequence(x: Sequence[float] = (1.0,)): return x
def bare(x=(1, (2,))): return x
def path(x: pathlib.Path = pathlib.Path("a")): return x
def dtype(x: torch.dtype = torch.float32): return x
def variable(x: T = 3): return x
def value(x: 3 = 3): return x
def kind(x: type[nn.Module] = nn.ReLU): return x
def whole(x: float = 1): return x
def wrong(x: int = 0.5): return x
def few(x: set[int] = frozenset({2, 1})): return x
def table(x: dict[str, tuple[int, ...]] = {"a": (1,)}): return x
def maybe(x: tuple[int, ...] | None = None): return x
def target(target: str = "y", own: int = 1, filled: int = 2): return target
def check(check: bool = True): return check
"""


@pytest.fixture
def hinted(tmp_path: Path) -> Path:
    (tmp_path / "own_hints.py").write_text(HINTS)
    return tmp_path


def hinted_job(folder: Path, name: str, **settings: Any) -> Any:
    model = {"name": f"own_hints:{name}", **settings}
    job = {"name": "x", "epochs": 1, "batch_size": 8, "lr": 0.1, "model": model}
    return mpi_dcasgd.load_job({**job, "data": {"name": "digits"}, "code": str(folder)})


NAMES = re.findall(r"^def (\w+)", HINTS, re.MULTILINE)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "check"])
def test_a_job_that_is_written_down_with_its_defaults_loads_again_as_the_same(
    hinted: Path, name: str
) -> None:
    job = hinted_job(hinted, name)
    file = hinted / "resolved.yaml"
    file.write_text(job_as_text(job))
    again = load_job(file)
    assert again == job
    assert again.model.arguments() == job.model.arguments()
    assert pickle.loads(pickle.dumps(job.model)) == job.model


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("number", 3, 3),
        ("color", "red", "Color.RED"),
        ("sequence", [2.0], (2.0,)),
        ("bare", [3], (3,)),
        ("path", "b", "b"),
        ("few", [3, 4], {3, 4}),
        ("table", {"b": [2]}, {"b": (2,)}),
        ("maybe", [5], (5,)),
    ],
)
def test_a_job_gives_lists_and_text_for_what_yaml_has_not(
    hinted: Path, name: str, given: Any, kept: Any
) -> None:
    found = hinted_job(hinted, name, x=given).model.x
    assert found == kept or str(found) == kept


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("number", r"model.x: got 'no' \(text\); allowed: a whole number or null"),
        ("color", r"model.x: got 'no' \(text\); allowed: one of red"),
        ("few", r"model.x: got 'no' \(text\); allowed: a list of whole numbers"),
        ("array", r"model.x: got 'no' \(text\); allowed: <class 'numpy.ndarray'> or null"),
        ("call", r"model.x: unknown"),
        ("check", r"its parameter check: bool = True is in the way"),
    ],
)
def test_other_values_are_refused(hinted: Path, name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        hinted_job(hinted, name, x="no")


def test_a_module_class_serves_as_a_function() -> None:
    module = build_model(make("Net", bias=False), (1, 8, 8), 10)
    assert isinstance(module, nn.Module)
    assert module.layer.bias is None


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("narrow", r"own_models:narrow gives \(2, 3\) for 2 samples and 10 classes"),
        ("nothing", "own_models:nothing returned int, no torch.nn.Module"),
    ],
)
def test_what_a_function_returns_is_looked_at(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_model(make(name), (1, 8, 8), 10)


@pytest.mark.parametrize("name", ["named", "star"])
def test_parameters_that_no_setting_can_be_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"own_models:{name} cannot be given settings: its param"):
        make(name)


@pytest.mark.parametrize("path", [":Name", "a.:Name", "..a:Name", "a:", "a:b.c", "a:b:c", "a b:c"])
def test_what_is_no_path_is_not_imported(path: str) -> None:
    with pytest.raises(UserError, match="it is not of the form package"):
        extension.import_object(path)


def test_what_breaks_while_it_is_imported_is_not_taken_for_a_wrong_name(tmp_path: Path) -> None:
    (tmp_path / "broken_models.py").write_text("1 / 0\n")
    told = r"broken_models raised ZeroDivisionError: division by zero \(.*models.py, line 1\)"
    with pytest.raises(UserError, match=f"cannot import broken_models:net: {told}"):
        extension.import_object("broken_models:net")


def test_a_table_imports_what_is_asked_for_only() -> None:
    table = extension.Table(dict, {"a": "collections:OrderedDict", "b": "no_such_module:B"})
    assert table.find("a").__name__ == "OrderedDict"
    assert list(table) == ["a", "b"]
    with pytest.raises(UserError, match="cannot import no_such_module:B"):
        table["b"]


@pytest.mark.parametrize("module", [extension, hints, tensors])
def test_examples_are_true(module: Any) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_tensors_and_targets_are_as_many() -> None:
    import torch

    with pytest.raises(ValueError, match="3 inputs, but 2 targets"):
        tensors.TensorSplit(torch.eye(3), torch.arange(2), torch.device("cpu"))
