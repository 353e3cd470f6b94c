"""Files and folders appear whole or not at all."""

import pytest

from hcml_jax.config import ConfigError
from hcml_jax.files import new_file, new_folder, replace_text


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    replace_text(path, "old")
    with pytest.raises(RuntimeError), new_file(path) as partial:
        partial.write_text("ne")
        raise RuntimeError
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.json", "old")]
    replace_text(path, "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.json", "new")]


def test_a_folder_appears_whole_and_replaces_none(tmp_path):
    folder = tmp_path / "a" / "b"
    with pytest.raises(RuntimeError), new_folder(folder) as partial:
        (partial / "half").touch()
        raise RuntimeError
    assert not list((tmp_path / "a").iterdir())
    with new_folder(folder) as partial:
        (partial / "whole").touch()
        assert not folder.exists()
    assert [p.name for p in folder.iterdir()] == ["whole"]
    with pytest.raises(ConfigError, match="is there already"), new_folder(folder):
        pass
