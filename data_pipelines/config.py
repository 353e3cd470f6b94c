"""Typed configuration of the data: which clips, how they are sampled, cropped and shared out."""

from dataclasses import dataclass

from hcml_jax.config import ConfigError

ELEMENTARY = (
    "translate_left",
    "translate_right",
    "translate_up",
    "translate_down",
    "rotate_clockwise",
    "rotate_counterclockwise",
    "zoom_in",
    "zoom_out",
)
COMPOSED = ("right_then_left", "left_then_right", "speed_up", "slow_down")
RELATIONAL = ("approach", "separate", "follow", "collide_and_bounce")

FAMILIES: dict[str, str] = {
    **dict.fromkeys(ELEMENTARY, "elementary"),
    **dict.fromkeys(COMPOSED, "composed"),
    **dict.fromkeys(RELATIONAL, "relational"),
}
"""Family of each Motion Sprites class."""

LARGEST_BULGE = 1.25
"""A sprite's outline reaches at most this many times its radius."""


def is_network(flow: str) -> bool:
    """Whether flow of this name is computed by a network."""
    return flow.startswith(("raft:", "hcml:"))


def _require(condition: bool, field: str, found, wanted: str) -> None:
    if not condition:
        raise ConfigError(f"{field}: found {found!r}, {wanted}")


def _require_range(field: str, value, low: float = 0.0) -> None:
    ok = len(value) == 2 and low <= value[0] <= value[1]
    _require(ok, field, value, f"must be two numbers (least, most) from {low:g} up")


@dataclass(frozen=True)
class SpritesConfig:
    """Motion Sprites: what is rendered. Lengths are in pixels, times in frames, angles in radians.

    Attributes:
      size: height and width of a frame; even, because H.264 stores colour at half resolution.
      frames: frames of a clip.
      classes: class names out of `FAMILIES`; their order is the order of the labels.
      train_per_class: clips of each class in split "train".
      test_per_class: clips of each class in split "test".
      val_per_class: clips of each class in split "val".
      seed: of everything that is drawn.
      radius: (least, most) radius of a sprite that is alone.
      pair_radius: (least, most) radius of each of two sprites.
      wavelength: (shortest, longest) wave in a texture.
      waves: how many waves make a texture.
      contrast: standard deviation of a texture about its colour, in units of the value range.
      sharpness: how hard a texture's edges are; 0: waves as they are.
      speed: (least, most) mean speed of a translation, per frame.
      rotation: (least, most) angle turned per frame.
      zoom: (least, most) factor of growth per frame.
      closing_speed: (least, most) change of the distance between two sprites, per frame.
      background_speed: greatest speed of the background in x and in y, per frame.
      background_turn: greatest angle that the background turns per frame.
      background_growth: greatest logarithm of the factor by which the background grows or shrinks per frame.
      appearance_cue: share of training clips with colours that depend on the class; none in splits "val" and "test".
      rendered: whether clips are rendered as they are read, and not written; each training epoch then has new ones.
      crf: constant rate factor of the H.264 encoder; 0 is lossless, 51 worst.

    Raises:
      ConfigError: a field is out of its range, or the sprites would not fit the frame.
    """

    size: int = 48
    frames: int = 8
    classes: tuple[str, ...] = tuple(FAMILIES)
    train_per_class: int = 150
    test_per_class: int = 25
    val_per_class: int = 10
    seed: int = 0
    radius: tuple[float, float] = (11.5, 14.5)
    pair_radius: tuple[float, float] = (6.5, 9.0)
    wavelength: tuple[float, float] = (5.0, 12.0)
    waves: int = 4
    contrast: float = 0.22
    sharpness: float = 0.0
    speed: tuple[float, float] = (1.4, 2.8)
    rotation: tuple[float, float] = (0.15, 0.3)
    zoom: tuple[float, float] = (1.05, 1.08)
    closing_speed: tuple[float, float] = (2.0, 3.0)
    background_speed: float = 0.1
    background_turn: float = 0.0
    background_growth: float = 0.0
    appearance_cue: float = 0.0
    rendered: bool = False
    crf: int = 12

    def __post_init__(self):
        _require(self.size >= 16 and self.size % 2 == 0, "size", self.size, "must be even, >= 16")
        _require(self.frames >= 2, "frames", self.frames, "must be at least 2")
        _require(self.train_per_class >= 1, "train_per_class", self.train_per_class, "must be >= 1")
        _require(self.waves >= 1, "waves", self.waves, "must be >= 1")
        backgrounds = "background_speed", "background_turn", "background_growth"
        for field in ("test_per_class", "val_per_class", "seed", "sharpness", *backgrounds):
            _require(getattr(self, field) >= 0, field, getattr(self, field), "must be >= 0")
        _require(0 <= self.appearance_cue <= 1, "appearance_cue", self.appearance_cue, "must be in [0, 1]")
        _require(0 <= self.crf <= 51, "crf", self.crf, "must be in 0..51")
        _require(self.contrast > 0, "contrast", self.contrast, "must be positive")
        self._check_classes()
        self._check_ranges()
        self._check_fit()

    def _check_classes(self):
        wanted = f"must be different names out of {', '.join(FAMILIES)}"
        known = all(name in FAMILIES for name in self.classes)
        distinct = len(set(self.classes)) == len(self.classes) >= 1
        _require(known and distinct, "classes", self.classes, wanted)

    def _check_ranges(self):
        for field in ("speed", "rotation", "closing_speed"):
            _require_range(field, getattr(self, field))
        for field in ("radius", "pair_radius", "zoom"):
            _require_range(field, getattr(self, field), low=1.0)
        _require_range("wavelength", self.wavelength, low=2.0)

    def _check_fit(self):
        """A sprite that wraps round must not meet itself; two sprites must both be in view."""
        growth = self.zoom[1] ** ((self.frames - 1) / 2)
        across = 2 * self.radius[1] * LARGEST_BULGE * growth
        wanted = f"times growth must stay under size {self.size}; lessen radius, zoom or frames"
        _require(across <= self.size, "radius", f"up to {across:.1f} px across", wanted)
        apart = 2 * self.pair_radius[1] + self.closing_speed[1] * (self.frames - 0.5)
        wanted = f"must stay under size {self.size}; lessen pair_radius, closing_speed or frames"
        _require(apart <= self.size, "closing_speed", f"up to {apart:.1f} px apart", wanted)


