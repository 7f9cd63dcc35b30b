"""What a job may say about its model and its data."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT

Count = Annotated[int, Field(ge=1)]

StatisticsPolicy = Literal["average", "latest"]
"""What the server does with BatchNorm's running statistics, which no rule ever compensates.

``average``: workers push the statistics of their batch; the server keeps the running mean with
the layers' own momentum, as one process that saw all batches would. ``latest``: workers push
their own running statistics and the server keeps the last that came (Giladi et al. 2020).
"""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelSettings:
    """The ``model:`` section of a job; ``models.check_model`` checks what needs a look-up."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            description="mlp, cnn, resnet20/32/44/56/110 (He et al. 2016, for CIFAR), or any "
            "torchvision classification model",
        ),
    ]
    hidden: Annotated[
        tuple[Count, ...],
        Field(strict=False, description="mlp: units of each hidden layer; cnn: of its head"),
    ] = (128,)
    dropout: Annotated[
        float, Field(ge=0, lt=1, description="mlp, cnn: dropped fraction of hidden units")
    ] = 0.0
    batchnorm: Annotated[bool, Field(description="cnn: normalise after each convolution")] = False
    options: Annotated[
        dict[str, Any],
        Field(description="torchvision models: further arguments of the constructor"),
    ] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataSettings:
    """The ``data:`` section of a job; ``data.check_data`` checks what depends on ``name``."""

    name: Annotated[
        Literal["digits", "synthetic", "cifar10", "imagefolder"],
        Field(description="the data set; digits and synthetic need no files"),
    ]
    path: Annotated[
        str | None,
        Field(
            description="cifar10: folder that holds cifar-10-batches-py; imagefolder: folder that "
            "holds the splits. ~ and $VARIABLES are expanded"
        ),
    ] = None
    augment: Annotated[
        Literal["auto", "standard", "none"],
        Field(
            description="random changes of training images. standard: crops and flips (digits: "
            "shifts by a pixel); auto: standard for cifar10 and imagefolder, else none"
        ),
    ] = "auto"
    image_size: Annotated[
        int, Field(ge=1, description="imagefolder: height and width given to the model")
    ] = 224
    train_split: Annotated[
        str, Field(min_length=1, description="imagefolder: folder of the training images")
    ] = "train"
    test_split: Annotated[
        str | None,
        Field(
            min_length=1,
            description="imagefolder: folder of the test images; test or val, whichever exists",
        ),
    ] = None
    loaders: Annotated[
        int, Field(ge=1, description="imagefolder: threads of each rank that decode images")
    ] = 4
    cache: Annotated[
        Literal["auto", "on", "off"],
        Field(
            description="imagefolder: keep decoded images of up to 64 pixels in memory; auto: if "
            "a split takes less than 1 GiB"
        ),
    ] = "auto"
    num_train: Annotated[int, Field(ge=1, description="synthetic: training samples")] = 4096
    num_test: Annotated[int, Field(ge=1, description="synthetic: test samples")] = 1024
    shape: Annotated[
        tuple[Count, ...],
        Field(strict=False, min_length=1, description="synthetic: shape of a sample"),
    ] = (1, 8, 8)
    num_classes: Annotated[int, Field(ge=2, description="synthetic: classes")] = 10
    noise: Annotated[
        float,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="synthetic: standard deviation of the noise; that of the classes is 1",
        ),
    ] = 2.0
