"""RAFT: optical flow by recurrent updates that look up similarities of all pairs (Teed and Deng, 2020).

Large and small as torchvision has them, whose published weights come in by
`python -m hcml_jax.weights.import_weights FILE --arch raft_large`.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from hcml_jax.models.layers import BatchNorm

LEVELS = 4  # of the pyramid of similarities
SMALLEST = 128  # pixels: at a 64th of them, the pyramid's last level still has two cells
STRIDE = 8  # of the encoders


@dataclasses.dataclass(frozen=True)
class RAFTSize:
    """Channels of a RAFT.

    Attributes:
      bottlenecks: whether the encoders' blocks are bottlenecks.
      features: channels of the encoders' stem and three layers.
      outcome: channels of the features that are compared.
      hidden, context: channels of the recurrent state, and of its context from the first frame.
      radius: of the window in which similarities are looked up, in cells.
      correlation, flow, motion: channels of the convolutions of similarities, of flow, and of both together.
      head: channels of the hidden layer before the flow.
      gates: kernels of the recurrent units, one after another.
      mask: channels of the hidden layer before the upsampling weights; 0: flow is upsampled bilinearly.
    """

    bottlenecks: bool
    features: tuple[int, int, int, int]
    outcome: int
    hidden: int
    context: int
    radius: int
    correlation: tuple[int, ...]
    flow: tuple[int, int]
    motion: int
    head: int
    gates: tuple[tuple[int, int], ...]
    mask: int


SIZES = {
    "large": RAFTSize(
        bottlenecks=False,
        features=(64, 64, 96, 128),
        outcome=256,
        hidden=128,
        context=128,
        radius=4,
        correlation=(256, 192),
        flow=(128, 64),
        motion=128,
        head=256,
        gates=((1, 5), (5, 1)),
        mask=256,
    ),
    "small": RAFTSize(
        bottlenecks=True,
        features=(32, 32, 64, 96),
        outcome=128,
        hidden=96,
        context=64,
        radius=3,
        correlation=(96,),
        flow=(64, 32),
        motion=82,
        head=128,
        gates=((3, 3),),
        mask=0,
    ),
}


class RAFT(nn.Module):
    """Optical flow from each frame to the next.

    Attributes:
      size: "large" or "small".
      updates: of the flow, one after another.
    """

    size: str = "large"
    updates: int = 12

    def setup(self):
        sizes = SIZES[self.size]
        self.feature_encoder = Encoder(sizes.features, sizes.outcome, sizes.bottlenecks, "instance")
        kind = "batch" if self.size == "large" else "none"
        self.context_encoder = Encoder(sizes.features, sizes.hidden + sizes.context, sizes.bottlenecks, kind)
        self.update_block = Update(sizes)
        if sizes.mask:
            self.mask_predictor = MaskPredictor(sizes.mask)

    def __call__(self, clip: jax.Array) -> jax.Array:
        """Flow of clips.

        Args:
          clip: `[B, T, H, W, 3]`, RGB in [0, 1], floating; 128 pixels or more each way.

        Returns:
          float32 `[B, T - 1, H, W, 2]`, (u right, v down) in pixels, from each frame to the next, after the last
          update.

        Raises:
          ValueError: the clip has one frame, or is smaller.
        """
        batch, frames, height, width, _ = clip.shape
        if frames < 2 or min(height, width) < SMALLEST:
            raise ValueError(
                f"RAFT needs 2 frames or more of {SMALLEST} x {SMALLEST} pixels or more, found {frames} of "
                f"{height} x {width}: compute flow of whole frames, or enlarge them"
            )
        padded = jnp.pad(clip, [(0, 0), (0, 0), (0, -height % STRIDE), (0, -width % STRIDE), (0, 0)], mode="edge")
        encoded = self._each(self.feature_encoder, padded)
        first = padded[:, :-1].reshape(batch * (frames - 1), *padded.shape[2:])
        pairs = (x.reshape(batch * (frames - 1), *x.shape[2:]) for x in (encoded[:, :-1], encoded[:, 1:]))
        flow = self.updated(first, *pairs)[-1]
        return flow.reshape(batch, frames - 1, *flow.shape[1:])[:, :, :height, :width]

    def updated(self, first: jax.Array, here: jax.Array, there: jax.Array) -> list[jax.Array]:
        """The flow `[N, H, W, 2]` after each update, of frames `[N, H, W, 3]` and of features `[N, H / 8, W / 8, C]` of
        them and of the frames that follow."""
        sizes = SIZES[self.size]
        hidden, context = jnp.split(self.context_encoder(2 * first - 1), [sizes.hidden], axis=-1)
        hidden, context = nn.tanh(hidden), nn.relu(context)
        pyramid, cells = similarities(here, there), _cells(*here.shape[1:3], here.dtype)
        flow, flows = jnp.zeros((*here.shape[:3], 2), here.dtype), []
        for _ in range(self.updates):
            flow = jax.lax.stop_gradient(flow)
            found = look_up(pyramid, cells + flow, sizes.radius)
            hidden, change = self.update_block(hidden, context, found, flow)
            flow = flow + change
            weights = self.mask_predictor(hidden) if sizes.mask else None
            flows.append(_enlarged(flow) if weights is None else enlarge(flow, weights))
        return flows

    def _each(self, encoder: nn.Module, clip: jax.Array) -> jax.Array:
        """Encodes every frame of clips."""
        frames = clip.reshape(-1, *clip.shape[2:])
        encoded = encoder(2 * frames - 1)
        return encoded.reshape(*clip.shape[:2], *encoded.shape[1:])


def similarities(here: jax.Array, there: jax.Array) -> list[jax.Array]:
    """Products of features `[N, H, W, C]` of all pairs of cells over sqrt(C), `[N, H, W, H', W']`, at four scales."""
    precise = {"precision": jax.lax.Precision.HIGHEST}
    level = jnp.einsum("nhwc,nijc->nhwij", here, there, **precise) / here.shape[-1] ** 0.5
    pyramid = [level]
    for _ in range(LEVELS - 1):
        rows, columns = (n // 2 for n in level.shape[3:])
        whole = level[:, :, :, : 2 * rows, : 2 * columns]
        level = whole.reshape(*level.shape[:3], rows, 2, columns, 2).mean((4, 6))
        pyramid.append(level)
    return pyramid


def look_up(pyramid: list[jax.Array], places: jax.Array, radius: int) -> jax.Array:
    """Similarities in windows around positions (x, y) `[N, H, W, 2]`: `[N, H, W, 4 * (2 * radius + 1)^2]`.

    They are interpolated between cells, as products with hat functions along each axis, and 0 outside the map. Windows
    are in the order that published weights expect, x before y.
    """
    steps = jnp.arange(-radius, radius + 1, dtype=places.dtype)
    found = []
    for number, level in enumerate(pyramid):
        window = places[..., None, :] / 2**number + steps[:, None]
        across, down = (_hats(window[..., axis], level.shape[4 - axis]) for axis in (0, 1))
        rows = jnp.einsum("nhwjr,nhwrc->nhwjc", down, level, precision=jax.lax.Precision.HIGHEST)
        looked = jnp.einsum("nhwic,nhwjc->nhwij", across, rows, precision=jax.lax.Precision.HIGHEST)
        found.append(looked.reshape(*looked.shape[:3], -1))
    return jnp.concatenate(found, axis=-1)


def _hats(places: jax.Array, size: int) -> jax.Array:
    """Linear interpolation weights `[..., size]` of `size` cells on a line at positions `[...]`."""
    return jnp.maximum(1 - jnp.abs(places[..., None] - jnp.arange(size, dtype=places.dtype)), 0.0)


def _cells(height: int, width: int, dtype) -> jax.Array:
    """(x, y) of every cell, `[H, W, 2]`."""
    return jnp.stack(jnp.meshgrid(*(jnp.arange(n, dtype=dtype) for n in (width, height))), axis=-1)


def enlarge(flow: jax.Array, weights: jax.Array) -> jax.Array:
    """Upsample flow `[N, H, W, 2]` eight times: each pixel is a weighted mean of the 3x3 cells around it (RAFT 3.3).

    Args:
      flow: in cells.
      weights: `[N, H, W, 9 * 8 * 8]`, logits of the nine neighbours for the 8x8 pixels of each cell.

    Returns:
      `[N, 8 H, 8 W, 2]`, in pixels.
    """
    batch, height, width, _ = flow.shape
    weights = nn.softmax(weights.reshape(batch, height, width, 9, STRIDE, STRIDE), axis=3)
    padded = jnp.pad(STRIDE * flow, [(0, 0), (1, 1), (1, 1), (0, 0)])
    around = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    precise = {"precision": jax.lax.Precision.HIGHEST}
    pixels = jnp.einsum("nhwkyx,nhwkc->nhywxc", weights, jnp.stack(around, axis=3), **precise)
    return pixels.reshape(batch, STRIDE * height, STRIDE * width, 2)


def _enlarged(flow: jax.Array) -> jax.Array:
    """Upsample flow eight times bilinearly, with corner cells at the corner pixels."""
    height, width = flow.shape[1:3]
    precise = {"precision": jax.lax.Precision.HIGHEST}
    rows, columns = (_hats(jnp.linspace(0, n - 1, STRIDE * n, dtype=flow.dtype), n) for n in (height, width))
    return STRIDE * jnp.einsum("yh,nhwc,xw->nyxc", rows, flow, columns, **precise)


class Encoder(nn.Module):
    """Features of frames at an eighth of their size.

    Attributes:
      features: channels of the stem and of the three layers.
      outcome: channels of the features.
      bottlenecks: whether blocks are bottlenecks.
      normalisation: "instance", "batch" (by running statistics) or "none".
    """

    features: tuple[int, ...]
    outcome: int
    bottlenecks: bool
    normalisation: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[N, H, W, 3]` to `[N, H / 8, W / 8, outcome]`."""
        stem, *layers = self.features
        x = ConvNorm2D(stem, 7, 2, self.normalisation, name="convnormrelu")(x)
        for number, (channels, stride) in enumerate(zip(layers, (1, 2, 2), strict=True), start=1):
            for place, strides in enumerate((stride, 1)):
                block = Block(channels, strides, self.bottlenecks, self.normalisation, name=f"layer{number}_{place}")
                x = block(x)
        return _conv(self.outcome, 1, name="conv")(x)


