"""Finds the videos of a folder that move alike: `python -m hcml_jax.search FOLDER --model DIR --query VIDEO`.

Features are kept in a file, `DIR/search/...` (beside the page, where the network comes with the package); videos that
are new, or have changed, are added to it the next time.
"""

import argparse
import base64
import hashlib
import html
import pathlib
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from data_pipelines import DataConfig
from hcml_jax.config import ConfigError, UserError, nearest
from hcml_jax.evaluation.neighbours import nearest as nearest_rows
from hcml_jax.files import DAMAGED, new_file, replace_text
from hcml_jax.inference import Model, load
from hcml_jax.predict import data_config
from hcml_jax.progress import Progress
from hcml_jax.visualization.document import document
from hcml_jax.visualization.moving import save_moving
from hcml_jax.weights.variables import digest

KEPT_EVERY = 64  # videos, so that little is lost where the work is interrupted
STYLE = "div { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; max-width: 220px; }"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the videos most alike, one a line, and writes a page that shows them moving."""
    parser = argparse.ArgumentParser(prog="python -m hcml_jax.search", description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a run's workdir, its export, or sprites")
    parser.add_argument("--query", type=pathlib.Path, required=True, help="a video, of the folder or not")
    parser.add_argument("--feature", default="", help="such as level1 or backbone; the highest level if not given")
    parser.add_argument("--count", type=int, default=12, help="videos to show")
    parser.add_argument("--clips", type=int, default=3, help="clips of each video that are averaged over")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("search.html"))
    given = parser.parse_args(arguments)
    if min(given.count, given.clips) <= 0:
        parser.error("--count and --clips must be above 0")
    try:
        model, config = load(given.model), data_config(given.model)
        feature = feature_name(model, given.feature)
        asked = features_of(model, given.query, config, given.clips)[feature]
        kept = given.model if given.model.exists() else given.out.parent  # the package's own folder is not written to
        index = Index(kept, given.folder, model, config, given.clips)
        index.update()
        found = [pair for pair in index.search(asked, feature, given.count + 1) if pair[0] != given.query.resolve()]
        found = found[: given.count]
        for path, cosine in found:
            print(f"{cosine:.3f}  {path}")
        write_page(given.query, found, config, feature, given.out)
        print(f"page in {given.out}")
    except (UserError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def feature_name(model: Model, name: str = "") -> str:
    """A feature of the network; "": its highest level, or its embedding where it has none.

    Raises:
      ConfigError: there is no feature of this name.
    """
    levels = sorted(model.method.frames_of(model.clip_shape[0]))
    known = [*levels, "backbone"]
    if name and name not in known:
        raise ConfigError(f"--feature: the network has no {name!r}. {nearest(name, known)}")
    return name or (levels or known)[-1]


def features_of(model: Model, video: pathlib.Path, config: DataConfig, clips: int) -> dict[str, np.ndarray]:
    """Name -> `[C]`: each feature, the mean over clips spread evenly over the video.

    Raises:
      DataError: the video cannot be read.
    """
    from data_pipelines.one_video import read_clips_of

    found = model.features(read_clips_of(video, config, clips))
    return {name: np.asarray(values, np.float32).mean(0) for name, values in found.items()}


class Index:
    """Features of the videos of a folder, kept in a file.

    Attributes:
      unreadable: video -> why it is left out.

    Args:
      workdir: where the file lies, in a folder `search`.
      folder: of the videos.
      model, config, clips: as in `features_of`.
    """

    def __init__(self, workdir: pathlib.Path, folder: pathlib.Path, model: Model, config: DataConfig, clips: int):
        self._folder, self._given = folder, (config, clips)
        self._model = model
        name = hashlib.sha256(f"{folder.resolve()} {clips} {digest(model.variables)}".encode()).hexdigest()[:16]
        self._path = workdir / "search" / f"{name}.npz"
        self._known: dict[str, dict[str, np.ndarray]] = {}  # "path size time" -> features
        self.unreadable: dict[str, str] = {}

    def update(self) -> None:
        """Read cached features, add those of new and changed videos, drop those of deleted ones.

        Raises:
          DataError: the folder holds no videos, or none that can be read.
          ConfigError: the file is damaged.
        """
        from data_pipelines.errors import DataError
        from data_pipelines.table import video_files

        files = {_stamp(path): path for path in video_files(self._folder)}
        kept = self._read()
        self._known = {stamp: kept[stamp] for stamp in files if stamp in kept}
        new = [stamp for stamp in files if stamp not in kept]
        with Progress("[search] features", len(files), "videos", done=len(files) - len(new)) as progress:
            for number, stamp in enumerate(new, 1):
                try:
                    self._known[stamp] = features_of(self._model, files[stamp], *self._given)
                except DataError as error:
                    self.unreadable[str(files[stamp])] = str(error)
                progress.add()
                if number % KEPT_EVERY == 0:
                    self._write()
        for why in self.unreadable.values():
            print(f"left out: {why}", file=sys.stderr)
        if not self._known:
            raise DataError(f"{self._folder}: none of its {len(files)} videos can be read")
        if new or len(kept) != len(self._known):
            self._write()

    def search(self, asked: np.ndarray, feature: str, count: int) -> list[tuple[pathlib.Path, float]]:
        """The videos most alike, most alike first, with the cosines of their centred features."""
        stamps = sorted(self._known)
        gallery = np.stack([self._known[stamp][feature] for stamp in stamps])
        found = nearest_rows(gallery, asked[None], min(count, len(stamps)))
        pairs = zip(found.rows[0], found.cosines[0], strict=True)
        return [(pathlib.Path(stamps[row].rsplit(" ", 2)[0]), float(cosine)) for row, cosine in pairs]

    def _read(self) -> dict[str, dict[str, np.ndarray]]:
        if not self._path.exists():
            return {}
        try:
            with self._path.open("rb") as file, np.load(file) as arrays:
                stamps = arrays["videos"].tolist()
                features = {name: arrays[name] for name in arrays if name != "videos"}
        except DAMAGED as error:
            raise ConfigError(f"{self._path} is damaged ({error}): delete it and search again") from error
        return {s: {name: values[i] for name, values in features.items()} for i, s in enumerate(stamps)}

    def _write(self) -> None:
        stamps = sorted(self._known)
        names = self._known[stamps[0]] if stamps else {}
        arrays = {name: np.stack([self._known[stamp][name] for stamp in stamps]) for name in names}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(self._path) as partial, partial.open("wb") as file:
            np.savez(file, videos=np.array(stamps), **arrays)


def write_page(
    query: pathlib.Path,
    found: Sequence[tuple[pathlib.Path, float]],
    config: DataConfig,
    feature: str,
    out: pathlib.Path,
) -> None:
    """Writes a page of the query and of what was found, each a moving thumbnail; it needs no other file."""
    from data_pipelines.one_video import read_clips_of

    def figure(path: pathlib.Path, told: str) -> str:
        clip = read_clips_of(path, config)[0]
        with tempfile.TemporaryDirectory() as folder:
            picture = save_moving([[(clip, "", "black")]], pathlib.Path(folder) / "clip.webp").read_bytes()
        source = f"data:image/webp;base64,{base64.b64encode(picture).decode()}"
        name = html.escape(path.name)
        return f'<figure><img src="{source}" alt="{name}"><figcaption>{name}<br>{told}</figcaption></figure>'

    shown = "".join(figure(path, f"cosine {cosine:.3f}") for path, cosine in found)
    title, by = "Videos that move alike", f"Most alike by {html.escape(feature)}"
    body = f"<h1>{title}</h1><div>{figure(query, 'query')}</div><h2>{by}</h2><div>{shown}</div>"
    replace_text(out, document(title, body, STYLE))


def _stamp(path: pathlib.Path) -> str:
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"


if __name__ == "__main__":
    main()
