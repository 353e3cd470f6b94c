"""Which networks are compared, and on clips of which shape."""

import warnings

import torch

from tests.parity import references

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    # PyTorch's CPU build lacks operators that torchvision registers shapes for when it is imported.
    torch.library.register_fake = lambda *_, **__: lambda function: function
    import torchvision
    from pytorchvideo.models.slowfast import create_slowfast

video = torchvision.models.video

# backbone, or backbone/variant -> makes PyTorch's, clip [B, T, H, W, 3]
NETWORKS = {
    "resnet_18": (torchvision.models.resnet18, (2, 2, 64, 64, 3)),
    "resnet_18/width 8, no pool": (lambda: small_resnet_18(8), (2, 2, 64, 64, 3)),
    "resnet_50": (torchvision.models.resnet50, (2, 2, 64, 64, 3)),
    "r3d_18": (video.r3d_18, (2, 8, 56, 64, 3)),
    "r2plus1d_18": (video.r2plus1d_18, (2, 8, 56, 64, 3)),
    "s3d": (video.s3d, (2, 16, 224, 224, 3)),
    "i3d": (references.I3D, (2, 17, 70, 64, 3)),
    "resnet3d_18": (lambda: references.ResNet3D((2, 2, 2, 2)), (2, 16, 64, 72, 3)),
    "resnet3d_18_a": (lambda: references.ResNet3D((2, 2, 2, 2), padded=True), (2, 16, 64, 72, 3)),
    "resnet3d_34": (lambda: references.ResNet3D((3, 4, 6, 3)), (2, 16, 64, 64, 3)),
    "resnet3d_50": (lambda: references.ResNet3D((3, 4, 6, 3), True), (2, 16, 64, 64, 3)),
    "resnet3d_101": (lambda: references.ResNet3D((3, 4, 23, 3), True), (2, 16, 96, 96, 3)),
    "resnext3d_101": (lambda: references.ResNet3D((3, 4, 23, 3), True, 32), (2, 16, 64, 64, 3)),
    "slowfast_r50_8x8": (lambda: references.SlowFast((3, 4, 6, 3), 4, 7), (2, 16, 64, 64, 3)),
    "slowfast_r50_4x16": (lambda: references.SlowFast((3, 4, 6, 3), 8, 5), (2, 16, 64, 64, 3)),
    "slowfast_r101_16x8": (lambda: references.SlowFast((3, 4, 23, 3), 4, 5), (2, 16, 64, 64, 3)),
    "slowfast_r50_8x8/PyTorchVideo": (lambda: PyTorchVideo(4, (16, 64, 64)), (2, 16, 64, 64, 3)),
    "c3d": (references.C3D, (2, 16, 112, 112, 3)),
}


# what `build_backbone` makes ours with
OPTIONS = {"resnet_18/width 8, no pool": {"width": 8, "stem_pool": False}}


def small_resnet_18(width):
    """torchvision's, as narrow, without the stem's max-pool: its builder knows neither."""
    network = torchvision.models.resnet18()
    block = torchvision.models.resnet.BasicBlock
    network.conv1 = torch.nn.Conv2d(3, width, 7, 2, 3, bias=False)
    network.bn1 = torch.nn.BatchNorm2d(width)
    network.maxpool = torch.nn.Identity()
    network.inplanes = width
    for number in range(4):
        features, stride = width * 2**number, 2 if number else 1
        layer = network._make_layer(block, features, 2, stride)
        setattr(network, f"layer{number + 1}", layer)
    network.fc = torch.nn.Linear(8 * width, 400)
    return network


class PyTorchVideo(torch.nn.Module):
    """Its SlowFast with frames dealt to both pathways, which its users do, and pools as long as the clip."""

    def __init__(self, alpha, size):
        super().__init__()
        frames, height, width = size
        grid = (height // 32, width // 32)
        network = create_slowfast(
            slowfast_fusion_conv_stride=(alpha, 1, 1),
            head_pool_kernel_sizes=((frames // alpha, *grid), (frames, *grid)),
        )
        self.alpha, self.blocks = alpha, network.blocks

    def forward(self, x):
        frames = x.shape[2]
        picked = torch.linspace(0, frames - 1, frames // self.alpha).long()
        x = [x[:, :, picked], x]
        for block in self.blocks:
            x = block(x)
        return x
