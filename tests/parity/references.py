"""PyTorch networks to compare with, which no package ships: written after their papers and published layouts.

Their parameters have the published names: I3D as in pytorch-i3d, 3D ResNets and ResNeXt as in 3D-ResNets-PyTorch, C3D
as in c3d-pytorch, SlowFast as in PySlowFast.
"""

import torch
from torch import nn
from torch.nn import functional


def pad_same(x, kernel, strides, value=0.0):
    """Pads `[B, C, T, H, W]` as TensorFlow does for "SAME"."""
    pads = []
    for size, k, s in reversed(list(zip(x.shape[2:], kernel, strides, strict=True))):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads, value=value)


class SamePool(nn.Module):
    def __init__(self, kernel, strides):
        super().__init__()
        self.kernel, self.strides = kernel, strides

    def forward(self, x):
        x = pad_same(x, self.kernel, self.strides, -torch.inf)
        return functional.max_pool3d(x, self.kernel, self.strides)


class Unit(nn.Module):
    """I3D's convolution, batch normalisation and ReLU."""

    def __init__(self, channels, features, k, stride=1):
        super().__init__()
        self.conv3d = nn.Conv3d(channels, features, k, stride, bias=False)
        self.bn = nn.BatchNorm3d(features, eps=1e-3, momentum=0.001)

    def forward(self, x):
        x = pad_same(x, self.conv3d.kernel_size, self.conv3d.stride)
        return self.bn(self.conv3d(x)).relu()


class Block(nn.Module):
    """I3D's four branches."""

    def __init__(self, channels, b0, b1a, b1b, b2a, b2b, b3b):
        super().__init__()
        self.b0 = Unit(channels, b0, 1)
        self.b1a, self.b1b = Unit(channels, b1a, 1), Unit(b1a, b1b, 3)
        self.b2a, self.b2b = Unit(channels, b2a, 1), Unit(b2a, b2b, 3)
        self.b3b = Unit(channels, b3b, 1)
        self.pool = SamePool((3, 3, 3), (1, 1, 1))

    def forward(self, x):
        one, two = self.b1b(self.b1a(x)), self.b2b(self.b2a(x))
        return torch.cat([self.b0(x), one, two, self.b3b(self.pool(x))], 1)


class I3D(nn.Module):
    """Inception-v1 inflated (Carreira and Zisserman, 2017)."""

    CHANNELS = (
        ("Mixed_3b", 192, (64, 96, 128, 16, 32, 32)),
        ("Mixed_3c", 256, (128, 128, 192, 32, 96, 64)),
        ("Mixed_4b", 480, (192, 96, 208, 16, 48, 64)),
        ("Mixed_4c", 512, (160, 112, 224, 24, 64, 64)),
        ("Mixed_4d", 512, (128, 128, 256, 24, 64, 64)),
        ("Mixed_4e", 512, (112, 144, 288, 32, 64, 64)),
        ("Mixed_4f", 528, (256, 160, 320, 32, 128, 128)),
        ("Mixed_5b", 832, (256, 160, 320, 32, 128, 128)),
        ("Mixed_5c", 832, (384, 192, 384, 48, 128, 128)),
    )

    def __init__(self, classes=400):
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1, self.Conv3d_2c_3x3 = Unit(64, 64, 1), Unit(64, 192, 3)
        for name, channels, features in self.CHANNELS:
            self.add_module(name, Block(channels, *features))
        self.logits = nn.Module()
        self.logits.conv3d = nn.Conv3d(1024, classes, 1)

    def forward(self, x):
        x = SamePool((1, 3, 3), (1, 2, 2))(self.Conv3d_1a_7x7(x))
        x = SamePool((1, 3, 3), (1, 2, 2))(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)))
        for name, *_ in self.CHANNELS:
            if name == "Mixed_4b":
                x = SamePool((3, 3, 3), (2, 2, 2))(x)
            if name == "Mixed_5b":
                x = SamePool((2, 2, 2), (2, 2, 2))(x)
            x = self.get_submodule(name)(x)
        window = [min(k, n) for k, n in zip((2, 7, 7), x.shape[2:], strict=True)]
        return self.logits.conv3d(functional.avg_pool3d(x, window, 1)).mean((2, 3, 4))


