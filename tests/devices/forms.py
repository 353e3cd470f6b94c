"""The ring over the devices that there are, against the dense form: `python -m tests.devices.forms`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from hcml_jax.contrastive import choose_form, streaming
from hcml_jax.contrastive.info_nce import DENSE_LIMIT
from hcml_jax.training.mesh import make_mesh
from tests.contrastive.forms import outcome

M, K, C = 48, 80, 8  # on each of 8 devices 6 queries and 10 keys: two tiles, the second not full


def main():
    """Compares them, with and without owners."""
    streaming.QUERY_TILE, streaming.KEY_TILE = 4, 8
    mesh, rng = make_mesh(), np.random.default_rng(0)
    split = NamedSharding(mesh, jax.P("data"))
    queries, keys = (rng.normal(size=(n, C)).astype(np.float32) for n in (M, K))
    vectors = jax.device_put((queries, keys), split)
    temperature = jnp.float32(0.07)
    positives = jax.device_put(rng.integers(0, K, M).astype(np.int32), split)
    owners = jax.device_put(tuple(rng.integers(0, 4, n).astype(np.int32) for n in (M, K)), split)
    for pairs in (None, owners):
        ring, dense = (outcome(form, *vectors, positives, temperature, pairs, mesh) for form in ("ring", "dense"))
        for found, expected in zip(ring, dense, strict=True):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * scale)
    explicit = jax.make_mesh((mesh.size,), ("data",))  # jax's default, as a notebook has it
    found, expected = (outcome("ring", queries, keys, positives, temperature, None, m) for m in (explicit, mesh))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    with jax.set_mesh(mesh):
        limit = DENSE_LIMIT * mesh.size
        assert choose_form(mesh.size, limit // mesh.size) == "dense"
        assert choose_form(2 * mesh.size, limit) == "ring"
        assert choose_form(2 * mesh.size + 1, limit) == "chunked"


if __name__ == "__main__":
    main()
