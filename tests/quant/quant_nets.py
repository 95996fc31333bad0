"""Small networks whose graphs hold what quantizers go wrong at."""

import numpy as np
import torch
from torch import Tensor, nn

from trtq.data import Sample, Task


class Fork(nn.Module):
    """A Concat and a MaxPool that two convolutions read, a pool chain into a Concat, and a residual Add."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.left, self.right = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.after_concat = nn.ModuleList([nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 3, padding=1)])
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.after_pool = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)])
        self.after_chain = nn.Conv2d(24, 8, 1)
        self.unreached = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        joined = torch.cat([self.left(x).relu(), self.right(x).relu()], 1)
        a, b = self.after_concat[0](joined).relu(), self.after_concat[1](joined).relu()
        x = (a + self.after_pool[0](self.pool(b))).relu()
        once = self.pool(x)
        twice = self.pool(once)
        x = self.after_pool[1](once) + x
        x = self.after_chain(torch.cat([once, twice, x], 1))
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


def noise(count: int = 8, size: int = 16) -> "Noise":
    return Noise(count, size)


class Noise:
    """Random images as a data set."""

    task: Task = "classification"
    classes: tuple[str, ...] = ("a", "b", "c", "d")

    def __init__(self, count: int, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(count, 3, size, size, generator=generator).numpy()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index], np.array([index % 4]))
