"""torchvision's classification models, by torchvision's own names."""

from __future__ import annotations

from dataclasses import field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from mpi_dcasgd.errors import STRICT, ConfigError
from mpi_dcasgd.learning.models.base import ModelSource, need_images

if TYPE_CHECKING:
    from torch import nn

_KNOWN = """
alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161
densenet169 densenet201 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3
efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_l
efficientnet_v2_m efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5 mnasnet0_75
mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_16gf
regnet_x_1_6gf regnet_x_32gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf
regnet_y_128gf regnet_y_16gf regnet_y_1_6gf regnet_y_32gf regnet_y_3_2gf regnet_y_400mf
regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18 resnet34 resnet50 resnext101_32x8d
resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5
shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_b swin_s swin_t swin_v2_b swin_v2_s swin_v2_t
vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32 vit_h_14 vit_l_16
vit_l_32 wide_resnet101_2 wide_resnet50_2
"""

NAMES = frozenset(_KNOWN.split())
"""Those that torchvision has had since 0.19; with them a job is checked without importing it."""

_ONE_OUTPUT: dict[str, dict[str, Any]] = {
    # Without their auxiliary outputs, which training here has no loss for.
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TorchvisionModel(ModelSource):
    """Any classification model of torchvision, by torchvision's name, with fresh weights."""

    options: Annotated[
        dict[str, Any], Field(description="further arguments of the model's constructor")
    ] = field(default_factory=dict)

    def check(self) -> list[str]:
        problems = [
            f"options.{key}: follows from the data and a fresh start; omit it"
            for key in ("weights", "num_classes", "progress")
            if key in self.options
        ]
        if self.name in _ONE_OUTPUT and self.options.get("aux_logits"):
            problems.append("options.aux_logits: auxiliary outputs are not supported; omit it")
        if find_spec("torchvision") is None:
            problems.append(
                f"name: {self.name} is torchvision's, which is not installed; "
                "pip install 'mpi-dcasgd[vision]', or choose another model"
            )
        return problems

    def fits(self, input_shape: tuple[int, ...], num_classes: int) -> list[str]:
        return need_images(self.name, input_shape)

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        from mpi_dcasgd.vision import torchvision

        options = {**_ONE_OUTPUT.get(self.name, {}), **self.options}
        try:
            model: nn.Module = torchvision().models.get_model(
                self.name, weights=None, num_classes=num_classes, **options
            )
        except Exception as error:
            # Anything may come of a wrong option; without options it is not the user's mistake.
            if not self.options:
                raise
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ConfigError(
                "model", [f"options: {self.name} does not take them: {reason}"]
            ) from error
        return model


def torchvision_names() -> list[str]:
    """List the classification models of the installed torchvision, which is imported for it.

    Raises:
        DataError: torchvision cannot be imported.
    """
    from mpi_dcasgd.vision import torchvision

    models = torchvision().models
    return list(models.list_models(module=models))
