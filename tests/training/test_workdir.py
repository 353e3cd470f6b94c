"""A folder that cannot take a run is refused before anything is looked at."""

import os

import pytest

from hcml_jax.config import ConfigError
from hcml_jax.training.workdir import Workdir


def test_a_folder_that_is_there_or_can_be_made_is_taken(tmp_path):
    Workdir(tmp_path).check()
    Workdir(tmp_path / "runs" / "mine").check()
    assert not (tmp_path / "runs").exists()


def test_a_read_only_folder_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK))
    for workdir in (tmp_path, tmp_path / "runs" / "mine"):
        with pytest.raises(ConfigError, match=f"{workdir} cannot be written: {tmp_path} is read-only"):
            Workdir(workdir).check()


def test_a_file_is_refused_by_name(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"cannot be written: {tmp_path / 'file'} is no folder"):
        Workdir(tmp_path / "file").check()