class Block(nn.Module):
    """A residual block of two 3x3 convolutions, or a bottleneck; a ReLU follows each convolution, and the sum."""

    features: int
    stride: int
    bottleneck: bool
    normalisation: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[N, H, W, C]` to `[N, H / stride, W / stride, features]`."""
        narrow, stride = self.features // 4, self.stride
        plan = [(self.features, 3, stride), (self.features, 3, 1)]
        if self.bottleneck:
            plan = [(narrow, 1, 1), (narrow, 3, stride), (self.features, 1, 1)]
        y = x
        for number, (features, kernel, strides) in enumerate(plan, start=1):
            y = ConvNorm2D(features, kernel, strides, self.normalisation, name=f"convnormrelu{number}")(y)
        if stride > 1:
            x = ConvNorm2D(self.features, 1, stride, self.normalisation, relu=False, name="downsample")(x)
        return nn.relu(x + y)


class ConvNorm2D(nn.Module):
    """A convolution with a bias, a normalisation and, unless `relu` is False, a ReLU."""

    features: int
    kernel: int
    stride: int
    normalisation: str
    relu: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[N, H, W, C]` to `[N, H / stride, W / stride, features]`."""
        x = _conv(self.features, self.kernel, self.stride, name="conv")(x)
        if self.normalisation == "instance":
            mean, var = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
            x = (x - mean) * jax.lax.rsqrt(var + 1e-5)
        elif self.normalisation == "batch":
            x = BatchNorm(name="norm")(x, False)
        return nn.relu(x) if self.relu else x


class Update(nn.Module):
    """One update of the flow."""

    sizes: RAFTSize

    @nn.compact
    def __call__(
        self, hidden: jax.Array, context: jax.Array, found: jax.Array, flow: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The new state `[N, H, W, hidden]` and the change of the flow `[N, H, W, 2]`, in cells."""
        sizes = self.sizes
        for number, channels in enumerate(sizes.correlation, start=1):
            found = nn.relu(_conv(channels, 1 if number == 1 else 3, name=f"convcorr{number}")(found))
        seen = flow
        for number, (channels, kernel) in enumerate(zip(sizes.flow, (7, 3), strict=True), start=1):
            seen = nn.relu(_conv(channels, kernel, name=f"convflow{number}")(seen))
        motion = nn.relu(_conv(sizes.motion - 2, 3, name="motion")(jnp.concatenate([found, seen], axis=-1)))
        inputs = jnp.concatenate([context, motion, flow], axis=-1)
        for number, kernel in enumerate(sizes.gates, start=1):
            hidden = ConvGRU(kernel, name=f"convgru{number}")(hidden, inputs)
        change = nn.relu(_conv(sizes.head, 3, name="head1")(hidden))
        return hidden, _conv(2, 3, name="head2")(change)