class ResidualBlock(nn.Module):
    """A basic block or a bottleneck of 3D-ResNets-PyTorch."""

    def __init__(self, channels, features, outcome, stride, groups, padded):
        super().__init__()
        bottleneck = outcome != features
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        sizes = (channels, *(features,) * (len(kernels) - 1), outcome)
        for n, k in enumerate(kernels):
            here = stride if n == (1 if bottleneck else 0) else 1
            split = groups if bottleneck and n == 1 else 1
            conv = nn.Conv3d(sizes[n], sizes[n + 1], k, here, k // 2, groups=split, bias=False)
            self.add_module(f"conv{n + 1}", conv)
            self.add_module(f"bn{n + 1}", nn.BatchNorm3d(sizes[n + 1]))
        self.depth, self.stride, self.more = len(kernels), stride, outcome - channels
        self.downsample = None
        if not padded and (stride > 1 or channels != outcome):
            conv = nn.Conv3d(channels, outcome, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm3d(outcome))

    def forward(self, x):
        y = x
        for n in range(1, self.depth + 1):
            y = self.get_submodule(f"bn{n}")(self.get_submodule(f"conv{n}")(y))
            y = y.relu() if n < self.depth else y
        if self.downsample is not None:
            x = self.downsample(x)
        elif self.stride > 1 or self.more:
            s = self.stride
            x = functional.pad(x[:, :, ::s, ::s, ::s], (0, 0, 0, 0, 0, 0, 0, self.more))
        return (x + y).relu()


class ResNet3D(nn.Module):
    """3D ResNets and ResNeXt (Hara et al., 2018)."""

    def __init__(self, blocks, bottleneck=False, groups=1, padded=False, classes=400):
        super().__init__()
        self.conv1 = nn.Conv3d(3, 64, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        channels = 64
        for n, count in enumerate(blocks):
            features = 64 * 2**n * (2 if groups > 1 else 1)
            outcome = features * ((2 if groups > 1 else 4) if bottleneck else 1)
            layer = nn.Sequential()
            for number in range(count):
                stride = 2 if n and not number else 1
                layer.append(ResidualBlock(channels, features, outcome, stride, groups, padded))
                channels = outcome
            self.add_module(f"layer{n + 1}", layer)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = functional.max_pool3d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        for n in range(1, 5):
            x = self.get_submodule(f"layer{n}")(x)
        return self.fc(x.mean((2, 3, 4)))


class C3D(nn.Module):
    """C3D (Tran et al., 2015), pools as Caffe has them; without dropout."""

    PLAN = (("1",), ("2",), ("3a", "3b"), ("4a", "4b"), ("5a", "5b"))

    def __init__(self, classes=487):
        super().__init__()
        channels = 3
        for names, features in zip(self.PLAN, (64, 128, 256, 512, 512), strict=True):
            for name in names:
                self.add_module(f"conv{name}", nn.Conv3d(channels, features, 3, padding=1))
                channels = features
        self.fc6, self.fc7 = nn.Linear(8192, 4096), nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, classes)

    def forward(self, x):
        for n, names in enumerate(self.PLAN):
            for name in names:
                x = self.get_submodule(f"conv{name}")(x).relu()
            x = functional.max_pool3d(x, (2 if n else 1, 2, 2), ceil_mode=True)
        return self.fc8(self.fc7(self.fc6(x.flatten(1)).relu()).relu())


class SlowFastBlock(nn.Module):
    """PySlowFast's bottleneck."""

    def __init__(self, channels, features, in_time, stride):
        super().__init__()
        outcome = 4 * features
        self.branch2 = nn.Module()
        a = nn.Conv3d(channels, features, (in_time, 1, 1), 1, (in_time // 2, 0, 0), bias=False)
        b = nn.Conv3d(features, features, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
        c = nn.Conv3d(features, outcome, 1, bias=False)
        for name, conv in (("a", a), ("b", b), ("c", c)):
            self.branch2.add_module(name, conv)
            self.branch2.add_module(f"{name}_bn", nn.BatchNorm3d(conv.out_channels))
        self.projects = channels != outcome or stride > 1
        if self.projects:
            self.branch1 = nn.Conv3d(channels, outcome, 1, (1, stride, stride), bias=False)
            self.branch1_bn = nn.BatchNorm3d(outcome)

    def forward(self, x):
        y = x
        for name in "abc":
            conv, norm = (self.branch2.get_submodule(n) for n in (name, f"{name}_bn"))
            y = norm(conv(y))
            y = y.relu() if name != "c" else y
        return ((self.branch1_bn(self.branch1(x)) if self.projects else x) + y).relu()


class SlowFast(nn.Module):
    """SlowFast (Feichtenhofer et al., 2019), as PySlowFast has it."""

    def __init__(self, blocks, alpha, kernel, classes=400):
        super().__init__()
        self.blocks, self.alpha = blocks, alpha
        self.s1 = nn.Module()
        for p, (width, in_time) in enumerate(((64, 1), (8, 5))):
            stem = nn.Module()
            size = (in_time, 7, 7)
            stem.conv = nn.Conv3d(3, width, size, (1, 2, 2), (in_time // 2, 3, 3), bias=False)
            stem.bn = nn.BatchNorm3d(width)
            self.s1.add_module(f"pathway{p}_stem", stem)
        channels = [64, 8]
        for n, count in enumerate(blocks):
            fuse = nn.Module()
            size, pads = (kernel, 1, 1), (kernel // 2, 0, 0)
            fast = channels[1]
            fuse.conv_f2s = nn.Conv3d(fast, 2 * fast, size, (alpha, 1, 1), pads, bias=False)
            fuse.bn = nn.BatchNorm3d(2 * fast)
            self.add_module(f"s{n + 1}_fuse", fuse)
            stage = nn.Module()
            channels[0] += 2 * fast
            for p, width in enumerate((64, 8)):
                features = width * 2**n
                for number in range(count):
                    long = (p == 1 or n >= 2) and number < (3, 4, 6, 3)[n]
                    stride = 2 if n and not number else 1
                    block = SlowFastBlock(channels[p], features, 3 if long else 1, stride)
                    stage.add_module(f"pathway{p}_res{number}", block)
                    channels[p] = 4 * features
            self.add_module(f"s{n + 2}", stage)
        self.head = nn.Module()
        self.head.projection = nn.Linear(sum(channels), classes)

    def forward(self, x):
        frames = x.shape[2]
        picked = torch.linspace(0, frames - 1, frames // self.alpha).long()
        paths = [x[:, :, picked], x]
        for p in (0, 1):
            stem = self.s1.get_submodule(f"pathway{p}_stem")
            y = stem.bn(stem.conv(paths[p])).relu()
            paths[p] = functional.max_pool3d(y, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for n, count in enumerate(self.blocks):
            fuse = self.get_submodule(f"s{n + 1}_fuse")
            paths[0] = torch.cat([paths[0], fuse.bn(fuse.conv_f2s(paths[1])).relu()], 1)
            stage = self.get_submodule(f"s{n + 2}")
            for p in (0, 1):
                for number in range(count):
                    paths[p] = stage.get_submodule(f"pathway{p}_res{number}")(paths[p])
        return self.head.projection(torch.cat([path.mean((2, 3, 4)) for path in paths], 1))
