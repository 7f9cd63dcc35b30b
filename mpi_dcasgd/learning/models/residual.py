"""Residual networks for images of CIFAR's size as modules: 6n + 2 layers.

Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition",
CVPR 2016, arXiv:1512.03385, section 4.2 and table 6. They are not the networks for ImageNet that
torchvision calls resnet18 and so on, which are forty times as large. Public code often gets two
things wrong: projections as shortcuts (option B; the paper's have no parameters: option A), and
ImageNet's first layer (7 x 7 with stride 2 and pooling, which leaves 8 x 8 pixels of 32 x 32).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

_CHANNELS = (16, 32, 64)


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut around them.

    Where the number of channels grows, the shortcut takes every second pixel and fills the new
    channels with zeros (option A).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self._stride = stride
        self._new_channels = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(residual + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if not self._new_channels:
            return x
        return pad(x[:, :, :: self._stride, :: self._stride], (0, 0, 0, 0, 0, self._new_channels))


class ResidualNetwork(nn.Module):
    """ResNet-``depth`` for (channels, height, width) images, published for (3, 32, 32).

    Convolutions start as Kaiming normal with the fan-out, as in the authors' own code; the output
    layer starts as PyTorch starts it.

    Args:
        depth: Layers with weights, 6n + 2.
        channels: Of the images.
        num_classes: Width of the output.
    """

    def __init__(self, depth: int, channels: int, num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv = nn.Conv2d(channels, _CHANNELS[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(_CHANNELS[0])
        stages: list[nn.Module] = []
        inputs = _CHANNELS[0]
        for outputs in _CHANNELS:
            stage = []
            for _ in range(blocks):
                stage.append(Block(inputs, outputs, stride=1 if inputs == outputs else 2))
                inputs = outputs
            stages.append(nn.Sequential(*stage))
        self.stages = nn.Sequential(*stages)
        self.output = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        features = self.stages(torch.relu(self.bn(self.conv(x))))
        scores: Tensor = self.output(features.mean((2, 3)))
        return scores