class ConvGRU(nn.Module):
    """A gated recurrent unit of convolutions."""

    kernel: tuple[int, int]

    @nn.compact
    def __call__(self, hidden: jax.Array, inputs: jax.Array) -> jax.Array:
        """The new state, of the shape of `hidden` `[N, H, W, C]`."""
        channels = hidden.shape[-1]
        both = jnp.concatenate([hidden, inputs], axis=-1)
        update = nn.sigmoid(_conv(channels, self.kernel, name="convz")(both))
        reset = nn.sigmoid(_conv(channels, self.kernel, name="convr")(both))
        both = jnp.concatenate([reset * hidden, inputs], axis=-1)
        return (1 - update) * hidden + update * nn.tanh(_conv(channels, self.kernel, name="convq")(both))


class MaskPredictor(nn.Module):
    """Logits by which the flow of neighbouring cells is weighed where it is enlarged."""

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[N, H, W, C]` to `[N, H, W, 9 * 8 * 8]`."""
        x = nn.relu(_conv(self.hidden, 3, name="convrelu")(x))
        return 0.25 * _conv(9 * STRIDE * STRIDE, 1, name="conv")(x)


def _conv(features: int, kernel: int | tuple[int, int], stride: int = 1, name: str | None = None) -> nn.Conv:
    """A 2-D convolution with a bias, padded by half of its kernel."""
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = [(k // 2, k // 2) for k in kernel]
    return nn.Conv(features, kernel, (stride, stride), padding, precision=jax.lax.Precision.HIGHEST, name=name)