@dataclass(frozen=True)
class DataConfig:
    """Which clips, and how they are sampled from their videos.

    Attributes:
      root: folder of videos; with `sprites`, the folder they are written to if it does not exist; "": they are
        `rendered`.
      table: annotation table (docs/data.md), relative to `root`; empty: `table.csv` there, and without it every video
        in the folder is an unlabelled training clip.
      mixture: further folders, each with the share of training examples that it gives; `root` gives the others. Only
        their split "train" is read, without labels; stages that learn from labels alone read `root` alone.
      sprites: render Motion Sprites; None: `root` holds the user's videos.
      frames: frames of a clip.
      stride: step from one frame of a clip to the next, in frames of the video.
      jitter: whether training clips have a random start, size and place; otherwise they are in the middle.
      short_clips: handling of videos shorter than a clip: "error", or "loop": repeat them. `consecutive` of a batch
        marks these jumps, because they are no motion.
      short_side: (least, most) shorter side of a frame after resizing; evaluation uses the least.
      crop: side of the square cut out of it, in pixels.
      flow: source of the flow that a method reads: "truth", its files in the table's column `flow` (for `rendered`
        sprites it is known); "dis", OpenCV's, between the frames of the clip; "raft:DIR", "hcml:DIR" or
        "hcml:sprites", a network's (`hcml_jax.flow_networks`), likewise, on the device; or a folder that `python -m
        hcml_jax.compute_flow` wrote.
      moving: whether, with computed flow, training clips start only where their motion changes more than at the median
        start of their video (MSCL's motion differential sampling).
      validation_share: share of each class's training rows, and of the unlabelled ones, that is held out as split
        "validation"; 0: none.
      labels_per_class: number of clips of each class that keep their label in training; 0: all.
      labels_seed: seed of their choice, apart from the run's own seed, so that runs are compared on the same clips.
      skip_bad: leave out videos that cannot be used, instead of stopping.
      workers: threads that decode; 0: one for each core.
      cache_mb: size in MB of the cache of decoded clips, for those that are not random; 0: no cache.

    Raises:
      ConfigError: a field is out of its range.
    """

    root: str
    table: str = ""
    mixture: tuple[tuple[str, float], ...] = ()
    sprites: SpritesConfig | None = None
    frames: int = 16
    stride: int = 2
    jitter: bool = True
    short_clips: str = "error"
    short_side: tuple[int, int] = (256, 320)
    crop: int = 224
    flow: str = "truth"
    moving: bool = False
    validation_share: float = 0.0
    labels_per_class: int = 0
    labels_seed: int = 0
    skip_bad: bool = False
    workers: int = 0
    cache_mb: int = 256

    def __post_init__(self):
        rendered = self.sprites is not None and self.sprites.rendered
        _require(bool(self.root) != rendered, "root", self.root, "must name a folder, unless sprites are rendered")
        shares = [share for _, share in self.mixture]
        fits = all(root and share > 0 for root, share in self.mixture) and sum(shares) < 1
        wanted = "must be folders with shares above 0, together below 1, beside a folder"
        _require(fits and not (shares and rendered), "mixture", self.mixture, wanted)
        for field, least in (("frames", 2), ("stride", 1), ("crop", 1)):
            value = getattr(self, field)
            _require(value >= least, field, value, f"must be at least {least}")
        for field in ("labels_per_class", "labels_seed", "workers", "cache_mb"):
            _require(getattr(self, field) >= 0, field, getattr(self, field), "must be >= 0")
        share = self.validation_share
        _require(0 <= share < 1, "validation_share", share, "must be in [0, 1)")
        modes = ("error", "loop")
        _require(self.short_clips in modes, "short_clips", self.short_clips, f"must be in {modes}")
        sources = "'truth', 'dis', 'raft:DIR', 'hcml:DIR'"
        _require(bool(self.flow), "flow", self.flow, f"must be {sources} or a folder of computed flow")
        computed = rendered and self.computed_flow
        _require(not computed, "flow", self.flow, f"must be {sources} where sprites are rendered")
        _require(self.computed_flow or not self.moving, "moving", self.moving, "needs a folder of computed flow")
        _require_range("short_side", self.short_side, low=1)
        wanted = f"must not exceed the least short_side, {self.short_side[0]}"
        _require(self.crop <= self.short_side[0], "crop", self.crop, wanted)
        if self.sprites is not None and self.short_clips == "error":
            span, wanted = self.span(), f"must span at most sprites.frames, {self.sprites.frames}"
            _require(span <= self.sprites.frames, "frames and stride", f"span {span}", wanted)

    @property
    def computed_flow(self) -> bool:
        """Whether flow comes from a folder where it was computed."""
        return self.flow not in ("truth", "dis") and not is_network(self.flow)

    def span(self, future: int = 0) -> int:
        """Frames of the video from the first of a clip to the last of `future` frames behind it, both included."""
        return (self.frames + future - 1) * self.stride + 1
