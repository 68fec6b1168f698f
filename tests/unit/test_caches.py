"""What is encoded once: on disk and in batches the same as in memory, and made again only where it was not whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_config, write_table
from numpy.typing import NDArray
from small_diffusion import normal, small_generator
from torch import Tensor

from saadi.caches import batched, cached
from saadi.config import RunConfig
from saadi.configfile import load_config, parse_config
from saadi.data import Dataset
from saadi.data.stages import prepare_data
from saadi.diffusion import lessons
from saadi.diffusion.drawing import ENCODE_BATCH, encode_images
from saadi.diffusion.generator import Generator, encode_prompts, kept_prompts
from saadi.diffusion.stages import train_base
from saadi.files import SCRATCH
from saadi.manifests import MANIFEST
from saadi.records import Frame, LabelSpace
from saadi.seeds import numpy_rng
from saadi.store import Run
from saadi.team import Team

BATCHES = [(normal(n, 3, 2, seed=n), torch.arange(n), torch.ones(n, 1)[:, :0]) for n in (5, 5, 2)]


def test_items_come_in_batches() -> None:
    assert list(batched("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(batched([], 2)) == []


@pytest.mark.parametrize("place", ["disk", "memory"])
def test_rows_come_back_as_they_were(place: str, tmp_path: Path) -> None:
    found = cached(tmp_path / "kept" if place == "disk" else None, lambda: BATCHES)
    for tensor, parts in zip(found, zip(*BATCHES, strict=True), strict=True):
        assert tensor.dtype == parts[0].dtype
        assert torch.equal(tensor, torch.cat(parts))
        assert torch.equal(tensor[torch.tensor([11, 0])], torch.cat(parts)[[11, 0]])


def test_what_is_there_is_not_made_again_and_what_was_half_made_is(tmp_path: Path) -> None:
    def killed() -> Iterator[tuple[Tensor, ...]]:
        yield BATCHES[0]
        raise KeyboardInterrupt

    folder = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt):
        cached(folder, killed)
    assert not folder.exists()
    assert len(cached(folder, lambda: BATCHES)[0]) == 12
    assert len(cached(folder, killed)[0]) == 12
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@dataclass(frozen=True)
class Follower(Team):
    """One that waits for its leader, who makes the cache meanwhile."""

    folder: Path = Path()

    def wait(self) -> None:
        cached(self.folder, lambda: BATCHES)


def test_who_follows_makes_nothing_and_reads_what_the_leader_made(tmp_path: Path) -> None:
    found = cached(tmp_path / "kept", lambda: 1 / 0, Follower(1, 2, tmp_path / "kept"))  # type: ignore[arg-type, return-value]
    assert torch.equal(found[0], torch.cat([batch[0] for batch in BATCHES]))


def own_memory() -> int:
    """Bytes of this process that no file holds."""
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("RssAnon")]
    return 1024 * int(line.split()[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says what a process holds")
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """200 MB in batches of 4 MB, read in steps of 64 rows at random."""
    rows = torch.ones(64, 16_384)
    cached(tmp_path / "few", lambda: [(rows,)])
    before = own_memory()
    (found,) = cached(tmp_path / "many", lambda: ((rows * k,) for k in range(50)))
    for step in range(50):
        index = numpy_rng("rows", step).integers(0, len(found), 64)
        taken = found[torch.from_numpy(index)]
        assert torch.equal(taken[:, 0], torch.from_numpy(index // 64).float())
    assert found.nbytes == 200 * 2**20
    assert own_memory() - before < found.nbytes / 2  # some batches' worth, which the allocator keeps


def dataset(images: int, *, masks: bool) -> Dataset:
    """Noise of two classes; in masks, the class in a corner."""
    rng, labels = numpy_rng("lessons"), ("hook", "clip")
    ids = np.zeros((images, 16, 16), np.uint8)
    ids[:, :8, :8] = np.arange(images)[:, None, None] % 2 + 1
    return Dataset(
        LabelSpace(("background", *labels) if masks else labels, masks),
        tuple(Frame(f"{k}.png", (labels[k % 2],), f"P{k % 3}", "train") for k in range(images)),
        rng.integers(0, 256, (images, 16, 16, 3)).astype(np.uint8),
        masks=ids if masks else None,
    )


@pytest.mark.parametrize("masks", [False, True])
def test_stage_1_encodes_some_at_a_time_and_once(masks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lessons, "LAYOUTS", 300)
    config = parse_config({"task": "segmentation"}, "") if masks else RunConfig()
    generator, train, asked = small_generator(inpainting=masks), dataset(150, masks=masks), list[int]()
    module = "saadi.diffusion.drawing" if masks else "saadi.diffusion.lessons"

    def listen(generator: Generator, images: NDArray[np.uint8], *more: NDArray[np.bool_]) -> Tensor:
        asked.append(len(images))
        return encode_images(generator, images, *more)

    monkeypatch.setattr(f"{module}.encode_images", listen)
    held = lessons.lessons_of(config, generator, train)
    count = 300 if masks else 150
    assert sum(asked) == count * (2 if masks else 1)  # of inpainting also what is around the region
    assert max(asked) == ENCODE_BATCH
    kept = lessons.lessons_of(config, generator, train, tmp_path / "kept")
    done = len(asked)
    again = lessons.lessons_of(config, generator, train, tmp_path / "kept")
    assert len(asked) == done
    for found in (kept, again):
        for one, two in zip(found.images.parts(), held.images.parts(), strict=True):
            assert torch.equal(one, two)
        assert found.labels.tolist() == held.labels.tolist()
        assert found.prompts == held.prompts
    assert len(held.labels) == count


def test_prompts_are_encoded_some_at_a_time(tmp_path: Path) -> None:
    generator, prompts = small_generator(), [f"tool {k}" for k in range(70)]
    found = kept_prompts(generator, prompts, tmp_path / "kept")
    torch.testing.assert_close(found, encode_prompts(generator, prompts))
    assert torch.equal(found, kept_prompts(generator, prompts, None))


def test_a_killed_stage_1_goes_on_from_its_latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(tmp_path / "table")
    data, base = {"source": "table", "path": "table", "size": 32}, {"steps": 1, "batch": 2}
    config = load_config(write_config(tmp_path / "c.yaml", data=data, base=base))

    def begin() -> None:
        with Run(tmp_path / "run", config) as run:
            train_base(run, prepare_data(run))

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "run/base"
    with monkeypatch.context() as patched:
        patched.setattr("saadi.diffusion.stages.train_denoiser", die)
        with pytest.raises(KeyboardInterrupt):
            begin()
    assert (folder / SCRATCH / "images").is_dir()
    monkeypatch.setattr("saadi.diffusion.lessons.encode_images", die)
    begin()
    assert not (folder / SCRATCH).exists()
    outputs = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["outputs"]
    assert not [name for name in outputs if SCRATCH in name]
    assert "model/unet/diffusion_pytorch_model.safetensors" in outputs
