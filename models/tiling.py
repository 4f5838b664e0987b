"""Pictures in tiles, for defects that vanish when a whole picture is squashed to what the network sees.

The picture is cut into `tiles` x `tiles` squares that touch and do not overlap; each passes through the network alone,
and the levels are put together again, so that from there on there is one picture with a finer grid. Near an inner
edge a tile's features have seen the network's padding instead of the neighbour: the same in every picture, good
parts included, hence part of what each position is compared with.
"""

from torch import Tensor

from models.backbone import Levels


def cut(batch: Tensor, tiles: int) -> Tensor:
    """(b, c, S, S) -> (b * tiles * tiles, c, s, s) with S = tiles * s: picture by picture, row by row of it.

    ValueError where the edges cannot be divided so.
    """
    if tiles == 1:
        return batch
    b, c, height, width = batch.shape
    if height % tiles or width % tiles:
        raise ValueError(f"{height}x{width} cannot be cut into {tiles}x{tiles} equal tiles")
    h, w = height // tiles, width // tiles
    grid = batch.reshape(b, c, tiles, h, tiles, w)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(b * tiles * tiles, c, h, w)


def stitch(levels: Levels, tiles: int) -> Levels:
    """Levels of tiles (b * tiles * tiles, c, h, w) -> of pictures (b, c, tiles * h, tiles * w): undoes `cut`."""
    first, second, third = levels
    return _joined(first, tiles), _joined(second, tiles), _joined(third, tiles)


def _joined(level: Tensor, tiles: int) -> Tensor:
    if tiles == 1:
        return level
    count, c, h, w = level.shape
    if count % tiles**2:
        raise ValueError(f"{count} tiles do not make whole pictures of {tiles}x{tiles}")
    grid = level.reshape(count // tiles**2, tiles, tiles, c, h, w)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(count // tiles**2, c, tiles * h, tiles * w)
