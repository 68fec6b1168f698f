"""How frames are found in a set's folder: by a glob and a regular expression on the path, or in folders of classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from saadi.data.folders import SUFFIXES
from saadi.data.sets.declare import Found
from saadi.data.sets.openers import layers
from saadi.data.table import is_file
from saadi.errors import BadInput


def natural(path: str) -> list[tuple[int, str]]:
    """A key that sorts numbers by value, padded or not: frame_9 before frame_10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]


def globbed(root: Path, pattern: str) -> list[str]:
    """Files, relative to `root`, in natural order."""
    return sorted((path.relative_to(root).as_posix() for path in root.glob(pattern)), key=natural)


def there(path: Path) -> bool:
    """Whether a mask is there; of one spread over files, whether any is."""
    return bool(layers(path)) if "*" in str(path) else is_file(path)


class Paired:
    """Images with masks. `images`: a glob; `pattern`: of the whole path, its `group` being the video or patient;
    `mask`: the path of the mask, with the pattern's groups as in `re.Match.expand`, and `*` if it is several files:
    one for each of `layers`, of any number if these are not given."""

    def __init__(self, images: str, pattern: str, mask: str, layers: Sequence[str] = ()) -> None:
        self.images, self.pattern, self.mask, self.layers = images, re.compile(pattern), mask, tuple(layers)

    def __call__(self, root: Path) -> tuple[list[Found], list[str]]:
        found = [
            Found(file, match["group"], mask=match.expand(self.mask))
            for file in globbed(root, self.images)
            if (match := self.pattern.fullmatch(file))
        ]
        wanted = [(one.file, str(one.mask).replace("*", layer)) for one in found for layer in (self.layers or ("*",))]
        if lost := [(file, mask) for file, mask in wanted if not there(root / mask)]:
            images = len({file for file, _ in lost})
            lack = "lack a mask" if self.layers else "have no mask"
            raise BadInput(f"{images} of {len(found)} images {lack}, first {lost[0][0]}, expected {lost[0][1]}")
        return found, []


class ClassFolders:
    """Images in a folder for each class, at any depth below `inside`. Every image is a group of its own, unless its
    name matches `case`, whose first group is then the patient or video."""

    def __init__(self, inside: str, names: Sequence[str], case: str = "$^") -> None:
        self.inside, self.names, self.case = inside, tuple(names), re.compile(case)

    def __call__(self, root: Path) -> tuple[list[Found], list[str]]:
        images = [file for file in globbed(root, f"{self.inside}**/*") if Path(file).suffix.lower() in SUFFIXES]
        classes = {file: Path(file).parent.name for file in images}
        if strange := sorted({name for name in classes.values() if name not in self.names}):
            raise BadInput(f"unknown class folder {strange[0]!r:.60}, expected {', '.join(self.names)}")
        cases = {file: self.case.match(Path(file).name) for file in images}
        groups = {file: match[1] if match else file for file, match in cases.items()}
        return [Found(file, groups[file], (name,)) for file, name in classes.items()], []


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that hold something, without blanks around them. Raises `BadInput`."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError:
        raise BadInput(f"expected {path.name} in {path.parent}, found no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None


def beside(root: Path, name: str) -> Path:
    """A file in the set's root, or beside it, where archives of splits are often unpacked."""
    return next((path for folder in (root, root.parent) if is_file(path := folder / name)), root / name)


def left_out(count: int, of: Iterable[Found], why: str) -> list[str]:
    """A note on frames that are left out, if any are."""
    return [f"{count} of {count + len(list(of))} frames are left out: {why}"] if count else []
